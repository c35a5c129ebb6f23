"""A history → what a longer run would bring, apart from what its cooldown brought.

While the rate comes down the loss falls faster, because the weights stop jumping about: that fall
comes once, at the end of every such run, however long. A run prolonged by a fifth takes the same
fall a fifth later and gains only what a fifth more of summed rate teaches. In the law of Tissue
et al. (arXiv 2408.11029) these are two terms, one of the summed rate, one of its fall. The first
is read where the second is still small: before the rate came down.
"""

from __future__ import annotations

import numpy as np

from wellfit.diagnosis import curves
from wellfit.diagnosis.curves import Trend
from wellfit.monitor.history import History

COME_DOWN = 0.5
"""A run whose last rate is below half of its peak has (partly) cooled down."""
FULL = 0.7
"""Share of the peak down to which a rate counts as full: half-way down a cosine it is 0.55."""
FADING = 0.5
"""Exponent of the fastest power of the summed rate by which losses were seen to fall (0.3 to 0.5
in arXiv 2408.11029 and arXiv 2203.15556): what is read early fades at most so fast."""
FEWEST = 4


def cooled_down(history: History) -> bool:
    """Whether the rate ended below half of its peak; False where no rates are known."""
    _, rates = curves.finite(history.learning_rate)
    return len(rates) >= FEWEST and bool(0 <= rates[-1] < COME_DOWN * rates.max())


def last_full_step(history: History) -> int | None:
    """A history → the last step at which the rate was full; None where no rate is known."""
    steps, rates = curves.finite(history.learning_rate)
    if len(rates) < FEWEST or rates.max() <= 0:
        return None
    return int(steps[np.nonzero(rates >= FULL * rates.max())[0][-1]])


def gain_apart_from_cooldown(history: History, longer: float = 0.2) -> Trend | None:
    """A history → how much lower the loss of a run `longer` by that share would end.

    The slope of `scaled` training loss over the logarithm of the summed rate, from half to all of
    the rate summed up to where it was last full, carried on to the end of the run. What fell
    since then is a ceiling: a loss that came to rest there had bent, and promises less in
    proportion. None where the log shows fewer than four losses in that stretch or no full rate.
    """
    steps, losses = curves.finite(history.train_loss)
    rate_steps, rates = curves.finite(history.learning_rate)
    full = last_full_step(history)
    if full is None or len(steps) < FEWEST:
        return None
    # Only shares of the peak count, and they cannot overflow.
    rate = np.maximum(np.interp(steps, rate_steps, rates / rates.max()), 0.0)
    summed = np.cumsum(rate * np.diff(steps, prepend=0.0))
    until = float(np.interp(full, steps, summed))
    # A step at a rate of zero adds nothing: two points at one place have no slope.
    moved = np.diff(summed, prepend=0.0) > 0
    inside = moved & (summed >= until / 2) & (summed <= until)
    logs = curves.scaled(losses)
    x, y = curves.thinned(np.log(summed[inside]), logs[inside])
    if len(x) < FEWEST or np.ptp(x) == 0:
        return None
    slope, error = curves.steepness(x, y)
    begin = float(np.exp(np.median(x)))
    at_end = (begin / summed[-1]) ** FADING
    promised = -slope * (1 - at_end) / FADING
    last = logs[-max(1, len(logs) // 10) :]
    fell = curves.middle(y) - curves.middle(last)
    kept = float(np.clip(fell / promised, 0, 1)) if promised > 0 else 1.0
    carried = kept * at_end * (1 - (1 + longer) ** -FADING) / FADING
    return Trend(
        gain=float(-slope * carried),
        error=float(error * carried),
        level=curves.unscaled(curves.middle(last)),
        first_step=int(steps[inside][0]),
        points=int(np.sum(inside)),
    )
