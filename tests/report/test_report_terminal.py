"""The terminal page: short, true, and readable without colour."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from report_runs import HEALTHY, SICK

from wellfit.diagnosis.engine import diagnose
from wellfit.monitor.folder import read_history
from wellfit.monitor.history import History, Series
from wellfit.report import diagnosis_text
from wellfit.report.terminal import BLOCKS, sparkline
from wellfit.report.words import headline, ranked, worst

ANSI = re.compile(r"\x1b\[\d*m")


def test_a_sick_run_is_understood_from_the_top_down(sick_run: Path) -> None:
    text = diagnosis_text(SICK, read_history(sick_run))
    parts = (
        "✗ The training broke: its numbers stopped being finite at step 300",
        "✗ The numbers broke (NaN or infinity) at step 300 [critical, certain]",
        "– The gradient norm rose from 0.8 to 412",
        "? 70 %: the learning rate is too high (O01)",
        "▲ The loss jumped at step 250 [warning, likely]",
        "Do this next",
        "Go back to the checkpoint before step 300",
        "wellfit train RUN/recipe.yaml train.optimizer.learning_rate=0.003",
        "Not assessed",
        "– Overfitting: Nothing was held out.",
    )
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    assert text.count("Do this next") == 1


def test_a_healthy_run_says_so_and_asks_for_nothing(healthy_run: Path) -> None:
    text = diagnosis_text(HEALTHY, read_history(healthy_run))
    assert "✓ The training went well" in text
    assert "Do this next" not in text
    assert re.search(r"training +[▁-█·]+ \d\.\d+ → \d\.\d+", text)
    assert re.search(r"validation +[▁-█·]+ \d\.\d+ → \d\.\d+", text)


def test_a_real_diagnosis_can_be_shown(healthy_run: Path) -> None:
    """The two rooms agree on names: this is what `wellfit diagnose` prints."""
    history = read_history(healthy_run)
    told = diagnose(history).to_json()
    text = diagnosis_text(told, history)
    assert "unclear" in told["verdict"].values() or "went well" in text or "ended early" in text
    for entry in told["not_assessed"]:
        assert entry["needs"].split()[0] in text


def test_lines_fit_the_width_and_colour_changes_nothing_but_colour(sick_run: Path) -> None:
    history = read_history(sick_run)
    plain = diagnosis_text(SICK, history, width=60)
    for line in plain.splitlines():
        # A command must stay in one piece to be copied.
        assert len(line) <= 60 or "wellfit train" in line, line
    coloured = diagnosis_text(SICK, history, width=60, colour=True)
    assert coloured != plain
    assert ANSI.sub("", coloured) == plain
    assert "\x1b" not in plain


def test_sparkline_blocks_stand_for_ratios() -> None:
    """Breaks when the scale is not logarithmic, or low and high are swapped."""
    series = Series((0, 1, 2), (16.0, 4.0, 1.0))
    assert sparkline(series, 3, (0, 2), (1.0, 16.0)) == f"█{BLOCKS[round(7 / 2)]}▁"


@pytest.mark.parametrize(
    ("values", "row"),
    [
        ((math.nan, 1.0, math.inf), "×▁×"),
        ((1.0, 1.0, 1.0), "▁▁▁"),
        ((0.0, -1.0, 1.0), "▅▁█"),
    ],
)
def test_sparkline_survives_any_value(values: tuple[float, ...], row: str) -> None:
    finite = [value for value in values if math.isfinite(value)]
    drawn = sparkline(Series((0, 1, 2), values), 3, (0, 2), (min(finite), max(finite)))
    assert drawn == row


@pytest.mark.parametrize(
    "history",
    [
        History("empty", "trainer_state.json"),
        History("nan", "x", train_loss=Series((1, 2), (math.nan, math.nan))),
        History("one", "x", train_loss=Series((7,), (1.0,))),
        History("runaway", "x", train_loss=Series((1, 2, 3), (2.0, 1.9, 1e30))),
    ],
    ids=lambda history: history.name,
)
def test_the_thinnest_histories_have_a_text(history: History) -> None:
    for diagnosis in (HEALTHY, SICK, {}):
        text = diagnosis_text(diagnosis, history)
        assert history.name in text
        assert text.endswith("\n")


def test_an_alarm_always_comes_before_the_verdict() -> None:
    """Breaks when the headline of a run with an alarm is taken from its verdict."""
    history = History("a", "x", train_loss=Series((1,), (1.0,)))
    verdict = {"fit": "well_fit", "progress": "converged"}
    for severity in ("warning", "critical"):
        for kind in ("plateau", "dead_neurons"):
            finding = {"kind": kind, "severity": severity, "since_step": 5}
            said = headline({"verdict": verdict, "findings": [finding]}, history)
            assert "went well" not in said
            assert "since step 5" in said
    information = {"kind": "schedule", "severity": "info"}
    assert "went well" in headline({"verdict": verdict, "findings": [information]}, history)


def test_the_worst_comes_first_and_equals_keep_their_order() -> None:
    kinds = ["a", "b", "c", "d"]
    severities = ["info", "warning", "critical", "warning"]
    found = [{"kind": k, "severity": s} for k, s in zip(kinds, severities, strict=True)]
    assert [f["kind"] for f in ranked({"findings": found})] == ["c", "b", "d", "a"]
    assert worst({"findings": found}) == "critical"
    assert worst({"findings": found[:1]}) == "healthy"
