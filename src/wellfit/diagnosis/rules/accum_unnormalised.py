"""accum_unnormalised: the training loss is a multiple of what it should be (O09)."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.monitor.history import History, Series
from wellfit.records import Cause, Change, Finding

TIMES = 1.8
"""Dropout and the lag of a mean over the logging interval stay below that."""
STEADY = 0.15
"""Scatter of the ratio: a multiple is the same at every evaluation."""
FEWEST = 3


def accum_unnormalised(history: History) -> list[Finding] | NotAssessed:
    """A history → information where the training loss is a constant multiple of the validation
    loss, as one that is summed over micro-batches.

    Over the second half of the evaluations the ratio is ≥ 1.8 and scatters by ≤ 15 %. Then the
    two cannot be compared, and a clipped gradient is clipped too hard. Cause: O09.
    """
    steps, losses = curves.finite(history.validation_loss.get("validation", Series()))
    at, train = curves.finite(history.train_loss)
    if len(losses) < FEWEST or len(train) < FEWEST:
        return NotAssessed(
            "accum_unnormalised",
            "Too few losses of both kinds to compare their scales.",
            f"at least {FEWEST} validation losses beside training losses",
        )
    if not curves.loss_is_likelihood(history) or np.min(losses) <= 0:
        return []
    near = np.maximum(curves.near(steps, at, train), 1e-12)
    ratio = (np.log(near) - np.log(losses))[len(losses) // 2 :]
    times = float(np.exp(min(np.median(ratio), 700.0)))
    if times < TIMES or float(np.max(np.abs(ratio - np.median(ratio)))) > STEADY:
        return []
    told = history.context.accumulation
    fits = told is not None and abs(times / told - 1) <= 0.15
    evidence = [
        f"For: the training loss is {times:.3g} times the validation loss at each of the last "
        f"{len(ratio)} evaluations."
    ]
    if told is not None:
        evidence.append(f"{'For' if fits else 'Against'}: a step is made of {told} micro-batches.")
    return [
        Finding(
            kind="accum_unnormalised",
            severity="info",
            certainty="likely" if fits else "possible",
            since_step=int(at[0]),
            evidence=tuple(evidence),
            causes=(
                Cause("O09", 0.7, "losses of micro-batches are added up, not averaged"),
                Cause("D16", 0.2, "the validation text is much easier than the training text"),
            ),
            change=Change(
                "Divide by the number of supervised tokens of the whole step; until then compare "
                "neither the two losses nor the gradient norm with a usual limit."
            ),
        )
    ]
