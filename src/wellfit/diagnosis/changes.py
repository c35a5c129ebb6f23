"""A fault → the one change of the recipe that answers it."""

from __future__ import annotations

import math
from typing import Any

from wellfit.diagnosis import curves
from wellfit.monitor.history import History
from wellfit.records import Change

RATES = ("learning_rate", "matrix_learning_rate")
"""Settings of `train.optimizer` that are learning rates; Muon has both."""

FRESH = 4.0
"""Passes over a text up to which repeating it teaches nearly as much as new text
(Muennighoff et al., arXiv 2305.16264)."""


def recipe_value(history: History, path: str) -> Any:
    """The value at a dotted path of the run's recipe; None where recipe or value is not known."""
    value: Any = history.recipe
    for key in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def scale_rate(history: History, factor: float, reason: str) -> Change:
    """Multiply every learning rate of the recipe by `factor`; without a recipe, the peak seen."""
    patch = {
        f"train.optimizer.{name}": _rounded(value * factor)
        for name in RATES
        if isinstance(value := recipe_value(history, f"train.optimizer.{name}"), int | float)
    }
    peak = curves.peak_rate(history)
    if not patch and peak:
        patch = {"train.optimizer.learning_rate": _rounded(peak * factor)}
    verb = f"Divide the learning rate by {1 / factor:.3g}"
    if factor > 1:
        verb = f"Multiply the learning rate by {factor:.3g}"
    rates = ", ".join(f"{value:.3g}" for value in patch.values())
    return Change(f"{verb}{f' (to {rates})' if rates else ''}: {reason}", patch)


def stop_at(step: int, reason: str) -> Change:
    """Train for `step` steps."""
    return Change(f"Stop at step {step:,}: {reason}", {"train.budget": {"steps": step}})


def fewer_epochs(history: History, epochs: float, passes: float) -> Change:
    """End after so many passes over the data."""
    per_epoch = history.context.steps_per_epoch
    if per_epoch is None and len(history.train_loss):
        per_epoch = history.train_loss.steps[-1] / passes
    patch = {"train.budget": {"steps": max(1, round(epochs * per_epoch))}} if per_epoch else {}
    wanted = "one pass" if epochs == 1 else f"{epochs:.3g} passes"
    return Change(
        f"Score held-out text, and train for {wanted} instead of {passes:.3g}; more "
        "text serves better than more passes.",
        patch,
    )


def train_longer(history: History) -> Change:
    """The change for a run that ended, or was cut, while it still learned.

    A run that did not come to the end of its plan is to be finished; else its budget is doubled,
    the smallest change whose effect is not lost in the scatter between two runs.
    """
    done = history.train_loss.steps[-1] if len(history.train_loss) else 0
    planned = history.context.planned_steps
    if history.status == "running":
        return Change("Let it run: it still learns.")
    if planned and done < planned:
        return Change(
            f"Let it run on to its {planned:,} planned steps"
            f"{' (`--resume`)' if history.format == 'run folder' else ''}: it stopped at {done:,} "
            "while it still learned."
        )
    budget = recipe_value(history, "train.budget")
    longer = _doubled(budget) if isinstance(budget, dict) else {}
    passes = [value for value in history.epoch.values if math.isfinite(value)]
    text = f"Train twice as long ({2 * done:,} steps instead of {done:,})"
    if passes and 2 * passes[-1] > FRESH:
        text += (
            f", with more text: twice as long means {2 * passes[-1]:.1f} passes over this one, and "
            f"after about {FRESH:.0f} a text teaches little more"
        )
    return Change(f"{text}.", longer or {"train.budget": {"steps": 2 * done}})


def _doubled(budget: dict[str, Any]) -> dict[str, Any]:
    """A recipe's budget → the patch that doubles it; empty where it names no amount."""
    return {
        f"train.budget.{name}": 2 * amount
        for name, amount in budget.items()
        if isinstance(amount, int | float) and not isinstance(amount, bool) and amount > 0
    }


def lowers_rate(change: Change | None, history: History) -> bool:
    """Whether a change would make a learning rate smaller than it was."""
    if change is None:
        return False
    for name in RATES:
        path = f"train.optimizer.{name}"
        before = recipe_value(history, path) or curves.peak_rate(history)
        if path in change.patch and (before is None or change.patch[path] <= before):
            return True
    return False


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
