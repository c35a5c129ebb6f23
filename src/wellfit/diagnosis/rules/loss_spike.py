"""loss_spike: the training loss jumps up and comes back (D07, O05, O14)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.diagnosis.changes import scale_rate
from wellfit.diagnosis.curves import Array
from wellfit.diagnosis.rules.divergence import NOISE, RISE
from wellfit.monitor.history import History
from wellfit.records import Cause, Change, Finding

WINDOW = 128
"""Losses whose scatter a jump is measured against (FAULTS: robust z over the last 128)."""
Z = 8.0
"""Robust z of a jump. The noise of small batches is skewed and heavy-tailed: in 2,000 draws of
Gumbel noise 6 is passed 1.5 times, 8 once in seven runs."""
SIZE = float(np.log(1.1))
"""Jumps under 10 % of the loss are not worth a word."""
ONE_SIDED = 1.5
"""Noise also falls; a jump must be that many times the deepest fall below the course."""
REPEATED = 3
"""That many separate jumps are a habit: one bad batch is met once."""
CALM = 1.5
"""Growth of the gradient norm below which an excursion is a change of data (FAULTS D15)."""
FEWEST = 30
"""Points below which scatter and jump cannot be told apart."""


@dataclass(frozen=True, slots=True)
class Jump:
    """One stretch of losses far above the course of the curve."""

    first_step: int
    last_step: int
    size: float
    """Highest `scaled` loss above the course."""
    share: float
    """The same as a share of the loss."""
    z: float


def loss_spike(history: History) -> list[Finding] | NotAssessed:
    """A history → a finding where the training loss left its course upwards and came back.

    Two kinds. *Jumps*: points with robust z > 8 above the running median, more than 10 %, and
    1.5 times the deepest fall below it. One or two that recover are information; three or more
    are a warning. *Excursions*: the level of two twentieths of the run or more rises ≥ 20 % and ≥ 5
    standard deviations above an earlier level and then falls back by half: a warning, for that
    time is lost; information where the gradient norm hardly moved, for then the data
    changed. Excursions after a planned rise of the rate are left alone. Causes: D07, O05, O14,
    O01, D05, D15.
    """
    if not curves.loss_is_likelihood(history):
        return NotAssessed(
            "loss_spike", "This loss is no likelihood.", "the reward of reinforcement learning"
        )
    steps, losses = curves.finite(history.train_loss)
    if len(losses) < FEWEST:
        return NotAssessed(
            "loss_spike",
            f"{len(losses)} training losses do not show their usual scatter.",
            f"at least {FEWEST} training losses",
        )
    found = _excursion(history)
    jumps = [
        jump
        for jump in _jumps(steps, curves.scaled(losses))
        if found is None or not (found.first_step <= jump.first_step <= found.last_step)
    ]
    findings = []
    if found is not None:
        findings.append(_excursion_finding(history, found))
    if jumps:
        findings.append(_jump_finding(history, jumps, steps))
    return findings


def _jumps(steps: Array, logs: Array) -> list[Jump]:
    half = int(np.clip(len(logs) // 16, 3, 12))
    above = logs - curves.running_median(logs, half)
    scatter = np.maximum(curves.MAD_TO_SD * _scatter(np.abs(above)), 1e-3)
    deepest = float(np.max(-above))
    limit = max(SIZE, ONE_SIDED * deepest)
    # The first points fall steeply, so the running median lies below them without any fault.
    hot = np.flatnonzero((above > Z * scatter) & (above > limit) & (np.arange(len(logs)) > half))
    jumps: list[Jump] = []
    for group in np.split(hot, np.flatnonzero(np.diff(hot) > 2 * half) + 1):
        if len(group) and group[-1] < len(logs) - 1:
            top = int(group[np.argmax(above[group])])
            z = float(above[top] / scatter[top])
            size = float(above[top])
            share = curves.change(float(logs[top]) - size, float(logs[top]))
            jumps.append(Jump(int(steps[group[0]]), int(steps[group[-1]]), size, share, z))
    return jumps


def _scatter(distance: Array) -> Array:
    """Distances from the course → their median, over a window in long curves, over all in short."""
    if len(distance) <= 2 * WINDOW:
        return np.full(len(distance), curves.middle(distance))
    return curves.running_median(distance, WINDOW // 2)


def _excursion(history: History) -> Jump | None:
    levels = curves.levels(history.train_loss)
    assert levels is not None
    level = levels.level
    lowest = np.minimum.accumulate(level)
    height = level - np.append(level[0], lowest[:-1])
    top = int(np.argmax(height))
    needed = max(RISE, NOISE * levels.noise)
    before, after = int(np.argmin(level[: top + 1])), level[top:]
    if height[top] < needed or float(np.min(after)) > level[top] - 0.5 * height[top]:
        return None
    # At least two parts of the run stand high: a tenth where it has twenty.
    high = np.flatnonzero(level[before:] - level[before] > 0.5 * height[top]) + before
    if len(high) < 2 or curves.restarted(history, levels.first_step[before], levels.last_step[top]):
        return None
    return Jump(
        int(levels.first_step[high[0]]),
        int(levels.last_step[high[-1]]),
        float(height[top]),
        curves.change(float(level[before]), float(level[top])),
        float(height[top] / max(levels.noise, 1e-3)),
    )


def _excursion_finding(history: History, jump: Jump) -> Finding:
    calm = _gradient_growth(history, jump)
    if calm is not None and calm < CALM:
        return Finding(
            kind="loss_spike",
            severity="info",
            certainty="possible",
            since_step=jump.first_step,
            evidence=(
                f"For: from step {jump.first_step:,} on the loss stood up to "
                f"{jump.share:.0%} above a level it had already reached.",
                f"Against: the gradient norm there is {calm:.2g} times what it was before, so "
                "the data changed rather than the model.",
            ),
            causes=(Cause("D15", 0.7, "another mixture of data from that step on"),),
        )
    return Finding(
        kind="loss_spike",
        severity="warning",
        certainty="likely",
        since_step=jump.first_step,
        evidence=(
            f"For: between steps {jump.first_step:,} and {jump.last_step:,} the loss stood up to "
            f"{jump.share:.0%} above a level it had already reached.",
            "Against a lasting fault: it came back.",
        ),
        causes=(
            Cause("O01", 0.5, "at this rate the weights leave the valley and return"),
            Cause("D05", 0.25, "a stretch of damaged or foreign data"),
            Cause("O14", 0.2, "the second moment of Adam is too old (β2 too high)"),
        ),
        change=scale_rate(history, 1 / 2, "the loss left its course for a long stretch."),
    )


def _gradient_growth(history: History, jump: Jump) -> float | None:
    """Median gradient norm inside an excursion over the median of as many steps before it."""
    steps, norms = curves.finite(history.grad_norm)
    inside = norms[(steps >= jump.first_step) & (steps <= jump.last_step)]
    before = norms[steps < jump.first_step][-max(5, len(inside)) :]
    if len(inside) < 3 or len(before) < 3 or curves.middle(before) <= 0:
        return None
    return curves.times(curves.middle(inside), curves.middle(before))


def _jump_finding(history: History, jumps: list[Jump], steps: Array) -> Finding:
    worst = max(jumps, key=lambda jump: jump.size)
    early = worst.first_step <= 0.05 * float(steps[-1])
    gradients = _gradient_z(history, worst)
    evidence = [
        f"For: {len(jumps)} jump{'s' if len(jumps) > 1 else ''}, the highest at step "
        f"{worst.first_step:,}: {worst.share:.0%} above the course, z = {worst.z:.0f}.",
        "Against a lasting fault: the loss came back each time.",
    ]
    if gradients is not None:
        side = "For" if gradients > 6 else "Against"
        evidence.append(f"{side}: the gradient norm there has z = {gradients:.0f}.")
    causes = [
        Cause("D07", 0.5, "single batches unlike the rest"),
        Cause("O05" if early else "O14", 0.3, "too little warm-up" if early else "β2 too high"),
        Cause("O01", 0.2, "a rate at the edge of stability"),
    ]
    repeated = len(jumps) >= REPEATED
    return Finding(
        kind="loss_spike",
        severity="warning" if repeated else "info",
        certainty="likely" if gradients is not None and gradients > 6 else "possible",
        since_step=jumps[0].first_step,
        evidence=tuple(evidence),
        causes=tuple(causes),
        change=Change(
            "Look at the batches of these steps; if they look ordinary, clip gradients nearer to "
            "their usual norm.",
            _clip_patch(history),
        )
        if repeated
        else None,
    )


def _gradient_z(history: History, jump: Jump) -> float | None:
    steps, norms = curves.finite(history.grad_norm)
    at = (steps >= jump.first_step) & (steps <= jump.last_step)
    near = np.abs(np.searchsorted(steps, jump.first_step) - np.arange(len(steps))) <= WINDOW // 2
    usual = np.log(np.maximum(norms[near & ~at], 1e-12))
    if len(usual) < 10 or not np.any(at):
        return None
    spread = max(float(np.median(np.abs(usual - np.median(usual)))), 1e-3)
    return float(0.6745 * (np.log(max(float(norms[at].max()), 1e-12)) - np.median(usual)) / spread)


def _clip_patch(history: History) -> dict[str, float]:
    _, norms = curves.finite(history.grad_norm)
    if len(norms) < 10:
        return {}
    return {"train.clip_norm": float(f"{np.quantile(norms, 0.9):.2g}")}
