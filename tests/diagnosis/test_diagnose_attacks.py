"""Logs that no author chose: an answer or one clear error, never a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from wellfit.diagnosis import diagnose, read
from wellfit.errors import LogError
from wellfit.report.terminal import diagnosis_text

COLUMNS = ("train_loss", "val_loss", "learning_rate", "epochs", "steps")

numbers = st.one_of(
    st.floats(width=64),
    st.integers(-(10**30), 10**30),
    st.sampled_from([0, 1e308, -1e308, 5e-324, 10**400, -(10**400)]),
)
entries = st.one_of(numbers, st.none(), st.sampled_from(["nan", "-inf", "x", "", True, [], {}]))
anything = st.recursive(
    st.one_of(entries, st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@st.composite
def metrics(draw: st.DrawFn) -> dict[str, Any]:
    """Mostly well-formed columns of numbers, with some column or entry that is not."""
    rows = draw(st.integers(0, 40))
    column = st.lists(numbers, min_size=rows, max_size=rows)
    made: dict[str, Any] = {key: draw(column) for key in COLUMNS[:-1]}
    made["steps"] = draw(
        st.one_of(
            st.just(list(range(1, rows + 1))),
            st.lists(st.integers(0, 10**14), min_size=rows, max_size=rows),
        )
    )
    if draw(st.booleans()):
        made[draw(st.sampled_from(COLUMNS))] = draw(anything)
    if rows and draw(st.booleans()):
        column_of = made[draw(st.sampled_from(COLUMNS))]
        if isinstance(column_of, list) and column_of:
            column_of[draw(st.integers(0, len(column_of) - 1))] = draw(entries)
    return made


@st.composite
def states(draw: st.DrawFn) -> dict[str, Any]:
    """Rows as a Trainer logs them, with values of any kind."""
    keys = ("step", "loss", "eval_loss", "eval_a_loss", "learning_rate", "grad_norm", "epoch")
    row = st.fixed_dictionaries(
        {"step": st.integers(0, 60)}, optional=dict.fromkeys(keys[1:], entries)
    )
    log = draw(st.lists(st.one_of(row, row, row, anything), max_size=40))
    others = {key: draw(entries) for key in ("max_steps", "num_train_epochs", "global_step")}
    return {"log_history": log, **others}


def answer(path: Path) -> None:
    """An answer that strict JSON and a terminal can hold, or a LogError with a way out."""
    try:
        history = read(path)
    except LogError as error:
        assert error.way_out and "\n\n" not in str(error)
        return
    plain = diagnose(history).to_json()
    json.dumps(plain, allow_nan=False)
    assert "\x1b" not in diagnosis_text(plain, history)


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(value=st.one_of(metrics(), metrics(), states(), anything))
@example(
    value={
        "train_loss": [0.0] * 5,
        "val_loss": [0.0] * 5,
        "learning_rate": [0.0, 1.0, 0.0, 1e308, -8e307],
        "epochs": [0.0] * 5,
        "steps": [1, 2, 3, 4, 5],
    }
)
def test_any_json_gives_an_answer_or_one_clear_error(tmp_path: Path, value: Any) -> None:
    """Fails when `epoch_losses` sums before it divides (losses near the largest float overflow),
    and when rates are subtracted where they need only be compared.
    """
    path = tmp_path / "log.json"
    path.write_text(json.dumps(value), encoding="utf-8")
    answer(path)


def columns(rows: int = 30) -> dict[str, Any]:
    return {
        "train_loss": [5 - 0.05 * k for k in range(rows)],
        "val_loss": [None] * rows,
        "learning_rate": [1e-3] * rows,
        "epochs": [k / rows for k in range(rows)],
        "steps": list(range(1, rows + 1)),
    }


@pytest.mark.parametrize(
    "changed",
    [
        {"train_loss": [1e308] * 30},
        {"train_loss": [5e-324] * 30, "learning_rate": [5e-324] * 30},
        {"learning_rate": [1e308] * 30},
        {"learning_rate": [1e308] * 10 + [0.0] * 20},
        {"train_loss": ["nan"] * 30, "val_loss": ["nan"] * 30, "epochs": ["inf"] * 30},
        {"steps": [7] * 30},
        {"steps": list(range(30, 0, -1))},
        {"steps": [10**14 + k for k in range(30)]},
    ],
    ids=["huge", "tiny", "huge rate", "huge then none", "nan", "one step", "backwards", "late"],
)
def test_extreme_columns_are_diagnosed(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = tmp_path / "log.json"
    path.write_text(json.dumps(columns() | changed), encoding="utf-8")
    diagnosis = diagnose(read(path))
    json.dumps(diagnosis.to_json(), allow_nan=False)


def test_a_log_cut_anywhere_is_one_clear_error(tmp_path: Path) -> None:
    """Every tenth byte; only the whole file is a log."""
    whole = json.dumps(columns()).encode()
    path = tmp_path / "log.json"
    for end in range(0, len(whole) - 1, 10):
        path.write_bytes(whole[:end])
        with pytest.raises(LogError):
            read(path)
