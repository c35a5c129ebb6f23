"""Records of a live training → the run folder, and the history so far.

Hears everything, changes nothing: the loop does not know that someone listens.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any

from wellfit.errors import RunError
from wellfit.monitor.folder import RunFolder, explained, history_of, replace_file
from wellfit.monitor.hardware import device_memory, mfu, process_memory
from wellfit.monitor.history import Context, History
from wellfit.monitor.metrics import write_metrics
from wellfit.monitor.records_store import line_text
from wellfit.monitor.timeline import ENDS, read_timeline
from wellfit.records import Event, Record, Sampled, Saved, Step

SAMPLES_FILE = "samples.jsonl"
_SECONDS_BETWEEN = 2.0
_LARGEST_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class Measures:
    """What the listener must be told to measure; None where it is not known."""

    device: str = "cpu"
    """Where the training runs, as PyTorch names it: `cpu`, `cuda:0`."""
    flops_per_token: float | None = None
    """FLOPs of training on one token (`recipe.shapes.flops_per_token`)."""
    matrix_peak: float | None = None
    """FLOP/s of a matrix product on that device (`hardware.matrix_peak`)."""


class Listener:
    """Writes every record with what it measures beside it, and keeps the files for readers fresh.

    `training_metrics.json` and `samples.jsonl` are replaced at most every two seconds, and less
    often where writing them would take more than 2 % of the time, plus when the run ends;
    the two pictures are drawn by `close`. Beside each step the line holds `tokens_per_second`
    (supervised tokens / seconds of that step), `memory_bytes` (main memory of this process),
    on CUDA `device_memory_bytes`, and `mfu` where `measures` tells enough.
    """

    def __init__(
        self,
        folder: RunFolder,
        measures: Measures | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.measures = measures or Measures()
        self._clock = clock
        self._timeline = read_timeline(folder.path / "records")
        self._next_refresh = -float("inf")
        self._samples_written: tuple[Sampled, ...] | None = None

    def hear(self, record: Record) -> None:
        """Take one record. Raises RunError where it cannot be written."""
        if isinstance(record, Event) and record.kind == "rewound":
            self.folder.begin_attempt()
        measured = self._measured(record) if isinstance(record, Step) else {}
        line = self.folder.write(record, **measured)
        self._timeline.add(type(record), line)
        if isinstance(record, Saved):
            # What led to a checkpoint must outlive a loss of power as the checkpoint does.
            self.folder.sync()
        ended = isinstance(record, Event) and record.kind in ENDS
        if ended or self._clock() >= self._next_refresh:
            self._refresh(durable=ended)

    def history(self) -> History:
        """The run so far: equal to what `read_history` makes of the folder at this moment."""
        return history_of(self._timeline, self.folder.path)

    def close(self) -> None:
        """Write everything that is made from the records, pictures included.

        Raises RunError where there is no room for it.
        """
        from wellfit.monitor.plots import write_plots

        self._refresh(durable=True)
        self.folder.sync()
        with explained(self.folder.path):
            write_plots(self.history(), self.folder.path)

    def __enter__(self) -> Listener:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A disk that is full would otherwise hide what went wrong before.
        with contextlib.suppress(*((RunError,) if error is not None else ())):
            self.close()

    def _measured(self, step: Step) -> dict[str, Any]:
        rate = step.supervised_tokens / step.seconds if step.seconds > 0 else None
        measured = {
            "tokens_per_second": rate,
            "memory_bytes": process_memory(),
            "device_memory_bytes": device_memory(self.measures.device),
            "mfu": mfu(rate, self.measures.flops_per_token, self.measures.matrix_peak),
        }
        return {name: value for name, value in measured.items() if value is not None}

    def _refresh(self, *, durable: bool) -> None:
        started = self._clock()
        history = self._timeline.history(name="", status="", context=Context(), recipe=None)
        with explained(self.folder.path):
            write_metrics(history, self.folder.path, durable=durable)
            if self._samples_written != history.samples:
                lines = [line_text(asdict(sample)) + "\n" for sample in history.samples]
                replace_file(self.folder.path / SAMPLES_FILE, "".join(lines), durable=durable)
                self._samples_written = history.samples
        now = self._clock()
        self._next_refresh = now + max(_SECONDS_BETWEEN, (now - started) / _LARGEST_SHARE)
