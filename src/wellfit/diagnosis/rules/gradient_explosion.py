"""gradient_explosion: the gradient norm grows tenfold and stays there (O11, O01, O08)."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.diagnosis.changes import scale_rate
from wellfit.monitor.history import History
from wellfit.records import Cause, Finding

GROWTH = 10.0
"""Tenfold: gradient norms of healthy runs grow by a factor of two or three as weights grow."""
FEWEST = 20
NOTHING = 0.02
"""A gain under 2 % of the loss since the gradients were small is none."""
STARTED = 0.05
"""The first twentieth of a run is its start: norms are small there where the last layer is 0."""


def gradient_explosion(history: History) -> list[Finding] | NotAssessed:
    """A history → a finding where the gradient norms of the last two fifths are ten times the
    lowest tenth before.

    Levels are medians, so single spikes count for nothing; only growth counts, since
    norms of 1e5 are healthy under some losses. A warning where the loss gained nothing since the
    norms were lowest (critical where it lost a fifth), information where learning went on.
    Causes: O11, O01, O08.
    """
    steps, norms = curves.finite(history.grad_norm)
    if len(norms) < FEWEST:
        return NotAssessed(
            "gradient_explosion", "The log holds too few gradient norms.", "the gradient norm"
        )
    begin = int(STARTED * len(norms))
    parts = np.array_split(np.arange(begin, len(norms)), 10)
    level = [curves.middle(norms[part]) for part in parts]
    lowest = int(np.argmin(level[:6]))
    late = curves.middle(norms[np.concatenate(parts[6:])])
    if level[lowest] <= 0 or late / GROWTH < level[lowest]:
        return []
    since = int(steps[parts[lowest][-1]])
    if curves.restarted(history, since, float(steps[-1])):
        return []
    levels = curves.levels(history.train_loss)
    lost: float | None = None
    if levels is not None and curves.loss_is_likelihood(history):
        before = levels.level[levels.last_step <= max(since, levels.last_step[0])]
        lost = curves.middle(levels.level[-3:]) - float(np.min(before))
    alarm = lost is not None and lost > -NOTHING
    evidence = [
        f"For: the gradient norm grew from {level[lowest]:.4g} to {late:.4g} "
        f"({curves.times(late, level[lowest]):.3g} times)."
    ]
    if lost is not None:
        evidence.append(
            f"{'For' if alarm else 'Against'}: meanwhile the loss changed by {np.expm1(lost):+.1%}."
        )
    zero = curves.rate_is_zero(history)
    return [
        Finding(
            kind="gradient_explosion",
            severity=("critical" if lost is not None and lost > 0.2 else "warning")
            if alarm
            else "info",
            certainty="likely" if late / GROWTH >= 10 * level[lowest] and alarm else "possible",
            since_step=since,
            evidence=tuple(evidence),
            causes=(
                Cause("O01", 0.5, "steps too large drive the weights to where gradients are steep"),
                Cause("O11", 0.4, "gains of the layers above one, nothing that bounds them"),
                Cause("O08", 0.2, "gradients are added up and never cleared"),
            ),
            change=scale_rate(history, 1 / 10, "gradients grow while nothing is gained.")
            if alarm and not zero
            else None,
        )
    ]
