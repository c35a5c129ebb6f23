"""The rows of a Log → the step of each, where counters start anew, runs resume, steps lack."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wellfit.diagnosis.importers.log import Column, Log
from wellfit.monitor.history import Series

Array = NDArray[np.float64]
Rows = NDArray[np.int64]


def find_steps(
    log: Log, chosen: dict[str, Column], notes: list[str]
) -> tuple[Array, str, list[int], int]:
    """A log → the step of every row (NaN: the row is superseded or has none), what a step is,
    where the log jumps back as after a resume, and how many losses a later attempt replaced."""
    steps = np.full(log.rows, np.nan)
    if log.steps:
        steps[np.fromiter(log.steps.keys(), int)] = np.fromiter(log.steps.values(), float)
    if "step" in chosen:
        steps[chosen["step"].rows] = chosen["step"].values
    epochs = np.full(log.rows, np.nan)
    if "epoch" in chosen:
        epochs[chosen["epoch"].rows] = chosen["epoch"].values
    axis = "step"
    if not np.isfinite(steps).any():
        steps, axis = _without_steps(log, chosen, epochs, notes)
    elif _is_fraction(steps):
        # A "step" that counts epochs in fractions.
        steps, axis = _without_steps(log, chosen, steps, notes)
    impossible = (steps < 0) | (steps >= 1e15)
    steps = _filled(np.where(impossible, np.nan, steps))
    steps[impossible] = np.nan
    if log.steps:  # each column of a store has its own order
        return steps, axis, *_latest_by_column(chosen, steps)
    # Evaluations are often written out of order, or all at once: the training rows tell.
    lead = chosen.get("train") or next(c for k, c in chosen.items() if k.startswith("validation"))
    marked = np.asarray(lead.rows, dtype=np.int64)
    marked = marked[np.isfinite(steps[marked])]
    if axis == "step" and (offset := _epoch_resets(log, steps, epochs, marked)) is not None:
        notes.append("The step counter starts anew at every epoch; the steps were added up.")
        steps = steps + offset
    if _newest_first(steps[marked]):
        notes.append("Its rows stand newest first; they were read in the order of their steps.")
        return steps, axis, [], 0
    jumps, superseded = _drop_superseded(steps, marked, np.arange(log.rows))
    if jumps:
        notes.append(_jump_note(jumps, superseded))
    return steps, axis, jumps, superseded


def series_of(column: Column, steps: Array) -> tuple[Series, int]:
    """A column and the step of every row → a Series, and how many steps came twice."""
    at = steps[np.asarray(column.rows, dtype=np.int64)]
    values = np.asarray(column.values, dtype=np.float64)
    keep = np.isfinite(at) & (at >= 0) & (at < 1e15)
    at, values = at[keep], values[keep]
    at = np.round(at)
    if np.any(np.diff(at) < 0):
        order = np.argsort(at, kind="stable")
        at, values = at[order], values[order]
    last = np.append(at[1:] != at[:-1], True) if len(at) else np.zeros(0, bool)
    return (
        Series.of(at[last].astype(np.int64), values[last]),
        int(len(at) - last.sum()),
    )


def _newest_first(steps: Array) -> bool:
    """Whether steps fall from row to row: a table sorted that way, and no run begun anew each time.

    >>> _newest_first(np.array([3.0, 2.0, 1.0])), _newest_first(np.array([1.0, 2.0, 1.0]))
    (True, False)
    """
    falls = len(steps) > 2 and np.all(np.diff(steps) <= 0) and steps[-1] < steps[0]
    return bool(falls)


def _is_fraction(steps: Array) -> bool:
    known = steps[np.isfinite(steps)]
    return bool(np.mean(known != np.round(known)) > 0.5)


def _without_steps(
    log: Log, chosen: dict[str, Column], epochs: Array, notes: list[str]
) -> tuple[Array, str]:
    """Rows without steps → whole epochs where each row is one, else row numbers."""
    known = epochs[np.isfinite(epochs)]
    train = chosen.get("train") or next(c for k, c in chosen.items() if k.startswith("validation"))
    rows = np.asarray(train.rows, dtype=np.int64)
    if len(known) and np.all(known == np.round(known)):
        filled = _filled(epochs)
        at = filled[rows]
        if len(np.unique(at[np.isfinite(at)])) >= 0.5 * len(at):
            notes.append("The log holds no steps; its epochs stand for them.")
            return epochs, "epoch"
    notes.append(
        "The log holds no steps; its rows are counted, so nothing is said about steps as such."
    )
    steps = np.full(log.rows, np.nan)
    steps[rows] = np.arange(1, len(rows) + 1)
    return steps, "row"


def _filled(steps: Array) -> Array:
    """Rows without a step belong to the last one before them, else to the first after."""
    known = np.flatnonzero(np.isfinite(steps))
    if len(known) in (0, len(steps)):
        return steps
    before = np.maximum.accumulate(np.where(np.isfinite(steps), np.arange(len(steps)), -1))
    return np.asarray(np.where(before >= 0, steps[before], steps[known[0]]))


def _epoch_resets(log: Log, steps: Array, epochs: Array, marked: Rows) -> Array | None:
    """Steps that start anew while the epoch rises → what to add to each row; None elsewhere.

    Without epochs, three falls and more to the same beginning, each from about the same height,
    are taken for epochs too: a run is hardly killed so regularly.
    """
    at = steps[marked]
    falls = np.flatnonzero(np.diff(at) < 0) + 1
    if len(falls) == 0:
        return None
    tops, starts, first = at[falls - 1], at[falls], at[0]
    told = log.facts.get("steps_per_epoch")
    length = told if isinstance(told, float) and told >= at.max() else 0.0
    known = _filled(epochs)
    if np.isfinite(known).any():
        at_fall = known[marked]
        rises = at_fall[falls] > at_fall[falls - 1]
        same = (np.abs(starts - first) <= 0.1 * np.maximum(tops, 1)) | (length > 0)
        if not np.all(rises & same):
            return None
    elif len(falls) < 3 or np.ptp(tops) > 0.1 * tops.max() or np.ptp(starts) > 0.05 * tops.max():
        return None
    # Else an epoch is as long as its highest step; where counting begins at 0 that is one less.
    highest = np.maximum.reduceat(at, np.concatenate([[0], falls]))[:-1]
    offset = np.zeros(len(steps))
    offset[_begins(steps, marked, falls)] = length or highest + (1 if first == 0 else 0)
    return np.asarray(np.cumsum(offset))


def _begins(steps: Array, marked: Rows, falls: NDArray[np.intp]) -> Rows:
    """Where each new epoch begins: rows of a low step may stand before its first loss."""
    begins = marked[falls].copy()
    for i, (row, previous) in enumerate(zip(begins, marked[falls - 1], strict=True)):
        while row - 1 > previous and steps[row - 1] <= steps[begins[i]]:
            row -= 1
        begins[i] = row
    return begins


def _drop_superseded(steps: Array, marked: Rows, rows: Rows) -> tuple[list[int], int]:
    """Steps in row order → NaN for `rows` that a later attempt wrote again; where the log jumps.

    `marked` are the rows whose order counts. Another row is superseded where a later jump goes
    back to its step or before; what stands before the first marked row never is.
    """
    marked = marked[np.isfinite(steps[marked])]
    at = steps[marked]
    if not np.any(np.diff(at) < 0):
        return [], 0
    kept: list[float] = []
    kept_rows: list[int] = []
    jumps: list[tuple[int, float]] = []
    gone: list[int] = []
    for row, step in zip(marked.tolist(), at.tolist(), strict=True):
        if kept and step < kept[-1]:
            jumps.append((row, step))
            while kept and kept[-1] >= step:
                kept.pop()
                gone.append(kept_rows.pop())
        kept.append(step)
        kept_rows.append(row)
    lowest = np.full(len(steps) + 1, np.inf)
    for row, step in jumps:
        lowest[row] = step
    lowest = np.minimum.accumulate(lowest[::-1])[::-1][1:]  # of the jumps after each row
    others = rows[(rows > marked[0]) & ~np.isin(rows, marked)]
    steps[others[steps[others] >= lowest[others]]] = np.nan
    steps[gone] = np.nan
    return [int(step) for _, step in jumps], len(gone)


def _latest_by_column(chosen: dict[str, Column], steps: Array) -> tuple[list[int], int]:
    """Stores keep each metric apart, in the order of writing: the later attempt of each wins."""
    jumps: list[int] = []
    superseded = 0
    for key, column in chosen.items():
        rows = np.asarray(column.rows, dtype=np.int64)
        found, count = _drop_superseded(steps, rows, rows)
        if key == "train":
            jumps, superseded = found, count
    return jumps, superseded


def _jump_note(jumps: list[int], superseded: int) -> str:
    return (
        f"The steps of the training loss jump back {len(jumps)} times (to step {jumps[0]:,} "
        f"first), as after a resume; {superseded} points of earlier attempts were replaced by "
        "later ones."
    )
