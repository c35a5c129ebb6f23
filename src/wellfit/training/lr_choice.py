"""Losses of a range test and of short trainings in, a learning rate with its reasons out.

Nothing here trains: these are pure functions of what `lr_finder.py` measured. A "share" is a
multiple of the recipe's own rates.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from wellfit.training.noise_scale import students_t

SMOOTHING = 0.7
RISE = 4.0
MARGIN = 0.15
FALL_LEAST = 0.005
TURN_LEAST = 0.1
"""Of the fall: how far the loss must rise again for its lowest point to be a turn."""
COARSE, FINE = 4.0, 2.0
CAUTION = 0.7
"""A short training survives rates that a longer one does not: under plain descent on a bowl, the
best of the short ones lay up to 6 % above the limit 2/λ (test_train_lr_finder.py)."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One step of the range test."""

    share: float
    learning_rate: float
    """Largest of any parameter group."""
    loss: float
    """Nats a token on this step's batch, before its update."""
    smoothed: float
    grad_norm: float
    update_ratio: float
    """2-norm of the change of all weights by 2-norm of all weights."""


@dataclass(frozen=True, slots=True)
class RangeTest:
    """The losses while the rate rose, and why it ended before its last step (empty: it did not)."""

    trials: tuple[Trial, ...]
    ended: str


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What the range test alone says; without a share it says why there is none."""

    share: float | None
    steepest: float | None
    """Where the loss fell fastest."""
    turning: float | None
    """Where the loss was lowest."""
    edge: float | None
    """From where on it was clearly higher, for good: where training diverges."""
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ShortTraining:
    """A training of some steps at one share, and its loss on batches it did not see."""

    share: float
    repeat: int
    loss: float
    steps: int


@dataclass(frozen=True, slots=True)
class Tried:
    """All short trainings at one share, against those at the best."""

    share: float
    loss: float
    """Mean over the repeats; infinite where one diverged."""
    behind: float
    """How much higher than the lowest mean."""
    worse: bool
    """Whether that is more than chance explains (one-sided, 95 %)."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The share to take, or none with the reason, and how far to trust it."""

    share: float | None
    confidence: str
    """`good`, `fair`, `low`, or `none` where there is no share."""
    reasons: tuple[str, ...]
    tried: tuple[Tried, ...] = ()
    error: float | None = None
    """Standard error of the difference between two means; None from single trainings."""


def smooth(losses: Sequence[float]) -> float:
    """Losses so far in, their mean with weights that fall by 0.7 a step backwards out.

    >>> round(smooth([2.0, 1.0]), 3)
    1.412
    """
    weights = [SMOOTHING**age for age in range(min(len(losses), 40))]
    recent = losses[-len(weights) :][::-1]
    return sum(w * loss for w, loss in zip(weights, recent, strict=True)) / sum(weights)


def stop_reason(trials: Sequence[Trial]) -> str:
    """The range test so far in; why it should end now, or nothing, out."""
    last = trials[-1]
    if not (math.isfinite(last.loss) and math.isfinite(last.grad_norm)):
        return "the loss or its gradient was not finite"
    first, lowest = opening(trials), min(trial.smoothed for trial in trials)
    if last.smoothed > RISE * lowest:
        return f"the smoothed loss rose to {RISE:g} times its lowest"
    if len(trials) > 5 and last.smoothed > first * (1 + MARGIN):
        return f"the smoothed loss rose {MARGIN:.0%} above the first"
    return ""


def opening(trials: Sequence[Trial]) -> float:
    """The loss at the smallest rates: the mean of the first three."""
    return statistics.fmean(trial.loss for trial in trials[:3])


def scatter(trials: Sequence[Trial]) -> float:
    """Standard deviation of a batch's loss, from differences of neighbours; robust to the trend."""
    steps = [b.loss - a.loss for a, b in itertools.pairwise(trials)]
    finite = [abs(step - statistics.median(steps)) for step in steps if math.isfinite(step)]
    return 1.4826 * statistics.median(finite) / math.sqrt(2) if finite else math.inf


