"""Which checkpoints are best, worth writing, and may go: examples, properties, messages."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellfit.errors import RunError
from wellfit.recipe.score_names import parse
from wellfit.records import Evaluated
from wellfit.training.retention import (
    Score,
    best,
    ranked,
    refuse_without_scores,
    score_of,
    to_remove,
    worth_saving,
)

LOSS, RIGHT = "validation.loss", "validation.accuracy"


def scores(*values, by=LOSS):
    """Scores at the steps 10, 20, …"""
    return [Score(10 * n, by, value) for n, value in enumerate(values, 1)]


def evaluated(split="validation", **by_domain):
    return Evaluated(
        step=7, split=split, loss=2.5, loss_se=0.1, perplexity=12.2, bits_per_byte=1.1,
        bits_per_byte_se=0.1, accuracy=0.4, accuracy_se=0.01, tokens=9, bytes=20, documents=2,
        seconds=0.5, by_domain=by_domain,
    )  # fmt: skip


def test_lower_losses_and_higher_accuracies_are_better():
    """Break: one sign for all."""
    assert best([10, 20, 30], scores(3.0, 2.0, 2.5), LOSS).step == 20
    assert best([10, 20, 30], scores(0.3, 0.2, 0.5, by=RIGHT), RIGHT).step == 30
    assert best([10, 30], scores(3.0, 2.0, 2.5), LOSS).step == 30, "step 20 does not stand"
    assert best([40], scores(3.0, 2.0, 2.5), LOSS) is None


def test_a_changed_setting_finds_none_of_the_old_scores():
    """Break: ranking an accuracy among losses."""
    assert ranked(scores(3.0, 2.0), RIGHT) == []


def test_what_is_not_finite_is_never_the_best_and_the_earlier_of_two_equals_is():
    """Break: `min` with NaN in the list; sorting by value alone after a reversal."""
    found = scores(math.nan, 2.0, -math.inf, 2.0)
    assert [score.step for score in ranked(found, LOSS)] == [20, 40]
    assert not worth_saving(10, found, [], keep_best=5, by=LOSS)


def test_a_step_scored_twice_counts_by_its_later_score():
    again = [*scores(3.0, 2.0), Score(20, LOSS, 4.0)]
    assert [(s.step, s.value) for s in ranked(again, LOSS)] == [(10, 3.0), (20, 4.0)]


def test_the_best_stay_beside_the_newest():
    """Break: keeping the best in place of the newest."""
    found = scores(2.0, 1.0, 3.0, 4.0, 5.0)
    keep = {"keep_last": 1, "by": LOSS}
    assert to_remove([10, 20, 30, 40, 50], found, keep_best=2, **keep) == [30, 40]
    assert to_remove([10, 20, 30, 40, 50], found, keep_best=0, **keep) == [10, 20, 30, 40]
    assert to_remove([], found, keep_best=2, **keep) == []


STEPS = st.sets(st.integers(1, 40), max_size=12)
FOUND = st.lists(
    st.builds(
        Score,
        step=st.integers(1, 40),
        by=st.sampled_from([LOSS, RIGHT]),
        value=st.sampled_from([0.5, 1.0, 2.0, 3.0, math.nan, math.inf]),
    ),
    max_size=20,
)
COUNTS = {"keep_last": st.integers(1, 4), "keep_best": st.integers(0, 4)}


@given(steps=STEPS, found=FOUND, by=st.sampled_from([LOSS, RIGHT]), **COUNTS)
def test_what_goes_is_neither_new_nor_better_than_what_stays(
    steps, found, by, keep_last, keep_best
):
    """Breaks when the newest goes, when a better score goes before a worse one, or when one more
    is kept than was asked for.
    """
    gone = to_remove(steps, found, keep_last=keep_last, keep_best=keep_best, by=by)
    stay = steps - set(gone)
    newest = set(sorted(steps)[-keep_last:])
    assert set(gone) <= steps and gone == sorted(set(gone))
    assert newest <= stay and len(stay) <= keep_last + keep_best
    value = {score.step: score.value for score in found if score.by == by}
    sign = 1 if parse(by).lower_is_better else -1
    finite = {step for step in steps if math.isfinite(value.get(step, math.nan))}
    kept_for_score = finite & stay
    assert len(kept_for_score) >= min(keep_best, len(finite))
    for left in stay - newest:
        assert left in finite
        assert all(sign * value[left] <= sign * value[step] for step in finite & set(gone))
    # Once more removes nothing, and the order in which folders are listed does not count.
    again = {"keep_last": keep_last, "keep_best": keep_best, "by": by}
    assert to_remove(stay, found, **again) == []
    assert to_remove(sorted(steps, reverse=True), found, **again) == gone


@given(values=st.lists(st.sampled_from([1.0, 2.0, 3.0, math.nan]), min_size=1, max_size=15))
@pytest.mark.parametrize("keep_best", [1, 3])
def test_saving_what_is_worth_it_always_has_the_best_on_disk(values, keep_best):
    """The best of all evaluations stand at any time, though only those worth it were written.

    Breaks when an equal score replaces an earlier one, or when only a new record is saved.
    """
    standing, found = [], []
    for number, value in enumerate(values, 1):
        found.append(Score(number, LOSS, value))
        if worth_saving(number, found, standing, keep_best=keep_best, by=LOSS):
            standing.append(number)
            gone = to_remove(standing, found, keep_last=1, keep_best=keep_best, by=LOSS)
            standing = [step for step in standing if step not in gone]
        wanted = [score.step for score in ranked(found, LOSS)][:keep_best]
        assert set(wanted) <= set(standing)


def test_a_leftover_of_a_killed_rotation_changes_no_decision():
    """What a kill left standing is worse than the best or older than the newest: same answers."""
    found = scores(2.0, 1.0, 3.0, 1.5)
    for leftover in ([], [30], [10, 30]):
        assert worth_saving(40, found, [20, *leftover], keep_best=1, by=LOSS) is False
        assert worth_saving(40, found, [10, 20, *leftover], keep_best=2, by=LOSS) is True


def test_the_score_is_read_from_the_evaluation():
    """Break: reading the loss for every name."""
    found = evaluated(code={"loss": 1.5, "bits_per_byte": 0.7, "accuracy": 0.6})
    assert score_of(found, LOSS) == Score(7, LOSS, 2.5)
    assert score_of(found, "validation.bits_per_byte").value == 1.1
    assert score_of(found, "validation.by_domain.code.accuracy").value == 0.6
    assert score_of(evaluated("test"), LOSS) is None


def test_a_domain_that_is_not_there_is_named():
    with pytest.raises(RunError) as error:
        score_of(evaluated(a={"loss": 1.0}, b={"loss": 2.0}), "validation.by_domain.code.loss")
    message = str(error.value)
    assert message.startswith(
        "train.best_by = validation.by_domain.code.loss: the validation split"
    )
    assert "no domain 'code', only a, b" in message and "Name one of those" in message


def test_asking_for_the_best_without_held_out_text_is_refused():
    refuse_without_scores(keep_best=0, stops_early=False, evaluates=False)
    refuse_without_scores(keep_best=2, stops_early=True, evaluates=True)
    for keep_best, where in ((2, "train.keep_best: "), (0, "train.stop_early: ")):
        with pytest.raises(RunError, match="nothing is held out for validation") as error:
            refuse_without_scores(keep_best=keep_best, stops_early=True, evaluates=False)
        assert str(error.value).startswith(where)
        assert "data.split.validation" in str(error.value)
