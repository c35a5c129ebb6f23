"""Reading logs: what the numbers become, which lies are corrected, and what every error says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from wellfit.diagnosis import diagnose, read
from wellfit.errors import LogError
from wellfit.monitor.folder import RunFolder
from wellfit.records import Step


def state(folder: Path, rows: list[dict[str, Any]], **fields: Any) -> Path:
    path = folder / "trainer_state.json"
    text = json.dumps({"log_history": rows, "max_steps": 100, "num_train_epochs": 3, **fields})
    path.write_text(text, encoding="utf-8")
    return path


def row(step: int, loss: float, **more: Any) -> dict[str, Any]:
    return {"step": step, "loss": loss, "learning_rate": 1e-4, "epoch": step / 10, **more}


# ── trainer_state.json ─────────────────────────────────────────────────────────────────────


def test_rows_become_series(tmp_path: Path) -> None:
    rows = [
        row(10, 3.0, grad_norm=1.5),
        {"step": 10, "eval_loss": 3.1, "epoch": 1.0},
        row(20, 2.0, grad_norm=1.2),
        {"step": 20, "eval_loss": 2.1, "epoch": 2.0},
        {"step": 20, "train_runtime": 9.0, "train_loss": 2.5, "epoch": 2.0},
    ]
    history = read(state(tmp_path, rows, global_step=20))
    assert history.format == "trainer_state.json" and history.status == "finished"
    assert history.train_loss.steps == (10, 20) and history.train_loss.values == (3.0, 2.0)
    assert history.validation_loss["validation"].values == (3.1, 2.1)
    assert history.grad_norm.values == (1.5, 1.2) and history.learning_rate.values == (1e-4, 1e-4)
    assert history.context.planned_steps == 100 and history.context.planned_epochs == 3
    assert history.context.steps_per_epoch == 10
    assert not history.context.train_losses_are_per_step
    assert history.notes == ()


def test_hidden_nan_is_put_back(tmp_path: Path) -> None:
    """Losses of 0 or repeated beside a NaN gradient norm are NaN; an isolated one is not.

    Fails when `_unhide` leaves the losses as they are.
    """
    rows = [row(s, 3 - s / 10, grad_norm=1.0) for s in range(1, 11)]
    rows[2]["grad_norm"] = math.nan
    rows += [row(11, 2.0, grad_norm=math.nan), row(12, 0.0, grad_norm=math.nan)]
    path = state(tmp_path, rows)
    assert "NaN" in path.read_text()
    history = read(path)
    assert history.train_loss.values[2] == pytest.approx(2.7)
    assert [math.isnan(v) for v in history.train_loss.values[-2:]] == [True, True]
    assert "The logger hid 2 NaN losses" in history.notes[0]
    found = diagnose(history).findings[0]
    assert (found.kind, found.severity, found.since_step) == ("non_finite", "critical", 11)
    assert "P05" in {cause.id for cause in found.causes}


def test_a_table_that_stands_newest_first_is_read_whole(tmp_path: Path) -> None:
    """As exports are that were sorted for people. Break: take each row for a run begun anew, which
    leaves one of them."""
    rows = [(step, 5 - step / 50) for step in range(0, 200, 2)]
    for name, table in (("up", rows), ("down", rows[::-1])):
        text = "".join(f"{step},{loss}\n" for step, loss in table)
        (tmp_path / f"{name}.csv").write_text(f"step,loss\n{text}")
    up, down = (read(tmp_path / f"{name}.csv") for name in ("up", "down"))
    assert down.train_loss == up.train_loss and len(down.train_loss) == 100
    assert any("newest first" in note for note in down.notes)
    assert not any("newest first" in note for note in up.notes)


def test_a_resumed_run_keeps_the_later_attempt(tmp_path: Path) -> None:
    """Fails when `_drop_superseded` drops nothing at a jump back."""
    rows = [row(10, 3.0), row(20, 2.5), row(30, 2.4), row(20, 2.6), row(30, 2.2)]
    history = read(state(tmp_path, rows))
    assert history.train_loss.steps == (10, 20, 30)
    assert history.train_loss.values == (3.0, 2.6, 2.2)
    assert (history.attempts, history.superseded) == (2, 2)
    assert "jump back 1 times (to step 20 first)" in history.notes[0]


def test_evaluations_first_twice_and_of_several_sets(tmp_path: Path) -> None:
    rows = [
        {"step": 10, "eval_books_loss": 3.0, "eval_valid_loss": 4.0},
        {"step": 20, "eval_books_loss": 2.0, "eval_valid_loss": 3.9},
        {"step": 20, "eval_valid_loss": 3.8},
        *[row(s, 4.0) for s in (5, 10, 15, 20)],
    ]
    history = read(state(tmp_path, rows))
    assert list(history.validation_loss) == ["validation", "books"]
    assert history.validation_loss["validation"].values == (4.0, 3.8)
    assert history.superseded == 0
    assert any("`valid` is taken for the main one" in note for note in history.notes)
    assert any("carried the valid loss twice" in note for note in history.notes)


def test_absurd_epochs_and_rewards_are_told(tmp_path: Path) -> None:
    rows = [row(s, 0.01, reward=0.2) for s in range(1, 40)]
    history = read(state(tmp_path, rows, num_train_epochs=9223372036854775807))
    assert history.context.planned_epochs is None
    assert "num_train_epochs = 9.22e+18 means that none were planned." in history.notes
    assert history.events[0].data == {"likelihood": False}
    assert history.context.train_losses_are_per_step


def test_strange_rows_are_left_out(tmp_path: Path) -> None:
    rows: list[Any] = [None, 3, {"loss": 1.0}, {"step": "five", "loss": 1}, row(5, 2.0)]
    rows += [{"step": 6, "loss": True}, {"step": 10**400, "loss": 1.0}, row(7, 10**400)]
    history = read(state(tmp_path, rows))
    assert history.train_loss.steps == (5, 7)
    assert history.train_loss.values == (2.0, math.inf)
    assert "2 rows of `log_history` are no objects" in history.notes[0]


# ── training_metrics.json ──────────────────────────────────────────────────────────────────


def metrics(folder: Path, **columns: Any) -> Path:
    path = folder / "training_metrics.json"
    plain = {
        "train_loss": [3.0, 2.5, 2.2],
        "val_loss": [None, 2.6, None],
        "learning_rate": [0.1, 0.2, 0.1],
        "epochs": [0.1, 0.2, 0.3],
        "steps": [10, 20, 30],
    }
    path.write_text(json.dumps(plain | columns), encoding="utf-8")
    return path


def test_columns_become_series(tmp_path: Path) -> None:
    history = read(metrics(tmp_path, train_loss=[3.0, "nan", 2.2]))
    assert history.format == "training_metrics.json"
    assert history.train_loss.steps == (10, 20, 30) and math.isnan(history.train_loss.values[1])
    assert history.validation_loss["validation"].steps == (20,)
    assert history.context.steps_per_epoch == pytest.approx(100)


def test_a_run_folder_is_read_by_its_own_reader(tmp_path: Path) -> None:
    """What the run folder says while it is written is what the rules see."""
    with RunFolder.create(tmp_path / "run", "name: demo\n") as run:
        for k in range(1, 13):
            run.write(Step(k, k / 12, 5.0 - k / 4, 1e-3, 1.0, False, 64, 64 * k, 0.1, 0.0))
        history = read(tmp_path / "run")
    assert history.format == "run folder"
    assert history.train_loss.values == tuple(5.0 - k / 4 for k in range(1, 13))
    assert diagnose(history).summary["first_loss"] == 4.75


# ── where logs stand ───────────────────────────────────────────────────────────────────────


def test_a_folder_is_searched(tmp_path: Path) -> None:
    """The file itself, then the checkpoint with the highest number, then the only one below."""
    for number in (9, 100, 20):
        (tmp_path / "run" / f"checkpoint-{number}").mkdir(parents=True)
        state(tmp_path / "run" / f"checkpoint-{number}", [row(number, 2.0)])
    assert read(tmp_path / "run").train_loss.steps == (100,)
    assert read(tmp_path).train_loss.steps == (100,)
    metrics(tmp_path / "run")
    assert read(tmp_path / "run").format == "training_metrics.json"


def test_a_file_is_known_by_what_it_holds(tmp_path: Path) -> None:
    path = state(tmp_path, [row(1, 2.0)]).rename(tmp_path / "whatever.txt")
    assert read(path).format == "trainer_state.json"
    marked = tmp_path / "marked.json"
    marked.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(marked).train_loss.values == (2.0,)


CASES: dict[str, tuple[bytes, str]] = {
    "empty": (b"  \n", "the file is empty"),
    "binary": (b"PK\x03\x04\x00\x00\x00", "this is a binary file"),
    "latin": ('{"log_history": "é"}'.encode("latin-1"), "`log_history` is not a list"),
    "cut": (b'{"log_history": [{"step": 1, "lo', "the file seems to be cut off"),
    "broken": (b'{"log_history": [}, 1]}', "line 1, column 18"),
    "deep": (b"[" * 200_000, "nested too deeply"),
    "long": (b'{"log_history": ' + b"9" * 5000 + b"}", "a number too long"),
    "other": (b'{"a": 1}', "this JSON is not a log known here"),
    "list": (b"[1, 2]", "this JSON is not a log known here"),
    "no rows": (b'{"log_history": []}', "`log_history` is empty"),
    "no list": (b'{"log_history": {}}', "`log_history` is not a list"),
    "no losses": (b'{"log_history": [{"step": 1}]}', "none of the 1 rows"),
    "unequal": (b'{"steps": [1, 2], "train_loss": [1]}', "unequal lengths: steps 2, train_loss 1"),
    "no column": (b'{"steps": 3, "train_loss": [1]}', "`steps` is not a list"),
    "no steps": (b'{"steps": [], "train_loss": []}', "the log holds no steps"),
    "bad step": (b'{"steps": [1.5], "train_loss": [1]}', "`steps`, entry 1: 1.5 is not"),
    "bad loss": (b'{"steps": [1], "train_loss": ["x"]}', "`train_loss`, entry 1: 'x' is not"),
}


@pytest.mark.parametrize("name", CASES)
def test_every_error_says_where_what_and_the_way_out(tmp_path: Path, name: str) -> None:
    content, told = CASES[name]
    path = tmp_path / "log.json"
    path.write_bytes(content)
    with pytest.raises(LogError) as caught:
        read(path)
    assert caught.value.where == str(path) and told in caught.value.what
    assert caught.value.way_out.endswith(".") and str(path) in str(caught.value)


READ: dict[str, tuple[bytes, str]] = {
    "csv": (b"step,loss\n1,2.5\n", "CSV"),
    "console": (b"{'loss': 2.5}\n", "console text"),
    "lines": (b'{"loss": 2.5}\n{"loss": 2.5}\n', "JSON Lines"),
}


@pytest.mark.parametrize("name", READ)
def test_what_is_no_single_json_value_is_read_too(tmp_path: Path, name: str) -> None:
    content, kind = READ[name]
    path = tmp_path / "log.json"
    path.write_bytes(content)
    assert read(path).format == kind and set(read(path).train_loss.values) == {2.5}


def test_missing_and_ambiguous_paths(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="there is no such file or folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(LogError, match="this path cannot be looked at") as caught:
        read(tmp_path / ("x" * 5000))
    assert len(str(caught.value)) < 500
    with pytest.raises(LogError, match="the folder holds no log"):
        read(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        state(tmp_path / name, [row(1, 2.0)])
    with pytest.raises(LogError, match=r"the folder holds 2 logs: a/trainer_state\.json, b/"):
        read(tmp_path)
