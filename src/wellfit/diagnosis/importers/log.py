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
