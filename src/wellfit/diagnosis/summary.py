"""A history → the figures of its run as plain values for the JSON of a diagnosis."""

from __future__ import annotations

from typing import Any

from wellfit.monitor.history import History, Series
from wellfit.monitor.summary import summary


def summarise(history: History) -> dict[str, Any]:
    """A history → its figures; None where the log does not tell or the figure has no meaning.

    They are those of `monitor.summary`, which says what each means: the page and the pictures of
    a run show the same. Besides: where the log came from and how much of it could be used.
    """
    told = summary(history)
    validation = history.validation_loss.get("validation", Series())
    non_finite = len(history.train_loss) - len(history.train_loss.finite[0])
    return {
        "name": history.name,
        "format": history.format,
        "status": history.status,
        "steps": max([*history.train_loss.steps[-1:], *validation.steps[-1:]], default=0),
        "points": told.steps,
        "non_finite": non_finite,
        "first_loss": told.first_loss,
        "last_loss": told.last_loss,
        "reduction_percent": told.reduction_percent,
        "reduction_per_step": told.reduction_per_step,
        "first_learning_rate": told.rate_first,
        "peak_learning_rate": told.rate_peak,
        "last_learning_rate": told.rate_last,
        "learning_rate_decay_percent": told.rate_decay_percent,
        "mean_loss_by_epoch": {str(one.epoch): one.train_loss for one in told.epochs},
        "evaluations": len(validation),
        "first_validation_loss": validation.values[0] if len(validation) else None,
        "last_validation_loss": validation.values[-1] if len(validation) else None,
        "best_step": told.best_step,
        "best_loss": told.best_loss,
        "best_of": told.best_of,
        "attempts": history.attempts,
        "superseded": history.superseded,
        "notes": list(history.notes),
    }
