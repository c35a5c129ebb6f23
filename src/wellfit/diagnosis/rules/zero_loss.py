"""zero_loss: the loss is exactly 0, so nothing is learned (D08)."""

from __future__ import annotations

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.monitor.history import History
from wellfit.records import Cause, Change, Finding

IN_A_ROW = 5
"""FAULTS' persistence: rounding shows a loss below 5e-5 as 0.0000 now and then, a loss over no
tokens at all shows it always."""


def zero_loss(history: History) -> list[Finding] | NotAssessed:
    """A history → a finding where the training loss ends in five or more exact zeros.

    A mean over supervised tokens reaches exactly 0 only when there are none (D08), or when the
    logger rounds. Zero gradients beside it, or zeros from the first point on, make it certain.
    """
    if not curves.loss_is_likelihood(history):
        return NotAssessed(
            "zero_loss",
            "This loss hovers around 0 by construction.",
            "the reward of reinforcement learning",
        )
    steps, losses = curves.finite(history.train_loss)
    zeros = 0
    while zeros < len(losses) and losses[-1 - zeros] == 0.0:
        zeros += 1
    if zeros < IN_A_ROW:
        return []
    since = int(steps[-zeros])
    norm_steps, norms = curves.finite(history.grad_norm)
    after = norms[norm_steps >= since]
    silent = len(after) > 0 and bool((after == 0.0).all())
    sudden = zeros == len(losses) or losses[-1 - zeros] > 0.005
    evidence = [f"For: the loss is exactly 0 at the last {zeros} of {len(losses)} points."]
    if silent:
        evidence.append("For: the gradient norm is exactly 0 there too.")
    elif len(after):
        evidence.append("Against: the gradient norm is not 0.")
    if sudden:
        evidence.append("For: it did not fall there step by step.")
    else:
        evidence.append("Against: it fell there step by step; rounding may show it as 0.")
    certain = silent or zeros == len(losses)
    return [
        Finding(
            kind="zero_loss",
            severity="critical" if certain or sudden else "warning",
            certainty="certain" if certain else "likely" if sudden else "possible",
            since_step=since,
            evidence=tuple(evidence),
            causes=(
                Cause("D08", 0.8 if sudden else 0.4, "no token of the batches has a label"),
                Cause("P05", 0.2, "the logger writes 0 where the loss was NaN"),
                Cause("D22", 0.1 if sudden else 0.4, "a tiny data set is learned by heart"),
            ),
            change=Change(
                "Print one batch with its labels: at least one label must differ from −100."
            ),
        )
    ]
