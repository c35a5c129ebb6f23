"""The figures of a run, on worked cases."""

from __future__ import annotations

import math

import pytest

from wellfit.monitor.history import History, Series
from wellfit.monitor.summary import epoch_losses, summary

NAN = math.nan


def history(losses: list[float], **more: object) -> History:
    curve = Series(tuple(range(1, len(losses) + 1)), tuple(losses))
    return History("a", "run folder", curve, **more)  # type: ignore[arg-type]


def test_a_worked_run() -> None:
    """Fails if the reduction is per recorded point instead of per step made, or if the decay is
    from the first rate (tried both)."""
    steps = (10, 20, 30, 40)
    told = summary(
        History(
            "a",
            "run folder",
            Series(steps, (5.0, 4.0, 2.0, 2.5)),
            {"validation": Series((20, 40), (4.5, 3.0)), "test": Series((40,), (1.0,))},
            learning_rate=Series(steps, (1e-5, 1e-3, 5e-4, 1e-4)),
            epoch=Series(steps, (0.5, 1.0, 1.5, 1.75)),
        )
    )
    assert (told.steps, told.first_step, told.last_step) == (4, 10, 40)
    assert (told.first_loss, told.last_loss) == (5.0, 2.5)
    assert told.reduction_percent == 50.0
    assert told.reduction_per_step == pytest.approx(2.5 / 30)
    assert (told.rate_first, told.rate_last, told.rate_peak) == (1e-5, 1e-4, 1e-3)
    assert told.rate_decay_percent == pytest.approx(90.0)
    assert (told.best_step, told.best_loss, told.best_of) == (40, 3.0, "validation")
    first, second = told.epochs
    assert (first.epoch, first.end, first.steps, first.train_loss) == (1, 1.0, 2, 4.5)
    assert (second.epoch, second.end, second.steps, second.train_loss) == (2, 1.75, 2, 2.25)
    assert (first.validation_loss, second.validation_loss) == (4.5, 3.0)


def test_an_empty_run_is_unknown_throughout() -> None:
    told = summary(History("a", "run folder"))
    assert told.steps == 0 and told.epochs == ()
    known = {name for name in told.__slots__ if getattr(told, name) is not None}
    assert known == {"steps", "epochs"}


def test_one_step_has_no_slope() -> None:
    told = summary(history([4.0]))
    assert (told.reduction_percent, told.reduction_per_step) == (0.0, None)
    assert (told.best_step, told.best_of) == (1, "training")


def test_a_loss_that_is_not_finite_is_shown_and_gives_no_share() -> None:
    """Fails if the last finite loss is shown as the last (tried): that would hide the NaN."""
    told = summary(history([4.0, 3.0, NAN]))
    assert told.last_loss is not None and math.isnan(told.last_loss)
    assert told.reduction_percent is None and told.reduction_per_step is None
    assert (told.best_step, told.best_loss) == (2, 3.0)


def test_means_of_epochs_leave_out_and_count_what_is_not_finite() -> None:
    passes = Series((1, 2, 3, 4), (0.5, 1.0, 1.5, 2.0))
    (first, second) = epoch_losses(history([4.0, NAN, NAN, math.inf], epoch=passes))
    assert (first.train_loss, first.non_finite, first.steps) == (4.0, 1, 2)
    assert math.isnan(second.train_loss) and second.non_finite == 2


def test_the_step_that_ends_an_epoch_belongs_to_it() -> None:
    """Fails without the allowance for rounding in `epoch_losses` (tried: 30 steps of 0.1 then give
    a fourth epoch)."""
    total, passes = 0.0, []
    for _ in range(30):
        total += 0.1
        passes.append(total)
    epochs = epoch_losses(history([1.0] * 30, epoch=Series(tuple(range(1, 31)), tuple(passes))))
    assert [(one.epoch, one.steps) for one in epochs] == [(1, 10), (2, 10), (3, 10)]


def test_a_rate_of_zero_throughout_has_no_decay() -> None:
    told = summary(history([1.0, 1.0], learning_rate=Series((1, 2), (0.0, 0.0))))
    assert (told.rate_peak, told.rate_decay_percent) == (0.0, None)
