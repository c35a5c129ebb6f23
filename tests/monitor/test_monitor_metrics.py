"""`training_metrics.json`: the keys, the lengths, strict JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from wellfit.monitor.folder import RunFolder, read_history
from wellfit.monitor.history import History, Series
from wellfit.monitor.metrics import training_metrics, write_metrics
from wellfit.records import Evaluated, Step


def refuse(word: str) -> None:
    raise AssertionError(f"{word} is not strict JSON")


def test_the_file_is_what_other_tools_expect(
    run: RunFolder, step: Callable[..., Step], evaluated: Callable[..., Evaluated]
) -> None:
    """Fails if a non-finite loss is written as it is, or if `val_loss` holds only the evaluated
    steps (tried both)."""
    run.write(evaluated(0, 9.0))
    run.write(step(1, 4.0))
    run.write(step(2, float("nan")))
    run.write(evaluated(2, 3.5))
    run.write(evaluated(2, 3.4, split="test"))
    run.write(step(3, float("inf"), rate=0.0))
    run.write(evaluated(3, float("nan")))
    write_metrics(read_history(run.path), run.path)
    read = json.loads((run.path / "training_metrics.json").read_text(), parse_constant=refuse)
    assert read == {
        "train_loss": [4.0, None, None],
        "val_loss": [None, 3.5, None],
        "learning_rate": [0.001, 0.001, 0.0],
        "epochs": [1 / 40, 2 / 40, 3 / 40],
        "steps": [1, 2, 3],
    }
    assert list(read) == ["train_loss", "val_loss", "learning_rate", "epochs", "steps"]


def test_an_empty_run_has_five_empty_arrays(tmp_path: Path) -> None:
    made = training_metrics(History("a", "run folder"))
    assert made == {
        "train_loss": [], "val_loss": [], "learning_rate": [], "epochs": [], "steps": [],
    }  # fmt: skip


def test_a_rate_that_was_logged_less_often_is_null_between() -> None:
    curve = Series((1, 2, 3), (4.0, 3.0, 2.0))
    made = training_metrics(History("a", "run folder", curve, learning_rate=Series((2,), (0.1,))))
    assert made["learning_rate"] == [None, 0.1, None]
