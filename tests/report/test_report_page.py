"""The page says what the records say, and survives whatever is missing."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
from pathlib import Path

import pytest
from report_runs import CORPUS, HEALTHY, SICK, Write

from wellfit.errors import RunError
from wellfit.monitor.folder import read_history
from wellfit.monitor.history import Context, History, Series
from wellfit.records import Evaluated
from wellfit.report import write_report
from wellfit.report.charts import charts
from wellfit.report.figures import KeyFigure, key_figures, parameters
from wellfit.report.gather import Material, gather
from wellfit.report.health import as_arguments, as_yaml
from wellfit.report.page import page_text
from wellfit.report.told import score_words, trained_words


def words(page: Path | str) -> str:
    """What a reader sees: the text of the page without tags, scripts and styles."""
    text = page.read_text("utf-8") if isinstance(page, Path) else page
    text = re.sub(r"<(script|style).*?</\1>", " ", text, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", text)))


def named(figures: list[KeyFigure], name: str) -> KeyFigure:
    return next(figure for figure in figures if figure.name == name)


def material(history: History, **rest: object) -> Material:
    return Material(Path("run"), history, **rest)  # type: ignore[arg-type]


def test_the_first_screen_says_what_was_trained_how_good_it_is_and_what_to_do(
    healthy_run: Path,
) -> None:
    """The words come in this order, above the key figures; 2.1 million is 2·4096·128 for the
    embedding and the head, 4·(4·128² + 3·128·512) for the blocks and a few for the norms.

    Breaks when the head is left out of `parameters` (1.57 million).
    """
    longer = {"text": "Train twice as long.", "patch": {"train.budget.minutes": 3.2}}
    diagnosis = {
        "verdict": {"fit": "underfit", "progress": "still_improving"},
        "summary": {"next": longer, "criteria": {"fit": "it still falls"}},
        "findings": [{"kind": "no_validation", "severity": "info", "change": {"text": "Score."}}],
    }
    (healthy_run / "findings.json").write_text(json.dumps(diagnosis), encoding="utf-8")
    seen = words(write_report(healthy_run))
    order = (
        "A language model of 2.1 million parameters, trained",
        "of python-stdlib.",
        "healthy but ended early",
        "On text it has never seen it guesses",
        "plain text takes 8.",
        "Do this next. Train twice as long.",
        "wellfit train RUN/recipe.yaml train.budget.minutes=3.2 --out RUN-2",
        "Why: it still falls.",
        "Key figures",
    )
    places = [seen.find(part) for part in order]
    assert -1 not in places and places == sorted(places), dict(zip(order, places, strict=True))


def test_what_is_not_known_of_the_model_is_not_said() -> None:
    """Breaks when a recipe cut short raises, or is filled in with defaults."""
    history = History("a", "run folder", recipe={"model": {"layers": 4}})
    assert parameters(history) is None
    assert trained_words(material(history)) == "" and score_words(material(history)) == ""


def test_a_healthy_run_is_shown_whole(healthy_run: Path) -> None:
    page = write_report(healthy_run)
    assert page == healthy_run / "report.html"
    seen = words(page)
    for said in (
        "stdlib-nano",
        "while it still learns more of its training text",
        "Why: Validation loss fell at every evaluation.",
        "No rule found a fault",
        "No values of layers were recorded",
        "By domain test, step 400",
        "documentation",
        "read 2,480 12.90 MB –",
        "could not be read 3",
        "dropped: near duplicate 27 417.00 kB",
        "kept 2,412 12.48 MB 3,120,000",
        "validation 150 750.00 kB 190,000",
        "0.21 % of the 104,204 pieces of 13 words in held-out text",
        "near duplicate, similarity 0.912",
        "binary: a NUL byte 2",
        "changed by cleaning 12",
        "simplejson/decoder.py",
        "# size nano: enough to learn grammar in minutes",
        "libraries torch",
        "return self.buffer[:size]",
        "__init__ 31 %",
        "␣self 5 %",
    ):
        assert said in seen, said
    assert "unknown" not in seen.replace("shown as unknown", "")


def test_a_sick_run_says_what_since_when_how_sure_why_and_what_to_do(sick_run: Path) -> None:
    seen = words(write_report(sick_run))
    for said in (
        "its numbers stopped being finite at step 300",
        "Do this next. Go back to the checkpoint before step 300",
        "critical The numbers broke",
        "non_finite · certain · at step 300",
        "The gradient norm rose from 0.8 to 412",
        "70 % the learning rate is too high O01",
        "learning_rate: 0.003",
        "train.optimizer.learning_rate=0.003 train.optimizer.matrix_learning_rate=0.01",
        "Overfitting – Nothing was held out. It would need: evaluations",
        "101 loss values of 400 are not finite, first at step 300",
        "No held-out scores were recorded",
        "corpus.json was not recorded",
    ):
        assert said in seen, said
    assert seen.index("The numbers broke") < seen.index("The loss jumped")


def test_scores_are_those_of_the_test_set_with_their_errors(write: Write) -> None:
    """Breaks when the first evaluation is shown, or the standard error of another score."""
    run = write(steps=100, every=50)
    shown = key_figures(gather(run))
    loss = 2.0 + 6.3 * math.exp(-9)
    assert named(shown, "Held-out loss") == KeyFigure(
        "Held-out loss", f"{loss:.3f}", "± 0.021", "nats per token; test, step 100"
    )
    assert named(shown, "Bits per byte").value == f"{loss / math.log(2) / 3.4:.3f}"
    assert named(shown, "Bits per byte").spread == "± 0.009"
    assert named(shown, "Perplexity").value == f"{math.exp(loss):.1f}"
    assert (named(shown, "Accuracy").value, named(shown, "Accuracy").spread) == (
        "55.0 %",
        "± 0.4 %",
    )


def test_size_and_speed_mean_what_their_notes_say() -> None:
    """Breaks when time counts the last step only, speed is a mean, or memory the last value."""
    steps = (1, 2, 3)
    shown = key_figures(
        material(
            History(
                "a",
                "run folder",
                train_loss=Series(steps, (3.0, 2.0, 1.0)),
                seconds=Series(steps, (100.0, 20.0, 30.0)),
                tokens_per_second=Series(steps, (10.0, 1000.0, 1200.0)),
                memory_bytes=Series(steps, (1e9, 3e9, 2e9)),
                tokens=Series(steps, (1e6, 2e6, 3e6)),
                mfu=Series(steps, (0.1, 0.4, 0.5)),
                epoch=Series(steps, (0.5, 1.0, 1.5)),
                attempts=2,
                context=Context(planned_steps=10),
            )
        )
    )
    assert named(shown, "Training time").value == "2 min 30 s"
    assert named(shown, "Speed").value == "1,000"
    assert named(shown, "Peak memory").value == "3.00 GB"
    assert named(shown, "Tokens") == KeyFigure(
        "Tokens", "3 million", "", "1.50 passes over the data"
    )
    assert named(shown, "MFU").value == "40 %"
    assert named(shown, "Steps") == KeyFigure("Steps", "3", "", "of 10 planned; 2 attempts")


def test_the_best_loss_is_named_where_the_last_one_is_worse() -> None:
    losses = Series((10, 20, 30), (2.0, 1.5, 1.8))
    shown = key_figures(material(History("a", "x", validation_loss={"validation": losses})))
    assert named(shown, "Held-out loss").value == "1.800"
    assert named(shown, "Held-out loss").note.endswith("validation, step 30; best 1.500 at step 20")
    assert named(shown, "Perplexity").value == f"{math.exp(1.8):.1f}"


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e9])
def test_figures_survive_a_loss_that_is_no_number(loss: float) -> None:
    losses = Series((1,), (loss,))
    shown = key_figures(material(History("a", "x", validation_loss={"validation": losses})))
    assert named(shown, "Perplexity").value == ("NaN" if math.isnan(loss) else "∞")


def test_what_was_not_measured_is_unknown() -> None:
    shown = key_figures(material(History("a", "x", train_loss=Series((1,), (2.0,)))))
    for name in ("Held-out loss", "Bits per byte", "Tokens", "Speed", "MFU", "Peak memory"):
        assert named(shown, name).value == "unknown", name


@pytest.mark.parametrize(
    "piece",
    ["findings.json", "environment.json", "recipe.yaml", "corpus.json", "records", "run.json"],
)
def test_a_missing_piece_is_named_and_the_rest_is_shown(healthy_run: Path, piece: str) -> None:
    path = healthy_run / piece
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    seen = words(write_report(healthy_run))
    for title in ("Findings", "Curves", "Held-out text", "What the model says", "Data", "Recipe"):
        assert title in seen
    if piece in ("findings.json", "environment.json", "recipe.yaml", "corpus.json"):
        assert f"{piece} was not recorded" in seen


@pytest.mark.parametrize(
    "content", ["", "{", "[1, 2]", "null", "\x00\xff", "[" * 100_000, '{"findings": 3}', "{}"]
)
@pytest.mark.parametrize("piece", ["findings.json", "environment.json", "corpus.json"])
def test_a_damaged_piece_does_not_stop_the_page(write: Write, piece: str, content: str) -> None:
    run = write(steps=10)
    (run / piece).write_text(content, encoding="latin-1")
    assert "Key figures" in words(write_report(run))


def test_findings_of_any_shape_are_shown(write: Write) -> None:
    """Another version may leave fields out, or use kinds that this one does not know."""
    findings = [
        {"kind": "dead_neurons", "severity": "warning", "since_step": None, "causes": None},
        {"kind": "plateau", "evidence": "one sentence", "change": {"patch": None, "text": None}},
        {},
        "not a mapping",
    ]
    run = write(steps=10, diagnosis={"verdict": "fine", "findings": findings, "not_assessed": None})
    seen = words(write_report(run))
    assert "Dead neurons" in seen
    assert "one sentence" in seen


def test_a_corpus_that_is_gone_is_named(healthy_run: Path) -> None:
    (healthy_run / "corpus.json").write_text('{"folder": "corpora/gone"}', "utf-8")
    assert "the corpus folder corpora/gone is not there any more" in words(
        write_report(healthy_run)
    )


def test_no_such_run_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError) as raised:
        write_report(tmp_path / "nothing")
    assert "there is no such run folder" in str(raised.value)
    assert "runs/NAME" in raised.value.way_out
    assert str(tmp_path / "nothing") in raised.value.where


def test_a_folder_without_a_run_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_page_is_put_in_place_whole(healthy_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when the page is written straight into its place, or the error is left bare."""
    page = write_report(healthy_run)
    before = page.read_bytes()
    (healthy_run / "findings.json").unlink()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError) as raised:
        write_report(healthy_run)
    assert "the report cannot be written: No space left on device" in str(raised.value)
    assert "Make room" in raised.value.way_out
    assert page.read_bytes() == before
    assert not [path for path in healthy_run.iterdir() if path.suffix == ".new"]


