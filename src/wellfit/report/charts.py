"""A History → charts as plain data: lines of at most 2,000 points, marks, and a table of numbers.

The browser draws them with plotly; colours and fonts come from the style sheet, so a chart names
only the *role* of a line (`training`, `validation`, `rate`, `norm`, `speed`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from wellfit.monitor.history import History, Series
from wellfit.report.numbers import count, counted, figure, finite, rate
from wellfit.report.reduce import medians, reduce
from wellfit.report.words import finding_name, ranked

TABLE_ROWS = 12
VALIDATION_SETS = 5


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart, already reduced."""

    name: str
    role: str
    steps: list[int]
    values: list[float | None]
    errors: list[float | None] = field(default_factory=list)
    """One standard error of each value; empty where not known."""
    points: bool = False
    """Draw the points as well: there are few."""
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A step worth a vertical line."""

    step: int
    text: str
    severity: str


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart: what is drawn, what is said about it, and the same numbers as a table."""

    id: str
    title: str
    unit: str
    lines: list[Line]
    logarithmic: bool = False
    level: float | None = None
    level_text: str = ""
    marks: list[Mark] = field(default_factory=list)
    stretches: list[tuple[int, int]] = field(default_factory=list)
    """First and last steps between which no value was finite."""
    axis: str = "step"
    """What is counted along it, as in `History.axis`."""
    steps: tuple[int, int] = (0, 0)
    """First and last step of the series, finite or not: what the axis covers."""
    notes: list[str] = field(default_factory=list)
    summary: str = ""
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    def drawing(self) -> dict[str, Any]:
        """The part of the chart that the browser draws, ready for JSON."""
        return {
            "id": self.id,
            "unit": self.unit,
            "axis": self.axis,
            "logarithmic": self.logarithmic,
            "level": self.level,
            "levelText": self.level_text,
            "stretches": self.stretches,
            "steps": self.steps,
            "marks": [
                {"step": mark.step, "text": mark.text, "severity": mark.severity}
                for mark in self.marks
            ],
            "lines": [
                {
                    "name": line.name,
                    "role": line.role,
                    "x": line.steps,
                    "y": line.values,
                    "errors": line.errors,
                    "points": line.points,
                    "faint": line.faint,
                }
                for line in self.lines
            ],
        }


def charts(history: History, diagnosis: dict[str, Any] | None = None) -> list[Chart]:
    """A history → its charts: loss, learning rate, gradient norm, tokens per second.

    A chart whose series is empty is left out. Findings and interruptions are marked at their step.
    """
    axis = history.axis
    # What another trainer's numbers mean exactly, its log does not say.
    ours = history.format == "run folder"
    of_groups = "largest of any parameter group" if ours else "as logged"
    before = "2-norm before clipping" if ours else "as logged"
    made = [
        _loss_chart(history, _marks(history, diagnosis)),
        _single(
            history.learning_rate,
            Chart("rate", "Learning rate", of_groups, [], logarithmic=True, axis=axis),
            "learning rate",
            "rate",
            rate,
        ),
        _single(
            history.grad_norm,
            Chart(
                "norm",
                "Gradient norm",
                before,
                [],
                axis=axis,
                logarithmic=True,
                level=history.context.clip_norm or None,
                level_text="clipped above",
            ),
            "gradient norm",
            "norm",
            lambda value: figure(value, 3),
        ),
        _single(
            history.tokens_per_second,
            Chart("speed", "Speed", "tokens per second", [], axis=axis),
            "tokens per second",
            "speed",
            count,
        ),
    ]
    return [_with_marks_inside(chart) for chart in made if chart.lines or chart.stretches]


