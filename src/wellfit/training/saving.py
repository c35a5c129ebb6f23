"""A training's state in, checkpoints out, written while the training goes on.

    step boundary ─▶ copy of weights, moments, average in main memory ─▶ next step …
                                         └─▶ one thread: digest, sync, rename, rotation

A checkpoint takes its final name as `checkpoint.save` gives it: whole, or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from wellfit.records import Saved
from wellfit.training import checkpoint

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Saver:
    """Writes checkpoints one at a time, in the order they are asked for.

    In the background it holds one copy of what it writes, in main memory, from the first save to
    its end. `Saved.seconds` are those of the writing; training waits for the copy alone.

    Used as a context: leaving it waits for the checkpoint in flight. An error of the writing is
    raised by whichever call comes next, once; older checkpoints are then untouched.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_last: int,
        keep_best: int = 0,
        best_by: str = "validation.loss",
        background: bool = True,
    ) -> None:
        """The folder of checkpoints and which of them to keep in; see `retention.to_remove`."""
        self._folder = folder
        self._keep = {"keep": keep_last, "keep_best": keep_best}
        self._best_by = best_by
        self._pool = (
            ThreadPoolExecutor(max_workers=1, thread_name_prefix="wellfit-checkpoint")
            if background
            else None
        )
        self._step = 0
        self._writing: Future[Saved] | None = None
        self._copies: dict[str, _Copies] = {}

    def start(
        self,
        state: checkpoint.State,
        weights: Mapping[str, Tensor],
        moments: Mapping[str, Tensor],
        average: Mapping[str, Tensor] | None = None,
    ) -> list[Saved]:
        """A state at a step boundary in; records of checkpoints that have come to stand, out.

        All that is given may change as soon as this returns. Nothing is written before the first
        step, or where the step's checkpoint stands or is being written. Waits for the checkpoint
        in flight. Raises CheckpointError where that one, or in the foreground this one, cannot be
        written.
        """
        if not state.step or state.step in self.steps():
            return self.poll()
        done = self.finish()
        # Objects inside may be changed later; and what JSON cannot hold shall be told here.
        extra = json.loads(json.dumps(state.extra, allow_nan=False))
        state = replace(state, extra=extra)
        if self._pool is None:
            return [*done, self._write(state, weights, moments, average)]
        parts = {"weights": weights, "moments": moments}
        if average is not None:
            parts["average"] = average
        copied = {name: self._copy(name, tensors) for name, tensors in parts.items()}
        self._step = state.step
        self._writing = self._pool.submit(
            self._write, state, copied["weights"], copied["moments"], copied.get("average")
        )
        return done

    def poll(self) -> list[Saved]:
        """Nothing in; the record of a checkpoint written since, without waiting, out."""
        return self.finish() if self._writing is not None and self._writing.done() else []

    def finish(self) -> list[Saved]:
        """Nothing in; waits for the checkpoint in flight, and its record, if there was one, out."""
        # Taken away first, so that an error is raised once.
        writing, self._writing = self._writing, None
        return [writing.result()] if writing is not None else []

    def steps(self) -> list[int]:
        """Nothing in; steps of the checkpoints that stand or are being written, rising, out."""
        flying = [self._step] if self._writing is not None else []
        return sorted({*checkpoint.steps(self._folder), *flying})

    def __enter__(self) -> Saver:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is None:
            return
        self._pool.shutdown(wait=True)
        try:
            self.finish()
        except Exception as failed:
            if error is None:
                raise
            # What ended the training is told first.
            error.add_note(f"besides: {failed}")

    def _write(
        self,
        state: checkpoint.State,
        weights: Mapping[str, Tensor],
        moments: Mapping[str, Tensor],
        average: Mapping[str, Tensor] | None,
    ) -> Saved:
        return checkpoint.save(
            self._folder, state, weights, moments, average, best_by=self._best_by, **self._keep
        )

    def _copy(self, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return self._copies.setdefault(name, _Copies()).take(tensors)


class _Copies:
    """Tensors in, their copies in main memory out; the memory is used again at the next time."""

    def __init__(self) -> None:
        self._kept: dict[str, torch.Tensor] = {}

    def take(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`{name: tensor}` in, the same with equal tensors in main memory out.

        From CUDA the copies go side by side through page-locked memory, and are waited for.
        """
        import torch

        kept, self._kept = self._kept, {}
        devices = set()
        for name, tensor in tensors.items():
            source = tensor.detach()
            copy = kept.get(name)
            if copy is None or copy.shape != source.shape or copy.dtype != source.dtype:
                copy = torch.empty(source.shape, dtype=source.dtype, pin_memory=source.is_cuda)
            copy.copy_(source, non_blocking=source.is_cuda)
            if source.is_cuda:
                devices.add(source.device)
            self._kept[name] = copy
        for device in devices:
            torch.cuda.current_stream(device).synchronize()
        return dict(self._kept)
