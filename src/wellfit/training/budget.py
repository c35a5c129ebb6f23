"""A budget in, a number of steps out, written down before the first step.

Minutes become steps by timing a few real steps. That happens once: resuming reads the plan and
never asks the clock, so a run has the same length however often it was interrupted.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wellfit.errors import RunError
from wellfit.recipe.schema import Budget
from wellfit.training.checkpoint import write_json

FORMAT_VERSION = 1
FILE = "plan.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """How many steps the training has, and the arithmetic that gave the number."""

    steps: int
    arithmetic: str
    budget: dict[str, Any]
    seconds_per_step: float | None = None
    """Median of the timed steps; None where the budget is not in minutes."""


def plan(
    budget: Budget,
    *,
    rows: int,
    context: int,
    rows_per_epoch: int,
    measure: Callable[[], tuple[float, int]],
) -> Plan:
    """A budget, a step's rows and context, and the training rows in; the plan out.

    `measure()` gives the seconds of a step and how many steps were timed; only a budget in
    minutes calls it.

    >>> size = {"rows": 2, "context": 64, "rows_per_epoch": 9}
    >>> plan(Budget(tokens=1000), **size, measure=lambda: (1.0, 3)).arithmetic
    '1000 tokens / (2 rows x 64 tokens) = 7.812, rounded up to 8 steps'
    """
    given = budget.model_dump(exclude_none=True)
    if budget.steps is not None:
        return Plan(budget.steps, f"{budget.steps} steps", given)
    if budget.minutes is not None:
        seconds, timed = measure()
        steps = max(1, int(budget.minutes * 60 / seconds))
        text = (
            f"{budget.minutes:g} min x 60 s / {seconds:.4g} s a step (median of {timed} timed "
            f"steps), rounded down to {steps} steps; evaluation and saving come on top"
        )
        return Plan(steps, text, given, seconds)
    if budget.tokens is not None:
        exact = budget.tokens / (rows * context)
        steps = -(-budget.tokens // (rows * context))
        text = f"{budget.tokens} tokens / ({rows} rows x {context} tokens)"
    else:
        assert budget.epochs is not None
        exact = budget.epochs * rows_per_epoch / rows
        # 0.1 epochs of 30 rows are 3 rows, though 0.1 * 30 is a little more in floating point.
        steps = math.ceil(round(exact, 6))
        text = f"{budget.epochs:g} epochs x {rows_per_epoch} rows / {rows} rows a step"
    steps = max(1, steps)
    return Plan(steps, f"{text} = {exact:.4g}, rounded up to {steps} steps", given)


def seconds_per_step(
    time_step: Callable[[], float],
    *,
    warm: int = 2,
    least: int = 3,
    most: int = 20,
    enough_seconds: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[float, int]:
    """What makes a step and gives its seconds in; their median and how many were timed out.

    The first `warm` steps fill caches and are not counted. At least `least` are timed, then more
    until `enough_seconds` have passed, `most` at most.
    """
    for _ in range(warm):
        time_step()
    started = clock()
    timed: list[float] = []
    while len(timed) < least or (len(timed) < most and clock() - started < enough_seconds):
        timed.append(time_step())
    return statistics.median(timed), len(timed)


def write_plan(folder: Path, made: Plan) -> None:
    """The run folder and a plan in; `plan.json` there, written in one move.

    Raises RunError where it cannot be written.
    """
    partial = folder / f"{FILE}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(partial, {"format_version": FORMAT_VERSION, **asdict(made)})
        partial.replace(folder / FILE)
    except OSError as error:
        raise RunError(
            f"the plan cannot be written ({error.strerror})",
            where=str(folder / FILE),
            way_out="Make room or mend the folder, then start again.",
        ) from error


def read_plan(folder: Path, budget: Budget) -> Plan | None:
    """The run folder and the recipe's budget in; the plan written there out, None without one.

    Raises RunError where the plan cannot be read or was made for another budget.
    """
    path = folder / FILE
    anew = "or train into a new folder."
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise RunError(
            "the plan is not the JSON that was written",
            where=str(path),
            way_out=f"Restore it from a copy, {anew}",
        ) from error
    if content.pop("format_version", None) != FORMAT_VERSION:
        raise RunError(
            "the plan's format_version is unknown",
            where=str(path),
            way_out="Use the wellfit version that wrote it.",
        )
    made = Plan(**content)
    wanted = budget.model_dump(exclude_none=True)
    if made.budget != wanted:
        raise RunError(
            f"the run was planned for {_words(made.budget)}, the recipe now says {_words(wanted)}",
            where=str(path),
            way_out=f"Resume with the budget it was planned for, {anew}",
        )
    return made


def _words(budget: dict[str, Any]) -> str:
    return ", ".join(f"{value:g} {name}" for name, value in budget.items())