def _loss_chart(history: History, marks: list[Mark]) -> Chart:
    train = reduce(history.train_loss)
    smooth, group = medians(history.train_loss)
    lines: list[Line] = []
    notes: list[str] = []
    if train.steps:
        faint = len(smooth) > 1
        name = "training" if history.context.train_losses_are_per_step else "training (averaged)"
        lines.append(Line(name, "training", train.steps, train.values, faint=faint))
        if faint:
            named = (
                f"median of {group} {history.axis}s"
                if _every_step(history)
                else (f"median of {group} records")
            )
            drawn = reduce(smooth)
            lines.append(Line(named, "training", drawn.steps, drawn.values))
    stretches, broken = list(train.stretches), train.broken
    errors = dict(zip(history.validation_se.steps, history.validation_se.values, strict=True))
    sets = sorted(history.validation_loss, key=lambda name: (name != "validation", name))
    for name in sets[:VALIDATION_SETS]:
        reduced = reduce(history.validation_loss[name])
        main = name == "validation"
        lines.append(
            Line(
                name,
                "validation",
                reduced.steps,
                reduced.values,
                errors=[errors.get(step) for step in reduced.steps] if main and errors else [],
                points=len(reduced.steps) <= 60,
                faint=not main and "validation" in history.validation_loss,
            )
        )
        stretches.extend(reduced.stretches)
        broken += reduced.broken
    if len(sets) > VALIDATION_SETS:
        notes.append(f"{len(sets) - VALIDATION_SETS} more held-out sets are not drawn.")
    notes += _notes_of(train.points, len(train.steps), broken, stretches, "loss", history.axis)
    if errors:
        notes.append("Bars at the held-out losses show ± one standard error.")
    everything = [v for line in lines for v in line.values if v is not None]
    logarithmic = _spans_decades(everything)
    if logarithmic:
        notes.append("The axis is logarithmic because the losses lie so far apart.")
    return Chart(
        "loss",
        "Loss",
        "nats per token" if history.format == "run folder" else "as logged",
        lines,
        axis=history.axis,
        logarithmic=logarithmic,
        marks=marks,
        stretches=sorted(set(stretches)),
        steps=_covered(history.train_loss, *history.validation_loss.values()),
        notes=notes,
        summary=_loss_summary(history),
        columns=[
            history.axis,
            "training loss",
            *[f"{name} loss" for name in sets[:VALIDATION_SETS]],
        ],
        rows=_loss_rows(history, sets[:VALIDATION_SETS]),
    )


def _every_step(history: History) -> bool:
    steps = history.train_loss.steps
    return history.context.train_losses_are_per_step and steps[-1] - steps[0] == len(steps) - 1


