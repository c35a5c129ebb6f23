"""The page and the text of a run known by its log alone, and the text of several runs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from report_runs import HEALTHY, SICK
from test_report_safety import ATTACK, Page

from wellfit.monitor.history import Context, History, Series
from wellfit.report.context import missing_context
from wellfit.report.gather import from_log
from wellfit.report.overview import overview_text
from wellfit.report.page import page_text, write_page
from wellfit.report.terminal import diagnosis_text


def foreign(**more: Any) -> History:
    steps = tuple(range(10, 410, 10))
    return History(
        **{
            "name": "somebody-s-run",
            "format": "CSV",
            "train_loss": Series(steps, tuple(4 - i / 20 for i in range(40))),
            "validation_loss": {"validation": Series((200, 400), (3.1, 2.5))},
            "learning_rate": Series(steps, (3e-4,) * 40),
            **more,
        }
    )


def test_a_page_of_a_log_leaves_out_what_a_log_does_not_hold() -> None:
    """Break tried: `material.folder is None` taken out of `_body`, and out of `key_figures`."""
    text = page_text(from_log(foreign(), SICK))
    page = Page(text)
    sections = [str(a.get("id")) for tag, a in page.elements if tag == "section"]
    assert sections == ["verdict", "figures", "findings", "curves"]
    links = [a["href"] for tag, a in page.elements if tag == "a"]
    assert links == ["#findings", "#curves"]
    shown = " ".join(page.texts)
    assert "CSV: 40 training losses and 2 held-out losses, up to step 400." in shown
    assert "unknown" not in shown and "not recorded" not in shown
    for said in ("The training broke", "rose from 0.8 to 412", "70 %", "halve the learning rate"):
        assert said in shown
    assert "wellfit train" not in shown


def test_what_is_not_counted_in_steps_is_not_compared_with_steps() -> None:
    """Break tried: the planned steps beside the rows; the table by epoch of a log by epoch."""
    steps = tuple(range(1, 41))
    epochs = Series(steps, tuple(float(step) for step in steps))
    for axis, name in (("row", "Rows of the log"), ("epoch", "Epochs")):
        log = foreign(axis=axis, epoch=epochs, context=Context(planned_steps=777))
        shown = " ".join(Page(page_text(from_log(log, HEALTHY))).texts)
        assert name in shown and "777" not in shown
        assert ("By epoch" in shown) == (axis == "row")


def test_a_short_curve_has_no_holes() -> None:
    """Break tried: 44 columns whatever the points."""
    steps = tuple(range(1, 31))
    text = diagnosis_text(
        HEALTHY, foreign(train_loss=Series(steps, (2.0,) * 30), validation_loss={})
    )
    (line,) = [line for line in text.splitlines() if line.startswith("  training")]
    assert "·" not in line


def test_a_figure_the_log_does_not_tell_has_no_tile() -> None:
    """Break tried: perplexity whatever the task."""
    plain = " ".join(Page(page_text(from_log(foreign(), HEALTHY))).texts)
    assert "Perplexity" not in plain and "Speed" not in plain
    told = foreign(context=Context(task="language"), tokens_per_second=Series((10,), (500.0,)))
    shown = " ".join(Page(page_text(from_log(told, HEALTHY))).texts)
    assert "Perplexity" in shown and "Speed" in shown


@pytest.mark.parametrize("axis", ["epoch", "row"])
def test_the_axis_is_named_by_what_the_log_counts(axis: str) -> None:
    """Break tried: `title: { text: "step"` in page.js; `axis` not handed to the loss chart."""
    history = foreign(axis=axis, grad_norm=Series((10, 20), (1.0, math.nan)))
    text = page_text(from_log(history, SICK))
    assert text.count(f'"axis":"{axis}"') == 3
    shown = " ".join(Page(text).texts)
    assert f"up to {axis} 400" in shown and f"at {axis} 300" in shown
    assert "up to step" not in shown and "at step 300" not in shown.replace("before step 300", "")
    assert f"first at {axis} 20" in shown
    terminal = diagnosis_text(SICK, history)
    assert f"at {axis} 300" in terminal and f"  {axis}s " in terminal
    script = Path(__file__).parents[2] / "src/wellfit/report/page.js"
    assert 'text: "step' not in script.read_text()


def test_names_from_a_log_stay_text(tmp_path: Path) -> None:
    """Break tried: the name without `escape` in `_log_body`; without `readable` in `_names`."""
    history = foreign(
        name=ATTACK,
        format=ATTACK,
        validation_loss={ATTACK: Series((200, 400), (3.1, 2.5))},
        notes=(ATTACK,),
    )
    finding = {"kind": ATTACK, "severity": "warning", "since_step": 20, "evidence": [ATTACK]}
    told = {
        "findings": [finding],
        "not_assessed": [{"what": ATTACK, "why": ATTACK, "needs": ATTACK}],
    }
    page = Page(write_page(from_log(history, told), tmp_path / "page.html").read_text())
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert not [a for _, attributes in page.elements for a in attributes if a.startswith("on")]
    assert "\u202e" not in "".join(page.texts)
    for text in (diagnosis_text(told, history), overview_text([(ATTACK, told, history)] * 2)):
        assert "\x1b" not in text and "\u202e" not in text


def test_several_runs_begin_with_a_line_for_each() -> None:
    """Break tried: the order as given; the page of a run without alarm among many."""
    runs = [(f"{i}.csv", HEALTHY, foreign(name=f"run-{i}")) for i in range(5)]
    runs.append(("sick.csv", SICK, foreign(name="sick")))
    text = overview_text(runs, unreadable=2)
    lines = text.splitlines()
    assert lines[0] == "6 runs: 1 critical, 5 without alarm, 2 not readable"
    assert lines[2].startswith("✗ sick") and "non finite at step 300" in lines[2]
    assert [line.split()[1] for line in lines[3:8]] == [f"run-{i}" for i in range(5)]
    assert text.count("Do this next") == 1 and text.count("went well") == 0
    assert all(len(line) <= 80 for line in lines)


def test_few_runs_are_all_shown_and_many_are_counted() -> None:
    """Break tried: only runs with an alarm, few or many; all of those."""
    few = overview_text([("a", HEALTHY, foreign(name="a")), ("b", HEALTHY, foreign(name="b"))])
    assert few.count("went well") == 2
    many = overview_text([(f"{i}", SICK, foreign(name=f"{i}")) for i in range(9)])
    assert many.count("Do this next") == 3
    assert "6 more runs with findings" in many


def test_runs_called_alike_are_told_apart_by_their_paths() -> None:
    """Break tried: the name alone."""
    runs = [(f"{i}/log.csv", HEALTHY, foreign(name="log")) for i in "ab"]
    text = overview_text(runs)
    assert "a/log.csv" in text and "b/log.csv" in text


def test_information_does_not_come_before_what_to_do() -> None:
    """Break tried: all findings before the advice."""
    text = diagnosis_text(SICK, foreign())
    assert text.index("The loss jumped") < text.index("Do this next")
    assert text.index("Do this next") < text.index("· Nothing was held out")


def test_questions_without_an_answer_for_one_reason_share_a_line() -> None:
    """Break tried: a line for each."""
    why = {"why": "No gradient norms.", "needs": "gradient norms"}
    told = {"not_assessed": [{"what": "gradient_explosion", **why}, {"what": "overfitting", **why}]}
    text = diagnosis_text(told, foreign())
    assert "Gradient explosion, overfitting: No gradient norms." in text


def test_notes_of_the_reader_are_shown_briefly() -> None:
    """Break tried: all notes."""
    text = diagnosis_text(HEALTHY, foreign(notes=tuple(f"Note {i}." for i in range(8))))
    assert "Note 2." in text and "Note 3." not in text and "… and 5 more" in text


RESTS = {"verdict": {"fit": "unclear", "progress": "converged"}}
BY_HEART = {"not_assessed": [{"what": "memorisation", "needs": "epochs"}]}
HIGH = {"train_loss": Series((1, 2), (28.0, 16.6))}


@pytest.mark.parametrize(
    ("told", "history", "said"),
    [
        (RESTS, foreign(**HIGH), "--vocab"),
        (RESTS, foreign(**HIGH, context=Context(vocabulary_size=100)), None),
        (RESTS, foreign(**HIGH, context=Context(task="preference")), None),
        (RESTS, foreign(), None),
        (RESTS | {"findings": SICK["findings"]}, foreign(**HIGH), None),
        (BY_HEART, foreign(status="finished"), "--epochs"),
        (BY_HEART, foreign(status="unknown"), "--epochs"),
        (BY_HEART, foreign(status="crashed"), None),
        (
            BY_HEART,
            foreign(status="finished", epoch=Series((1, 2), (0.1, 0.2))),
            None,
        ),
        ({"findings": [{"kind": "memorisation", "severity": "warning"}]}, foreign(), "--task"),
        (
            {"findings": [{"kind": "memorisation", "severity": "warning"}]},
            foreign(context=Context(task="language")),
            None,
        ),
        ({}, foreign(), None),
        ({}, History("empty", "CSV"), None),
    ],
)
def test_missing_context_is_said_only_where_it_counts(
    told: dict[str, Any], history: History, said: str | None
) -> None:
    """Break tried: the condition on the last loss, on alarms, on the task, each taken out."""
    lines = missing_context(told, history)
    assert [said in line for line in lines] == [True] * (said is not None)
    text = diagnosis_text(told, history)
    assert ("Not known" in text) == (said is not None)