def suggest(test: RangeTest) -> Suggestion:
    """A range test in; a share to begin with, and how it was found, out.

    It is half way, on the logarithmic scale, between where the loss fell fastest and where it
    turned. Without a fall or without a turn there is none.
    """
    trials = [trial for trial in test.trials if math.isfinite(trial.smoothed)]
    if len(trials) < 5:
        return _no_suggestion(
            f"the range test saw no improvement: {test.ended} within {len(test.trials)} steps"
        )
    first = opening(trials)
    place = min(range(len(trials)), key=lambda i: trials[i].smoothed)
    fall, risen = first - trials[place].smoothed, trials[-1].smoothed - trials[place].smoothed
    noise = scatter(trials[: place + 1] if place >= 5 else trials)
    if fall < max(2 * noise, FALL_LEAST * abs(first)):
        return _no_suggestion(
            f"the range test saw no improvement: at no rate did the loss fall by more than "
            f"{max(fall, 0.0):.3g}, and batches differ by {noise:.3g} anyway; begin elsewhere, "
            "or spend more steps"
        )
    clear = max(2 * noise, TURN_LEAST * fall)
    if not test.ended and risen < clear:
        return _no_suggestion(
            f"the range test saw no divergence: up to {trials[-1].share:.3g} times the recipe's "
            "rates the loss did not turn; raise the rates in the recipe tenfold and look again"
        )
    turning, steepest = trials[place].share, _steepest(trials[: place + 1])
    below = max(i for i, one in enumerate(trials) if one.smoothed <= trials[place].smoothed + clear)
    edge = test.trials[min(below + 1, len(test.trials) - 1)].share
    ended = f", until {test.ended}" if test.ended else ""
    return Suggestion(
        math.sqrt(steepest * turning),
        steepest,
        turning,
        edge,
        (
            f"in the range test the loss fell fastest at {steepest:.3g} times the recipe's rates "
            f"and was lowest at {turning:.3g} times",
            f"from {edge:.3g} times on it rose{ended}; a tenth of that, a usual rule, is "
            f"{edge / 10:.3g}",
        ),
    )


def _no_suggestion(why: str) -> Suggestion:
    return Suggestion(None, None, None, None, (why,))