def _spans_decades(values: list[float]) -> bool:
    """Losses that on a linear axis would be a flat line with a needle.

    >>> _spans_decades([8.3, 2.0, 1.2]), _spans_decades([2.0, 1.9, 4000.0, 1.8])
    (False, True)
    """
    if not values or min(values) <= 0:
        return False
    typical = sorted(values)[len(values) // 2]
    return max(values) > 20 * typical


def _loss_summary(history: History) -> str:
    parts = []
    train = finite(history.train_loss.values)
    if train:
        parts.append(f"Training loss from {figure(train[0])} to {figure(train[-1])}")
    for name, series in history.validation_loss.items():
        values = finite(series.values)
        if values:
            parts.append(f"{name} loss from {figure(values[0])} to {figure(values[-1])}")
    return "; ".join(parts) + "." if parts else ""


def _single(
    series: Series, chart: Chart, name: str, role: str, shown: Callable[[float | None], str]
) -> Chart:
    """A chart of one series; on a logarithmic axis values that it cannot show are counted."""
    reduced = reduce(series)
    notes = _notes_of(
        reduced.points, len(reduced.steps), reduced.broken, reduced.stretches, name, chart.axis
    )
    values = reduced.values
    logarithmic = chart.logarithmic and any(v is not None and v > 0 for v in values)
    if logarithmic:
        below = sum(1 for value in series.values if value <= 0)
        if below:
            first = next(s for s, v in zip(series.steps, series.values, strict=True) if v <= 0)
            notes.append(
                f"{counted(below, 'value')} of zero or less cannot be drawn on a logarithmic "
                f"axis (first at {chart.axis} {first:,})."
            )
        values = [value if value is not None and value > 0 else None for value in values]
    ends = finite(series.values)
    lines = [Line(name, role, reduced.steps, values)] if ends else []
    return replace(
        chart,
        lines=lines,
        logarithmic=logarithmic,
        stretches=reduced.stretches,
        steps=_covered(series),
        notes=notes,
        summary=(
            f"{chart.title} from {shown(ends[0])} to {shown(ends[-1])}, "
            f"lowest {shown(min(ends))}, highest {shown(max(ends))}."
            if ends
            else ""
        ),
        columns=[chart.axis, name],
        rows=[[f"{series.steps[i]:,}", shown(series.values[i])] for i in _table_indices(series)],
    )


def _notes_of(
    points: int,
    drawn: int,
    broken: int,
    stretches: list[tuple[int, int]],
    name: str,
    axis: str,
) -> list[str]:
    notes = []
    if broken:
        notes.append(
            f"{counted(broken, f'{name} value')} of {points:,} "
            f"{'is' if broken == 1 else 'are'} not finite, first at {axis} {min(stretches)[0]:,}; "
            "crosses below the curve show where."
        )
    if drawn < points - broken:
        notes.append(
            f"Drawn from {points:,} points: the lowest and the highest of every stretch of a "
            "few pixels, so no spike is hidden."
        )
    return notes


def _table_indices(series: Series) -> list[int]:
    """Which points stand in the table: first, last, extremes, and some between.

    >>> _table_indices(Series(tuple(range(100)), tuple(float(100 - v) for v in range(100))))[:3]
    [0, 9, 18]
    """
    length = len(series)
    if length <= TABLE_ROWS + 2:
        return list(range(length))
    chosen = {round(i * (length - 1) / (TABLE_ROWS - 1)) for i in range(TABLE_ROWS)}
    within = [i for i, value in enumerate(series.values) if math.isfinite(value)]
    if within:
        chosen |= {
            min(within, key=series.values.__getitem__),
            max(within, key=series.values.__getitem__),
        }
    return sorted(chosen)


def _loss_rows(history: History, sets: list[str]) -> list[list[str]]:
    train = dict(zip(history.train_loss.steps, history.train_loss.values, strict=True))
    held_out = {
        name: dict(zip(series.steps, series.values, strict=True))
        for name, series in history.validation_loss.items()
    }
    # The rows follow the main held-out set, where two losses can be compared.
    leading = history.validation_loss[sets[0]] if sets else history.train_loss
    steps = {leading.steps[i] for i in _table_indices(leading)}
    if len(history.train_loss):
        steps |= {history.train_loss.steps[0], history.train_loss.steps[-1]}
    return [
        [
            f"{step:,}",
            *[
                figure(losses[step]) if step in losses else "–"
                for losses in (train, *(held_out[name] for name in sets))
            ],
        ]
        for step in sorted(steps)
    ]


def _marks(history: History, diagnosis: dict[str, Any] | None) -> list[Mark]:
    marks = [
        Mark(event.step, event.kind, "info")
        for event in history.events
        if event.kind in ("resumed", "stopped", "failed")
    ][-6:]
    for finding in ranked(diagnosis or {})[:6]:
        step = finding.get("since_step")
        if isinstance(step, int):
            name = finding_name(str(finding.get("kind")))
            marks.append(Mark(step, name, str(finding.get("severity", "info"))))
    return marks


def _with_marks_inside(chart: Chart) -> Chart:
    """Marks outside the drawn steps would stretch the axis: they are left out."""
    first, last = chart.steps
    return replace(chart, marks=[mark for mark in chart.marks if first <= mark.step <= last])


def _covered(*several: Series) -> tuple[int, int]:
    """First and last step of several series together."""
    filled = [series.steps for series in several if series.steps]
    if not filled:
        return (0, 0)
    return (min(steps[0] for steps in filled), max(steps[-1] for steps in filled))
