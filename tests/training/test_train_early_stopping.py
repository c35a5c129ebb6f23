"""When to stop early: patience as Keras and Lightning count it, convergence against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wellfit.recipe.schema import StopEarly
from wellfit.training.early_stopping import GRANTED, improvement, is_on, reason_to_stop
from wellfit.training.retention import Score

LOSS, RIGHT = "validation.loss", "validation.accuracy"


def scores(values, by=LOSS):
    return [Score(10 * n, by, float(value)) for n, value in enumerate(values, 1)]


def stops_at(section, values, by=LOSS):
    """How many evaluations are made until the training stops; None where it does not."""
    for count in range(1, len(values) + 1):
        if reason_to_stop(section, scores(values[:count], by), by):
            return count
    return None


def reference_patience(values, patience, min_delta):
    """The counter that trainers keep while they train, one evaluation after the other."""
    best, waited = math.inf, 0
    for count, value in enumerate(values, 1):
        if value < best and best - value >= min_delta:
            best, waited = value, 0
        else:
            waited += 1
            if waited >= patience:
                return count
    return None


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("min_delta", [0.0, 0.05])
def test_patience_agrees_with_a_running_counter(seed, min_delta):
    """Break: counting from the lowest score though it fell by less than min_delta; `>` for `>=`."""
    draw = np.random.RandomState(seed)
    values = (3 * np.exp(-np.arange(40) / 8) + 0.1 * draw.standard_normal(40)).tolist()
    for patience in (1, 3, 6):
        section = StopEarly(patience=patience, min_delta=min_delta)
        assert stops_at(section, values) == reference_patience(values, patience, min_delta)


def test_slow_improvements_below_min_delta_add_up():
    """Ten times 0.03 are more than 0.05: measured from the last improvement, not the last score."""
    values = [3 - 0.03 * n for n in range(12)]
    assert stops_at(StopEarly(patience=3, min_delta=0.05), values) is None
    assert stops_at(StopEarly(patience=3, min_delta=0.2), values) == 4


def test_an_accuracy_improves_by_rising():
    """Break: one sign for all scores."""
    section = StopEarly(patience=2)
    assert stops_at(section, [0.1, 0.2, 0.3, 0.4], RIGHT) is None
    assert stops_at(section, [0.4, 0.3, 0.2], RIGHT) == 3
    converged = StopEarly(convergence=0.01, window=3)
    assert stops_at(converged, [0.1, 0.2, 0.3, 0.4], RIGHT) is None
    assert stops_at(converged, [0.4, 0.4, 0.4], RIGHT) == 3


def test_what_is_not_finite_is_no_improvement():
    """Break: `min` over a list with NaN."""
    section = StopEarly(patience=2)
    assert stops_at(section, [3.0, math.nan, 2.0, math.nan, math.nan]) == 5
    assert stops_at(section, [math.nan, math.nan]) == 2
    said = reason_to_stop(section, scores([math.nan, math.nan]), LOSS)
    assert said == "no finite validation.loss in 2 evaluations"
    assert stops_at(StopEarly(convergence=0.5, window=3), [2.0, math.nan, 2.0]) is None


def test_off_is_off_and_scores_of_another_kind_do_not_count():
    assert not is_on(StopEarly()) and stops_at(StopEarly(), [1.0] * 50) is None
    assert is_on(StopEarly(patience=1)) and is_on(StopEarly(convergence=0.1))
    mixed = [Score(10, RIGHT, 0.1), Score(20, RIGHT, 0.1), *scores([3.0])]
    assert not reason_to_stop(StopEarly(patience=1), mixed, LOSS)


def test_the_same_whatever_the_order_and_with_a_step_scored_twice():
    """A resumed training may score a step again. Break: counting it as one more evaluation."""
    section = StopEarly(patience=2)
    twice = [*scores([3.0, 3.1]), Score(20, LOSS, 3.1)]
    assert not reason_to_stop(section, twice, LOSS)
    found = scores([3.0, 3.1, 3.2])
    assert reason_to_stop(section, found, LOSS) == reason_to_stop(section, found[::-1], LOSS) != ""


@pytest.mark.parametrize("seed", range(10))
def test_the_gain_and_its_error_are_those_of_least_squares(seed):
    """numpy.polyfit with its covariance, over the same steps. Break: dividing by k, not k - 2."""
    draw = np.random.RandomState(seed)
    steps = np.cumsum(draw.randint(1, 50, 8))
    values = 2 - 0.001 * steps + 0.01 * draw.standard_normal(8)
    (slope, _), covariance = np.polyfit(steps, values, 1, cov=True)
    length = steps[-1] - steps[0]
    gain, error = improvement(steps.tolist(), values.tolist(), 1)
    assert gain == pytest.approx(-slope * length, rel=1e-9)
    assert error == pytest.approx(math.sqrt(covariance[0, 0]) * length, rel=1e-6)
    assert improvement(steps.tolist(), values.tolist(), -1)[0] == -gain


def test_convergence_waits_while_the_scatter_could_hide_an_improvement():
    """Both lie flat; only the quiet one has converged. Break: leaving the standard error out."""
    section = StopEarly(convergence=0.01, window=6)
    quiet = [2.0, 2.001, 1.999, 1.999, 2.001, 2.0]
    noisy = [2.0, 2.1, 1.9, 1.9, 2.1, 2.0]  # the same from both ends, so its line has no slope
    assert stops_at(section, quiet) == 6
    assert stops_at(section, noisy) is None
    assert GRANTED == 2.0


def test_convergence_stops_where_the_improvement_falls_below_the_share():
    """1 + 2^-n: over three evaluations the gain halves each time. Break: no scale by the score."""
    values = [1 + 2.0**-n for n in range(20)]
    count = stops_at(StopEarly(convergence=0.01, window=3), values)
    gain, error = improvement([0, 1, 2], values[count - 3 : count], 1)
    assert gain + 2 * error < 0.01 * values[count - 1]
    gain, error = improvement([0, 1, 2], values[count - 4 : count - 1], 1)
    assert gain + 2 * error >= 0.01 * values[count - 2]


def test_a_score_that_grows_worse_has_converged_too():
    assert stops_at(StopEarly(convergence=0.01, window=3), [2.0, 2.1, 2.2]) == 3


def test_the_reasons_read_well():
    said = reason_to_stop(StopEarly(patience=1), scores([2.0, 2.5]), LOSS)
    assert said == "no validation.loss better than 2 (step 10) in 1 evaluation"
    said = reason_to_stop(StopEarly(patience=2, min_delta=0.1), scores([2, 1.95, 1.95]), LOSS)
    assert said == "no validation.loss better than 2 (step 10) by 0.1 in 2 evaluations"
    said = reason_to_stop(StopEarly(convergence=0.01, window=3), scores([2.004, 2.002, 2.0]), LOSS)
    assert said == (
        "validation.loss improved by 0.200% (± 0.000%) over the last 3 evaluations, "
        "less than 1.000%"
    )
