"""overfitting: the validation loss rises while the training loss falls (O22)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.diagnosis.changes import stop_at
from wellfit.diagnosis.curves import Array
from wellfit.monitor.history import History, Series
from wellfit.records import Cause, Finding

SMALLEST_RISE = 0.01
"""A rise under 1 % of the loss is not worth stopping for."""
FAST_RISE = float(np.log(1.05))
"""FAULTS O22: from 5 % on, two evaluations are enough; else three."""
SEVERE = 1.5
"""A last loss of 1.5 times the lowest is severe."""
USUAL_NOISE = 0.005
"""What is believed about the noise before a curve tells: half a per cent of the loss."""
BELIEF = 2.0
"""How many residuals that belief weighs."""
EVIDENCE = 16.0
"""Error that a rising tail explains, in noise variances: 16 is four standard deviations."""
CHOICE = 0.8
"""More evidence for each evaluation, for the lowest point is chosen among them. Without any rise
(1,500 falling curves a length, noise 0.1 to 6 %, a third of it heavy-tailed) the evidence stays
below 16 + 0.8 n in 99.5 % for n from 3 to 24; `tests/diagnosis` repeats a part of that."""
MOST = 24
"""Evaluations looked at; more are averaged in neighbours."""


@dataclass(frozen=True, slots=True)
class Rise:
    """A validation loss past its lowest point, in `scaled` units."""

    low: int
    """Index of the lowest point."""
    low_level: float
    last: float
    rise: float
    noise: float
    evidence: float
    needed: float

    @property
    def sure(self) -> bool:
        return self.evidence >= self.needed and self.rise >= SMALLEST_RISE


def overfitting(history: History) -> list[Finding] | NotAssessed:
    """A history → a finding where the main validation loss rises beyond its noise after a minimum.

    Two fits compete: one that only falls, and one that falls to a lowest point and rises. The
    error that the second saves, over the noise variance, is the evidence (a likelihood ratio).
    Beside it: the last three evaluations stand above the lowest level, or the last two where the
    rise passes 5 %; the rise is at least 1 %; the training loss falls meanwhile. The noise is
    taken from the residuals of a smooth course, and from the standard errors of the evaluations
    where they are smaller or the curve is short (the same documents are scored each time, so
    those bound the noise from above). Causes: O22, D22, D04.
    """
    main = history.validation_loss.get("validation", Series())
    steps, losses = curves.finite(main)
    if len(losses) < 3:
        return NotAssessed(
            "overfitting",
            f"{len(losses)} evaluation{'s do' if len(losses) > 1 else ' does'} not show whether "
            "the validation loss turns."
            if len(losses)
            else "The log holds no validation loss.",
            "at least three evaluations on held-out data",
        )
    if len(history.train_loss) < 3:
        return NotAssessed(
            "overfitting",
            "Without training losses a rise of the validation loss has other readings.",
            "training losses",
        )
    steps, losses = _grouped(steps, losses)
    rise = find_rise(curves.scaled(losses), _standard_error(history, losses))
    if not rise.sure:
        return []
    low_step, last_step = int(steps[rise.low]), int(steps[-1])
    if curves.restarted(history, low_step, last_step):
        return []
    fall = _training_fall(history.train_loss, low_step)
    if fall is None:
        return []
    low, last = curves.unscaled(rise.low_level), curves.unscaled(rise.last)
    low, last = max(low, 1e-12), max(last, 0.0)
    certain = rise.evidence >= 3 * rise.needed
    evidence = [
        f"For: the validation loss was lowest, {low:.4g}, at step {low_step:,} and is "
        f"{last:.4g} ({last / low - 1:+.1%}) at step {last_step:,}.",
        f"For: {len(steps) - 1 - rise.low} evaluations follow the lowest one; a curve that only "
        f"falls misses them by {np.sqrt(rise.evidence):.1f} standard deviations.",
        f"For: {fall}.",
    ]
    if rise.rise < 0.03:
        evidence.append("Against: the rise is small.")
    return [
        Finding(
            kind="overfitting",
            severity="critical" if last >= SEVERE * low else "warning",
            certainty="likely" if certain else "possible",
            since_step=low_step,
            evidence=tuple(evidence),
            causes=_causes(history, low_step),
            change=stop_at(
                low_step,
                "from there on the model learned the training data by heart. More data, fewer "
                "epochs or dropout would move that point.",
            ),
        )
    ]


def find_rise(values: Array, standard_error: float | None = None) -> Rise:
    """Validation losses (`scaled`, oldest first) → their rise after the lowest point.

    `standard_error` bounds the noise of one evaluation from above, where it is known.
    """
    fit, low = curves.valley(values)
    noise = _noise(values, low, standard_error)
    down = curves.falling(values)
    saved = float(np.sum((values - down) ** 2) - np.sum((values - fit) ** 2))
    after = values[low + 1 :]
    rise = float(fit[-1] - fit[low])
    enough = len(after) >= 3 and bool(np.all(after[-3:] > fit[low] + noise))
    fast = len(after) >= 2 and bool(np.all(after[-2:] > fit[low] + noise)) and rise > FAST_RISE
    return Rise(
        low=low,
        low_level=float(fit[low]),
        last=float(fit[-1]),
        rise=rise,
        noise=noise,
        evidence=max(0.0, saved) / noise**2 if enough or fast else 0.0,
        needed=EVIDENCE + CHOICE * len(values),
    )


def _noise(values: Array, low: int, standard_error: float | None) -> float:
    """Values and their lowest point → standard deviation of one of them.

    Only residuals from shortly before the lowest point on count, where four of them are to be
    had: the steep beginning bends, and its bend is no noise.
    """
    residual = (values[1:-1] - 0.5 * (values[:-2] + values[2:])) / np.sqrt(1.5)
    begin = min(max(0, low - 2), max(0, len(residual) - 4))
    residual = residual[begin:]
    usual = BELIEF * USUAL_NOISE**2
    if len(residual) < 6:
        # Neighbouring residuals share values: three tell about as much as two fresh ones.
        weight = len(residual) / 1.5
        seen = float(np.sum(residual**2)) / 1.5
    else:
        spread = curves.MAD_TO_SD * float(np.median(np.abs(residual)))
        weight, seen = len(residual) / 1.5, len(residual) / 1.5 * spread**2
    noise = float(np.sqrt((usual + seen) / (BELIEF + weight)))
    return noise if standard_error is None else max(1e-4, min(noise, standard_error))


def _standard_error(history: History, losses: Array) -> float | None:
    _, errors = curves.finite(history.validation_se)
    if len(errors) == 0:
        return None
    return float(np.median(errors)) / (curves.middle(losses) + curves.FLOOR)


def _grouped(steps: Array, losses: Array) -> tuple[Array, Array]:
    if len(losses) <= MOST:
        return steps, losses
    cuts = np.linspace(0, len(losses), MOST + 1).astype(int)
    spans = list(pairwise(cuts))
    return (
        np.array([steps[b - 1] for _, b in spans]),
        np.array([np.sum(losses[a:b] / (b - a)) for a, b in spans]),
    )


def _training_fall(train: Series, low_step: int) -> str | None:
    """The training loss since the lowest evaluation, in words; None where it does not fall."""
    steps, losses = curves.finite(train)
    before, after = losses[steps <= low_step][-10:], losses[steps > low_step]
    if len(before) == 0:
        before = losses[:1]
    after = after[-max(1, min(10, len(after) // 2)) :]
    if len(after) == 0:
        return None
    old, new = curves.middle(before), curves.middle(after)
    change = curves.scaled(np.array([new, old]))
    spread = curves.noise(curves.scaled(losses)) * np.sqrt(1 / len(before) + 1 / len(after))
    if change[1] - change[0] <= max(0.005, float(spread)):
        return None
    return f"meanwhile the training loss fell from {old:.4g} to {new:.4g}"


def _causes(history: History, low_step: int) -> tuple[Cause, ...]:
    steps, epochs = curves.finite(history.epoch)
    at_low = float(np.interp(low_step, steps, epochs)) if len(steps) else None
    last = float(epochs[-1]) if len(steps) else None
    causes = [Cause("O22", 0.6, "more updates than this data carries")]
    if last is not None and at_low is not None and last > 1.5:
        why = f"lowest after {at_low:.1f} passes over the data, trained for {last:.1f}"
        causes.append(Cause("D22", 0.5 if last > 4 else 0.35, why))
    causes.append(Cause("D04", 0.15, "repeated documents make the data smaller than it looks"))
    return tuple(causes)
