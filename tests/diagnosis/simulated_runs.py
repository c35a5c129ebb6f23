"""Seeds → histories whose truth is known: healthy families and faults at three severities.

The noise, lengths and shapes are drawn anew for every run. `DEVELOPMENT` seeds were looked at
while the rules were made; `TEST` seeds were run only after every threshold stood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from wellfit.monitor.history import Context, History, Series
from wellfit.records import Event

Array = NDArray[np.float64]
Generator = np.random.Generator

DEVELOPMENT = 1_000_000
TEST = 2_000_000


def noisy(rng: Generator, curve: Array, kind: str, size: float) -> Array:
    """A curve with multiplicative noise: `normal`, `heavy` (t, 3 degrees) or `skewed` (Gumbel)."""
    n = len(curve)
    if kind == "heavy":
        draw = rng.standard_t(3, n) / np.sqrt(3)
    elif kind == "skewed":
        draw = (rng.gumbel(size=n) - 0.5772) / 1.2825
    else:
        draw = rng.normal(size=n)
    return np.asarray(np.maximum(curve * np.exp(size * np.clip(draw, -12, 12)), 1e-6))


def cosine(n: int, peak: float, floor: float = 0.1, warmup: float = 0.05) -> Array:
    t = np.arange(1, n + 1) / n
    rate = floor + (1 - floor) * 0.5 * (
        1 + np.cos(np.pi * np.clip((t - warmup) / (1 - warmup), 0, 1))
    )
    return np.asarray(peak * np.where(t < warmup, t / warmup, rate))


def history(
    rng: Generator,
    train: Array,
    rate: Array,
    *,
    validation: Array | None = None,
    every: int = 1,
    norms: Array | None = None,
    errors: Array | None = None,
    epochs: float = 1.0,
    context: Context | None = None,
    events: tuple[Event, ...] = (),
) -> History:
    """Curves over all steps → a History as a logger that averages over `every` steps writes it."""
    n = len(train)
    ends = np.arange(every, n + 1, every)
    steps = tuple(int(step) for step in ends)

    def mean(curve: Array) -> Series:
        return Series(steps, tuple(float(curve[e - every : e].mean()) for e in ends))

    def at(curve: Array) -> Series:
        return Series(steps, tuple(float(curve[e - 1]) for e in ends))

    evaluated: dict[str, Series] = {}
    standard = Series()
    if validation is not None:
        k = len(validation)
        places = tuple(int(p) for p in np.unique(np.linspace(n / k, n, k).astype(int)))
        evaluated = {"validation": Series(places, tuple(map(float, validation[: len(places)])))}
        if errors is not None:
            standard = Series(places, tuple(map(float, errors[: len(places)])))
    return History(
        name="simulated",
        format="run folder",
        train_loss=mean(train),
        validation_loss=evaluated,
        validation_se=standard,
        learning_rate=at(rate),
        grad_norm=at(norms) if norms is not None else Series(),
        epoch=at(np.linspace(epochs / n, epochs, n)),
        context=context or Context(planned_steps=n),
        events=events,
        status="finished",
    )


def draw(rng: Generator) -> tuple[int, int, str, float]:
    """Steps, logging interval, kind and size of the noise."""
    n = int(rng.choice([60, 120, 300, 800, 2000]))
    every = int(rng.choice([1, 1, 5, 10])) if n >= 120 else 1
    kind = str(rng.choice(["normal", "heavy", "skewed"]))
    return n, every, kind, float(10 ** rng.uniform(-2.3, -0.8))


def falling(rng: Generator, n: int, start: float, end: float) -> Array:
    """A power law or one or two exponentials from `start` to about `end`."""
    t = np.arange(1, n + 1) / n
    shape = rng.integers(3)
    if shape == 0:
        fall = (1 + t * 10 ** rng.uniform(1, 2.5)) ** -rng.uniform(0.4, 1.0)
    elif shape == 1:
        fall = np.exp(-t / rng.uniform(0.03, 0.4))
    else:
        fall = 0.7 * np.exp(-t / rng.uniform(0.01, 0.05)) + 0.3 * np.exp(-t / rng.uniform(0.1, 0.5))
    return np.asarray(end + (start - end) * fall)


def evaluations(
    rng: Generator, curve: Array, gap: float = 1.05, size: float | None = None
) -> Array:
    """Validation losses along a training curve: few or many, quiet or noisy."""
    k = min(int(rng.choice([3, 5, 8, 12, 20, 40])), len(curve))
    size = float(10 ** rng.uniform(-3, -1.8)) if size is None else size
    places = np.linspace(len(curve) / k, len(curve), k).astype(int) - 1
    return noisy(rng, gap * curve[places], str(rng.choice(["normal", "heavy"])), size)


def usual_norms(rng: Generator, n: int) -> Array:
    """Gradient norms of a healthy run: any scale, falling, level or growing slowly."""
    t = np.linspace(0, 1, n)
    course = 10 ** rng.uniform(-2, 4) * np.exp(rng.uniform(-1.5, 0.9) * t)
    return noisy(rng, course, "skewed", 0.25)


# ── healthy families ───────────────────────────────────────────────────────────────────────


def from_scratch(rng: Generator) -> History:
    n, every, kind, size = draw(rng)
    vocabulary = int(rng.choice([256, 4096, 50257]))
    top = float(np.log(vocabulary))
    curve = falling(rng, n, top, top * rng.uniform(0.2, 0.5))
    return history(
        rng,
        noisy(rng, curve, kind, size),
        cosine(n, 10 ** rng.uniform(-3.5, -2)),
        validation=evaluations(rng, curve),
        every=every,
        norms=usual_norms(rng, n),
        context=Context(vocabulary_size=vocabulary, planned_steps=n, from_scratch=True),
    )


def fine_tuning(rng: Generator) -> History:
    n, every, kind, size = draw(rng)
    curve = falling(rng, n, rng.uniform(1.0, 4.0), rng.uniform(0.3, 0.95))
    rate = cosine(n, 10 ** rng.uniform(-5, -3.7), floor=0.0)
    return history(
        rng, noisy(rng, curve, kind, size), rate, validation=evaluations(rng, curve), every=every
    )


def already_good(rng: Generator) -> History:
    """Fine-tuning that starts near 0.3 and has little left to learn."""
    n, every, kind, size = draw(rng)
    curve = np.full(n, rng.uniform(0.1, 0.5)) * np.exp(-rng.uniform(0, 0.1) * np.linspace(0, 1, n))
    rate = cosine(n, 1e-4, floor=0.0)
    return history(
        rng, noisy(rng, curve, kind, size), rate, validation=evaluations(rng, curve), every=every
    )


def gentle(rng: Generator) -> History:
    """A fine-tune of a good model: falls by 3 to 15 %, early and then slowly."""
    n, every, kind, size = draw(rng)
    level = rng.uniform(0.8, 2.8)
    curve = falling(rng, n, level * rng.uniform(1.03, 1.15), level)
    return history(
        rng,
        noisy(rng, curve, kind, size),
        cosine(n, 10 ** rng.uniform(-5, -3.5), floor=0.0),
        validation=evaluations(rng, curve),
        every=every,
        norms=usual_norms(rng, n),
    )


def plateau_then_drop(rng: Generator) -> History:
    n, every, kind, size = draw(rng)
    t = np.arange(1, n + 1) / n
    middle = rng.uniform(0.2, 0.7)
    curve = 0.2 + 1.4 / (1 + np.exp((t - middle) * rng.uniform(15, 60)))
    return history(
        rng,
        noisy(rng, curve, kind, size),
        cosine(n, 5e-5),
        validation=evaluations(rng, curve),
        every=every,
    )


def warm_restarts(rng: Generator) -> History:
    n, every, kind, size = draw(rng)
    cycles = int(rng.integers(2, 5))
    phase = (np.arange(n) / n * cycles) % 1.0
    rate = 1e-3 * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * phase)))
    curve = falling(rng, n, 8.0, 3.0) * (1 + rng.uniform(0.03, 0.3) * rate / 1e-3)
    return history(
        rng, noisy(rng, curve, kind, size), rate, validation=evaluations(rng, curve), every=every
    )


def cooldown(rng: Generator) -> History:
    n, every, kind, size = draw(rng)
    t = np.arange(1, n + 1) / n
    begin = rng.uniform(0.5, 0.9)
    rate = 2e-3 * np.minimum(1, t / 0.02) * np.clip((1 - t) / (1 - begin), 0, 1)
    curve = falling(rng, n, 10.8, 3.4) * (
        1 - rng.uniform(0.03, 0.12) * np.clip((t - begin) / (1 - begin), 0, 1)
    )
    return history(
        rng,
        noisy(rng, curve, kind, size),
        rate,
        validation=evaluations(rng, curve),
        every=every,
        context=Context(vocabulary_size=50257, planned_steps=n, from_scratch=True),
    )


def one_spike(rng: Generator) -> History:
    """One jump that recovers within 3 % of the run."""
    n, every, kind, size = draw(rng)
    curve = falling(rng, n, 8.0, 3.0)
    norms = usual_norms(rng, n)
    at = int(rng.uniform(0.1, 0.9) * n)
    width = max(1.0, rng.uniform(0.002, 0.01) * n)
    after = np.arange(n) - at
    bump = np.where(after >= 0, np.exp(-np.maximum(after, 0) / width), 0.0)
    norms[at] *= 30
    train = noisy(rng, curve, kind, size) * (1 + rng.uniform(0.2, 1.5) * bump)
    return history(
        rng, train, cosine(n, 1e-3), validation=evaluations(rng, curve), every=every, norms=norms
    )


def small_validation(rng: Generator) -> History:
    """A validation set so small that its loss jumps by several per cent."""
    n, every, kind, size = draw(rng)
    curve = falling(rng, n, 4.0, rng.uniform(1.0, 2.5))
    spread = rng.uniform(0.01, 0.07)
    scores = evaluations(rng, curve, size=spread)
    errors = scores * spread * rng.uniform(0.9, 1.5) if rng.random() < 0.5 else None
    return history(
        rng,
        noisy(rng, curve, kind, size),
        cosine(n, 1e-4),
        validation=scores,
        every=every,
        errors=errors,
    )


def data_switch(rng: Generator) -> History:
    """A planned change of data: the level shifts up, the gradients do not, learning goes on."""
    n, every, kind, size = draw(rng)
    t = np.arange(1, n + 1) / n
    at = rng.uniform(0.3, 0.7)
    learned = falling(rng, n, 9.0, 3.0)
    shift = np.where(
        t >= at, rng.uniform(0.05, 0.35) * np.exp(-np.maximum(0, t - at) * rng.uniform(0.3, 3)), 0.0
    )
    return history(
        rng,
        noisy(rng, learned * (1 + shift), kind, min(size, 0.05)),
        cosine(n, 1e-3),
        validation=evaluations(rng, learned),
        every=every,
        norms=usual_norms(rng, n),
    )


def staircase(rng: Generator) -> History:
    """The training loss steps down at epoch borders; the validation loss comes to rest."""
    n, every, kind, size = draw(rng)
    t = np.arange(1, n + 1) / n
    epochs = int(rng.integers(2, 5))
    base = falling(rng, n, 3.0, 1.2)
    train = base * (1 - 0.12 * np.floor(t * epochs * 0.999))
    return history(
        rng,
        noisy(rng, train, kind, size),
        cosine(n, 2e-5),
        validation=evaluations(rng, base),
        every=every,
        epochs=float(epochs),
    )


def mixed_precision(rng: Generator) -> History:
    """Up to 1 % of the steps skipped by a loss scaler, and some of the first twenty."""
    n, _, kind, size = draw(rng)
    curve = falling(rng, n, 9.0, 3.0)
    norms = usual_norms(rng, n)
    norms[rng.random(n) < 0.008] = np.inf
    norms[: int(rng.integers(0, 8))] = np.nan
    return history(
        rng,
        noisy(rng, curve, kind, size),
        cosine(n, 1e-3),
        validation=evaluations(rng, curve),
        norms=norms,
    )


def reinforcement(rng: Generator) -> History:
    n = int(rng.choice([40, 100, 500]))
    rewarded = Event(0, "objective", "reinforcement learning", {"likelihood": False})
    losses = np.asarray(rng.normal(0, 0.02, n))
    return history(rng, losses, cosine(n, 5e-6), norms=usual_norms(rng, n), events=(rewarded,))


def few_rows(rng: Generator) -> History:
    n = int(rng.integers(3, 9))
    curve = falling(rng, n, 5.0, 1.0)
    return history(
        rng, noisy(rng, curve, "normal", 0.03), cosine(n, 1e-4), validation=evaluations(rng, curve)
    )


def preferences(rng: Generator) -> History:
    """Preference optimisation: from ln 2 down, without or with evaluations, at a tiny rate."""
    n, every, kind, size = draw(rng)
    curve = falling(rng, n, float(np.log(2)), rng.uniform(0.2, 0.55))
    scores = evaluations(rng, curve) if rng.random() < 0.6 else None
    return history(
        rng, noisy(rng, curve, kind, size), cosine(n, 5e-6), validation=scores, every=every
    )


def small_batches(rng: Generator) -> History:
    """Batches of one text: the loss of a step spreads over a factor of two and more."""
    n = int(rng.choice([200, 500, 1500]))
    curve = falling(rng, n, 5.0, 2.5)
    size = rng.uniform(0.2, 0.45)
    return history(
        rng,
        noisy(rng, curve, "skewed", size),
        cosine(n, 1e-4, floor=0.0),
        norms=usual_norms(rng, n),
    )


def stopped_early(rng: Generator) -> History:
    """A good run, cut while it still falls fast."""
    n, every, kind, size = draw(rng)
    curve = falling(rng, 5 * n, 10.8, 3.0)[:n]
    return history(
        rng,
        noisy(rng, curve, kind, size),
        np.full(n, 1e-3),
        validation=evaluations(rng, curve),
        every=every,
        context=Context(vocabulary_size=50257, planned_steps=5 * n, from_scratch=True),
    )


def epoch_scatter(rng: Generator) -> History:
    """Several passes over shuffled data: what epochs there are does not show in the loss."""
    n, every, kind, size = draw(rng)
    curve = falling(rng, n, 3.5, 1.8)
    return history(
        rng,
        noisy(rng, curve, kind, size),
        cosine(n, 2e-4),
        validation=evaluations(rng, curve),
        every=every,
        epochs=float(rng.integers(3, 12)),
    )


def honest_gap(rng: Generator) -> History:
    """The training loss falls below the validation loss, and both fall to the end."""
    n, every, kind, size = draw(rng)
    curve = falling(rng, n, 5.0, 2.4)
    t = np.arange(1, n + 1) / n
    train = curve * (1 - rng.uniform(0.02, 0.15) * t)
    return history(
        rng,
        noisy(rng, train, kind, size),
        cosine(n, 3e-4),
        validation=evaluations(rng, curve, gap=1.0),
        every=every,
        epochs=3.0,
        norms=usual_norms(rng, n),
    )


def long_warmup(rng: Generator) -> History:
    """A third of the run is warm-up, and all goes well."""
    n, every, kind, size = draw(rng)
    curve = falling(rng, n, 10.8, 3.5)
    return history(
        rng,
        noisy(rng, curve, kind, size),
        cosine(n, 1e-3, warmup=rng.uniform(0.15, 0.4)),
        validation=evaluations(rng, curve),
        every=every,
        norms=usual_norms(rng, n),
    )


def resumed(rng: Generator) -> History:
    """Resumed once or twice, with everything that there is to load."""
    n, every, kind, size = draw(rng)
    curve = falling(rng, n, 9.0, 3.0)
    made = history(
        rng,
        noisy(rng, curve, kind, size),
        cosine(n, 1e-3),
        validation=evaluations(rng, curve),
        every=every,
    )
    seams = sorted(int(step) for step in rng.integers(n // 5, n, size=int(rng.integers(1, 3))))
    return replace(made, jumps=tuple(seams), attempts=1 + len(seams))


def small_gradients_at_the_end(rng: Generator) -> History:
    """A task that is learned: loss and gradients fall by orders of magnitude."""
    n, every, kind, size = draw(rng)
    curve = falling(rng, n, 2.0, 0.02)
    norms = noisy(rng, 10.0 * curve**2, "skewed", 0.3)
    return history(
        rng,
        noisy(rng, curve, kind, size),
        cosine(n, 1e-4, floor=0.0),
        validation=evaluations(rng, curve),
        every=every,
        norms=norms,
    )


HEALTHY: dict[str, Callable[[Generator], History]] = {
    "from_scratch": from_scratch,
    "fine_tuning": fine_tuning,
    "already_good": already_good,
    "gentle": gentle,
    "plateau_then_drop": plateau_then_drop,
    "warm_restarts": warm_restarts,
    "cooldown": cooldown,
    "one_spike": one_spike,
    "small_validation": small_validation,
    "data_switch": data_switch,
    "staircase": staircase,
    "mixed_precision": mixed_precision,
    "reinforcement": reinforcement,
    "few_rows": few_rows,
    "preferences": preferences,
    "small_batches": small_batches,
    "stopped_early": stopped_early,
    "epoch_scatter": epoch_scatter,
    "honest_gap": honest_gap,
    "long_warmup": long_warmup,
    "resumed": resumed,
    "small_gradients_at_the_end": small_gradients_at_the_end,
}
