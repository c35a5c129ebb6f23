"""Seeds → histories with one known fault, at severity 0 (low), 1 (middle) or 2 (high)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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


def learned_by_passes(rng: Generator, severity: int) -> History:
    """Steps of 22, 30 or 40 % at every epoch border; inside an epoch the loss is nearly level."""
    epochs = int(rng.choice([3, 4, 6]))
    n = int(rng.choice([240, 600, 1800]))
    t = np.arange(1, n + 1) / n
    step = (0.22, 0.3, 0.4)[severity]
    passes = np.minimum(np.ceil(t * epochs), epochs) - 1
    curve = (1.0 + 1.2 * np.exp(-t * epochs / 0.1)) * (1 - step) ** passes
    return history(
        rng,
        noisy(rng, curve, str(rng.choice(["normal", "skewed"])), rng.uniform(0.01, 0.06)),
        cosine(n, 2e-5),
        epochs=float(epochs),
    )


def learned_by_heart(rng: Generator, severity: int) -> History:
    """20, 60 or 200 passes without validation, down to 0.1, 0.04 or 0.01 nats."""
    n, every, kind, size = draw(rng)
    curve = falling(rng, n, rng.uniform(2.5, 5), (0.1, 0.04, 0.01)[severity])
    curve = (0.1, 0.04, 0.01)[severity] + curve - curve[-1]
    return history(
        rng,
        noisy(rng, curve, kind, size),
        cosine(n, 1e-4),
        every=every,
        epochs=(20.0, 60.0, 200.0)[severity],
    )


def widening_gap(rng: Generator, severity: int) -> History:
    """The validation loss rests; the training loss ends 0.8, 1.2 or 1.8 nats below it."""
    n, every, kind, size = draw(rng)
    t = np.arange(1, n + 1) / n
    rest = rng.uniform(2.0, 2.6)
    held_out = rest + 1.5 * np.exp(-t / 0.06)
    train = held_out - (0.8, 1.2, 1.8)[severity] * np.clip((t - 0.15) / 0.85, 0, 1)
    k = int(rng.choice([8, 12, 20]))
    places = np.linspace(n / k, n, k).astype(int) - 1
    return history(
        rng,
        noisy(rng, train, kind, min(size, 0.05)),
        cosine(n, 2e-4),
        validation=noisy(rng, held_out[places], "normal", 0.003),
        every=every,
        epochs=6.0,
    )


def exploding_gradients(rng: Generator, severity: int) -> History:
    """Gradient norms grow 20, 100 or 1,000 times while the loss stays where it began."""
    n, every, kind, size = draw(rng)
    t = np.arange(1, n + 1) / n
    height = (20.0, 100.0, 1000.0)[severity]
    norms = noisy(rng, height ** np.clip((t - 0.1) / 0.4, 0, 1), "skewed", 0.3)
    curve = rng.uniform(1.3, 6.0) * (1 + 0.02 * t)
    return history(
        rng, noisy(rng, curve, kind, min(size, 0.05)), np.full(n, 1e-2), every=every, norms=norms
    )


def no_gradient(rng: Generator, severity: int) -> History:
    """Zero at 30, 60 or 100 % of the steps."""
    n, _, curve, train = _usual(rng)
    norms = usual_norms(rng, n)
    norms[rng.random(n) < (0.3, 0.6, 1.1)[severity]] = 0.0
    if severity == 2:  # then nothing can be learned
        train = train * curve[0] / curve
    return history(rng, train, cosine(n, 1e-3), validation=evaluations(rng, curve), norms=norms)


def ordered_data(rng: Generator, severity: int) -> History:
    """Every pass runs through the same hills, 12, 20 or 40 % high."""
    epochs = int(rng.choice([5, 8, 10]))
    n = epochs * int(rng.choice([60, 150]))
    t = np.arange(1, n + 1) / n
    phase = (t * epochs) % 1.0
    hills = 1 + (0.12, 0.2, 0.4)[severity] * (phase if rng.random() < 0.5 else phase < 0.5)
    curve = falling(rng, n, 3.0, 2.0)
    return history(
        rng,
        noisy(rng, curve * hills, "normal", rng.uniform(0.01, 0.05)),
        cosine(n, 2e-4),
        validation=evaluations(rng, curve),
        epochs=float(epochs),
    )


def swinging(rng: Generator, severity: int) -> History:
    """Waves of 12, 20 or 40 % to either side, six to twelve of them, in no time with epochs."""
    n = int(rng.choice([300, 800, 2000]))
    t = np.arange(1, n + 1) / n
    waves = np.sin(2 * np.pi * rng.uniform(6, 12) * t + rng.uniform(0, 6))
    curve = falling(rng, n, 5.0, 2.0) * np.exp((0.12, 0.2, 0.4)[severity] * waves)
    return history(
        rng,
        noisy(rng, curve, str(rng.choice(["normal", "skewed"])), rng.uniform(0.01, 0.06)),
        np.full(n, 3e-3),
        norms=usual_norms(rng, n),
    )


def jumping_scores(rng: Generator, severity: int) -> History:
    """Evaluations that jump by 20, 30 or 50 % while the training loss is unsteady as well."""
    n, every, _, _ = draw(rng)
    curve = falling(rng, n, 2.0, 0.6)
    k = int(rng.choice([10, 16, 30]))
    places = np.linspace(n / k, n, k).astype(int) - 1
    size = (0.2, 0.3, 0.5)[severity]
    return history(
        rng,
        noisy(rng, curve, "skewed", 0.3),
        np.full(n, 2e-3),
        validation=noisy(rng, curve[places], "normal", size),
        every=every,
    )


def peak_too_high(rng: Generator, severity: int) -> History:
    """The loss falls during the warm-up and rises by 40, 80 or 150 % before the peak."""
    n, every, kind, size = draw(rng)
    t = np.arange(1, n + 1) / n
    warmup = rng.uniform(0.25, 0.5)
    curve = falling(rng, n, 6.0, 2.5)
    turn = max(1, int(0.6 * warmup * n))
    curve[turn:] = curve[turn]  # from there on it learns nothing, so the rise is what it says
    climb = (0.4, 0.8, 1.5)[severity] * np.clip((t / warmup - 0.6) / 0.3, 0, 1)
    back = 1 - rng.uniform(0, 0.9) * np.clip((t - warmup) / (1 - warmup), 0, 1)
    return history(
        rng,
        noisy(rng, curve * (1 + climb * back), kind, min(size, 0.05)),
        cosine(n, 1e-2, warmup=warmup),
        every=every,
    )


def state_lost(rng: Generator, severity: int) -> History:
    """At a resume the loss steps up by 15, 30 or 80 % and comes down slowly."""
    n, every, kind, size = draw(rng)
    curve = falling(rng, n, 8.0, 3.0)
    at = int(n * rng.uniform(0.4, 0.8)) // every * every + every
    after = np.arange(1, n + 1) - at
    step = (0.15, 0.3, 0.8)[severity] * np.exp(-np.maximum(after, 0) / (0.3 * n)) * (after >= 0)
    made = history(
        rng, noisy(rng, curve * (1 + step), kind, min(size, 0.03)), cosine(n, 1e-3), every=every
    )
    return replace(made, jumps=(at,), attempts=2)


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
    "learned_by_passes": ("memorisation", learned_by_passes),
    "learned_by_heart": ("memorisation", learned_by_heart),
    "widening_gap": ("generalisation_gap", widening_gap),
    "exploding_gradients": ("gradient_explosion", exploding_gradients),
    "no_gradient": ("vanishing_gradient", no_gradient),
    "ordered_data": ("oscillation", ordered_data),
    "swinging": ("oscillation", swinging),
    "jumping_scores": ("oscillation", jumping_scores),
    "peak_too_high": ("lr_too_high", peak_too_high),
    "state_lost": ("resume_lost_state", state_lost),
}
"""Family → the kind of finding it must raise (as a warning or worse), and how runs are drawn."""
