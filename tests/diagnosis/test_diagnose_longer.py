"""Whether a longer run would help, on runs whose longer twin is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from simulated_runs import Array, Generator, evaluations, history, noisy

from wellfit.diagnosis import diagnose
from wellfit.diagnosis.longer import gain_apart_from_cooldown
from wellfit.monitor.history import Context, History, Series
from wellfit.report.terminal import diagnosis_text

Build = Callable[..., History]
SCHEDULES = ("wsd", "linear", "cosine")
RUNS = 40


def rates(n: int, schedule: str, decay: float) -> Array:
    t = np.arange(1, n + 1) / n
    warm = np.minimum(1.0, t / 0.02)
    if schedule == "cosine":
        return np.asarray(warm * 0.5 * (1 + np.cos(np.pi * t)))
    return np.asarray(warm * np.clip((1 - t) / (decay if schedule == "wsd" else 1.0), 0, 1))


def law(rate: Array, rest: float, first: float, power: float, calm: float) -> Array:
    """Losses by a power of the summed rate, and lower by `calm` where the rate has come down.

    The form of Tissue et al. (arXiv 2408.11029), with the second term taken as immediate.
    """
    warmed_up = np.arange(len(rate)) > 0.05 * len(rate)
    fall = (1 + np.cumsum(rate) / 5) ** -power
    return np.asarray((rest + (first - rest) * fall) * (1 - calm * (1 - rate) * warmed_up))


def cooled_run(rng: Generator, schedule: str, *, undertrained: bool) -> tuple[History, float]:
    """A run to the end of its schedule, and how much lower one a fifth longer ends, without noise.

    Where it is not undertrained, most of its loss is out of reach, and the cooldown still lowers
    the loss by 3 to 12 %.
    """
    n = int(rng.choice([300, 800, 2000]))
    decay, power = rng.uniform(0.15, 0.75), rng.uniform(0.3, 0.5)
    calm = rng.uniform(0.03, 0.12)
    rest = rng.uniform(0.2, 1.0) if undertrained else rng.uniform(2.5, 4.0)
    first = 10.0 if undertrained else rest + rng.uniform(0.5, 1.5)
    curve = law(rates(n, schedule, decay), rest, first, power, calm)
    longer = law(rates(6 * n // 5, schedule, decay), rest, first, power, calm)
    run = history(
        rng,
        noisy(rng, curve, str(rng.choice(["normal", "skewed"])), 10 ** rng.uniform(-2.3, -1.2)),
        rates(n, schedule, decay),
        validation=evaluations(rng, curve, size=0.004),
        context=Context(planned_steps=n),
    )
    return run, float(1 - longer[-1] / curve[-1])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_finished_run_is_not_underfit_because_its_cooldown_lowered_the_loss(
    schedule: str,
) -> None:
    """A fifth longer would gain under 1 %: not one is called underfit or still improving.

    Fails when `_progress` asks the last fifth of the run instead of `_apart_from_cooldown`, as it
    did at first: most wsd and linear runs are then underfit and still improving.
    """
    for seed in range(RUNS):
        rng = np.random.default_rng([31, seed, SCHEDULES.index(schedule)])
        run, gain = cooled_run(rng, schedule, undertrained=False)
        assert gain < 0.01
        verdict = diagnose(run).verdict
        assert (verdict.fit, verdict.progress) != ("underfit", "still_improving"), seed
        assert verdict.progress == "converged", seed


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_run_cut_short_by_its_budget_is_told_to_train_longer(schedule: str) -> None:
    """A fifth longer would gain 3 % and more: nine in ten are still improving and told so.

    Fails when every fall under a falling rate is put down to the cooldown (`_apart_from_cooldown`
    always says converged).
    """
    told = 0
    for seed in range(RUNS):
        rng = np.random.default_rng([32, seed, SCHEDULES.index(schedule)])
        run, gain = cooled_run(rng, schedule, undertrained=True)
        assert gain > 0.03
        diagnosis = diagnose(run)
        advised = diagnosis.summary["next"] is not None
        told += diagnosis.verdict.progress == "still_improving" and advised
    assert told >= 0.9 * RUNS


def test_the_promised_gain_is_near_the_true_one() -> None:
    """Within a factor of two, at almost no noise, for every schedule.

    Fails when the slope is read against the step instead of the summed rate.
    """
    for schedule in SCHEDULES:
        curve = law(rates(1000, schedule, 0.5), 0.5, 10.0, 0.4, 0.0)
        longer = law(rates(1200, schedule, 0.5), 0.5, 10.0, 0.4, 0.0)
        steps = tuple(range(1, 1001))
        run = History(
            "exact",
            "run folder",
            Series(steps, tuple(map(float, curve))),
            learning_rate=Series(steps, tuple(map(float, rates(1000, schedule, 0.5)))),
        )
        trend = gain_apart_from_cooldown(run)
        assert trend is not None
        true = float(np.log(curve[-1] / longer[-1]))
        assert true / 2 < trend.gain < 2 * true, schedule


def test_too_few_losses_at_full_rate_leave_the_question_open(build: Build) -> None:
    """Six logged losses of a linear end tell nothing about a longer run."""
    losses = [5.0, 4.0, 3.6, 3.3, 3.0, 2.8, 2.5, 2.2, 1.9]
    rate = [1.0, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05, 0.0]
    diagnosis = diagnose(build(train=losses, validation=losses[1:], rate=rate, every=100))
    assert diagnosis.verdict.progress == "unclear"
    assert "too few losses before that" in diagnosis.summary["criteria"]["progress"]
    assert diagnosis.summary["next"] is None


# ── the one thing to do ────────────────────────────────────────────────────────────────────


def cut(build: Build, **fields: object) -> History:
    """A run that ended in the middle of its fall, at a constant rate."""
    losses = [2.0 + 3.0 * float(np.exp(-k / 40)) for k in range(1, 61)]
    return build(train=losses, validation=losses[5::6], rate=[1e-3] * 60, **fields)


@pytest.mark.parametrize(
    ("fields", "text", "patch"),
    [
        (
            {"recipe": {"train": {"budget": {"minutes": 1.6, "steps": None}}}},
            "Train twice as long (1,200 steps instead of 600).",
            {"train.budget.minutes": 3.2},
        ),
        ({}, "Train twice as long (1,200", {"train.budget": {"steps": 1200}}),
        (
            {"epoch": Series((600,), (3.0,))},
            "6.0 passes over this one, and after about 4",
            {"train.budget": {"steps": 1200}},
        ),
        (
            {"context": Context(planned_steps=900)},
            "Let it run on to its 900 planned steps (`--resume`): it stopped at 600",
            {},
        ),
        ({"status": "running"}, "Let it run: it still learns.", {}),
    ],
    ids=["minutes", "no recipe", "many passes", "interrupted", "running"],
)
def test_an_undertrained_run_is_told_the_one_thing_to_do(
    build: Build, fields: dict[str, object], text: str, patch: dict[str, object]
) -> None:
    """Fails when `summary.next` is left out of what the terminal says."""
    run = cut(build, **fields)
    diagnosis = diagnose(run)
    assert (diagnosis.verdict.fit, diagnosis.verdict.progress) == ("underfit", "still_improving")
    assert text in diagnosis.summary["next"]["text"]
    assert diagnosis.summary["next"]["patch"] == patch
    page = diagnosis_text(diagnosis.to_json(), run, width=200)
    assert text in page and page.count("Do this next") == 1


def test_a_run_that_came_to_rest_is_told_nothing(build: Build) -> None:
    losses = [2.0 + 3.0 * float(np.exp(-k / 4)) for k in range(1, 61)]
    diagnosis = diagnose(build(train=losses, validation=losses[5::6], rate=[1e-3] * 60))
    assert diagnosis.summary["next"] is None
