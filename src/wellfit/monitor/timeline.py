"""Lines of records in the order they were written → the one line of records behind the weights.

A resumed training continues from a checkpoint. What an earlier attempt recorded after that step
belongs to weights that no longer exist: it is superseded the moment the resume is recorded,
whether or not the new attempt gets as far again. The same code reads a finished run folder and
follows a live training, so that both show the same history.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from dataclasses import replace
from operator import itemgetter, lt
from pathlib import Path
from typing import Any

from wellfit.monitor.history import Context, History, Series
from wellfit.monitor.records_store import FILES, Line, read_lines, read_record
from wellfit.records import Evaluated, Event, Proof, Sampled, Saved, Step

BEGINS = ("started", "resumed", "rewound")
ENDS = ("stopped", "failed", "finished")
LIFECYCLE = (*BEGINS, *ENDS)
"""Kinds of events that tell of the run as a whole: they are never superseded."""

_RECORDED = ("loss", "learning_rate", "grad_norm", "epoch", "seconds", "tokens")
_MEASURED = ("tokens_per_second", "mfu")


class Column:
    """Values over strictly increasing steps, 16 bytes a value."""

    def __init__(self) -> None:
        self.steps = array("q")
        self.values = array("d")

    def add(self, step: int, value: float) -> None:
        """Append a value; its step is larger than every step before it."""
        self.steps.append(step)
        self.values.append(value)

    def cut(self, step: int) -> int:
        """Drop what stands after this step; gives how many values that were."""
        keep = bisect_left(self.steps, step + 1)
        dropped = len(self.steps) - keep
        del self.steps[keep:], self.values[keep:]
        return dropped

    def series(self, shared: tuple[int, ...] = ()) -> Series:
        """A frozen copy; `shared` is taken for its steps if it is as long as they are."""
        steps = shared if len(shared) == len(self.steps) else tuple(self.steps)
        return Series(steps, tuple(self.values))


class Timeline:
    """Takes lines by rising `seq`; knows which of them count."""

    def __init__(self) -> None:
        self.attempts = 0
        self.superseded = 0
        self.status: str | None = None
        """`finished`, `stopped` or `failed` where the newest attempt said so; else None."""
        self.evaluations: list[Evaluated] = []
        self.samples: list[Sampled] = []
        self.saved: list[Saved] = []
        self.events: list[Event] = []
        self.proofs: list[Proof] = []
        self.columns = {name: Column() for name in (*_RECORDED, *_MEASURED)}
        self.memory = {name: Column() for name in ("memory_bytes", "device_memory_bytes")}
        self.unreadable: Counter[str] = Counter()
        """Lines that could not be read, by file."""

    def add(self, kind: type[Any], line: Line) -> None:
        """Take one line; one that does not hold such a record is counted as unreadable."""
        try:
            if kind is Step:
                self._add_step(line)
                return
            record = read_record(kind, line)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            self.unreadable[FILES[kind]] += 1
            return
        self._enter(line["attempt"])
        if kind is Event:
            self._add_event(record)
        elif kind is Evaluated:
            self._put(self.evaluations, record, lambda kept: (kept.step, kept.split))
        elif kind is Sampled:
            self._put(self.samples, record, lambda kept: (kept.step, kept.prompt))
        elif kind is Proof:
            self._put(self.proofs, record, lambda kept: (kept.step, kept.name))
        else:
            self._put(self.saved, record, lambda kept: (kept.step,))

    def add_steps(self, lines: list[Line]) -> None:
        """Take lines of optimizer steps; the same as `add` for each, and five times as fast."""
        if not self._extend(lines):
            for line in lines:
                self.add(Step, line)

    def last_step(self) -> int:
        """The newest optimizer step that counts; 0 before the first."""
        steps = self.columns["loss"].steps
        return steps[-1] if steps else 0

    def history(
        self, *, name: str, status: str, context: Context, recipe: dict[str, Any] | None
    ) -> History:
        """Everything so far as a frozen History; costs time in proportion to the steps."""
        # Every column has a value at most where the loss has one: as many values, the same steps.
        steps = tuple(self.columns["loss"].steps)
        series = {name: column.series(steps) for name, column in self.columns.items()}
        device = self.memory["device_memory_bytes"]
        memory = device if device.steps else self.memory["memory_bytes"]
        return History(
            name=name,
            format="run folder",
            train_loss=series["loss"],
            validation_loss=self.validation_losses(),
            validation_se=self._validation(lambda record: record.loss_se).get(
                "validation", Series()
            ),
            learning_rate=series["learning_rate"],
            grad_norm=series["grad_norm"],
            epoch=series["epoch"],
            seconds=series["seconds"],
            tokens_per_second=series["tokens_per_second"],
            memory_bytes=memory.series(steps),
            mfu=series["mfu"],
            tokens=series["tokens"],
            context=self._with_pace(context),
            samples=tuple(self.samples),
            saved=tuple(self.saved),
            events=tuple(self.events),
            proofs=tuple(self.proofs),
            status=status,
            attempts=max(1, self.attempts),
            superseded=self.superseded,
            notes=self._notes(),
            recipe=recipe,
        )

    def validation_losses(self) -> dict[str, Series]:
        """Name of the evaluation set → its losses."""
        return self._validation(lambda record: record.loss)

    def _add_step(self, line: Line) -> None:
        # The whole line is understood before anything is kept, so that a bad one leaves no trace.
        step = int(line["step"])
        if step < 1:
            raise ValueError("an optimizer step counts from 1")
        recorded = [float(line[name]) for name in _RECORDED]
        measured = [
            (column, float(line[name]))
            for group in (_MEASURED, self.memory)
            for name in group
            if line.get(name) is not None
            for column in (self.columns.get(name) or self.memory[name],)
        ]
        self._enter(line["attempt"])
        if step <= self.last_step():
            # A step made again: what stood from there on is not behind the weights any more.
            self._cut(step - 1)
        for name, value in zip(_RECORDED, recorded, strict=True):
            self.columns[name].add(step, value)
        for column, value in measured:
            column.add(step, value)

    def _extend(self, lines: list[Line]) -> bool:
        """Take many lines column by column, if all are whole and go on from the last."""
        if len(lines) < 2:
            return False
        try:
            steps = array("q", map(itemgetter("step"), lines))
            recorded = [array("d", map(float, map(itemgetter(name), lines))) for name in _RECORDED]
            measured = {}
            for name in (*_MEASURED, *self.memory):
                found: list[Any] = [line.get(name) for line in lines]
                if found.count(None) < len(found):
                    measured[name] = array("d", map(float, found))
        except (KeyError, TypeError, ValueError, OverflowError):
            return False
        attempts = set(map(itemgetter("attempt"), lines))
        rising = all(map(lt, steps, steps[1:])) and steps[0] > self.last_step()
        if not rising or len(attempts) > 1:
            return False
        self._enter(attempts.pop())
        for name, values in (*zip(_RECORDED, recorded, strict=True), *measured.items()):
            column = self.columns.get(name) or self.memory[name]
            column.steps.extend(steps)
            column.values.extend(values)
        return True

    def _add_event(self, event: Event) -> None:
        if event.kind in BEGINS:
            began = event.data.get("step", event.step)
            self._cut(began if isinstance(began, int) else event.step)
        if event.kind in LIFECYCLE:
            self.status = event.kind if event.kind in ENDS else None
        self.events.append(event)

    def _enter(self, attempt: int) -> None:
        if attempt > self.attempts:
            self.attempts = attempt
            self.status = None

    def _put(self, kept: list[Any], record: Any, key: Any) -> None:
        """Append a record, after dropping one of the same step and subject."""
        same = key(record)
        for at in range(len(kept) - 1, -1, -1):
            if kept[at].step < record.step:
                break
            if key(kept[at]) == same:
                del kept[at]
                self.superseded += 1
                break
        kept.append(record)

    def _cut(self, step: int) -> None:
        """Supersede all that was recorded after this step."""
        self.superseded += self.columns["loss"].cut(step)
        for name, column in (*self.columns.items(), *self.memory.items()):
            if name != "loss":
                column.cut(step)
        kinds: tuple[list[Any], ...] = (
            self.evaluations, self.samples, self.saved, self.events, self.proofs
        )  # fmt: skip
        for kept in kinds:
            stay = [
                record
                for record in kept
                if record.step <= step or getattr(record, "kind", None) in LIFECYCLE
            ]
            self.superseded += len(kept) - len(stay)
            kept[:] = stay

    def _validation(self, value: Any) -> dict[str, Series]:
        by_split: dict[str, Column] = {}
        for record in sorted(self.evaluations, key=lambda record: record.step):
            by_split.setdefault(record.split, Column()).add(record.step, value(record))
        return {split: column.series() for split, column in by_split.items()}

    def _with_pace(self, context: Context) -> Context:
        """The context with the length of an epoch: as it was told, else from the newest step."""
        epochs = self.columns["epoch"]
        pace = context.steps_per_epoch
        if pace is None and epochs.steps and 0 < epochs.values[-1] < float("inf"):
            pace = epochs.steps[-1] / epochs.values[-1]
        if not pace:
            return context
        planned = context.planned_epochs
        if planned is None and context.planned_steps is not None:
            planned = context.planned_steps / pace
        return replace(context, steps_per_epoch=pace, planned_epochs=planned)

    def _notes(self) -> tuple[str, ...]:
        notes = []
        for name in FILES.values():
            if count := self.unreadable[name]:
                lines = "1 line" if count == 1 else f"{count} lines"
                notes.append(f"{lines} of records/{name} could not be read and are left out.")
        steps = self.columns["loss"].steps
        if steps and (lost := steps[-1] - len(steps)):
            gone = "1 step" if lost == 1 else f"{lost} steps"
            notes.append(f"{gone} up to step {steps[-1]} have no record.")
        return tuple(notes)


def read_timeline(records: Path) -> Timeline:
    """The folder of record files → its timeline; some seconds for a million steps."""
    timeline = Timeline()
    others = sorted(
        (
            (kind, line)
            for kind, name in FILES.items()
            if kind is not Step
            for block in read_lines(records / name, timeline.unreadable)
            for line in block
        ),
        key=lambda pair: pair[1]["seq"],
    )
    others.reverse()
    for block in read_lines(records / FILES[Step], timeline.unreadable):
        done = 0
        while others and block and others[-1][1]["seq"] < block[-1]["seq"]:
            kind, line = others.pop()
            before = bisect_left(block, line["seq"], lo=done, key=lambda step: step["seq"])
            timeline.add_steps(block[done:before])
            done = before
            timeline.add(kind, line)
        timeline.add_steps(block[done:])
    while others:
        timeline.add(*others.pop())
    return timeline
