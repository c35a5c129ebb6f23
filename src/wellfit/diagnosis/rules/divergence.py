"""divergence: the loss climbs away from what was already reached, and stays there (O01)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.diagnosis.changes import scale_rate
from wellfit.diagnosis.curves import Array, Levels
from wellfit.monitor.history import History, Series
from wellfit.records import Cause, Finding

RISE = float(np.log(1.2))
"""FAULTS O01: 20 % above the lowest level."""
NOISE = 5.0
"""Standard deviations of a level; the lowest of twenty normal levels lies two below its mean."""
GRADIENTS = 3.0
"""The gradient norm after the rise over before it: a change of data leaves it near 1."""
EXPLODED = 10.0
"""Growth of the gradient norm that names it as a cause."""


@dataclass(frozen=True, slots=True)
class Climb:
    """How far a curve ended above its lowest level, in `scaled` units."""

    low_step: int
    """Last step of the lowest level."""
    next_step: int
    """First step after it."""
    low: float
    end: float
    start: float
    noise: float

    @property
    def rise(self) -> float:
        return self.end - self.low

    @property
    def lost(self) -> float:
        """Share of the gain that is gone; 1 or more where nothing is left."""
        gain = self.start - self.low
        return self.rise / gain if gain > 0 else np.inf


def divergence(history: History) -> list[Finding] | NotAssessed:
    """A history → a finding where the loss ends far above a level it had already reached.

    Fires when the level at the end lies ≥ 20 % and ≥ 5 standard deviations above the lowest one
    and has for ≥ 5 % of the run, and one of these holds: half of what was gained is lost
    (critical); the gradient norm tripled with the rise; the loss still rises. A level that
    merely shifts and falls on is a change of data, not a divergence. Where the log is sparse the
    validation loss is a second witness: both must rise ≥ 20 % and lose half of their gain, and
    their evidence adds in quadrature. Rises after a planned rise of the rate are left alone.
    Causes: O01, O05, O08, O11, P02.
    """
    if not curves.loss_is_likelihood(history):
        return NotAssessed(
            "divergence", "This loss is no likelihood.", "the reward of reinforcement learning"
        )
    levels = curves.levels(history.train_loss)
    if levels is None or len(levels.level) < 4:
        return NotAssessed(
            "divergence", "Fewer than four training losses.", "at least four training losses"
        )
    climb = _climb(levels)
    last = float(levels.last_step[-1])
    if not curves.restarted(history, climb.low_step, last) and _far(climb):
        growth = _gradient_growth(history, climb.low_step)
        rising = levels.level[-1] >= levels.level[-2] - levels.noise and _rises(levels, climb)
        if climb.lost >= 0.5 or (growth is not None and growth >= GRADIENTS) or rising:
            return [_finding(history, climb, growth, "training")]
    witness = _validation(history, climb)
    if witness is not None:
        growth = _gradient_growth(history, witness.low_step)
        return [_finding(history, witness, growth, "validation")]
    return []


def _climb(levels: Levels) -> Climb:
    level = levels.level
    # The middle of the last three of twenty: a single high or low level at the end is no end.
    end = float(np.median(level[-3:]))
    low = int(np.argmin(level[:-1]))
    steps = int(levels.last_step[low]), int(levels.first_step[low + 1])
    return Climb(*steps, float(level[low]), end, float(level[0]), levels.noise)


def _far(climb: Climb) -> bool:
    return climb.rise >= max(RISE, NOISE * climb.noise)


def _rises(levels: Levels, climb: Climb) -> bool:
    """Whether most of the rise happened step by step and the end is its highest part."""
    after = levels.level[levels.last_step > climb.low_step]
    return len(after) >= 4 and float(np.max(after)) <= climb.end + 2 * levels.noise + 0.05


def _gradient_growth(history: History, low_step: int) -> float | None:
    """Median gradient norm after the lowest point over the median just before it."""
    steps, norms = curves.finite(history.grad_norm)
    before, after = norms[steps <= low_step][-20:], norms[steps > low_step]
    if len(before) < 3 or len(after) < 3 or curves.middle(before) <= 0:
        return None
    return curves.times(curves.middle(after), curves.middle(before))


def _validation(history: History, train: Climb) -> Climb | None:
    """The climb of the validation loss, where the training loss gives no other reading."""
    main = history.validation_loss.get("validation", Series())
    levels = curves.levels(main)
    if levels is None or len(levels.level) < 5:
        return None
    climb = _climb(levels)
    if min(climb.rise, climb.lost) < 0 or climb.lost < 0.5 or train.lost < 0.5:
        return None
    if curves.restarted(history, climb.low_step, float(levels.last_step[-1])):
        return None
    # Two curves that rise together are two witnesses: their evidence adds in quadrature.
    seen = [max(0.0, c.rise) / max(c.noise, 1e-3) for c in (climb, train)]
    together = float(np.hypot(seen[0], seen[1])) >= NOISE
    return climb if climb.rise >= RISE and train.rise >= RISE and together else None


def _finding(history: History, climb: Climb, growth: float | None, which: str) -> Finding:
    low, end = curves.unscaled(climb.low), curves.unscaled(climb.end)
    evidence = [
        f"For: the {which} loss reached {low:.4g} at step {climb.low_step:,} and ends near "
        f"{end:.4g} (from {curves.unscaled(climb.start):.4g} at the start).",
        f"For: the rise is {climb.rise / max(climb.noise, 1e-9):.0f} times the noise of its levels."
        if climb.noise > 1e-9
        else "For: the curve has no noise that could explain the rise.",
    ]
    if growth is not None:
        side = "For" if growth >= GRADIENTS else "Against"
        evidence.append(f"{side}: the gradient norm is {growth:.3g} times what it was before.")
    if climb.lost < 0.5:
        evidence.append("Against: less than half of what was learned is lost.")
    zero = curves.rate_is_zero(history)
    return Finding(
        kind="divergence",
        severity="critical" if climb.lost >= 0.5 else "warning",
        certainty="likely" if climb.lost >= 0.5 else "possible",
        since_step=climb.next_step,
        evidence=tuple(evidence),
        causes=_causes(history, climb, growth, zero=zero),
        change=None if zero else scale_rate(history, 1 / 3, "the loss climbs away."),
    )


def _causes(
    history: History, climb: Climb, growth: float | None, *, zero: bool
) -> tuple[Cause, ...]:
    if zero:
        return (Cause("D15", 0.6, "the rate is 0, so the data changed, not the model"),)
    found = [(0.6, Cause("O01", 0.6, "updates too large for this model"))]
    steps, norms = curves.finite(history.grad_norm)
    if _grows_throughout(steps, norms):
        found.append((0.7, Cause("O08", 0.7, "the gradient norm grows with every step")))
    rate_steps, rates = curves.finite(history.learning_rate)
    if len(rates) and rate_steps[0] <= 10 and rates[0] >= 0.9 * rates.max():
        found.append((0.4, Cause("O05", 0.4, "the rate starts at its peak, without warm-up")))
    if any(np.isinf(history.grad_norm.values)):
        found.append((0.35, Cause("P02", 0.35, "gradients overflow")))
    if growth is not None and growth >= EXPLODED:
        found.append((0.3, Cause("O11", 0.3, "gradients grew more than tenfold")))
    if growth is not None and growth < GRADIENTS:
        found.append((0.25, Cause("D15", 0.25, "the data changed: the gradients did not")))
    return tuple(cause for _, cause in sorted(found, key=lambda pair: -pair[0]))


def _grows_throughout(steps: Array, norms: Array) -> bool:
    """O08: log norm and log step correlate > 0.9 over the first 200 steps, and fivefold growth."""
    keep = (steps > 0) & (norms > 0) & (steps <= 200)
    x, y = np.log(steps[keep]), np.log(norms[keep])
    if len(x) < 20 or np.ptp(y) == 0:
        return False
    return float(np.corrcoef(x, y)[0, 1]) > 0.9 and float(y[-1] - y[min(9, len(y) - 1)]) > np.log(5)
