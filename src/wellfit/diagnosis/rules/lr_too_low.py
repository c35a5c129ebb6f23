"""lr_too_low: the learning rate is zero or so small that hardly anything moves (O04, O03, O06)."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.diagnosis.changes import recipe_value, scale_rate
from wellfit.diagnosis.curves import Array
from wellfit.monitor.history import History, Series
from wellfit.records import Cause, Change, Finding

LEARNED = 0.1
"""A loss that fell by a tenth, and by ten standard deviations of a level, was not left alone."""
IDLE_SHARE = 0.1
"""A schedule may end a rounding before the run; a tenth of the run at zero is wasted."""
TINY_FROM_SCRATCH = 1e-4
"""Peak rate of a model that starts from nothing; usual ones are 3e-4 to 2e-2."""
TINY = 1e-6
"""Peak rate of any training of the likelihood; full fine-tuning uses 5e-6 to 1e-4."""
SLOW_FALL = float(np.log(1.5))
"""A run that lost a third of its loss has moved."""
STEADY = 0.6
"""Fall of the second half over the first. An ordinary curve bends: an exponential over two time
constants has 0.37, over one 0.61. Halves are of the sum of
rates, not of the steps: a falling rate bends every curve."""
UNTRAINED = 7.0
"""Nats: a first loss from here on shows a model that knows nothing, where nothing else tells."""


def lr_too_low(history: History) -> list[Finding] | NotAssessed:
    """A history → a finding where the rate is zero, ends too early, or is too small for the model.

    - zero at 99 % of at least five points: O04, certain, critical;
    - exactly zero for the last tenth of the run or more: O06, certain, a warning;
    - a steady fall (second half ≥ 0.6 of the first), of less than a third in all, with a peak rate
      below 1e-4 from scratch or below 1e-6 elsewhere, and no rising validation loss: O03,
      a warning. The size of updates relative to the weights would make it certain, and a log
      does not hold it.
    """
    _, rates = curves.finite(history.learning_rate)
    if len(rates) == 0:
        return NotAssessed("lr_too_low", "The log holds no learning rate.", "the learning rate")
    if curves.rate_is_zero(history):
        return [_zero(history, len(rates), float(np.mean(rates == 0.0)))]
    idle = _idle(history, rates)
    if idle is not None:
        return [idle]
    if not curves.loss_is_likelihood(history):
        return NotAssessed(
            "lr_too_low",
            "The rate is not zero, and this loss is no likelihood.",
            "the size of updates relative to the weights",
        )
    return _slow(history, float(rates.max()))


def _zero(history: History, count: int, share: float) -> Finding:
    levels = curves.levels(history.train_loss)
    evidence = [f"For: the learning rate is exactly 0 at {share:.0%} of {count} logged steps."]
    learned = False
    if levels is not None and len(levels.level) >= 2:
        moved = float(levels.level[0] - levels.level[-1])
        share = curves.change(float(levels.level[0]), float(levels.level[-1]))
        side = "For" if abs(moved) <= max(0.02, 4 * levels.noise) else "Against"
        evidence.append(f"{side}: the loss changed by {share:+.1%} over the run.")
        learned = moved >= max(LEARNED, 10 * levels.noise)
    rate = recipe_value(history, "train.optimizer.learning_rate")
    known = isinstance(rate, int | float) and rate > 0
    return Finding(
        kind="lr_too_low",
        # What learns has a rate: then the logger does not know it.
        severity="info" if learned else "critical",
        certainty="possible" if learned else "certain",
        since_step=history.learning_rate.steps[0],
        evidence=tuple(evidence),
        causes=(
            Cause(
                "O04",
                0.2 if learned else 0.95,
                "the schedule gives 0: its length is 0, or its step is not called",
            ),
        ),
        change=Change("Log the rate that the optimizer uses; this one cannot be it.")
        if learned
        else Change(
            "Mend the schedule: its length must be the number of optimizer steps, and the peak "
            f"rate {f'{rate:.3g} ' if known else ''}must reach the optimizer.",
            {"train.schedule.kind": "wsd", "train.schedule.warmup": 0.02},
        ),
    )


def _idle(history: History, rates: Array) -> Finding | None:
    idle = 0
    while idle < len(rates) and rates[-1 - idle] == 0.0:
        idle += 1
    if idle < 5 or idle < IDLE_SHARE * len(rates):
        return None
    steps, _ = curves.finite(history.learning_rate)
    since = int(steps[-idle])
    return Finding(
        kind="lr_too_low",
        severity="warning",
        certainty="certain",
        since_step=since,
        evidence=(
            f"For: the rate is exactly 0 at the last {idle} of {len(rates)} logged steps, "
            f"from step {since:,} on.",
        ),
        causes=(Cause("O06", 0.9, "the schedule is shorter than the run: counted in other steps"),),
        change=Change(
            "Give the schedule the length of the run, or end the run with it.",
            {"train.budget": {"steps": since}},
        ),
    )


def _slow(history: History, peak: float) -> list[Finding] | NotAssessed:
    levels = curves.levels(history.train_loss)
    if levels is None or len(levels.level) < 8:
        return NotAssessed(
            "lr_too_low",
            "Too few training losses to see how steadily the loss falls.",
            "at least eight training losses",
        )
    level, noise = levels.level, levels.noise
    half = _half_way(history, levels.last_step)
    ends = [float(np.mean(part)) for part in (level[:2], level[half - 1 : half + 1], level[-2:])]
    first, second = ends[0] - ends[1], ends[1] - ends[2]
    shares = -curves.change(ends[0], ends[1]), -curves.change(ends[1], ends[2])
    first_loss = curves.unscaled(float(level[0]))
    scratch = _untrained(history, first_loss)
    tiny = TINY_FROM_SCRATCH if scratch else TINY
    slow = first > 0 and first + second < SLOW_FALL and second >= STEADY * first
    if peak >= tiny or not slow or min(first, second) <= 3 * noise or _turned(history):
        return []
    return [
        Finding(
            kind="lr_too_low",
            severity="warning",
            certainty="likely" if scratch and peak < TINY_FROM_SCRATCH / 5 else "possible",
            since_step=history.train_loss.steps[0],
            evidence=(
                f"For: the peak rate {peak:.3g} is below {tiny:.0e}, little for "
                f"{'a model that starts from nothing' if scratch else 'any training'}.",
                f"For: the loss falls steadily, by {shares[0]:.1%} in the first half of "
                f"the summed rate and by {shares[1]:.1%} in the second.",
                "Against: a log does not show how large the updates are relative to the weights.",
            ),
            causes=(
                Cause("O03", 0.7, "the peak rate is too small"),
                Cause("O30", 0.3, "too few steps at this rate"),
            ),
            change=scale_rate(history, 10 if scratch else 5, "the loss falls, but too slowly."),
        )
    ]


def _half_way(history: History, at: Array) -> int:
    """Index of the level by which half of the sum of rates was spent.

    A falling rate slows any curve; over the sum of rates only the model's own bend remains.
    """
    steps, rates = curves.finite(history.learning_rate)
    # In shares of the largest, so that no sum can overflow.
    spent = np.cumsum(np.interp(at, steps, rates / (np.abs(rates).max() or 1.0)))
    return int(np.clip(np.searchsorted(spent, spent[-1] / 2), 2, len(at) - 3))


def _turned(history: History) -> bool:
    """Whether the validation loss ends above its lowest value: then more of the same is wrong."""
    _, losses = curves.finite(history.validation_loss.get("validation", Series()))
    return len(losses) >= 3 and float(losses[-1]) > 1.01 * float(losses.min())


def _untrained(history: History, first_loss: float) -> bool:
    context = history.context
    if context.from_scratch is not None:
        return context.from_scratch
    if context.vocabulary_size and context.vocabulary_size > 1:
        return first_loss >= 0.85 * float(np.log(context.vocabulary_size))
    return first_loss >= UNTRAINED
