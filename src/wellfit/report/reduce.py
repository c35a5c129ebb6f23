"""A long series → at most 2,000 points that draw the same picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wellfit.monitor.history import Series

COLUMNS = 500
"""Columns a series is cut into: two points each and a gap before each point, 2,000 at most."""
STRETCHES = 120
"""Stretches of non-finite values that are marked one by one; the count is always of all."""


@dataclass(frozen=True, slots=True)
class Reduced:
    """What is drawn of a series."""

    steps: list[int]
    values: list[float | None]
    """None breaks the line: a non-finite value stood between its neighbours."""
    stretches: list[tuple[int, int]]
    """First and last step of every stretch of non-finite values, the first `STRETCHES` of them."""
    broken: int
    """Non-finite values in the whole series."""
    points: int
    """Values in the whole series."""


def reduce(series: Series, columns: int = COLUMNS) -> Reduced:
    """A series → the lowest and the highest value of every pixel column, in order of their steps.

    Columns are equal stretches of the step axis, as on the screen, so that no spike and no dip
    can disappear. Non-finite values break the line and are counted and listed, never averaged or
    dropped in silence.

    >>> spiky = Series(tuple(range(900)), tuple(9.0 if s == 432 else -s for s in range(900)))
    >>> reduced = reduce(spiky, columns=3)
    >>> reduced.steps, reduced.values
    ([0, 299, 432, 599, 600, 899], [0, -299, 9.0, -599, -600, -899])
    """
    steps, values = series.steps, series.values
    # Four entries a column are possible, so a series of that length may as well stay whole.
    whole = len(steps) <= 4 * columns
    first, span = (steps[0], max(1, steps[-1] - steps[0])) if steps else (0, 1)
    kept: list[int] = []
    stretches: list[tuple[int, int]] = []
    broken = 0
    gap_before: set[int] = set()
    pending_gap = counting = False
    column, low, high = -1, -1, -1
    for index, value in enumerate(values):
        if not math.isfinite(value):
            broken += 1
            if pending_gap and counting:
                stretches[-1] = (stretches[-1][0], steps[index])
            elif not pending_gap:
                counting = len(stretches) < STRETCHES
                if counting:
                    stretches.append((steps[index], steps[index]))
            pending_gap = True
            continue
        here = index if whole else (steps[index] - first) * columns // (span + 1)
        if here != column:
            if low >= 0:
                kept.extend(sorted({low, high}))
            column, low, high = here, index, index
        elif value < values[low]:
            low = index
        elif value > values[high]:
            high = index
        if pending_gap:
            gap_before.add(index)
            pending_gap = False
    if low >= 0:
        kept.extend(sorted({low, high}))
    return _with_gaps(series, kept, gap_before, stretches, broken)


def _with_gaps(
    series: Series,
    kept: list[int],
    gap_before: set[int],
    stretches: list[tuple[int, int]],
    broken: int,
) -> Reduced:
    gaps = sorted(gap_before)
    steps: list[int] = []
    values: list[float | None] = []
    next_gap = 0
    for index in kept:
        crossed = False
        while next_gap < len(gaps) and gaps[next_gap] <= index:
            next_gap += 1
            crossed = True
        if crossed and steps:
            steps.append(series.steps[index])
            values.append(None)
        steps.append(series.steps[index])
        values.append(series.values[index])
    return Reduced(steps, values, stretches, broken, len(series))


def medians(series: Series, buckets: int = 120) -> tuple[Series, int]:
    """A series → the median of each of about `buckets` equal groups, and the size of a group.

    The step of a group is its middle one. Non-finite values take no part: they are marked in the
    chart by themselves. A short series (fewer than two values a group) gives an empty one.

    >>> medians(Series((1, 2, 3, 4), (4.0, 2.0, 1.0, 9.0)), buckets=2)
    (Series(steps=(1, 3), values=(3.0, 5.0)), 2)
    """
    size = math.ceil(len(series) / buckets)
    if size < 2:
        return Series(), 1
    steps: list[int] = []
    middles: list[float] = []
    for start in range(0, len(series), size):
        group = sorted(v for v in series.values[start : start + size] if math.isfinite(v))
        if group:
            steps.append(series.steps[min(start + (size - 1) // 2, len(series) - 1)])
            half = len(group) // 2
            middles.append(group[half] if len(group) % 2 else (group[half - 1] + group[half]) / 2)
    return Series(tuple(steps), tuple(middles)), size
