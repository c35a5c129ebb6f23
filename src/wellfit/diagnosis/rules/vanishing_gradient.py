"""vanishing_gradient: no gradient reaches the weights (O12, O04, D08)."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.diagnosis.rules.plateau import LOWEST_CHANCE
from wellfit.monitor.history import History
from wellfit.records import Cause, Change, Finding

FEWEST = 10
SHARE = 0.2
"""A fifth of the steps without any gradient (FAULTS P06: 20 % exact zeros)."""
SHRUNK = 1e-3
"""FAULTS O12: a thousandth of what it was."""
FALL = 0.05
"""A loss that fell by 5 % since its gradients shrank still learns."""


def vanishing_gradient(history: History) -> list[Finding] | NotAssessed:
    """A history → a finding where gradient norms are 0, or a thousandth of what they were.

    Zeros throughout beside a loss that falls are a logger's, and not assessed.
    Exact zeros at a fifth of the steps or more are a count, so certain. A norm that shrank
    a thousandfold counts only while the loss stands above chance between two classes and no
    longer falls: one that is learned has small gradients too. Causes: O12, D08, O04, P06.
    """
    steps, norms = curves.finite(history.grad_norm)
    if len(norms) < FEWEST:
        return NotAssessed(
            "vanishing_gradient", "The log holds too few gradient norms.", "the gradient norm"
        )
    zero = norms == 0.0
    if zero.all() and _learns(history):
        return NotAssessed(
            "vanishing_gradient",
            "Every gradient norm is logged as 0 while the loss falls: this logger does not know it "
            "(as with sharded optimizers).",
            "the gradient norm",
        )
    if float(np.mean(zero)) >= SHARE:
        return [_zeros(history, int(steps[np.argmax(zero)]), int(zero.sum()), len(norms))]
    fifths = np.array_split(norms, 5)
    first, last = max(map(curves.middle, fifths[:2])), curves.middle(fifths[-1])
    at, losses = curves.finite(history.train_loss)
    if first <= 0 or last > SHRUNK * first or len(losses) < FEWEST:
        return []
    if not curves.loss_is_likelihood(history):
        return []
    since = int(steps[np.flatnonzero(norms <= SHRUNK * first)[0]])
    before, after = losses[at <= since][-5:], losses[at > since]
    if len(before) == 0 or len(after) == 0:
        return []
    fell = -curves.change(
        curves.middle(curves.scaled(before)), curves.middle(curves.scaled(after[-10:]))
    )
    if curves.middle(after) < LOWEST_CHANCE or fell > FALL:
        return []
    return [
        Finding(
            kind="vanishing_gradient",
            severity="warning",
            certainty="likely",
            since_step=since,
            evidence=(
                f"For: the gradient norm shrank from {first:.3g} to {last:.3g}.",
                f"For: the loss stays near {curves.middle(after[-10:]):.4g}; it fell by {fell:.1%} "
                "since then.",
            ),
            causes=(
                Cause("O12", 0.6, "saturated or dead layers pass no gradient on"),
                Cause("O04", 0.2, "the loss does not depend on the weights that train"),
            ),
            change=_look(),
        )
    ]


def _learns(history: History) -> bool:
    """Whether the training loss fell, beyond its noise, from its first levels to its last."""
    levels = curves.levels(history.train_loss)
    if levels is None or len(levels.level) < 4 or not curves.loss_is_likelihood(history):
        return False
    fell = curves.middle(levels.level[:2]) - curves.middle(levels.level[-3:])
    return fell > max(FALL, 5 * levels.noise) and bool(np.any(history.train_loss.finite[1][-5:]))


def _zeros(history: History, since: int, count: int, total: int) -> Finding:
    rewarded = not curves.loss_is_likelihood(history)
    causes: tuple[Cause, ...] = (
        Cause("D08", 0.5, "batches without a supervised token"),
        Cause("O12", 0.3, "dead layers pass no gradient on"),
        Cause("P06", 0.2, "half precision rounds small gradients to 0"),
    )
    if rewarded:
        causes = (Cause("D08", 0.7, "groups with equal rewards have no advantage, so no gradient"),)
    return Finding(
        kind="vanishing_gradient",
        severity="critical" if count == total else "warning",
        certainty="certain",
        since_step=since,
        evidence=(
            f"For: the gradient norm is exactly 0 at {count} of {total} points, first at step "
            f"{since:,}.",
        ),
        causes=causes,
        change=Change(
            "Look at the rewards of one group: where all are equal nothing can be learned; make "
            "the task easier or the reward finer."
        )
        if rewarded
        else _look(),
    )


def _look() -> Change:
    return Change(
        "Take one batch and look which tensors get a gradient and which labels differ from −100."
    )
