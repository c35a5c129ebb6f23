"""Reducing a series must not change what a person would see."""

from __future__ import annotations

import itertools
import math
import random
import time

from hypothesis import given
from hypothesis import strategies as st

from wellfit.monitor.history import Series
from wellfit.report.reduce import COLUMNS, STRETCHES, medians, reduce

values = st.lists(
    st.one_of(st.floats(-1e6, 1e6), st.sampled_from([math.nan, math.inf, -math.inf])),
    min_size=0,
    max_size=120,
)


def series_of(numbers: list[float], stride: int = 1) -> Series:
    return Series(tuple(range(0, stride * len(numbers), stride)), tuple(numbers))


@given(values, st.integers(1, 4))
def test_every_column_keeps_its_lowest_and_highest_value(
    numbers: list[float], columns: int
) -> None:
    """Breaks when `reduce` keeps the mean, the first, or only one of the two of a column."""
    series = series_of(numbers)
    reduced = reduce(series, columns)
    kept = {
        (step, value)
        for step, value in zip(reduced.steps, reduced.values, strict=True)
        if value is not None
    }
    span = max(1, len(numbers) - 1)
    for column in range(columns):
        inside = [
            (value, step)
            for step, value in zip(series.steps, series.values, strict=True)
            if math.isfinite(value) and step * columns // (span + 1) == column
        ]
        if inside:
            here = [value for step, value in kept if step * columns // (span + 1) == column]
            assert min(here) == min(inside)[0]
            assert max(here) == max(inside)[0]


@given(values)
def test_nothing_is_invented_and_order_is_kept(numbers: list[float]) -> None:
    series = series_of(numbers)
    reduced = reduce(series, 3)
    known = dict(zip(series.steps, series.values, strict=True))
    assert reduced.steps == sorted(reduced.steps)
    for step, value in zip(reduced.steps, reduced.values, strict=True):
        assert value is None or known[step] == value


@given(values)
def test_non_finite_values_are_counted_and_break_the_line(numbers: list[float]) -> None:
    """Breaks when NaN is dropped before counting, or the gap entry is left out."""
    reduced = reduce(series_of(numbers), 3)
    assert reduced.broken == sum(1 for value in numbers if not math.isfinite(value))
    told = sum(last - first + 1 for first, last in reduced.stretches)
    assert told == reduced.broken or len(reduced.stretches) == STRETCHES
    drawn = [(step, value) for step, value in zip(reduced.steps, reduced.values, strict=True)]
    for (left, before), (right, after) in itertools.pairwise(drawn):
        if before is not None and after is not None:
            assert all(math.isfinite(numbers[step]) for step in range(left, right + 1))


def test_one_spike_in_a_million_points_survives_and_the_rest_is_small() -> None:
    """Breaks when every n-th point is taken instead of the extremes."""
    chance = random.Random(1)
    numbers = [2 + chance.random() for _ in range(1_000_000)]
    numbers[654_321], numbers[123_456] = 97.0, -5.0
    numbers[500_000] = math.nan
    begin = time.process_time()
    reduced = reduce(series_of(numbers, stride=7))
    assert time.process_time() - begin < 5
    assert len(reduced.steps) <= 4 * COLUMNS == 2000
    assert reduced.values[reduced.steps.index(654_321 * 7)] == 97.0
    assert reduced.values[reduced.steps.index(123_456 * 7)] == -5.0
    assert reduced.stretches == [(3_500_000, 3_500_000)]
    assert reduced.broken == 1


def test_worst_alternation_stays_within_the_bound() -> None:
    numbers = [math.nan if i % 2 else float(i % 17) for i in range(100_000)]
    reduced = reduce(series_of(numbers))
    assert len(reduced.steps) <= 4 * COLUMNS
    assert reduced.broken == 50_000
    assert len(reduced.stretches) == STRETCHES


def test_a_series_without_one_finite_value_has_no_line() -> None:
    reduced = reduce(series_of([math.nan, math.inf]))
    assert reduced.steps == []
    assert reduced.stretches == [(0, 1)]


def test_medians_are_blind_to_single_spikes_and_to_nan() -> None:
    numbers = [1.0] * 1000
    numbers[500], numbers[501] = 50.0, math.nan
    smooth, group = medians(series_of(numbers), buckets=100)
    assert group == 10
    assert set(smooth.values) == {1.0}
    assert len(smooth) == 100


def test_short_series_are_not_smoothed() -> None:
    assert medians(series_of([3.0, 2.0]), buckets=100) == (Series(), 1)
