"""The standard error of a ratio: against a bootstrap, and against the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wellfit.evaluation.ratio import ratio


def documents(count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Long-tailed lengths, and nats whose rate differs from document to document."""
    lengths = np.ceil(generator.lognormal(5, 1, count))
    rates = 3 + generator.normal(0, 0.6, count) + 200 / (lengths + 100)
    return rates * lengths, lengths


def test_equals_the_bootstrap() -> None:
    """Within 5 %. Breaks when the error is taken over tokens, or of the mean of the rates."""
    generator = np.random.default_rng(0)
    y, x = documents(400, generator)
    value, error = ratio(y, x)
    draws = generator.integers(0, len(x), (8000, len(x)))
    bootstrap = (y[draws].sum(1) / x[draws].sum(1)).std()
    assert value == pytest.approx(y.sum() / x.sum())
    assert error == pytest.approx(bootstrap, rel=0.05)
    rates = y / x
    assert abs(rates.std() / math.sqrt(len(x)) - bootstrap) > 0.2 * bootstrap


def test_covers_the_truth_as_often_as_it_says() -> None:
    """±1.96 errors hold the true ratio in 95 % of samples. Breaks when residuals leave R·x out."""
    generator = np.random.default_rng(1)
    y, x = documents(400_000, generator)
    truth = y.sum() / x.sum()
    inside = 0
    for _ in range(1000):
        picked = generator.integers(0, len(x), 200)
        value, error = ratio(y[picked], x[picked])
        inside += abs(value - truth) <= 1.96 * error
    assert 915 <= inside <= 970


def test_two_documents_by_hand() -> None:
    """R = 6/4; residuals −0.5 and 0.5; √(2/1 · 0.5)/4. Breaks without the factor n/(n−1)."""
    assert ratio([1.0, 5.0], [1.0, 3.0]) == (1.5, pytest.approx(0.25))


def test_what_is_unknown_is_nan() -> None:
    """Breaks when one document is given an error of 0."""
    value, error = ratio([2.0], [4.0])
    assert value == 0.5 and math.isnan(error)
    assert all(math.isnan(number) for number in ratio([], []))
    assert all(math.isnan(number) for number in ratio([1.0, 1.0], [0.0, 0.0]))
