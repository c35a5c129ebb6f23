"""What every step reads, written down before it happens: an append-only list of segments.

`data-plan.jsonl` opens with a line that names corpus, context, seed and packing; each further
line is a segment `{from_step, cursor, batch_rows}`: from that step on, a step takes `batch_rows`
rows, the first of them at `cursor`, counted over all epochs. Lines are only ever appended, and
only for steps still to come, so a resumed run replays the very same rows. Where two segments hold
for a step, the later line wins: a training that was rewound takes its steps again, with other rows.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wellfit.errors import DataError

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Segment:
    """From `from_step` (from 1) on, each step takes `batch_rows` rows; the first at `cursor`."""

    from_step: int
    cursor: int
    batch_rows: int
    skipped_rows: int = 0
    """Rows that a rewind passed over just before `cursor`."""


class DataPlan:
    """The segments of a run, in memory or in a file.

    >>> plan = DataPlan()
    >>> plan.begin({"seed": 0}, batch_rows=4)
    >>> plan.append(from_step=10, batch_rows=8, after_step=3)
    >>> plan.rows(9), plan.rows(10)
    ((32, 36), (36, 44))
    """

    def __init__(self) -> None:
        """An empty plan in memory."""
        self.path: Path | None = None
        self.segments: tuple[Segment, ...] = ()
        self._head: dict[str, Any] = {}

    @classmethod
    def open(cls, path: Path) -> DataPlan:
        """A file to read and append to → the plan; a file not there yet is created by `begin`.

        A torn last line (the machine stopped while it was written) is dropped; any other damage
        raises DataError, and so does an unknown `format_version`.
        """
        plan = cls()
        plan.path = path
        if path.is_file():
            plan._read(path)
        return plan

    def begin(self, identity: dict[str, Any], *, batch_rows: int) -> None:
        """State what the plan is for; the first call writes it, later ones compare.

        Raises DataError where the plan on disk belongs to other data or other settings.
        """
        if not self.segments:
            self._head = {"format_version": FORMAT_VERSION, **identity}
            self._append(self._head, asdict(Segment(1, 0, batch_rows)))
            self.segments = (Segment(1, 0, batch_rows),)
            return
        # A plan of before there was another packing names none.
        known = {"packing": "stream", **self._head}
        known["batch_rows"] = self.segments[-1].batch_rows
        asked = {**identity, "batch_rows": batch_rows}
        different = [
            f"{name} was {known.get(name)!r} and is now {value!r}"
            for name, value in asked.items()
            if known.get(name) != value
        ]
        if different:
            raise DataError(
                "this run was begun with other batches: " + "; ".join(different),
                where=str(self.path or "data plan"),
                way_out="Resume with the recipe and corpus of the run, or begin a new run in "
                "another folder.",
            )

    def append(self, *, from_step: int, batch_rows: int, after_step: int) -> None:
        """From `from_step` on, take `batch_rows` rows a step; rows go on where the plan stood.

        `after_step` is the last step already made. Raises DataError for a step that is not ahead
        of it and of the segment before.
        """
        last = self.segments[-1].from_step
        if from_step <= max(after_step, last) or batch_rows < 1:
            raise DataError(
                f"a segment of {batch_rows} rows from step {from_step} does not lie ahead: step "
                f"{after_step} is made and the plan already changes at step {last}",
                where=str(self.path or "data plan"),
                way_out="Change the plan at a later step, and to at least one row.",
            )
        self._add(Segment(from_step, self.rows(from_step)[0], batch_rows))

    def skip(self, *, after_step: int, through_step: int) -> int:
        """Steps after `after_step` are made again, with the rows that follow `through_step`.

        Gives how many rows are passed over. Raises DataError where it cannot be written.
        """
        first, cursor = self.rows(after_step + 1)[0], self.rows(through_step)[1]
        rows = self._segment(after_step + 1).batch_rows
        self._add(Segment(after_step + 1, cursor, rows, cursor - first))
        return cursor - first

    def restore(self, *, after_step: int) -> None:
        """Steps after `after_step` are made again with the rows they would have had unskipped.

        Raises DataError where it cannot be written.
        """
        unskipped = [segment for segment in self.segments if not segment.skipped_rows]
        step = after_step + 1
        planned = next(s for s in reversed(unskipped) if s.from_step <= step)
        cursor = planned.cursor + (step - planned.from_step) * planned.batch_rows
        if cursor != self.rows(step)[0]:
            self._add(Segment(step, cursor, planned.batch_rows))

    @property
    def skips(self) -> int:
        """How often rows were passed over."""
        return sum(1 for segment in self.segments if segment.skipped_rows)

    def rows(self, step: int) -> tuple[int, int]:
        """A step (from 1) → its first row and one past its last, counted over all epochs."""
        segment = self._segment(step)
        start = segment.cursor + (step - segment.from_step) * segment.batch_rows
        return start, start + segment.batch_rows

    def _segment(self, step: int) -> Segment:
        return next(s for s in reversed(self.segments) if s.from_step <= step)

    def _add(self, segment: Segment) -> None:
        self._append(asdict(segment))
        self.segments = (*self.segments, segment)

    def _append(self, *lines: dict[str, Any]) -> None:
        if self.path is None:
            return
        raw = "".join(json.dumps(line) + "\n" for line in lines).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
        except OSError as fault:
            raise DataError(
                f"the data plan cannot be written: {fault.strerror or fault}",
                where=str(self.path),
                way_out="Make room on the disk, or let the run write to another folder.",
            ) from fault

    def _read(self, path: Path) -> None:
        raw = path.read_bytes()
        whole = raw.rfind(b"\n") + 1
        lines = raw[:whole].splitlines()
        if whole < len(raw):
            # What was torn was never acted upon: a plan is synced before its first step is read.
            with path.open("r+b") as file:
                file.truncate(whole)
        segments = []
        try:
            if lines:
                self._head = json.loads(lines[0])
                version = self._head["format_version"]
                if version == FORMAT_VERSION:
                    segments = [Segment(**json.loads(line)) for line in lines[1:]]
        except (ValueError, KeyError, TypeError) as fault:
            raise DataError(
                f"damaged ({fault})",
                where=str(path),
                way_out="Without its data plan a run cannot be resumed exactly: begin a new run "
                "in another folder.",
            ) from fault
        if lines and version != FORMAT_VERSION:
            raise DataError(
                f"format_version {version} is unknown; this wellfit reads {FORMAT_VERSION}",
                where=str(path),
                way_out="Resume with the wellfit that began the run.",
            )
        if lines and not segments:  # torn between the first two lines: as if never begun
            with path.open("r+b") as file:
                file.truncate(0)
            self._head = {}
        self.segments = tuple(segments)
