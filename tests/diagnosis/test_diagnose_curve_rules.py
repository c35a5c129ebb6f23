"""The rules that need no more than curves, each on a case written by hand and on its look-alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from wellfit.diagnosis import NotAssessed, diagnose
from wellfit.diagnosis.rules import RULES
from wellfit.monitor.history import Context, History, Series
from wellfit.records import Finding

Build = Callable[..., History]


def only(history: History, rule: str) -> Finding:
    answer = RULES[rule](history)
    assert isinstance(answer, list) and len(answer) == 1, answer
    return answer[0]


def kinds(history: History) -> dict[str, str]:
    return {finding.kind: finding.severity for finding in diagnose(history).findings}


def passes(count: int, each: int = 40, every: int = 10) -> Series:
    n = count * each
    return Series(tuple(every * (k + 1) for k in range(n)), tuple((k + 1) / each for k in range(n)))


# ── memorisation ───────────────────────────────────────────────────────────────────────────


def test_a_staircase_names_its_borders(build: Build) -> None:
    """1.0, 0.7, 0.4 in three passes. Fails when `LARGE` and `TOGETHER` are 0.9."""
    run = build(train=[1.0] * 40 + [0.7] * 40 + [0.4] * 40, epoch=passes(3))
    found = only(run, "memorisation")
    assert (found.severity, found.since_step, found.causes[0].id) == ("warning", 410, "D22")
    assert "steps from 1 to 0.7 (step 410)" in found.evidence[0]
    assert "steps from 0.7 to 0.4 (step 810)" in found.evidence[1]
    assert found.change is not None and found.change.patch == {"train.budget": {"steps": 400}}


def test_a_validation_loss_that_falls_as_much_explains_the_staircase(build: Build) -> None:
    """Fails when `explained` is always False."""
    train, epoch = [1.0] * 40 + [0.7] * 40 + [0.4] * 40, passes(3)
    fell = build(train=train, validation=[1.0, 1.0, 0.7, 0.7, 0.4, 0.4], epoch=epoch)
    rests = build(train=train, validation=[1.0] * 6, epoch=epoch)
    assert only(fell, "memorisation").severity == "info"
    assert only(rests, "memorisation").severity == "warning"
    assert diagnose(rests).verdict.fit == "overfit"


def test_sorted_data_is_no_staircase(build: Build) -> None:
    """The same ramp from 1 to 1.3 in every pass: levels of passes do not fall.

    Fails when `between` is not compared with the step; then every border is one.
    """
    ramp = list(np.linspace(1.0, 1.3, 40))
    run = build(train=ramp * 6, epoch=passes(6))
    assert RULES["memorisation"](run) == []
    found = only(run, "oscillation")
    assert (found.severity, found.causes[0].id) == ("warning", "D14")


def test_a_loss_by_heart_after_many_passes(build: Build) -> None:
    """Fails when `BY_HEART` is 0.01; silent with validation, with few passes, for classifiers."""
    fall = list(3.0 * np.exp(-np.arange(200) / 30) + 0.05)
    many, few = passes(20, each=10), passes(5)
    found = only(build(train=fall, epoch=many), "memorisation")
    assert (found.severity, found.certainty) == ("warning", "possible")
    assert RULES["memorisation"](build(train=fall, epoch=few)) == []
    classes = Context(task="classification")
    assert RULES["memorisation"](build(train=fall, epoch=many, context=classes)) == []
    with_scores = build(train=fall, validation=[3.0, 1.0, 0.06, 0.06], epoch=many)
    assert RULES["memorisation"](with_scores) == []


def test_without_epochs_memorisation_is_not_assessed(build: Build) -> None:
    answer = RULES["memorisation"](build(train=[1.0] * 40 + [0.7] * 40))
    assert isinstance(answer, NotAssessed) and answer.needs == "epochs in the log"


# ── generalisation gap ─────────────────────────────────────────────────────────────────────


def test_a_gap_that_brought_nothing(build: Build) -> None:
    """Validation rests at 2, training falls to 1. Fails when `GROWN` is 2."""
    train = list(np.linspace(2.0, 1.0, 100))
    run = build(train=train, validation=[2.1, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    found = only(run, "generalisation_gap")
    assert (found.severity, found.causes[0].id) == ("warning", "O29")
    assert diagnose(run).verdict.fit == "overfit"
    assert found.change is not None and found.change.patch["train.budget"]["steps"] < 700


def test_a_gap_beside_a_falling_validation_loss_is_information(build: Build) -> None:
    """Fails when `AT_REST` is 1."""
    train = list(np.linspace(4.0, 1.0, 100))
    run = build(train=train, validation=list(np.linspace(4.0, 2.0, 10)))
    assert only(run, "generalisation_gap").severity == "info"


def test_losses_of_two_scales_are_not_compared(build: Build) -> None:
    """A training loss summed over sixteen micro-batches. Fails when `COMPARABLE` is 100."""
    run = build(train=list(np.linspace(32, 16, 100)), validation=list(np.linspace(2, 1, 10)))
    assert isinstance(RULES["generalisation_gap"](run), NotAssessed)
    found = only(run, "accum_unnormalised")
    assert found.severity == "info" and "15.7 times" in found.evidence[0]
    told = replace(run, context=Context(accumulation=16))
    assert only(told, "accum_unnormalised").certainty == "likely"


# ── gradients ──────────────────────────────────────────────────────────────────────────────


def test_gradients_may_grow_while_the_loss_falls(build: Build) -> None:
    """Fails when every growth is an alarm."""
    norms = list(np.geomspace(1, 1000, 100))
    learning = build(train=list(np.linspace(5, 2, 100)), norms=norms)
    standing = build(train=[5.0] * 100, norms=norms)
    assert only(learning, "gradient_explosion").severity == "info"
    assert only(standing, "gradient_explosion").severity == "warning"


@pytest.mark.parametrize("level", [1e-3, 1.0, 1e6])
def test_the_level_of_a_norm_says_nothing(build: Build, level: float) -> None:
    run = build(train=list(np.linspace(5, 2, 100)), norms=[level] * 100)
    assert RULES["gradient_explosion"](run) == [] == RULES["vanishing_gradient"](run)


def test_silent_gradients_are_counted(build: Build) -> None:
    """Fails when `SHARE` is 0.5."""
    norms = [0.0, 1.0, 1.0] * 30
    found = only(build(train=[2.0] * 90, norms=norms), "vanishing_gradient")
    assert (found.severity, found.certainty) == ("warning", "certain")
    assert "30 of 90" in found.evidence[0]


def test_a_gradient_that_fades_counts_only_while_nothing_is_learned(build: Build) -> None:
    """Fails when the level of the loss is not asked for (`LOWEST_CHANCE` 0)."""
    norms = list(np.geomspace(10, 1e-4, 100))
    stuck = build(train=[3.0] * 100, norms=norms)
    learned = build(train=[0.001] * 100, norms=norms)
    assert only(stuck, "vanishing_gradient").severity == "warning"
    assert RULES["vanishing_gradient"](learned) == []


# ── swings ─────────────────────────────────────────────────────────────────────────────────


def test_waves_are_seen_and_scatter_is_not(build: Build) -> None:
    """Fails when `SWINGS` is 1 (the scatter fires) and when it is 50 (the waves do not)."""
    t = np.arange(400)
    rng = np.random.default_rng(5)
    waves = build(train=list(2.0 * np.exp(0.2 * np.sin(t / 8))))
    scatter = build(train=list(2.0 * np.exp(0.5 * rng.normal(size=400))))
    assert only(waves, "oscillation").severity == "warning"
    assert RULES["oscillation"](scatter) == []


def test_scores_that_jump(build: Build) -> None:
    """Fails when `SCATTER` is 1; a steep fall is none, which fails when `TURNS` is 0."""
    jumping = build(train=[1.0] * 100, validation=[1.0, 1.4, 0.9, 1.5, 0.8, 1.3, 0.9, 1.4])
    steep = build(train=[1.0] * 100, validation=[1.6, 1.6, 1.5, 1.2, 0.7, 0.4, 0.3, 0.28])
    found = only(jumping, "oscillation")
    assert found.severity == "warning"
    assert {cause.id for cause in found.causes} == {"O02", "E01"}
    assert RULES["oscillation"](steep) == []


# ── rates ──────────────────────────────────────────────────────────────────────────────────


def test_the_rate_at_which_the_loss_turned_is_the_advice(build: Build) -> None:
    """Turns at half of the peak. Fails when the change is a third, as for a divergence."""
    train = [*np.linspace(4.0, 2.0, 50), *np.linspace(2.0, 4.0, 50), *[4.0] * 100]
    rate = [*np.linspace(1e-5, 1e-3, 100), *[1e-3] * 100]
    run = build(train=train, rate=rate)
    found = only(run, "lr_too_high")
    assert found.severity == "critical" and 400 <= found.since_step <= 600
    assert found.change is not None
    assert found.change.patch["train.optimizer.learning_rate"] == pytest.approx(5e-4, rel=0.2)
    assert "divergence" not in kinds(run)


def test_a_loss_that_comes_back_with_the_rate_is_a_warning(build: Build) -> None:
    """Fails when `recovered` is always False."""
    train = [*np.linspace(4, 2, 50), *np.linspace(2, 3.5, 50), *np.linspace(3.5, 1.5, 100)]
    rate = [*np.linspace(1e-5, 1e-3, 100), *np.linspace(1e-3, 1e-5, 100)]
    found = only(build(train=train, rate=rate), "lr_too_high")
    assert found.severity == "warning" and "Against: with the falling rate" in found.evidence[-1]


@pytest.mark.parametrize(
    ("rate", "seen"),
    [
        ([1e-3] * 60, "the rate ends at 0.001"),
        (list(np.linspace(1e-5, 1e-3, 60)), "the rate rises to the end"),
        ([1e-3] * 30 + [1e-6] * 30, "of the run, the rate is below 5%"),
    ],
)
def test_odd_schedules_are_information(build: Build, rate: list[float], seen: str) -> None:
    """Fails when `CONSTANT` is 2, or `LEFT` is 1."""
    found = only(build(train=list(np.linspace(5, 2, 60)), rate=rate), "schedule")
    assert found.severity == "info" and seen in found.evidence[0]


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_usual_schedules_are_silent(build: Build, share: float) -> None:
    """Cosine and line to 0 or a tenth. Fails when `LEFT` is 0.05."""
    t = np.linspace(0, 1, 100)
    for fall in (0.5 * (1 + np.cos(np.pi * t)), 1 - t):
        rate = list(1e-3 * (share + (1 - share) * fall))
        assert RULES["schedule"](build(train=[2.0] * 100, rate=rate)) == []


# ── resumes, slow runs, unfinished runs ────────────────────────────────────────────────────


def test_a_step_up_at_a_resume(build: Build) -> None:
    """Fails when `STEP` is 1; silent without the seam, and where nothing jumps."""
    train = [*np.linspace(4, 2, 60), *np.linspace(2.6, 2, 40)]
    rate = [5e-4] * 60 + [2e-3] * 40
    broken = build(train=train, rate=rate, jumps=(610,), attempts=2)
    found = only(broken, "resume_lost_state")
    assert (found.severity, found.certainty, found.since_step) == ("warning", "likely", 610)
    assert RULES["resume_lost_state"](replace(broken, jumps=())) == []
    smooth = build(train=list(np.linspace(4, 2, 100)), jumps=(610,))
    assert RULES["resume_lost_state"](smooth) == []


def test_a_straight_line_is_slow_and_a_bend_is_not(build: Build) -> None:
    """Fails when `STRAIGHT` is 0."""
    line = build(train=list(np.geomspace(5, 2, 100)))
    bend = build(train=list(2 + 3 * np.exp(-np.arange(100) / 15)))
    assert only(line, "slow_convergence").severity == "info"
    assert RULES["slow_convergence"](bend) == []


def test_an_unfinished_run_is_told_so(build: Build) -> None:
    """Fails when `FAR` is 10: the steep one is then information too."""
    gentle = build(
        train=list(np.geomspace(5, 3, 100)),
        validation=list(np.geomspace(5, 3, 10)),
        status="finished",
    )
    steep = build(
        train=list(np.geomspace(9, 2, 100)),
        validation=list(np.geomspace(9, 2, 10)),
        status="finished",
    )
    assert kinds(gentle)["undertrained"] == "info"
    assert kinds(steep)["undertrained"] == "warning"


def test_a_high_rest_on_both_curves(build: Build) -> None:
    """Falls from 9 to 6 at once and rests there. Fails when `RESTS` is 7."""
    train = [9.0, 8.0, 7.0, *[6.0] * 57]
    assert kinds(build(train=train, validation=[6.0] * 6))["plateau"] == "warning"
    assert "plateau" not in kinds(build(train=[t / 3 for t in train], validation=[2.0] * 6))


# ── loggers that write 0 for what they do not know ─────────────────────────────────────────


def test_zeros_beside_a_loss_that_falls_are_the_logger_s(build: Build) -> None:
    """Sharded optimizers log such norms and rates. Fails when `_learns` is always False, and
    when `LEARNED` is 10."""
    fall, flat, zero = list(2 + 3 * np.exp(-np.arange(100) / 15)), [5.0] * 100, [0.0] * 100
    answer = RULES["vanishing_gradient"](build(train=fall, norms=zero))
    assert isinstance(answer, NotAssessed) and answer.needs == "the gradient norm"
    found = only(build(train=flat, norms=zero), "vanishing_gradient")
    assert (found.severity, found.certainty) == ("critical", "certain")
    lying = only(build(train=fall, rate=zero), "lr_too_low")
    assert (lying.severity, lying.certainty) == ("info", "possible")
    assert lying.change is not None and not lying.change.patch
    true = only(build(train=flat, rate=zero), "lr_too_low")
    assert (true.severity, true.certainty) == ("critical", "certain")