def _steepest(trials: Sequence[Trial]) -> float:
    """Where the smoothed loss falls fastest against the logarithm of the rate, over five steps."""
    reach = min(2, (len(trials) - 1) // 2)
    if not reach:
        return trials[-1].share
    places = range(reach, len(trials) - reach)
    best = min(places, key=lambda i: trials[i + reach].smoothed - trials[i - reach].smoothed)
    return trials[best].share


def next_share(suggestion: Suggestion, done: Sequence[ShortTraining]) -> float | None:
    """What was suggested and trained so far in; the share to train next, or None, out.

    First the suggestion, four times and a quarter of it; on in the direction of the best while it
    lies at an end; then twice and half of the best.
    """
    assert suggestion.share is not None
    tried = dict(_means(done))
    for share in (suggestion.share, suggestion.share * COARSE, suggestion.share / COARSE):
        if not _has(tried, share):
            return share
    if not any(map(math.isfinite, tried.values())):
        return min(tried) / COARSE
    best = min(tried, key=lambda share: tried[share])
    if best in (min(tried), max(tried)):
        return best * COARSE if best == max(tried) else best / COARSE
    for share in (best * FINE, best / FINE):
        if not _has(tried, share):
            return share
    return None


def choose(suggestion: Suggestion, done: Sequence[ShortTraining]) -> Choice:
    """A suggestion and the short trainings in; the choice out.

    The best rate of the short trainings (between the tried ones where a parabola through the best
    and its neighbours has its lowest point), and a little less. The largest rate that is not
    significantly worse is told as well; it is not the choice, since a short training likes higher
    rates than a long one.
    """
    if suggestion.share is None:
        return Choice(None, "none", suggestion.reasons)
    means = _means(done)
    finite = [(share, loss) for share, loss in means if math.isfinite(loss)]
    if done and not finite:
        return Choice(
            None,
            "none",
            (*suggestion.reasons, "every short training diverged, so the range test misled"),
        )
    if not finite:
        assert suggestion.edge is not None
        share = min(suggestion.share, suggestion.edge / 10)
        unchecked = "no short training checked it: give it more steps with --steps"
        return Choice(share, "low", (*suggestion.reasons, unchecked))
    best, lowest = min(finite, key=lambda pair: pair[1])
    error, freedom = _error(done, best)
    limit = 0.0 if error is None else students_t(freedom, 0.90) * error
    tried = tuple(
        Tried(share, loss, loss - lowest, not math.isfinite(loss) or loss - lowest > limit)
        for share, loss in means
    )
    return Choice(
        CAUTION * _lowest_point(finite, best),
        _confidence(tried, best, error),
        (*suggestion.reasons, *_why(tried, best, error)),
        tried,
        error,
    )


def _error(done: Sequence[ShortTraining], best: float) -> tuple[float | None, int]:
    """Standard error of the difference of two means, and its degrees of freedom.

    Repeats at different rates share their batches, so the scatter is what is left when the mean
    of each rate and of each repeat is taken off, over the rates near the best.
    """
    near: dict[float, dict[int, float]] = {}
    for training in done:
        if abs(math.log(training.share / best)) < math.log(1.5 * COARSE):
            near.setdefault(training.share, {})[training.repeat] = training.loss
    rows = [list(by.values()) for by in near.values() if all(map(math.isfinite, by.values()))]
    repeats = min((len(row) for row in rows), default=0)
    if len(rows) < 2 or repeats < 2:
        return None, 0
    whole = statistics.fmean(loss for row in rows for loss in row)
    columns = [statistics.fmean(row[r] for row in rows) - whole for r in range(repeats)]
    left = [row[r] - statistics.fmean(row) - columns[r] for row in rows for r in range(repeats)]
    freedom = (len(rows) - 1) * (repeats - 1)
    return math.sqrt(2 * sum(value**2 for value in left) / freedom / repeats), freedom


def _lowest_point(finite: Sequence[tuple[float, float]], best: float) -> float:
    """Where the parabola through the best and its neighbours, over log share, is lowest.

    >>> _lowest_point([(1.0, 3.0), (2.0, 2.0), (4.0, 3.0)], 2.0)
    2.0
    """
    place = [share for share, _ in finite].index(best)
    if not 0 < place < len(finite) - 1:
        return best
    (a, fa), (b, fb), (c, fc) = finite[place - 1 : place + 2]
    left, right = math.log(b / a), math.log(c / b)
    slope_left, slope_right = (fb - fa) / left, (fc - fb) / right
    bend = (slope_right - slope_left) / (left + right)
    if bend <= 0:
        return best
    # Newton's form: slope at b, then down the parabola, and never beyond half way to a neighbour.
    slope = (slope_left * right + slope_right * left) / (left + right)
    move = max(-left / 2, min(right / 2, -slope / (2 * bend)))
    return b * math.exp(move)


def _confidence(tried: Sequence[Tried], best: float, error: float | None) -> str:
    if not (tried[0].share < best < tried[-1].share):
        return "low"
    bracketed = tried[0].worse and tried[-1].worse
    return "good" if error is not None and bracketed else "fair"


def _why(tried: Sequence[Tried], best: float, error: float | None) -> list[str]:
    said = [f"of the short trainings, {best:.3g} times the recipe's rates came lowest"]
    if error is None:
        said.append("each rate was trained once, so chance cannot be told from a difference")
    else:
        equal = [one.share for one in tried if not one.worse]
        said.append(
            f"two means differ by {error:.2g} by chance (one standard error): "
            + (
                f"{min(equal):.3g} to {max(equal):.3g} times cannot be told apart"
                if len(equal) > 1
                else "every other rate is significantly worse"
            )
        )
    said.append(f"a longer training survives less, so {CAUTION:g} times that")
    if not (tried[0].share < best < tried[-1].share):
        said.append("it lies at the end of what was tried, so a better one may lie beyond")
    return said


def _has(tried: dict[float, float], share: float) -> bool:
    return any(abs(math.log(share / other)) < 0.1 for other in tried)


def _means(done: Sequence[ShortTraining]) -> list[tuple[float, float]]:
    """(share, mean loss) of every share, rising; infinite where one training diverged."""
    by_share: dict[float, list[float]] = {}
    for training in done:
        by_share.setdefault(training.share, []).append(training.loss)
    return [(share, statistics.fmean(losses)) for share, losses in sorted(by_share.items())]
