"""lr_too_high: the loss rose while the rate was still rising (O02, O01, O05)."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.diagnosis.changes import scale_rate
from wellfit.diagnosis.rules.divergence import NOISE, RISE
from wellfit.monitor.history import History
from wellfit.records import Cause, Finding

NEAR_PEAK = 0.9
"""Share of the peak from which the rate counts as arrived."""
PARTS = 40
"""Finer than elsewhere: a warm-up is a small part of a run."""


def lr_too_high(history: History) -> list[Finding] | NotAssessed:
    """A history → a finding where the loss was lowest at a smaller rate and rose with the rate.

    A warm-up tries all rates up to the peak. Where the loss had fallen at some rate and stands
    ≥ 20 % and ≥ 5 standard deviations higher around the peak, that rate is the largest this run
    bore, and the advice. Critical where half of
    what was gained is lost and does not come back. Causes: O02, O01.
    """
    steps, rates = curves.finite(history.learning_rate)
    if len(rates) < 4:
        return NotAssessed("lr_too_high", "The log holds too few rates.", "the learning rate")
    if not curves.loss_is_likelihood(history):
        return NotAssessed(
            "lr_too_high", "This loss is no likelihood.", "the reward of reinforcement learning"
        )
    # Medians of three losses and more, where there are enough: one low value is no level.
    parts = int(np.clip(len(history.train_loss) // 3, 5, PARTS))
    levels = curves.levels(history.train_loss, parts)
    if levels is None or len(levels.level) < 5 or rates.max() <= 0:
        return []
    arrived = float(steps[np.flatnonzero(rates >= NEAR_PEAK * rates.max())[0]])
    early = np.flatnonzero(levels.last_step <= arrived)
    if len(early) < 2 or len(early) == len(levels.level):
        # The rate may rise to the very end; then its last tenth stands for the peak.
        early = early[: max(2, len(early) - max(1, len(early) // 10))]
    if len(early) < 2 or len(early) >= len(levels.level):
        return []
    low = int(early[np.argmin(levels.level[early])])
    around = levels.level[early[-1] + 1 :][: max(2, len(levels.level) // 8)]
    top = curves.middle(around)
    rise = top - float(levels.level[low])
    at_low = float(np.interp(levels.last_step[low], steps, rates))
    gained = float(levels.level[0] - levels.level[low])
    if rise < max(RISE, NOISE * levels.noise) or not 0 < at_low < NEAR_PEAK * rates.max():
        return []
    lost = rise / gained if gained > 0 else np.inf
    recovered = curves.middle(levels.level[-3:]) <= float(levels.level[low]) + levels.noise
    lasting = lost >= 0.5 and not recovered
    return [
        Finding(
            kind="lr_too_high",
            severity="critical" if lasting else "warning",
            certainty="likely" if lost >= 0.5 else "possible",
            since_step=int(levels.last_step[low]),
            evidence=(
                f"For: at rate {at_low:.3g} (step {int(levels.last_step[low]):,}) the loss had "
                f"reached {curves.unscaled(float(levels.level[low])):.4g}; around the peak rate "
                f"{rates.max():.3g} it stands at {curves.unscaled(top):.4g}.",
                f"For: the rise is {rise / max(levels.noise, 1e-3):.0f} times the noise of its "
                "levels.",
                *(("Against: with the falling rate the loss recovered.",) if recovered else ()),
            ),
            causes=(
                Cause("O01", 0.7, "the peak rate is above what this model bears"),
                Cause("O05", 0.2, "the warm-up is too short for it"),
                Cause("O02", 0.1, "clipping hides how large the steps want to be"),
            ),
            change=scale_rate(
                history, at_low / float(rates.max()), "up to there the loss still fell."
            ),
        )
    ]
