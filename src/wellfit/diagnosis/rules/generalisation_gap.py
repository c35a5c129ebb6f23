"""generalisation_gap: training goes on to improve what unseen text no longer gains (O29)."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.diagnosis.changes import stop_at
from wellfit.monitor.history import History, Series
from wellfit.records import Cause, Finding

GROWN = 0.5
"""FAULTS O29: nats that the gap grew since the first evaluations."""
SHARE = 0.25
"""And a quarter of the validation loss: 0.5 of 5 nats is no large gap."""
SMALL_SHARE = 0.1
"""From here on the gap is worth a word."""
AT_REST = 0.01
"""The validation loss gained less than 1 % while the gap grew by its last half."""
FEWEST = 4
COMPARABLE = 1.5
"""Ratio of the two losses at the first evaluation above which they are not the same quantity."""


def generalisation_gap(history: History) -> list[Finding] | NotAssessed:
    """A history → a finding where the distance of validation and training loss grows.

    The training losses near each evaluation are compared with it. Where both are one quantity at
    the beginning, the gap grew by 0.5 nats and a quarter of the validation loss, and the second
    half of that growth brought the validation loss nothing, that is a warning; a gap that grew by
    a tenth is information. Logged training losses are taken with dropout and before the step, so
    small gaps mean little. Causes: O29, D22, D16.
    """
    if not curves.loss_is_likelihood(history):
        return NotAssessed(
            "generalisation_gap", "This loss is no likelihood.", "the reward of the policy"
        )
    main = history.validation_loss.get("validation", Series())
    steps, losses = curves.finite(main)
    at, train = curves.finite(history.train_loss)
    if len(losses) < FEWEST or len(train) < FEWEST:
        return NotAssessed(
            "generalisation_gap",
            f"Of {len(losses)} validation and {len(train)} training losses no course is seen.",
            f"at least {FEWEST} evaluations, best of all also on a fixed part of the training data",
        )
    near = curves.near(steps, at, train)
    scales = curves.scaled(np.array([losses[0], near[0]]))
    if abs(float(scales[0] - scales[1])) > float(np.log(COMPARABLE)):
        return NotAssessed(
            "generalisation_gap",
            "Training and validation loss do not begin on the same scale.",
            "the loss of a fixed part of the training data, in evaluation mode",
        )
    gap = losses - near
    end, low = curves.middle(gap[-3:]), curves.middle(losses[-3:])
    grown = end - max(0.0, float(np.min(gap[: max(1, len(gap) // 3)])))
    if grown < SMALL_SHARE * low or end <= 0:
        return []
    half = int(np.flatnonzero(gap <= gap[-1] - grown / 2)[-1])
    gained = -curves.change(
        curves.middle(curves.scaled(losses[max(0, half - 1) : half + 2])),
        curves.middle(curves.scaled(losses[-3:])),
    )
    fell = float(near[half] - curves.middle(near[-3:]))
    wide = grown >= max(GROWN, SHARE * low) and gained < AT_REST and fell > 0
    since = int(steps[min(half + 1, len(steps) - 1)])
    evidence = [
        f"For: validation and training loss lie {end:.3g} nats apart at the end; the gap grew "
        f"by {grown:.3g}.",
        f"{'For' if gained < AT_REST else 'Against'}: since step {int(steps[half]):,} the "
        f"validation loss {'fell' if gained >= 0 else 'rose'} by {abs(gained):.1%}, the training "
        f"loss fell by {fell:.3g} nats.",
        "Against: the training loss was logged while training, not measured in evaluation mode.",
    ]
    return [
        Finding(
            kind="generalisation_gap",
            severity="warning" if wide else "info",
            certainty="likely" if wide and grown >= 2 * GROWN else "possible",
            since_step=since,
            evidence=tuple(evidence),
            causes=(
                Cause("O29", 0.6, "the model is large for this data, or sees it too often"),
                Cause("D22", 0.25, "passes over the same texts"),
                Cause("D16", 0.15, "the validation text is of another kind"),
            ),
            change=stop_at(
                int(steps[half]),
                "what came after served the training texts alone. More text or dropout would "
                "close the gap.",
            )
            if wide
            else None,
        )
    ]
