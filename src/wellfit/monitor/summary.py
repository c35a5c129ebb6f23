"""History → the figures of a run in a few lines: where it began, where it ended, what was best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from wellfit.monitor.history import History, Series

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class EpochLoss:
    """One pass over the training rows."""

    epoch: int
    """From 1."""
    end: float
    """Passes finished at its last recorded step: `epoch`, or less where the run ended within it."""
    steps: int
    train_loss: float
    """Mean over its finite training losses; NaN where none is finite."""
    non_finite: int
    """Training losses that were not finite and are not in the mean."""
    validation_loss: float | None
    """The last validation within it; None where there was none."""


@dataclass(frozen=True, slots=True)
class Summary:
    """Losses in nats per token. None means unknown or without meaning, such as a share of NaN."""

    steps: int
    """Optimizer steps recorded."""
    first_step: int | None
    last_step: int | None
    first_loss: float | None
    last_loss: float | None
    reduction_percent: float | None
    """(first - last) / first · 100; negative where the loss rose."""
    reduction_per_step: float | None
    """(first - last) / (last step - first step)."""
    rate_first: float | None
    rate_last: float | None
    rate_peak: float | None
    rate_decay_percent: float | None
    """(peak - last) / peak · 100. From the peak, since a warm-up makes the first rate tiny."""
    epochs: tuple[EpochLoss, ...]
    best_step: int | None
    best_loss: float | None
    best_of: Literal["validation", "training"] | None
    """Which loss the best step is judged by: validation wherever it was measured."""


def summary(history: History) -> Summary:
    """A history → its summary.

    >>> from wellfit.monitor.history import History, Series
    >>> told = summary(History("a", "run folder", Series((1, 2, 5), (4.0, 3.0, 2.0))))
    >>> told.reduction_percent, told.reduction_per_step, told.best_step, told.best_of
    (50.0, 0.5, 5, 'training')
    """
    losses, rates = history.train_loss, history.learning_rate
    first, last = _ends(losses)
    drop = first - last if first is not None and last is not None else math.nan
    distance = losses.steps[-1] - losses.steps[0] if len(losses) else 0
    rate_first, rate_last = _ends(rates)
    peak = float(rates.finite[1].max()) if len(rates.finite[1]) else None
    best_of, best = _best(history)
    return Summary(
        steps=len(losses),
        first_step=losses.steps[0] if len(losses) else None,
        last_step=losses.steps[-1] if len(losses) else None,
        first_loss=first,
        last_loss=last,
        reduction_percent=_share(drop, first),
        reduction_per_step=_known(drop / distance) if distance else None,
        rate_first=rate_first,
        rate_last=rate_last,
        rate_peak=peak,
        rate_decay_percent=_share(
            peak - rate_last if peak is not None and rate_last is not None else math.nan, peak
        ),
        epochs=epoch_losses(history),
        best_step=best[0] if best else None,
        best_loss=best[1] if best else None,
        best_of=best_of if best else None,
    )


def epoch_losses(history: History) -> tuple[EpochLoss, ...]:
    """A history → its epochs in their order; empty where no epochs were recorded.

    A step belongs to the epoch in which it ended: the one that takes `epoch` from 0.9 to exactly
    1.0 is the last step of the first.

    >>> from wellfit.monitor.history import History, Series
    >>> losses, passes = Series((1, 2, 3), (4.0, 3.0, 2.0)), Series((1, 2, 3), (0.5, 1.0, 1.5))
    >>> told = epoch_losses(History("a", "run folder", losses, epoch=passes))
    >>> [(one.epoch, one.end, one.train_loss) for one in told]
    [(1, 1.0, 3.5), (2, 1.5, 2.0)]
    """
    import numpy as np  # here and below: whoever only reads a run does not need it

    steps = np.asarray(history.epoch.steps, dtype=np.int64)
    passes = np.asarray(history.epoch.values, dtype=np.float64)
    steps, passes = steps[np.isfinite(passes)], passes[np.isfinite(passes)]
    # 0.1 + 0.2 steps of an epoch are a hair more than 0.3.
    numbers = np.maximum(1, np.ceil(passes - 1e-9))
    order = np.argsort(numbers, kind="stable")
    loss, trained = _at(history.train_loss, steps)
    score, scored = _at(history.validation_loss.get("validation", Series()), steps)
    told = []
    for inside in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        losses = loss[inside][trained[inside]]
        if len(losses) == 0:
            continue
        finite = losses[np.isfinite(losses)]
        validations = score[inside][scored[inside]]
        told.append(
            EpochLoss(
                epoch=int(numbers[inside[0]]),
                end=float(passes[inside][-1]),
                steps=len(losses),
                # Divided first: a sum of losses near the largest float would overflow.
                train_loss=math.fsum(finite / len(finite)) if len(finite) else math.nan,
                non_finite=len(losses) - len(finite),
                validation_loss=float(validations[-1]) if len(validations) else None,
            )
        )
    return tuple(told)


def _at(series: Series, steps: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """A series and steps → a value for each, and whether the series really has that step."""
    import numpy as np

    if not len(series):
        return np.zeros(len(steps)), np.zeros(len(steps), dtype=bool)
    known = np.asarray(series.steps, dtype=np.int64)
    place = np.minimum(np.searchsorted(known, steps), len(known) - 1)
    return np.asarray(series.values, dtype=np.float64)[place], known[place] == steps


def _ends(series: Series) -> tuple[float | None, float | None]:
    return (series.values[0], series.values[-1]) if len(series) else (None, None)


def _best(
    history: History,
) -> tuple[Literal["validation", "training"], tuple[int, float] | None]:
    validation = _lowest(history.validation_loss.get("validation", Series()))
    if validation is not None:
        return "validation", validation
    return "training", _lowest(history.train_loss)


def _lowest(series: Series) -> tuple[int, float] | None:
    steps, values = series.finite
    if len(values) == 0:
        return None
    place = int(values.argmin())
    return int(steps[place]), float(values[place])


def _share(part: float, whole: float | None) -> float | None:
    """100·part/whole where that has a meaning."""
    return _known(100.0 * part / whole) if whole is not None and whole > 0 else None


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
