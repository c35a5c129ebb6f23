"""schedule: a rate that never comes down, only rises, or comes down too early (O06, O07)."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.diagnosis.curves import Array
from wellfit.monitor.history import History
from wellfit.records import Cause, Change, Finding

FEWEST = 5
CONSTANT = 0.9
"""A last rate above nine tenths of the peak has not come down."""
SPENT = 0.05
"""FAULTS O06: below a twentieth of the peak hardly anything is learned."""
LEFT = 0.3
"""Share of the run at such a rate; a cosine to zero spends 14 % there, a line 5 %."""


def schedule(history: History) -> list[Finding] | NotAssessed:
    """A history → information where the rate never comes down, only rises, or is spent early.

    Never an alarm: constant rates are a choice, and a run that was cut has not reached its end.
    A rate of exactly 0 is `lr_too_low`. Causes: O06, O07.
    """
    steps, rates = curves.finite(history.learning_rate)
    if len(rates) < FEWEST:
        return NotAssessed("schedule", "The log holds too few rates.", "the learning rate")
    peak = float(rates.max())
    if peak <= 0 or curves.rate_is_zero(history):
        return []
    planned = history.context.planned_steps
    cut = bool(planned and steps[-1] < 0.95 * planned)
    if rates[-1] >= CONSTANT * peak:
        rising = bool(np.all(rates[1:] >= rates[:-1])) and rates[0] < 0.5 * peak
        if cut and not rising:
            return []
        return [_never(steps, rates, rising)]
    spent = _spent(rates, peak)
    begin = len(rates) - spent
    span = float(steps[-1] - steps[0])
    if spent >= 2 and span > 0 and (steps[-1] - steps[begin]) / span >= LEFT:
        return [_early(steps, begin, span, peak)]
    return []


def _spent(rates: Array, peak: float) -> int:
    """How many of the last rates in a row lie below a twentieth of the peak."""
    high = np.flatnonzero(rates >= SPENT * peak)
    return len(rates) - 1 - int(high[-1])


def _never(steps: Array, rates: Array, rising: bool) -> Finding:
    if rising:
        seen = f"the rate rises to the end, from {rates[0]:.3g} to {rates[-1]:.3g}"
        why = "the warm-up is longer than the run"
        advice = Change(
            "Make the warm-up 1–10 % of the run and let the rate come down afterwards.",
            {"train.schedule.kind": "cosine", "train.schedule.warmup": 0.05},
        )
    else:
        seen = f"the rate ends at {rates[-1]:.3g}, its peak being {rates.max():.3g}"
        why = "no decay is planned, or the log ends before it"
        advice = Change(
            "Let the rate come down at the end: a cooldown usually lowers the loss by some per "
            "cent at no cost.",
            {"train.schedule.kind": "wsd"},
        )
    return Finding(
        kind="schedule",
        severity="info",
        certainty="certain",
        since_step=int(steps[0]),
        evidence=(f"For: {seen}.",),
        causes=(Cause("O07", 0.5, why), Cause("O06", 0.3, "its length is counted in other steps")),
        change=advice,
    )


def _early(steps: Array, begin: int, span: float, peak: float) -> Finding:
    share = (steps[-1] - steps[begin]) / span
    return Finding(
        kind="schedule",
        severity="info",
        certainty="certain",
        since_step=int(steps[begin]),
        evidence=(
            f"For: from step {int(steps[begin]):,} on, {share:.0%} of the run, the rate is below "
            f"{SPENT:.0%} of its peak {peak:.3g}.",
        ),
        causes=(Cause("O06", 0.8, "the schedule is shorter than the run: counted in other steps"),),
        change=Change(
            "Give the schedule the length of the run, or end the run with it.",
            {"train.budget": {"steps": int(steps[begin])}},
        ),
    )
