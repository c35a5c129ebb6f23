"""Gradients of the parts of a batch in, the gradient noise scale in tokens out.

A gradient over n tokens is the true gradient G plus noise of covariance Σ/n. The scale
B = tr Σ / |G|² is the batch at which the two are alike (McCandlish and others 2018,
arXiv 1812.06162, where it is B_simple): far below it a larger batch saves steps at no cost in
tokens, far above it more tokens a step bring little. The paper derives it for plain gradient
descent; for optimizers that rescale gradients it is right to within a factor of a few. It rises
while a training proceeds, since |G|² falls faster than the noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wellfit.data.batches import Batch
from wellfit.errors import RunError
from wellfit.training.step import Objective, accumulate, clip, gradients

if TYPE_CHECKING:
    import torch
    from torch.nn import Parameter

    from wellfit.model.protocol import LanguageModel

LEAST_BATCHES = 3
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Measurement:
    """Squared gradient norms of one batch and of its parts, all at the same weights.

    >>> one = Measurement(tokens=8, square=2.0, parts=((4, 3.0), (4, 3.0)))
    >>> one.noise(), one.signal()
    (8.0, 1.0)
    """

    tokens: int
    """Supervised tokens of the whole batch."""
    square: float
    """|g|² of the mean gradient over them."""
    parts: tuple[tuple[int, float], ...]
    """Supervised tokens n of each part, and |g|² of the mean gradient over those n alone."""

    def noise(self) -> float:
        """Unbiased estimate of tr Σ for one token: the scatter of the parts around the whole.

        For parts of one size this is equation A.2 of arXiv 1812.06162; with sizes n_i it is
        Σ n_i·|g_i − g|² / (parts − 1).
        """
        scatter = sum(tokens * square for tokens, square in self.parts) - self.tokens * self.square
        return scatter / (len(self.parts) - 1)

    def signal(self) -> float:
        """Unbiased estimate of |G|²: |g|² without the noise it holds; it may fall below zero."""
        return self.square - self.noise() / self.tokens


@dataclass(frozen=True, slots=True)
class NoiseScale:
    """The gradient noise scale of a model at its present weights."""

    tokens: float
    """tr Σ / |G|²; infinite where the gradient cannot be told from its noise."""
    low: float
    high: float
    """Ends of the 95 % interval; `high` is infinite where no upper end can be told."""
    noise: float
    """tr Σ for one token."""
    signal: float
    """|G|²."""
    batches: int


def noise_scale(measurements: Sequence[Measurement]) -> NoiseScale:
    """Measurements of several batches at the same weights in, the scale with its interval out.

    Noise and signal are averaged over the batches before they are divided, since their ratio is
    biased for a single one. The interval is Fieller's for a ratio of two means (J. R. Statist.
    Soc. B 16, 1954): unlike a resampled one it is open to above where |G|² may be zero.

    Raises RunError for fewer than three batches.
    """
    if len(measurements) < LEAST_BATCHES:
        raise RunError(
            f"the noise scale needs {LEAST_BATCHES} batches to tell its own error, here are "
            f"{len(measurements)}",
            where="gradient noise scale",
            way_out="Give it more batches, or a larger corpus.",
        )
    pairs = np.array([(one.noise(), one.signal()) for one in measurements])
    noise, signal = pairs.mean(axis=0).tolist()
    spread = np.cov(pairs, rowvar=False) / len(pairs)
    t = students_t(len(pairs) - 1, CONFIDENCE)
    low, high = _ratio_interval(
        noise, signal, t * t * spread[0, 0], t * t * spread[0, 1], t * t * spread[1, 1]
    )
    tokens = max(0.0, noise) / signal if signal > 0 else math.inf
    return NoiseScale(tokens, low, high, noise, signal, len(pairs))


def measure(
    model: LanguageModel,
    parameters: Sequence[Parameter],
    batch: Batch,
    *,
    micro_batch: int,
    document_mask: bool,
    device: torch.device,
    key: tuple[int, int],
) -> Measurement:
    """A batch [N, T] in; the norms of its gradient and of its parts' out, weights untouched.

    The parts are micro-batches as accumulation makes them, cut smaller where there would be fewer
    than eight. Each part's gradient is the mean over its own supervised tokens, and weighs as
    many in the whole; parts without any are left out. No gradient is left behind. `key` is
    (seed, step), the source of dropout.

    Raises RunError where fewer than two parts have supervised tokens.
    """
    rows = batch.tokens.shape[0]
    count = int(np.count_nonzero(batch.labels >= 0))
    pieces = min(rows, max(8, math.ceil(rows / micro_batch)))
    whole: list[torch.Tensor | None] = [None] * len(parameters)
    parts: list[tuple[int, float]] = []
    for number, places in enumerate(np.array_split(np.arange(rows), pieces)):
        part = batch.part(slice(int(places[0]), int(places[-1]) + 1))
        tokens = int(np.count_nonzero(part.labels >= 0))
        if not tokens:
            continue
        accumulate(
            model,
            part,
            Objective(document_mask=document_mask),
            micro_batch=len(places),
            device=device,
            key=(key[0], key[1] * pieces + number),  # each part has a dropout of its own
        )
        norm = float(clip(gradients(parameters), Objective())[0])
        parts.append((tokens, norm * norm))
        for place, parameter in enumerate(parameters):
            if parameter.grad is not None:
                share = parameter.grad.mul_(tokens / count)
                before = whole[place]
                whole[place] = share if before is None else before.add_(share)
            parameter.grad = None
    if len(parts) < 2:
        raise RunError(
            "a batch has fewer than two rows with supervised tokens: noise cannot be told from "
            "the gradient",
            where="gradient noise scale",
            way_out="Give it more rows, by a larger train.batch_tokens or several batches at once.",
        )
    square = sum(float(g.double().square().sum()) for g in whole if g is not None)
    return Measurement(count, square, tuple(parts))


def _ratio_interval(
    above: float, below: float, v_above: float, covariance: float, v_below: float
) -> tuple[float, float]:
    """Two means and t² times the (co)variances of both in; the positive ratios they allow out.

    These are the r ≥ 0 with (above − r·below)² ≤ v_above − 2r·covariance + r²·v_below.

    >>> _ratio_interval(4.0, 2.0, 0.0, 0.0, 0.0)
    (2.0, 2.0)
    >>> _ratio_interval(4.0, 1.0, 0.0, 0.0, 4.0)
    (1.3333333333333333, inf)
    """
    a = below * below - v_below
    b = above * below - covariance
    c = above * above - v_above
    root = math.sqrt(max(0.0, b * b - a * c))
    if a > 0 and below > 0:
        return max(0.0, (b - root) / a), max(0.0, (b + root) / a)
    if a > 0 or c <= 0:  # a gradient clearly "below zero" is a chance event: nothing is known
        return 0.0, math.inf
    # For a ≤ 0 the roots have opposite signs, or there is one: c > 0 rules out zero between them.
    return max(0.0, c / (b + root)) if b + root > 0 else (b - root) / a if a else 0.0, math.inf


def students_t(freedom: int, confidence: float) -> float:
    """Degrees of freedom and a two-sided confidence in, the quantile of Student's t out.

    By bisection of the distribution's finite sums (Abramowitz and Stegun 26.7.3 and 26.7.4).

    >>> [round(students_t(n, 0.95), 3) for n in (1, 2, 5, 30)]
    [12.706, 4.303, 2.571, 2.042]
    """
    low, high = 0.0, 1e3
    while high - low > 1e-9 * (1 + low):
        middle = (low + high) / 2
        low, high = (middle, high) if _within_t(middle, freedom) < confidence else (low, middle)
    return (low + high) / 2


def _within_t(t: float, freedom: int) -> float:
    """The probability that |Student's t| is below `t`."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = total = cosine if odd else 1.0
    if freedom == 1:
        total = 0.0
    for k in range(2 + odd, freedom, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    return (angle + sine * total) * 2 / math.pi if odd else sine * total
