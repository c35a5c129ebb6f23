"""slow_convergence: the loss falls in a straight line, nowhere near its rest (O03, O30)."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.monitor.history import History
from wellfit.records import Cause, Change, Finding

FEWEST = 16
STRAIGHT = 0.7
"""The second half gains as much as 0.7 of the first: learning curves bend much more."""
LATE = 1.5
"""More than that is a drop after a plateau."""
FALL = 0.05
NOISE = 5.0


def slow_convergence(history: History) -> list[Finding] | NotAssessed:
    """A history → information where the second half of a run gains as much as the first.

    A learning curve bends: its first half brings most. One that falls in a straight line, by 5 %
    or more in each half, has its learning before it: more steps or a larger rate. Never an alarm.
    """
    if not curves.loss_is_likelihood(history):
        return NotAssessed(
            "slow_convergence", "This loss is no likelihood.", "the reward of the policy"
        )
    levels = curves.levels(history.train_loss)
    if levels is None or len(history.train_loss) < FEWEST:
        return NotAssessed(
            "slow_convergence", "Too few training losses to show a bend.", f"{FEWEST} losses"
        )
    ends = levels.level[0], curves.middle(levels.level[9:11]), levels.level[-1]
    first, second = float(ends[0] - ends[1]), float(ends[1] - ends[2])
    if not STRAIGHT * first <= second <= LATE * first:
        return []
    if min(first, second) < max(FALL, NOISE * levels.noise):
        return []
    return [
        Finding(
            kind="slow_convergence",
            severity="info",
            certainty="possible",
            since_step=history.train_loss.steps[0],
            evidence=(
                f"For: the first half of the run lowered the loss by {-np.expm1(-first):.0%}, the "
                f"second by {-np.expm1(-second):.0%}; learning curves usually bend.",
            ),
            causes=(
                Cause("O30", 0.5, "few steps for what there is to learn"),
                Cause("O03", 0.4, "a small rate"),
            ),
            change=Change("Train longer, or try two to three times the rate."),
        )
    ]
