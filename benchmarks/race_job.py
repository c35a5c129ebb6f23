"""What a trainer is told and what it tells back: shared by the trainers of a race.

    a job (JSON)  ──▶  peers_NAME.py JOB, a process of its own  ──▶  a result (JSON)

Needs the standard library, NumPy and torch only, since the peers live in another environment.

A job: `model` (a recipe's section), `vocabulary_size`, `tokens` (an .npy of rows [R, T + 1], in
the order in which all trainers take them), `weights` (safetensors by our names), `steps`, `rows`
and `micro_batch` of a step, `precision`, `device`, `threads`, `compile`, `optimizer`, `schedule`,
`clip_norm`, `out`, and `save` (where the trained weights go; empty: nowhere).
"""

from __future__ import annotations

import importlib.metadata
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

CONSTANT, COSINE = "constant", "cosine"


def read_job() -> dict[str, Any]:
    """The command line's only argument → the job that it names."""
    return json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))


class Measured:
    """When each step ended, and its loss; the memory of the whole process once they are over."""

    def __init__(self, job: dict[str, Any]) -> None:
        import torch

        self.job, self.born = job, time.perf_counter()
        self.ends: list[float] = []
        self.losses: list[Any] = []
        self.peak_bytes = 0
        self.cuda = job["device"] == "cuda"
        torch.set_num_threads(job["threads"])
        torch.manual_seed(job.get("seed", 0))

    def begun(self) -> None:
        """The trainer is ready; its first step begins."""
        self._wait()
        self.first = time.perf_counter()

    def ended(self, loss: Any = None) -> None:
        """A step has ended. `loss`: a number, or a tensor that is read after the last step."""
        if len(self.ends) + 1 in (self.job["warm"], self.job["steps"]):
            self._wait()  # kernels still under way belong to the steps behind them
        self.ends.append(time.perf_counter())
        if loss is not None:
            self.losses.append(loss)
        if len(self.ends) == self.job["steps"]:
            self.peak_bytes = peak_bytes(self.cuda)

    def write(self, what_ran: str, parameters: int, packages: tuple[str, ...]) -> None:
        """One sentence on what was called, and the versions of these packages → the result."""
        assert len(self.ends) == self.job["steps"], f"{len(self.ends)} steps were made"
        result = {
            "what_ran": what_ran,
            "parameters": parameters,
            "versions": {name: importlib.metadata.version(name) for name in packages},
            "seconds_to_first_step": self.first - self.born,
            "first_step_seconds": self.ends[0] - self.first,
            "training_seconds": self.ends[-1] - self.first,
            "step_seconds": np.diff([self.first, *self.ends]).tolist(),
            "losses": [float(loss) for loss in self.losses],
            "peak_bytes": self.peak_bytes,
        }
        Path(self.job["out"]).write_text(json.dumps(result), encoding="utf-8")

    def _wait(self) -> None:
        if self.cuda:
            import torch

            torch.cuda.synchronize()


def peak_bytes(cuda: bool) -> int:
    """Most memory so far: of the device, as its allocator reserved it, or of the whole process."""
    if cuda:
        import torch

        return int(torch.cuda.max_memory_reserved())
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def rows(job: dict[str, Any]) -> np.ndarray:
    """A job → its rows [steps · rows, T + 1], mapped from the file."""
    stored = np.load(job["tokens"], mmap_mode="r")
    wanted = job["steps"] * job["rows"]
    assert len(stored) >= wanted, f"{len(stored)} rows are stored, {wanted} are needed"
    return stored[:wanted]


def renamed(job: dict[str, Any], names: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """A job and `{their name: our names}` → `{their name: tensor}`, several joined by rows."""
    import torch
    from safetensors.torch import load_file

    ours = load_file(job["weights"])
    taken = [name for parts in names.values() for name in parts]
    assert sorted(taken) == sorted(ours), "every weight is copied once"
    return {theirs: torch.cat([ours[part] for part in parts]) for theirs, parts in names.items()}
