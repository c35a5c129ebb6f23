"""A history → the figures of a run that a person asks for first."""

from __future__ import annotations

from typing import Any

import numpy as np

from wellfit.diagnosis import curves
from wellfit.monitor.history import History, Series


def summarise(history: History) -> dict[str, Any]:
    """A history → its figures; None where the log does not tell.

    Losses are in nats per token where the trainer logs them so. `reduction_percent` is
    `100·(first − last)/first`, `reduction_per_step` is in nats, `learning_rate_decay` is the last
    rate over the largest. `best_step` is the step of the lowest validation loss, or of the lowest
    training loss where there is no validation. Non-finite losses are counted, not averaged.
    """
    steps, losses = curves.finite(history.train_loss)
    _, rates = curves.finite(history.learning_rate)
    main = history.validation_loss.get("validation", Series())
    val_steps, val = curves.finite(main)
    first = float(losses[0]) if len(losses) else None
    last = float(losses[-1]) if len(losses) else None
    best_steps, best = (val_steps, val) if len(val) else (steps, losses)
    low = int(np.argmin(best)) if len(best) else None
    fallen = None if first is None or last is None else first - last
    span = int(steps[-1] - steps[0]) if len(steps) else 0
    return {
        "name": history.name,
        "format": history.format,
        "status": history.status,
        "steps": max([*history.train_loss.steps[-1:], *main.steps[-1:]], default=0),
        "points": len(history.train_loss),
        "non_finite": len(history.train_loss) - len(losses),
        "first_loss": first,
        "last_loss": last,
        "reduction_percent": 100 * fallen / first if fallen is not None and first else None,
        "reduction_per_step": fallen / span if fallen is not None and span else None,
        "first_learning_rate": float(rates[0]) if len(rates) else None,
        "last_learning_rate": float(rates[-1]) if len(rates) else None,
        "learning_rate_decay": (
            float(rates[-1] / rates.max()) if len(rates) and rates.max() > 0 else None
        ),
        "mean_loss_by_epoch": _by_epoch(history),
        "evaluations": len(main),
        "first_validation_loss": float(val[0]) if len(val) else None,
        "last_validation_loss": float(val[-1]) if len(val) else None,
        "best_step": None if low is None else int(best_steps[low]),
        "best_loss": None if low is None else float(best[low]),
        "best_of": "validation" if len(val) else "training",
        "attempts": history.attempts,
        "superseded": history.superseded,
        "notes": list(history.notes),
    }


def _by_epoch(history: History) -> dict[str, float]:
    """Epoch, counted from 1 → the mean of its finite training losses."""
    steps, losses = curves.finite(history.train_loss)
    epoch_steps, epochs = curves.finite(history.epoch)
    if len(steps) == 0 or len(epochs) == 0:
        return {}
    # The record of the step that ends an epoch says 1.0: it still belongs to the first.
    at = np.ceil(np.round(np.interp(steps, epoch_steps, epochs), 6))
    at = np.maximum(at, 1)
    return {str(int(epoch)): float(np.mean(losses[at == epoch])) for epoch in np.unique(at)}