def test_another_file_can_be_named(write: Write, tmp_path: Path) -> None:
    out = tmp_path / "pages" / "one.html"
    run = write(steps=5)
    assert write_report(run, out) == out
    assert out.read_text("utf-8").startswith("<!doctype html>")
    assert not (run / "report.html").exists()


def test_charts_mark_findings_clipping_and_zero_rates(sick_run: Path) -> None:
    loss, rate, norm, speed = charts(read_history(sick_run), SICK)
    assert [(mark.step, mark.severity) for mark in loss.marks] == [
        (300, "critical"),
        (250, "warning"),
    ]
    assert loss.stretches == norm.stretches == [(300, 400)]
    assert loss.steps == (1, 400)
    assert norm.level == 1.0
    assert rate.logarithmic
    assert norm.logarithmic
    assert not loss.logarithmic
    assert not speed.logarithmic
    assert "1 value of zero or less cannot be drawn" in " ".join(rate.notes)
    assert all(value is None or value > 0 for value in rate.lines[0].values)


def test_the_smooth_line_says_what_it_is(healthy_run: Path) -> None:
    loss = charts(read_history(healthy_run))[0]
    names = [line.name for line in loss.lines]
    assert names == ["training", "median of 4 steps", "validation", "test"]
    validation = loss.lines[2]
    assert validation.errors == [0.021] * len(validation.steps)


