"""A ratio of two sums over documents, and how far it may be from the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def ratio(numerators: ArrayLike, denominators: ArrayLike) -> tuple[float, float]:
    """One numerator and one denominator a document → (Σy/Σx, its standard error).

    Tokens of one document are not independent, so documents are the sampled units. The error is
    that of the ratio estimator, linearised: √(n/(n−1) · Σ(y−Rx)²) / Σx (W. G. Cochran, Sampling
    Techniques, 3rd edition, §6.4, for an unlimited population; the clustered errors of arXiv
    2411.00640 §2.2 are the same but for n/(n−1)). NaN where it is unknown: the ratio with Σx = 0,
    the error with fewer than two documents.

    >>> ratio([2.0, 4.0], [1.0, 2.0])
    (2.0, 0.0)
    """
    y = np.asarray(numerators, dtype=np.float64)
    x = np.asarray(denominators, dtype=np.float64)
    total = float(x.sum())
    if total == 0:
        return float("nan"), float("nan")
    value = float(y.sum()) / total
    count = len(x)
    if count < 2:
        return value, float("nan")
    residuals = y - value * x
    return value, float(np.sqrt(count / (count - 1) * np.square(residuals).sum()) / total)
