"""Each rule on a case written by hand: what it says, and when it keeps silent."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from wellfit.diagnosis import NotAssessed, diagnose, exit_status
from wellfit.diagnosis.rules import RULES
from wellfit.monitor.history import Context, History, Series
from wellfit.records import Event, Finding

Build = Callable[..., History]


def decay(n: int = 60, start: float = 5.0, end: float = 2.0, steps: float = 12.0) -> list[float]:
    return [end + (start - end) * math.exp(-k / steps) for k in range(n)]


def findings(history: History) -> dict[str, Finding]:
    return {finding.kind: finding for finding in diagnose(history).findings}


def only(history: History, rule: str) -> Finding:
    answer = RULES[rule](history)
    assert isinstance(answer, list) and len(answer) == 1, answer
    return answer[0]


# ── overfitting ────────────────────────────────────────────────────────────────────────────


def test_overfitting_fires_on_the_worked_case(build: Build) -> None:
    """The case of catalogue entry O22: two evaluations above the lowest, the last by 24 %.

    Fails when `FAST_RISE` is ln 1.5 instead of ln 1.05.
    """
    found = only(
        build(train=[2.1, 1.8, 1.5, 1.3, 1.1], validation=[2.2, 1.9, 1.7, 1.8, 2.1]), "overfitting"
    )
    assert (found.severity, found.since_step, found.causes[0].id) == ("warning", 30, "O22")
    assert "lowest, 1.7, at step 30" in found.evidence[0]
    assert found.change is not None and found.change.patch == {"train.budget": {"steps": 30}}


def test_overfitting_is_silent_on_a_healthy_exponential_with_noise(build: Build) -> None:
    """The other case of O22: a falling exponential with noise 0.07, in 400 draws.

    Fails when `EVIDENCE` and `CHOICE` of `rules/overfitting.py` are 0: 8 % of the draws fire.
    """
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(400):
        n = int(rng.integers(5, 21))
        curve = 1.7 + 1.5 * np.exp(-np.linspace(0, 4, n))
        run = build(train=list(curve), validation=list(curve + 0.05 + rng.normal(0, 0.07, n)))
        alarms += RULES["overfitting"](run) != []
    assert alarms <= 4


def test_overfitting_needs_a_falling_training_loss(build: Build) -> None:
    """Fails when `_training_fall` never gives None."""
    up = [2.2, 1.9, 1.7, 1.8, 2.1, 2.4, 2.8]
    assert RULES["overfitting"](build(train=[1.5] * 7, validation=up)) == []


def test_overfitting_is_critical_from_half_as_much_again(build: Build) -> None:
    found = only(
        build(train=decay(50, 1.0, 0.01), validation=[0.31, 0.36, 0.42, 0.45, 0.47]), "overfitting"
    )
    assert found.severity == "critical" and "(+51.6%)" in found.evidence[0]


def test_a_known_standard_error_bounds_the_noise(build: Build) -> None:
    """The same five evaluations: unclear by themselves, a rise where each is known to 0.002."""
    scores = [2.00, 1.90, 1.85, 1.87, 1.90, 1.92]
    run = build(train=decay(60), validation=scores)
    errors = Series(run.validation_loss["validation"].steps, (0.002,) * 6)
    known = build(train=decay(60), validation=scores, validation_se=errors)
    assert RULES["overfitting"](run) == []
    assert only(known, "overfitting").since_step == 300


def test_overfitting_says_what_it_lacks(build: Build) -> None:
    answer = RULES["overfitting"](build(train=decay(), validation=[2.0]))
    assert isinstance(answer, NotAssessed) and "three evaluations" in answer.needs
    assert answer.why == "1 evaluation does not show whether the validation loss turns."


# ── non-finite, zero ───────────────────────────────────────────────────────────────────────


def test_nan_to_the_end_is_critical_and_hides_its_symptoms(build: Build) -> None:
    """A NaN at step 400 explains everything after it; `exit_status` is 1.

    Fails when `SYMPTOMS` of the engine lacks `non_finite`.
    """
    train = [*decay(39), *[math.nan] * 3, *[9.0] * 17, math.nan]
    assert "divergence" in {f.kind for f in RULES["divergence"](build(train=train))}  # type: ignore[union-attr]
    found = findings(build(train=train))
    assert set(found) == {"non_finite", "no_validation"}
    assert found["non_finite"].severity == "critical" and found["non_finite"].since_step == 400
    assert any("It explains divergence" in line for line in found["non_finite"].evidence)
    assert exit_status(diagnose(build(train=train))) == 1


def test_isolated_infinite_gradients_are_information(build: Build) -> None:
    norms = [1.0] * 100
    norms[50] = math.inf
    run = build(train=decay(100), norms=norms, every=1)
    assert findings(run)["non_finite"].severity == "info"
    assert exit_status(diagnose(run)) == 0


def test_non_finite_gradients_to_the_end_are_critical(build: Build) -> None:
    """Fails when `lasting` in `_gradients` is always False."""
    run = build(train=decay(200), norms=[1.0] * 195 + [math.nan] * 5, every=1)
    found = findings(run)["non_finite"]
    assert (found.severity, found.since_step) == ("critical", 196)
    assert "some loggers hide NaN losses" in found.evidence[1]


def test_zero_loss_with_zero_gradients_is_certain(build: Build) -> None:
    found = only(build(train=[0.0] * 10, norms=[0.0] * 10), "zero_loss")
    assert (found.severity, found.certainty, found.causes[0].id) == ("critical", "certain", "D08")
    assert found.change is not None and "−100" in found.change.text


# ── divergence and spikes ──────────────────────────────────────────────────────────────────


def test_divergence_names_the_step_and_the_rate(build: Build) -> None:
    train = [*decay(40), *[2.2, 3.0, 4.5], *[6.0] * 17]
    run = build(train=train, rate=[3e-3] * 60, recipe=_recipe("muon"))
    found = findings(run)["divergence"]
    assert found.severity == "critical" and found.causes[0].id == "O01"
    assert 380 <= (found.since_step or 0) <= 400
    assert found.change is not None
    assert found.change.patch == {
        "train.optimizer.learning_rate": 0.001,
        "train.optimizer.matrix_learning_rate": 0.00667,
    }


def test_a_planned_restart_of_the_rate_is_no_divergence(build: Build) -> None:
    """Fails when `restarted` always gives False."""
    train = [*decay(40), *[2.9] * 20]
    fall = list(np.linspace(1e-3, 1e-5, 40))
    assert RULES["divergence"](build(train=train, rate=fall + [1e-5] * 20)) != []
    assert RULES["divergence"](build(train=train, rate=fall + [1e-3] * 20)) == []


def test_gradients_that_grow_tenfold_without_any_gain(build: Build) -> None:
    run = build(train=[1.40] * 40, rate=[1e-2] * 40, norms=list(np.geomspace(1, 1e4, 40)))
    found = findings(run)["gradient_explosion"]
    assert found.evidence[1] == "For: meanwhile the loss changed by +0.0%."
    assert found.change is not None
    assert found.change.patch == {"train.optimizer.learning_rate": 0.001}


def test_one_jump_is_information_and_a_habit_is_a_warning(build: Build) -> None:
    """Fails when `REPEATED` is 1."""
    rng = np.random.default_rng(3)
    calm = np.array(decay(200, steps=40)) * np.exp(rng.normal(0, 0.01, 200))
    one, many = calm.copy(), calm.copy()
    one[120] *= 2
    many[[60, 100, 140, 180]] *= 2
    assert RULES["loss_spike"](build(train=list(calm))) == []
    found = only(build(train=list(one)), "loss_spike")
    assert (found.severity, found.since_step, found.change) == ("info", 1210, None)
    found = only(build(train=list(many)), "loss_spike")
    assert (found.severity, found.since_step, found.causes[0].id) == ("warning", 610, "D07")


# ── plateau ────────────────────────────────────────────────────────────────────────────────


def test_plateau_at_uniform_guesses(build: Build) -> None:
    run = build(train=[5.54] * 40, rate=[1e-3] * 40, context=Context(vocabulary_size=256))
    found = findings(run)["plateau"]
    assert found.severity == "critical" and "uniform guesses (100% of" in found.evidence[0]


def test_plateau_is_silent_on_a_converged_run(build: Build) -> None:
    """Flat for 95 % of the run, at the chance level ln 4, but after a fall from 5: converged.

    Fails when `BARELY` is 1.5.
    """
    run = build(train=decay(200, 5.0, math.log(4), steps=2), rate=[1e-3] * 200)
    assert RULES["plateau"](run) == []
    assert diagnose(run).verdict.progress == "converged"


def test_plateau_abstains_between_chance_and_learning(build: Build) -> None:
    """Flat at 62 % of ln V from scratch: token frequencies, or poor text; it says what decides."""
    run = build(train=decay(100, 5.5, 3.44, 3.0), context=Context(vocabulary_size=256))
    answer = RULES["plateau"](run)
    assert isinstance(answer, NotAssessed) and "unigram entropy" in answer.needs


def test_a_good_model_that_stays_good_is_no_plateau(build: Build) -> None:
    """Flat at 0.3, below every chance level. Fails when `LOWEST_CHANCE` is 0."""
    run = build(train=[0.30, 0.31, 0.29] * 20, rate=[1e-5] * 60)
    assert RULES["plateau"](run) == [] and exit_status(diagnose(run)) == 0


# ── learning rate ──────────────────────────────────────────────────────────────────────────


def test_a_rate_of_zero_is_certain_and_vetoes_lowering_it(build: Build) -> None:
    """Rate 0, loss flat then jumping: O04 first, and no finding advises a lower rate.

    Fails when `_veto` returns its findings unchanged and `SYMPTOMS` lacks `lr_too_low`.
    """
    train = [2.0] * 20 + [5.0, 2.0, 2.0, 2.0, 5.0, 2.0] * 10 + [2.0] * 20
    diagnosis = diagnose(build(train=train, rate=[0.0] * 100, recipe=_recipe("adamw")))
    found = diagnosis.findings[0]
    assert (found.kind, found.certainty, found.causes[0].id) == ("lr_too_low", "certain", "O04")
    assert diagnosis.verdict.progress == "stuck"
    for finding in diagnosis.findings:
        patch = finding.change.patch if finding.change else {}
        assert not any("learning_rate" in path for path in patch)


def test_the_veto_replaces_advice_of_a_foreign_rule(build: Build) -> None:
    """Fails when `_veto` returns its findings unchanged."""
    from wellfit.diagnosis.changes import scale_rate

    def too_hot(history: History) -> list[Finding]:
        change = scale_rate(history, 1 / 3, "because.")
        return [Finding("too_hot", "warning", "possible", 1, ("For: it.",), (), change)]

    run = build(train=[2.0] * 20, rate=[0.0] * 20, recipe=_recipe("adamw"))
    found = {f.kind: f for f in diagnose(run, RULES | {"too_hot": too_hot}).findings}
    change = found["too_hot"].change
    assert change is not None and change.patch == {}
    assert change.text.startswith("First make the learning rate differ from 0")


def test_a_schedule_that_ends_too_early(build: Build) -> None:
    rate = list(np.linspace(1e-3, 0, 50)) + [0.0] * 50
    found = only(build(train=decay(100), rate=rate), "lr_too_low")
    assert (found.causes[0].id, found.severity, found.since_step) == ("O06", "warning", 500)


def test_a_tiny_rate_from_scratch_falls_slowly_and_steadily(build: Build) -> None:
    """Fails when `TINY_FROM_SCRATCH` is 0."""
    train = [8.3 * (1 - 0.2 * k / 100) for k in range(100)]
    context = Context(vocabulary_size=4096, from_scratch=True)
    found = only(build(train=train, rate=[1e-5] * 100, context=context), "lr_too_low")
    assert found.causes[0].id == "O03"
    assert found.change is not None
    assert found.change.patch == {"train.optimizer.learning_rate": 0.0001}
    assert RULES["lr_too_low"](build(train=train, rate=[1e-3] * 100, context=context)) == []


# ── information, abstention, form ──────────────────────────────────────────────────────────


def test_short_logs_and_missing_validation_are_never_alarms(build: Build) -> None:
    run = build(train=[3.0, 2.5, 2.2], rate=[1e-4] * 3)
    found = findings(run)
    assert found["too_few_points"].severity == found["no_validation"].severity == "info"
    assert found["no_validation"].causes[0].id == "E11"
    assert exit_status(diagnose(run)) == 0
    assert diagnose(run).verdict.progress == "unclear"


def test_advice_to_score_more_often_fits_how_often_it_was_scored(build: Build) -> None:
    """Fails when `_score_more` ignores the recipe: it would ask for what is planned already."""
    never = findings(build(train=decay(60)))["no_validation"]
    assert never.change is not None and never.change.patch == {"evaluate.every": 60}
    once = findings(build(train=decay(60), validation=[3.0]))["no_validation"]
    assert "measured once" in once.evidence[0] and "further apart" in once.causes[0].why
    recipe = {"evaluate": {"every": 50}}
    planned = build(train=decay(60), recipe=recipe, context=Context(planned_steps=1000))
    assert findings(planned)["no_validation"].change is None
    assert "no_validation" not in findings(build(train=decay(60), validation=[3.0, 2.9]))


def test_a_short_run_is_not_told_to_log_more_often(build: Build) -> None:
    """Fails when `_change` always speaks of logging: each of the five steps is logged here."""
    short = findings(build(train=[3.0, 2.5, 2.2, 2.1, 2.0], every=1))["too_few_points"]
    assert short.change is not None and short.change.text == "Train for more than 5 steps."
    sparse = findings(build(train=[3.0, 2.5, 2.2], every=100))["too_few_points"]
    assert sparse.change is not None and "Log the training loss more often" in sparse.change.text
    running = findings(build(train=[3.0, 2.5], every=1, status="running"))["too_few_points"]
    assert running.change is None


def test_the_loss_of_reinforcement_learning_is_not_judged(build: Build) -> None:
    """Fails when `loss_is_likelihood` always gives True: the losses would be a plateau at 0."""
    event = Event(0, "objective", "reinforcement learning", {"likelihood": False})
    run = build(train=[1e-5] * 50, rate=[1e-6] * 50, events=(event,))
    diagnosis = diagnose(run)
    assert {n.what for n in diagnosis.not_assessed} >= {"divergence", "plateau", "loss_spike"}
    assert diagnosis.verdict.progress == "unclear" and exit_status(diagnosis) == 0


def test_json_has_exactly_the_promised_fields(build: Build) -> None:
    train = [*decay(40), math.nan]
    plain = diagnose(build(train=train, rate=[1e-3] * 41)).to_json()
    text = json.dumps(plain, allow_nan=False)
    assert json.loads(text) == plain
    assert set(plain) == {"verdict", "summary", "findings", "not_assessed"}
    assert set(plain["verdict"]) == {"fit", "progress"}
    finding = plain["findings"][0]
    assert set(finding) == {
        *("kind", "severity", "certainty", "since_step", "evidence", "causes", "change")
    }
    assert set(finding["causes"][0]) == {"id", "likelihood", "why"}
    assert set(finding["change"]) == {"patch", "text"}
    assert set(plain["not_assessed"][0]) == {"what", "why", "needs"}
    assert plain["summary"]["non_finite"] == 1


@pytest.mark.parametrize("rule", ["divergence", "overfitting", "lr_too_low"])
def test_every_patch_names_a_setting_of_the_recipe(build: Build, rule: str) -> None:
    from wellfit.recipe.schema import AdamW, Budget, Muon, Train

    runs = {
        "divergence": build(train=decay(40) + [9.0] * 20, rate=[1e-3] * 60),
        "overfitting": build(train=decay(60), validation=[2.0, 1.8, 1.7, 1.9, 2.2, 2.5]),
        "lr_too_low": build(train=[2.0] * 20, rate=[0.0] * 20),
    }
    change = only(runs[rule], rule).change
    assert change is not None and change.patch
    known = {f"train.{name}" for name in Train.model_fields}
    known |= {f"train.optimizer.{n}" for kind in (AdamW, Muon) for n in kind.model_fields}
    known |= {f"train.schedule.{n}" for n in ("kind", "warmup", "decay_share", "final_share")}
    assert set(change.patch) <= known
    if "train.budget" in change.patch:
        Budget.model_validate(change.patch["train.budget"])


def _recipe(kind: str) -> dict[str, Any]:
    optimizer = {"kind": kind, "learning_rate": 3e-3}
    if kind == "muon":
        optimizer["matrix_learning_rate"] = 0.02
    return {"train": {"optimizer": optimizer}}