def test_tables_say_the_same_as_the_lines(healthy_run: Path) -> None:
    history = read_history(healthy_run)
    loss = charts(history)[0]
    assert loss.columns == ["step", "training loss", "validation loss", "test loss"]
    last = loss.rows[-1]
    assert last[0] == "400"
    assert last[1] == f"{history.train_loss.values[-1]:.3f}"
    assert last[2] == f"{history.validation_loss['validation'].values[-1]:.3f}"
    assert loss.rows[0][0] == "1"
    assert loss.rows[0][2] == "–"


def test_a_runaway_loss_gets_a_logarithmic_axis() -> None:
    values = [2.0] * 50 + [3e5] * 5
    history = History("a", "x", train_loss=Series(tuple(range(55)), tuple(values)))
    chart = charts(history)[0]
    assert chart.logarithmic
    assert "logarithmic" in " ".join(chart.notes)


def test_a_million_points_make_a_small_quick_page() -> None:
    steps = tuple(range(1, 1_000_001))
    values = tuple(3.0 + (step % 97) / 100 for step in steps)
    series = Series(steps, values)
    history = History(
        "long",
        "run folder",
        series,
        {},
        learning_rate=series,
        grad_norm=series,
        tokens_per_second=series,
    )
    drawn = charts(history)
    assert all(len(line.steps) <= 2000 for chart in drawn for line in chart.lines)
    assert len(json.dumps([chart.drawing() for chart in drawn])) < 400_000
    assert "Drawn from 1,000,000 points" in " ".join(drawn[0].notes)


