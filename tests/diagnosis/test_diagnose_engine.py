"""Verdicts, summary, the kit for rules, and how light the room is."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wellfit.diagnosis import NotAssessed, diagnose, exit_status
from wellfit.diagnosis.rules import RULES, rules_with
from wellfit.diagnosis.rules.kit import check_rule
from wellfit.errors import RecipeError
from wellfit.monitor.history import History, Series
from wellfit.records import Cause, Finding

Build = Callable[..., History]


def curve(n: int, steps: float) -> list[float]:
    return [2.0 + 3.0 * math.exp(-k / steps) for k in range(1, n + 1)]


# ── verdict ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("constants", "fit", "progress"),
    [(8.0, "well_fit", "converged"), (1.2, "underfit", "still_improving")],
)
def test_verdict_follows_the_true_curve(
    build: Build, constants: float, fit: str, progress: str
) -> None:
    """An exponential cut after 8 time constants has 0.03 % to fall, after 1.2 another 10 %.

    Fails when `WORTH` is 0.5 (second case) or the slope's sign is turned (first case).
    """
    rng = np.random.default_rng(1)
    train = np.array(curve(100, 100 / constants)) * np.exp(rng.normal(0, 0.01, 100))
    run = build(train=list(train), validation=curve(20, 20 / constants))
    verdict = diagnose(run).verdict
    assert (verdict.fit, verdict.progress) == (fit, progress)


def test_verdict_without_validation_is_unclear(build: Build) -> None:
    diagnosis = diagnose(build(train=curve(100, 10)))
    assert (diagnosis.verdict.fit, diagnosis.verdict.progress) == ("unclear", "converged")
    assert diagnosis.summary["criteria"]["fit"] == "fewer than 3 validation losses"


def test_verdict_of_an_overfitted_and_of_a_broken_run(build: Build) -> None:
    over = diagnose(build(train=curve(60, 20), validation=[2.4, 2.2, 2.1, 2.3, 2.6, 2.9]))
    assert over.verdict.fit == "overfit"
    broken = diagnose(build(train=curve(30, 20) + [math.nan] * 30))
    assert (broken.verdict.fit, broken.verdict.progress) == ("unclear", "stuck")
    assert "non_finite" in broken.summary["criteria"]["progress"]


def test_training_that_falls_on_past_a_resting_validation_is_no_underfit(build: Build) -> None:
    """Fails when `_fit` gives `underfit` whenever progress is `still_improving`."""
    run = build(train=curve(60, 60), validation=[2.1, 2.001, 2.0])
    assert diagnose(run).verdict.fit == "well_fit"


def test_summary_has_the_figures_of_the_run(build: Build) -> None:
    epochs = Series((10, 20, 30, 40), (0.5, 1.0, 1.5, 2.0))
    run = build(
        train=[4.0, 3.0, 2.0, 1.0],
        validation=[3.0, 2.5],
        rate=[1e-3, 2e-3, 1e-3, 5e-4],
        epoch=epochs,
    )
    summary = diagnose(run).summary
    assert summary["steps"] == 40 and summary["points"] == 4
    assert (summary["first_loss"], summary["last_loss"]) == (4.0, 1.0)
    assert summary["reduction_percent"] == pytest.approx(75.0)
    assert summary["reduction_per_step"] == pytest.approx(0.1)
    assert summary["learning_rate_decay_percent"] == pytest.approx(75.0)
    assert summary["mean_loss_by_epoch"] == {"1": 3.5, "2": 1.5}
    assert (summary["best_step"], summary["best_loss"]) == (40, 2.5)


# ── rules as an extension ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", RULES)
def test_every_rule_passes_the_kit(name: str) -> None:
    check_rule(RULES[name])


def careless(history: History) -> list[Finding]:
    assert history.train_loss.values[-1] > 0
    return []


def unranked(history: History) -> list[Finding]:
    causes = (Cause("O01", 0.1, "why"), Cause("O02", 0.9, "why"))
    return [Finding("hot", "warning", "likely", 1, ("For: it.",), causes)]


def silent(history: History) -> NotAssessed:
    return NotAssessed("x", "", "")


def opinion(history: History) -> list[Finding]:
    return [Finding("hot", "warning", "likely", 1, ())]


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (careless, "on the history `empty` the rule raises IndexError"),
        (unranked, "causes are not ranked"),
        (silent, "say what, why, needs"),
        (opinion, "a finding without evidence is an opinion"),
        (lambda history: None, "gives NoneType"),
    ],
)
def test_the_kit_finds_what_is_wrong(rule: Callable[[History], object], told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        check_rule(rule)  # type: ignore[arg-type]


def test_the_kit_finds_a_rule_that_answers_differently() -> None:
    calls = iter(range(1000))

    def moody(history: History) -> list[Finding]:
        return [Finding("hot", "info", "likely", next(calls), ("For: it.",))]

    with pytest.raises(AssertionError, match="two calls give two answers"):
        check_rule(moody)


def test_a_foreign_rule_is_named_by_module_and_function(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_rules_of_a_test.py").write_text(
        "from wellfit.records import Finding\n"
        "def always(history):\n"
        "    return [Finding('always', 'warning', 'possible', None, ('For: always.',))]\n",
        encoding="utf-8",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    rules = rules_with(["my_rules_of_a_test:always"])
    diagnosis = diagnose(build(train=curve(60, 5)), rules)
    assert diagnosis.findings[0].kind == "always" and exit_status(diagnosis) == 1
    with pytest.raises(RecipeError):
        rules_with(["my_rules_of_a_test:never"])


# ── form ───────────────────────────────────────────────────────────────────────────────────

losses = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=40)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(train=losses, validation=losses, rate=losses, norms=losses)
def test_any_numbers_give_a_diagnosis(
    train: list[float], validation: list[float], rate: list[float], norms: list[float]
) -> None:
    def series(values: list[float]) -> Series:
        return Series(tuple(range(len(values))), tuple(values))

    history = History(
        name="any",
        format="run folder",
        train_loss=series(train),
        validation_loss={"validation": series(validation)},
        learning_rate=series(rate),
        grad_norm=series(norms),
    )
    assert exit_status(diagnose(history)) in (0, 1)


def test_the_room_is_light() -> None:
    """`wellfit.diagnosis` loads neither torch nor pydantic, matplotlib or pyarrow."""
    code = (
        "import sys, wellfit.diagnosis, wellfit.diagnosis.rules.kit\n"
        "heavy = {'torch', 'pydantic', 'matplotlib', 'pyarrow', 'transformers', 'scipy'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
