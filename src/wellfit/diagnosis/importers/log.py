"""A log as its trainer wrote it: rows with named numbers, before any name is interpreted.

    file ─▶ reader ─▶ Log ─▶ assemble ─▶ History

A reader knows one format and no meaning; `assemble` knows names and habits of loggers and no
format. A new format is a function from a path to a list of Logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from wellfit.diagnosis.importers.json_file import number


@dataclass(slots=True)
class Column:
    """The values of one name, and the rows of the log they stand in (ascending)."""

    rows: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Log:
    """One run's log. Row numbers count from 0 in the order of writing."""

    name: str
    format: str
    """For a person: `TensorBoard events`, `CSV`."""
    columns: dict[str, Column] = field(default_factory=dict)
    """Name as the trainer spelled it → its values."""
    steps: dict[int, float] = field(default_factory=dict)
    """Row → step, where the format itself knows steps; else a column holds them."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What the log says beside its curves: settings by the trainer's own names, flattened."""
    notes: list[str] = field(default_factory=list)
    """What the reader left out or mended, one sentence each."""
    status: str = "unknown"
    """As in `History.status`."""
    rows: int = 0

    def add_row(self, values: Mapping[str, Any], step: float | None = None) -> None:
        """Append a row; what is no number (`"nan"` and `"inf"` are numbers) is passed over."""
        row, self.rows = self.rows, self.rows + 1
        if step is not None:
            self.steps[row] = step
        columns = self.columns
        for name, value in values.items():
            found = value if type(value) is float else number(value)
            if found is None:
                continue
            column = columns.get(name)
            if column is None:
                column = columns[name] = Column()
            column.rows.append(row)
            column.values.append(found)

    def add_points(self, name: str, points: Iterable[tuple[float, float]]) -> None:
        """Append (step, value) pairs of one name, each as a row of its own, in that order."""
        column = self.columns.setdefault(name, Column())
        for step, value in points:
            self.steps[self.rows] = step
            column.rows.append(self.rows)
            column.values.append(value)
            self.rows += 1


def append(log: Log, more: Log, renamed: Mapping[str, str] | None = None) -> None:
    """Two logs of one run → the rows of the second after those of the first, in the first.

    The second is used up: where the first is empty it takes its columns instead of copying them.
    """
    new = {(renamed or {}).get(name, name): column for name, column in more.columns.items()}
    if not log.rows and not log.columns and len(new) == len(more.columns):
        log.columns, log.steps, log.rows = new, more.steps, more.rows
        log.facts |= more.facts
        log.notes += [note for note in more.notes if note not in log.notes]
        return
    for name, column in more.columns.items():
        into = log.columns.setdefault((renamed or {}).get(name, name), Column())
        into.rows += [row + log.rows for row in column.rows]
        into.values += column.values
    log.steps.update((row + log.rows, step) for row, step in more.steps.items())
    log.rows += more.rows
    log.facts |= more.facts
    log.notes += [note for note in more.notes if note not in log.notes]


def flattened(value: Any, head: str = "") -> dict[str, Any]:
    """Nested settings → one level of them, names joined by `/`; lists and empty names are left out.

    >>> flattened({"model": {"vocab_size": 99}, "betas": [0.9, 0.95], "lr": None})
    {'model/vocab_size': 99}
    """
    if not isinstance(value, Mapping):
        return {head: value} if head and isinstance(value, str | int | float | bool) else {}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= flattened(inner, f"{head}/{key}" if head else str(key))
    return flat
