"""Series of one run → levels, noise and trends, by robust statistics.

Everything works on `ln(loss + 0.02)`: a change then means the same share at every scale, while
the last digits of a loss near zero (logs are often rounded to four places) count for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wellfit.monitor.history import History, Series

Array = NDArray[np.float64]

FLOOR = 0.02
"""Nats added before the logarithm: 0.02 nats are 2 % of perplexity, too little to argue about."""
MAD_TO_SD = 1.4826
"""Standard deviation over median absolute deviation, for normal noise."""
LONG = 50_000
"""Values from which on a median around every single one is not worth its time."""
PARTS = 20
"""Parts a curve is cut into: one is 5 % of the run, the persistence that FAULTS asks of O01."""


@dataclass(frozen=True, slots=True)
class Levels:
    """A curve cut into parts of equal count: where each begins and ends, its level, the noise."""

    first_step: Array
    last_step: Array
    level: Array
    """Median of `scaled` losses, one a part."""
    noise: float
    """Standard deviation of one level around a smooth course."""


@dataclass(frozen=True, slots=True)
class Trend:
    """What the last fifth of a run promises for another fifth, in shares of the loss."""

    gain: float
    """Expected fall of `scaled` loss; negative where it rises."""
    error: float
    """Standard error of `gain`, widened for correlated noise."""
    level: float
    """Median of the losses in the window, nats."""
    first_step: int
    points: int


def finite(series: Series) -> tuple[Array, Array]:
    """Series → the steps and values that are finite numbers, as arrays."""
    return series.finite


def scaled(losses: Array) -> Array:
    """Losses ≥ 0 → `ln(loss + 0.02)`; differences are shares of the loss."""
    return np.log(np.maximum(losses, 0.0) + FLOOR)


def unscaled(level: float) -> float:
    """A level of `scaled` → the loss in nats."""
    return float(np.exp(level)) - FLOOR


def middle(values: Array) -> float:
    """Values, at least one → their median; ten times faster than `np.median` on short arrays."""
    half = len(values) // 2
    ordered = np.sort(values) if len(values) < 200 else np.partition(values, (half - 1, half))
    # Halved first: the sum of two huge gradient norms would overflow.
    return float(0.5 * ordered[(len(ordered) - 1) // 2] + 0.5 * ordered[len(ordered) // 2])


def times(after: float, before: float) -> float:
    """Two positive numbers → how many times the first is the second; 1e300 where it is more.

    >>> times(6.0, 2.0), times(1e308, 1e-10)
    (3.0, 1e+300)
    """
    return after / before if after / 1e300 < before else 1e300


def change(before: float, after: float) -> float:
    """Two levels of `scaled` → the change of the loss as a share: 0.5 for half as much again."""
    return unscaled(after) / max(unscaled(before), 1e-12) - 1


def noise(values: Array) -> float:
    """Values of a slow curve → standard deviation of the noise on top of it.

    Each value is compared with the mean of its two neighbours, which cancels any straight
    course; the median ignores jumps. 0.0 below three values.
    """
    if len(values) < 3:
        return 0.0
    residual = values[1:-1] - 0.5 * (values[:-2] + values[2:])
    return float(MAD_TO_SD * np.median(np.abs(residual)) / np.sqrt(1.5))


def levels(series: Series, parts: int = PARTS) -> Levels | None:
    """Series of losses → at most `parts` levels; None where no value is finite."""
    steps, losses = finite(series)
    if len(losses) == 0:
        return None
    logs = scaled(losses)
    cuts = np.unique(np.linspace(0, len(logs), min(parts, len(logs)) + 1).astype(int))
    spans = list(pairwise(cuts))
    level = np.array([middle(logs[a:b]) for a, b in spans])
    # Two views of the noise of a level: from the spread inside the parts (blind to slow
    # wandering) and from neighbouring levels (blind to nothing, but rough with few parts).
    inside = [MAD_TO_SD * 1.2533 * _spread(logs[a:b]) / np.sqrt(b - a) for a, b in spans]
    return Levels(
        first_step=np.array([steps[a] for a, _ in spans]),
        last_step=np.array([steps[b - 1] for _, b in spans]),
        level=level,
        noise=max(float(np.median(inside)), noise(level)),
    )


def _spread(values: Array) -> float:
    return middle(np.abs(values - middle(values)))


def running_median(values: Array, half: int) -> Array:
    """Values → the median of each value and its `half` neighbours on either side.

    The ends see their own neighbours mirrored; more than `half` values are needed. Beyond
    `LONG` values, medians of whole blocks with straight lines between them stand for it.
    """
    if len(values) > LONG:
        width = 2 * half + 1
        count = len(values) // width
        blocks = values[: count * width].reshape(count, width)
        places = np.arange(count) * width + half
        return np.asarray(np.interp(np.arange(len(values)), places, np.median(blocks, axis=1)))
    padded = np.pad(values, half, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    return np.asarray(np.median(windows, axis=1), dtype=np.float64)


def trend(series: Series, share: float = 0.2, fewest: int = 4) -> Trend | None:
    """Series of losses → what its last `share` promises; None below `fewest` points there.

    Where the last share holds fewer than eight points the window reaches back, to half of the
    points at most.
    """
    steps, losses = finite(series)
    if len(losses) < fewest:
        return None
    span = max(1.0, float(steps[-1]))
    inside = int(np.sum(steps > steps[-1] - share * span))
    count = max(inside, min(8, len(losses) // 2), fewest)
    x, y = thinned(steps[-count:] / span, scaled(losses[-count:]))
    # The window may be longer than the share, so a scatter test needs the spread of x itself.
    spread = float(np.sum((x - x.mean()) ** 2))
    if len(x) < fewest or spread == 0.0:
        return None
    slope, error = steepness(x, y)
    level = middle(losses[-count:])
    return Trend(-slope * share, error * share, level, int(steps[-count]), count)


def steepness(x: Array, y: Array) -> tuple[float, float]:
    """Points, at least two places in x → the median slope of all pairs and its standard error.

    Theil (1950), Sen (1968); the error is widened by half for noise that wanders.
    """
    i, j = np.triu_indices(len(x), k=1)
    slope = float(np.median((y[j] - y[i]) / (x[j] - x[i])))
    residual = y - slope * x
    sigma = MAD_TO_SD * _spread(residual) * np.sqrt(len(x) / max(1, len(x) - 2))
    return slope, float(1.5 * sigma / np.sqrt(np.sum((x - x.mean()) ** 2)))


def thinned(x: Array, y: Array, most: int = 80) -> tuple[Array, Array]:
    """Long curves → means of at most `most` neighbours, so that all pairs stay affordable."""
    if len(x) <= most:
        return x, y
    cuts = np.linspace(0, len(x), most + 1).astype(int)[:-1]
    counts = np.diff(np.append(cuts, len(x)))
    return np.add.reduceat(x, cuts) / counts, np.add.reduceat(y, cuts) / counts


def valley(values: Array) -> tuple[Array, int]:
    """Values → the best fit that falls to one lowest point and rises after it, and that point.

    Least squares under the order restriction, by pooling adjacent violators on both sides of
    every possible lowest point (Barlow et al. 1972).
    """
    left = [falling(values[: k + 1]) for k in range(len(values))]
    right = [falling(values[k:][::-1])[::-1] for k in range(len(values))]
    errors = [
        float(np.sum((left[k][:-1] - values[:k]) ** 2) + np.sum((right[k] - values[k:]) ** 2))
        for k in range(len(values))
    ]
    k = int(np.argmin(errors))
    return np.concatenate([left[k][:-1], right[k]]), k


def falling(values: Array) -> Array:
    """Values → the best fit that never rises, by least squares."""
    means: list[float] = []
    counts: list[int] = []
    for value in values:
        means.append(float(value))
        counts.append(1)
        while len(means) > 1 and means[-2] < means[-1]:
            total = counts[-2] + counts[-1]
            means[-2] = (means[-2] * counts[-2] + means[-1] * counts[-1]) / total
            counts[-2] = total
            means.pop()
            counts.pop()
    return np.repeat(np.array(means, dtype=np.float64), counts)


def near(steps: Array, at: Array, train: Array) -> Array:
    """Steps of evaluations, and steps and values of training losses → the training loss at each.

    The median of those since half-way from the evaluation before to half-way to the next, the
    ten nearest at most.
    """
    half = np.diff(steps) / 2
    first, last = (half[0], np.inf) if len(half) else (np.inf, np.inf)
    left = np.searchsorted(at, steps - np.append(first, half), side="right")
    right = np.searchsorted(at, steps + np.append(half, last), side="right")
    found = np.empty(len(steps))
    for i, step in enumerate(steps):
        inside = np.arange(left[i], right[i])
        if len(inside) == 0:
            inside = np.array([np.argmin(np.abs(at - step))])
        nearest = inside[np.argsort(np.abs(at[inside] - step), kind="stable")[:10]]
        found[i] = middle(train[nearest])
    return found


# ── facts that several rules ask for ───────────────────────────────────────────────────────


def loss_is_likelihood(history: History) -> bool:
    """History → False where its loss says nothing about fit (reinforcement learning).

    Such a loss hovers around zero by construction; it is known from the importer's
    `objective` event, or from negative values, which a cross-entropy never has.
    """
    told = [e.data.get("likelihood") for e in history.events if e.kind == "objective"]
    if False in told:
        return False
    _, losses = finite(history.train_loss)
    return not bool(np.any(losses < 0))


def peak_rate(history: History) -> float | None:
    """History → the largest learning rate seen; None where the log holds none."""
    _, rates = finite(history.learning_rate)
    return float(rates.max()) if len(rates) else None


def rate_is_zero(history: History) -> bool:
    """History → True where at least five rates were logged and 99 % of them are exactly 0."""
    _, rates = finite(history.learning_rate)
    return len(rates) >= 5 and float(np.mean(rates == 0.0)) >= 0.99


def restarted(history: History, first: float, last: float) -> bool:
    """History → True where a planned rise of the rate falls between two steps.

    A rise counts as planned when the rate had fallen before to less than two thirds of an
    earlier peak and now comes back by half or more; the first warm-up does not count.
    """
    steps, rates = finite(history.learning_rate)
    if len(rates) < 3:
        return False
    peak = np.maximum.accumulate(rates)
    low = np.flatnonzero(rates < peak / 1.5)
    if len(low) == 0 or not np.any(rates[low[0] + 1 :] > rates[low[0] : -1]):
        return False
    lowest, fallen = rates[0], False
    for i in range(1, len(rates)):
        if rates[i] < peak[i] / 1.5:
            lowest = min(lowest, rates[i]) if fallen else rates[i]
            fallen = True
        if fallen and rates[i] > 1.5 * max(lowest, 1e-300):
            if first <= steps[i] <= last:
                return True
            lowest, fallen = rates[i], rates[i] < peak[i] / 1.5
    return False
