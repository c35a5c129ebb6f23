"""resume_lost_state: where a run was resumed its loss or rate jumps (O17, D20)."""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.monitor.history import History
from wellfit.records import Cause, Change, Finding

AROUND = 5
"""Losses compared on either side of a seam."""
STEP = 0.1
ERRORS = 5.0
RATE = 2.0
"""A rate that doubles or halves across a seam was not carried on."""


def resume_lost_state(history: History) -> list[Finding] | NotAssessed:
    """A history → a finding where the loss stands ≥ 10 % higher after a resume than before it.

    And by five standard errors. A rate that doubles or halves there names the schedule as the
    part that was lost. A loss that stands lower is information: texts may be repeated. Causes:
    O17, D20.
    """
    seams = sorted({*history.jumps, *(e.step for e in history.events if e.kind == "resumed")})
    steps, losses = curves.finite(history.train_loss)
    if not seams:
        return []
    logs = curves.scaled(losses)
    noise = max(curves.noise(logs), 1e-3)
    findings: list[Finding] = []
    for seam in seams:
        before, after = logs[steps < seam][-AROUND:], logs[steps >= seam][:AROUND]
        if min(len(before), len(after)) < 2:
            continue
        rise = curves.middle(after) - curves.middle(before)
        error = 1.2533 * noise * np.sqrt(1 / len(before) + 1 / len(after))
        if abs(rise) < max(float(np.log1p(STEP)), ERRORS * float(error)):
            continue
        findings.append(_finding(history, seam, curves.middle(before), curves.middle(after)))
    return findings[:1]


def _finding(history: History, seam: int, before: float, after: float) -> Finding:
    rate = _rate_change(history, seam)
    evidence = [
        f"For: the run was resumed at step {seam:,}; the loss before it was "
        f"{curves.unscaled(before):.4g}, after it {curves.unscaled(after):.4g}."
    ]
    if rate is not None:
        side = "For" if not 1 / RATE < rate < RATE else "Against"
        evidence.append(f"{side}: the learning rate after it is {rate:.3g} times that before.")
    lower = after < before
    lost = rate is not None and not 1 / RATE < rate < RATE
    return Finding(
        kind="resume_lost_state",
        severity="info" if lower else "warning",
        certainty="likely" if lost and not lower else "possible",
        since_step=seam,
        evidence=tuple(evidence),
        causes=(Cause("D20", 0.6, "the loader began anew: texts already seen come again"),)
        if lower
        else (
            Cause("O17", 0.7, "optimizer state or schedule was not loaded"),
            Cause("D15", 0.2, "the data changed with the resume"),
        ),
        change=Change(
            "Resume with the position of the data as well; else the first texts count double."
            if lower
            else "Resume with the optimizer's state, the scheduler's and the step, not the weights "
            "alone."
        ),
    )


def _rate_change(history: History, seam: int) -> float | None:
    steps, rates = curves.finite(history.learning_rate)
    before, after = rates[steps < seam][-1:], rates[steps >= seam][:1]
    if len(before) == 0 or len(after) == 0 or before[0] <= 0:
        return None
    return float(after[0] / before[0])
