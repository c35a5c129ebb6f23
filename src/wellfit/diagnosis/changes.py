"""A fault → the one change of the recipe that answers it."""

from __future__ import annotations

from typing import Any

from wellfit.diagnosis import curves
from wellfit.monitor.history import History
from wellfit.records import Change

RATES = ("learning_rate", "matrix_learning_rate")
"""Settings of `train.optimizer` that are learning rates; Muon has both."""


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