@pytest.mark.parametrize(
    "history",
    [
        History("empty", "run folder"),
        History("one", "run folder", train_loss=Series((1,), (2.0,))),
        History("broken", "run folder", train_loss=Series((1, 2), (math.nan, math.inf))),
        History(
            "zero",
            "run folder",
            train_loss=Series((1, 2), (0.0, 0.0)),
            learning_rate=Series((1, 2), (0.0, 0.0)),
            grad_norm=Series((1, 2), (0.0, 0.0)),
        ),
        History("held out only", "run folder", validation_loss={"a": Series((5,), (1.0,))}),
    ],
    ids=lambda history: history.name,
)
def test_the_thinnest_histories_have_a_page(history: History) -> None:
    for diagnosis in (None, HEALTHY, SICK):
        assert "Key figures" in words(page_text(material(history, diagnosis=diagnosis)))


def test_an_undiagnosed_run_claims_no_health(write: Write) -> None:
    seen = words(write_report(write(steps=10)))
    assert "This run has not been diagnosed" in seen
    assert "went well" not in seen


def test_domains_without_scores_are_unknown_not_zero() -> None:
    scores = Evaluated(
        3,
        "validation",
        2.0,
        math.nan,
        7.4,
        math.nan,
        math.nan,
        0.5,
        math.nan,
        10,
        40,
        1,
        0.1,
        by_domain={"odd": {"loss": math.nan}},
    )
    seen = words(page_text(material(History("a", "x"), evaluations=(scores,))))
    assert "odd NaN unknown unknown unknown unknown" in seen


def test_patches_become_yaml_and_arguments() -> None:
    patch = {"train.budget.steps": 500, "data.clean": ["unicode"], "model.norm": "rmsnorm"}
    assert as_yaml(patch) == (
        'train:\n  budget:\n    steps: 500\ndata:\n  clean: ["unicode"]\nmodel:\n  norm: rmsnorm'
    )
    assert as_arguments({"train.precision": "bf16", "a.b": "two words"}) == (
        "train.precision=bf16 'a.b=\"two words\"'"
    )


def test_the_build_report_is_read_for_what_it_holds(write: Write) -> None:
    corpus = {
        **CORPUS,
        "by_language": {f"l{n}": {"documents": n} for n in range(30)},
        "leakage": "none",
        "rejected": 3,
        "kept": [],
        "dropped": {"a": 1},
        "duplicate_samples": [1, {"dropped": 2}],
        "languages": {f"language {n}": n for n in range(30)},
        "odd": {"deep": {"deeper": {"deepest": 1}}},
        "nothing": {},
        "list": ["one", "two"],
    }
    seen = words(write_report(write(steps=5, corpus=corpus)))
    assert "and 10 more" in seen
    assert "deeper deepest deep 1" in seen
    assert "two" in seen
