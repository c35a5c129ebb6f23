"""Seeds → histories with one known fault, at severity 0 (low), 1 (middle) or 2 (high)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from simulated_runs import (
    Array,
    Generator,
    cosine,
    draw,
    evaluations,
    falling,
    history,
    noisy,
    usual_norms,
)

from wellfit.monitor.history import Context, History


def _usual(rng: Generator) -> tuple[int, int, Array, Array]:
    """Steps, logging interval, a healthy curve, and the same with noise up to 5 %."""
    n, every, kind, size = draw(rng)
    curve = falling(rng, n, rng.uniform(3, 10), rng.uniform(0.8, 3))
    return n, every, curve, noisy(rng, curve, kind, min(size, 0.05))


def not_a_number(rng: Generator, severity: int) -> History:
    """Low: one NaN; middle: NaN for the last tenth; high: for the last half."""
    n, _, curve, train = _usual(rng)
    begin = int(n * (0.5, 0.9, 0.5)[severity])
    train[begin : begin + 1 if severity == 0 else n] = np.nan
    return history(rng, train, cosine(n, 1e-3), validation=evaluations(rng, curve))


def broken_gradients(rng: Generator, severity: int) -> History:
    """Losses look fine; 8, 20 or 60 % of the gradient norms are infinite."""
    n, _, curve, train = _usual(rng)
    norms = usual_norms(rng, n)
    norms[rng.random(n) < (0.08, 0.2, 0.6)[severity]] = np.inf
    return history(rng, train, cosine(n, 1e-3), validation=evaluations(rng, curve), norms=norms)


def diverging(rng: Generator, severity: int) -> History:
    """From somewhere in the run the loss climbs by 60, 120 or 300 % and stays."""
    n, every, curve, train = _usual(rng)
    t = np.arange(1, n + 1) / n
    at = rng.uniform(0.3, 0.8)
    climb = 1 - np.exp(-np.maximum(0, t - at) / 0.03)
    height = (0.6, 1.2, 3.0)[severity]
    norms = usual_norms(rng, n) * (1 + 20 * climb)
    scores = evaluations(rng, curve * (1 + height * climb), size=0.01)
    return history(
        rng,
        train * (1 + height * climb),
        cosine(n, 1e-2),
        validation=scores,
        every=every,
        norms=norms,
    )


def sparse_divergence(rng: Generator, severity: int) -> History:
    """The same in a log of five training losses and twenty evaluations."""
    rise = (0.5, 0.9, 1.8)[severity]
    t = np.linspace(0.2, 1, 5)
    train = 1.2 * (1 + rise * np.minimum(1, t / 0.4))
    scores = 2.5 * (1 + rise * np.minimum(1, np.linspace(0.05, 1, 5) / 0.4))
    return history(
        rng,
        noisy(rng, train / (1 + rise * 0.5 * (t < 0.3)), "normal", 0.03),
        cosine(5, 3e-3),
        validation=noisy(rng, scores, "normal", 0.05),
    )


def excursion(rng: Generator, severity: int) -> History:
    """The loss stands 50, 100 or 200 % higher for a seventh of the run and comes back."""
    n, every, curve, train = _usual(rng)
    t = np.arange(1, n + 1) / n
    middle = rng.uniform(0.45, 0.7)
    bump = np.exp(-(((t - middle) / 0.08) ** 2))
    height = (0.5, 1.0, 2.0)[severity]
    return history(
        rng,
        train * (1 + height * bump),
        cosine(n, 1e-3),
        validation=evaluations(rng, curve),
        every=every,
    )


def bad_batches(rng: Generator, severity: int) -> History:
    """Single steps with 1.6, 2 or 3 times the loss, six of them."""
    n = int(rng.choice([300, 800, 2000]))
    curve = falling(rng, n, 8.0, 3.0)
    train = noisy(rng, curve, str(rng.choice(["normal", "heavy"])), rng.uniform(0.01, 0.025))
    at = rng.choice(np.arange(n // 5, n - 5), 6, replace=False)
    train[at] *= (1.6, 2.0, 3.0)[severity]
    norms = usual_norms(rng, n)
    norms[at] *= 30
    return history(rng, train, cosine(n, 1e-3), validation=evaluations(rng, curve), norms=norms)


def memorising(rng: Generator, severity: int) -> History:
    """The validation loss turns and ends 8, 25 or 80 % above its lowest; training goes on."""
    n, every, kind, size = draw(rng)
    t = np.arange(1, n + 1) / n
    turn = rng.uniform(0.2, 0.55)
    train = falling(rng, n, 3.5, 1.8) * np.exp(-(1.5, 2.0, 4.0)[severity] * t)
    k = int(rng.choice([6, 10, 20]))
    at = np.linspace(1 / k, 1, k)
    valley = 2.0 * (1 + 0.6 * np.maximum(0, (turn - at) / turn) ** 2)
    rise = 1 + (0.08, 0.25, 0.8)[severity] * np.clip((at - turn) / (1 - turn), 0, None)
    return history(
        rng,
        noisy(rng, train, kind, size),
        cosine(n, 1e-4),
        validation=noisy(rng, valley * rise, "normal", 10 ** rng.uniform(-3, -2.2)),
        every=every,
        epochs=8.0,
    )


def uniform_guesses(rng: Generator, severity: int) -> History:
    """Nothing learned: the loss stays at 1.0, 0.85 or 0.8 of ln(vocabulary)."""
    n, every, kind, size = draw(rng)
    vocabulary = int(rng.choice([256, 4096, 50257]))
    share = (1.0, 0.85, 0.8)[2 - severity]
    top = float(np.log(vocabulary))
    t = np.arange(1, n + 1) / n
    curve = top * (share + (1 - share) * np.exp(-t / 0.03))
    return history(
        rng,
        noisy(rng, curve, kind, min(size, 0.03)),
        cosine(n, 1e-3),
        validation=evaluations(rng, curve, gap=1.0),
        every=every,
        context=Context(vocabulary_size=vocabulary, planned_steps=n, from_scratch=True),
    )


def chance_level(rng: Generator, severity: int) -> History:
    """A classifier that guesses among two, three or four classes."""
    n, every, kind, size = draw(rng)
    curve = np.full(n, float(np.log(severity + 2)) * rng.uniform(0.985, 1.005))
    return history(
        rng,
        noisy(rng, curve, kind, min(size, 0.03)),
        cosine(n, 5e-5),
        validation=evaluations(rng, curve, gap=1.0),
        every=every,
    )


def rate_zero(rng: Generator, severity: int) -> History:
    """The rate is zero; the loss is flat, and the noise grows with severity."""
    n, every, kind, _ = draw(rng)
    curve = np.full(n, rng.uniform(0.4, 9.0))
    return history(
        rng, noisy(rng, curve, kind, (0.005, 0.02, 0.1)[severity]), np.zeros(n), every=every
    )


def schedule_too_short(rng: Generator, severity: int) -> History:
    """The rate reaches zero with 20, 50 or 80 % of the run left."""
    n, every, curve, train = _usual(rng)
    used = int(n * (0.8, 0.5, 0.2)[severity])
    rate = np.concatenate([cosine(used, 1e-3, floor=0.0), np.zeros(n - used)])
    return history(rng, train, rate, validation=evaluations(rng, curve), every=every)


def rate_tiny(rng: Generator, severity: int) -> History:
    """From scratch at a thousandth of the right rate and less: a slow, steady fall."""
    n, every, kind, size = draw(rng)
    top = float(np.log(4096))
    rate = cosine(n, (5e-5, 2e-5, 1e-5)[severity])
    spent = np.cumsum(rate) / rate.sum()
    curve = top * (1 - (0.28, 0.2, 0.15)[severity] * spent)
    return history(
        rng,
        noisy(rng, curve, kind, min(size, 0.02)),
        rate,
        validation=evaluations(rng, curve),
        every=every,
        context=Context(vocabulary_size=4096, planned_steps=n, from_scratch=True),
    )


def no_labels(rng: Generator, severity: int) -> History:
    """The loss is exactly 0: for the last third, the last two thirds, or always."""
    n, every, _, train = _usual(rng)
    train[int(n * (0.66, 0.33, 0.0)[severity]) :] = 0.0
    return history(rng, train, cosine(n, 1e-4), every=every)


FAULTS: dict[str, tuple[str, Callable[[Generator, int], History]]] = {
    "not_a_number": ("non_finite", not_a_number),
    "broken_gradients": ("non_finite", broken_gradients),
    "diverging": ("divergence", diverging),
    "sparse_divergence": ("divergence", sparse_divergence),
    "excursion": ("loss_spike", excursion),
    "bad_batches": ("loss_spike", bad_batches),
    "memorising": ("overfitting", memorising),
    "uniform_guesses": ("plateau", uniform_guesses),
    "chance_level": ("plateau", chance_level),
    "rate_zero": ("lr_too_low", rate_zero),
    "schedule_too_short": ("lr_too_low", schedule_too_short),
    "rate_tiny": ("lr_too_low", rate_tiny),
    "no_labels": ("zero_loss", no_labels),
}
"""Family → the kind of finding it must raise (as a warning or worse), and how runs are drawn."""
