"""Every shape of a text log, with known answers; malformed ones give one clear error."""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wellfit.diagnosis.importers.assemble import Given
from wellfit.diagnosis.importers.find import read, read_all, read_bytes
from wellfit.errors import LogError
from wellfit.monitor.history import History, Series

LOGS = Path(__file__).resolve().parents[2].parent / "shared" / "logs"


def one(text: str | bytes) -> History:
    found = read_bytes(text.encode() if isinstance(text, str) else text)
    assert len(found) == 1
    return found[0]


def points(series: Series) -> list[tuple[int, float]]:
    return list(zip(series.steps, series.values, strict=True))


def loss(text: str | bytes) -> list[tuple[int, float]]:
    return points(one(text).train_loss)


def held_out(text: str | bytes) -> list[tuple[int, float]]:
    return points(one(text).validation_loss["validation"])


# ── JSON ───────────────────────────────────────────────────────────────────────────────────

JSON: dict[str, tuple[Any, list[tuple[int, float]], list[tuple[int, float]]]] = {
    "dict of lists": (
        {"steps": [10, 20, 30], "train": [3.0, 2.5, 2.0], "val": [3.1, 2.6, 2.2]},
        [(10, 3.0), (20, 2.5), (30, 2.0)],
        [(10, 3.1), (20, 2.6), (30, 2.2)],
    ),
    "validation measured less often": (
        {"steps": [10, 20, 30, 40], "train_loss": [4.0, 3.0, 2.0, 1.0], "val_loss": [3.5, 1.5]},
        [(10, 4.0), (20, 3.0), (30, 2.0), (40, 1.0)],
        [(20, 3.5), (40, 1.5)],
    ),
    "validation at the first row too": (
        {"loss": [5.0, 4.0, 3.0, 2.0, 1.0], "val_loss": [5.5, 3.5, 1.5]},
        [(1, 5.0), (2, 4.0), (3, 3.0), (4, 2.0), (5, 1.0)],
        [(1, 5.5), (3, 3.5), (5, 1.5)],
    ),
    "Keras history": (
        {"loss": [1.0, 0.5], "accuracy": [0.1, 0.2], "val_loss": [1.1, 0.6]},
        [(1, 1.0), (2, 0.5)],
        [(1, 1.1), (2, 0.6)],
    ),
    "nested lists": (
        {"train": {"loss": [3.0, 2.0]}, "val": {"loss": [3.1, 2.1]}},
        [(1, 3.0), (2, 2.0)],
        [(1, 3.1), (2, 2.1)],
    ),
    "nested rows": (
        {
            "train": [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}],
            "val": [{"step": 2, "loss": 2.1}],
        },
        [(1, 3.0), (2, 2.0)],
        [(2, 2.1)],
    ),
    "nested pairs": (
        {"train": [[1, 3.0], [2, 2.0]], "val": [[2, 2.1]]},
        [(1, 3.0), (2, 2.0)],
        [(2, 2.1)],
    ),
    "list of rows": (
        [{"step": 250, "train_loss": 5.2, "dev_loss": 5.1}, {"step": 500, "train_loss": 4.6}],
        [(250, 5.2), (500, 4.6)],
        [(250, 5.1)],
    ),
    "step, train, val": (
        [[0, 4.1, 4.2], [100, 3.1, 3.2]],
        [(0, 4.1), (100, 3.1)],
        [(0, 4.2), (100, 3.2)],
    ),
    "step, train": ([[0, 4.1], [100, 3.1]], [(0, 4.1), (100, 3.1)], []),
    "bare list": ([3.5, 2.5], [(1, 3.5), (2, 2.5)], []),
    "step to loss": ({"100": 3.5, "200": 3.0}, [(100, 3.5), (200, 3.0)], []),
    "step to metrics": (
        {"100": {"train": {"loss": 3.5}, "val": {"loss": 3.6}}},
        [(100, 3.5)],
        [(100, 3.6)],
    ),
}
for _key in ("history", "log_history", "logs"):
    JSON[f"wrapped in {_key}"] = (
        {"config": {"vocab_size": 50}, _key: [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}]},
        [(1, 3.0), (2, 2.0)],
        [],
    )


@pytest.mark.parametrize("name", JSON)
def test_every_shape_of_json(name: str) -> None:
    """Fails when `_spread` places a shorter column from the first row on."""
    value, train, validation = JSON[name]
    history = one(json.dumps(value))
    assert points(history.train_loss) == train
    assert points(history.validation_loss.get("validation", Series())) == validation


def test_settings_beside_a_history_are_known() -> None:
    history = one(
        json.dumps(
            {
                "config": {"max_steps": 900, "vocab_size": 50, "warmup_steps": 20},
                "history": [{"step": 1, "loss": 3.0}],
            }
        )
    )
    context = history.context
    assert (context.planned_steps, context.vocabulary_size, context.warmup_steps) == (900, 50, 20)
    told = read_bytes(b"[3.5, 2.5]", given=Given(vocabulary_size=70, epochs=3, task="language"))
    assert told[0].context.vocabulary_size == 70 and told[0].context.planned_epochs == 3


def test_a_shorter_column_is_told() -> None:
    text = json.dumps({"steps": [1, 2], "train_loss": [2.0, 1.0], "val_loss": [1.5]})
    assert one(text).notes == ("`val_loss` has 1 entries for 2 rows; they were placed evenly.",)


def test_a_state_that_is_cut_off_keeps_its_complete_rows() -> None:
    """Fails when `_complete_part` gives up at the first `}` that does not close a row."""
    rows = [{"step": s, "loss": 3.0 - s / 10, "epoch": s / 4, "x": {"y": 1}} for s in (1, 2, 3)]
    text = json.dumps({"max_steps": 40, "log_history": rows}, indent=1)
    history = one(text[: text.rindex('"y": 1') + 6] + "}")
    assert history.train_loss.steps == (1, 2) and history.context.planned_steps == 40
    assert history.notes == (
        "The file is cut off; the 2 complete rows of `log_history` were read.",
    )
    with pytest.raises(LogError, match="seems to be cut off"):
        one(text[: text.index('"loss"') + 8])


# ── JSON Lines ─────────────────────────────────────────────────────────────────────────────


def test_json_lines_with_bad_and_nested_ones() -> None:
    """Fails when one bad line makes the whole file no log."""
    text = (
        '{"current_steps": 1, "total_steps": 40, "loss": 3.0, "lr": 0.1}\n'
        '{"current_steps": 2, "loss": NaN}\nnot JSON\n'
        '{"current_steps": 3, "loss": "2.0", "eval": {"loss": 2.2}}\n{"current_steps": 4, "lo'
    )
    history = one(text)
    assert history.format == "JSON Lines" and history.train_loss.steps == (1, 2, 3)
    assert math.isnan(history.train_loss.values[1]) and history.train_loss.values[2] == 2.0
    assert points(history.validation_loss["validation"]) == [(3, 2.2)]
    assert history.context.planned_steps == 40
    assert history.notes[0] == "2 lines are no JSON objects; they were left out."


def test_json_values_that_follow_each_other_over_several_lines() -> None:
    assert loss('{\n "step": 1,\n "loss": 3.0\n}\n{\n "step": 2,\n "loss": 2.0\n}\n') == [
        (1, 3.0),
        (2, 2.0),
    ]


# ── tables ─────────────────────────────────────────────────────────────────────────────────

BOTH = ([(1, 3.0), (2, 2.5)], [(2, 2.6)])
TABLES: dict[str, str] = {
    "commas": "step,train_loss,val_loss\n1,3.0,\n2,2.5,2.6\n",
    "tabs": "step\ttrain_loss\tval_loss\n1\t3.0\t\n2\t2.5\t2.6\n",
    "semicolons, decimal commas": "step;train_loss;val_loss\n1;3,0;\n2;2,5;2,6\n",
    "quoted": '"step","train_loss","val_loss"\n"1","3.0",""\n"2","2.5","2.6"\n',
    "blanks": "step  train_loss  val_loss\n   1   3.0   -\n   2   2.5  2.6\n",
    "comments": "# a run\nstep,train_loss,val_loss\n1,3.0,null\n# resumed\n2,2.5,2.6\n",
    "repeated header": "step,train_loss,val_loss\n1,3.0,\nstep,train_loss,val_loss\n2,2.5,2.6\n",
    "markdown": "| Step | Training Loss | Validation Loss |\n|---|:--:|---|\n"
    "| 1 | 3.0 | No log |\n| 2 | 2.5 | 2.6 |\n",
    "carriage returns": "step,train_loss,val_loss\r\n1,3.0,\r\n2,2.5,2.6\r\n",
    "rows apart": "step,train_loss,val_loss\n1,3.0,\n2,2.5,\n2,,2.6\n",
    "evaluation first": "step,train_loss,val_loss\n2,,2.6\n1,3.0,\n2,2.5,\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_every_kind_of_table(name: str) -> None:
    """Fails when the evaluation rows are counted among those that tell a resume."""
    history = one(TABLES[name])
    assert (points(history.train_loss), points(history.validation_loss["validation"])) == BOTH
    assert history.superseded == 0


def test_numbers_without_a_header_are_read_by_position() -> None:
    history = one("1,3.0,3.1\n2,2.5,2.6\n")
    assert points(history.train_loss) == [(1, 3.0), (2, 2.5)]
    assert "they are read as step, train_loss, val_loss" in history.notes[0]
    assert loss("10 3.0\n20 2.5\n30 2.0\n") == [(10, 3.0), (20, 2.5), (30, 2.0)]
    assert loss("3.0\n2.5\n2.4\n") == [(1, 3.0), (2, 2.5), (3, 2.4)]


def test_sparse_columns_of_lightning() -> None:
    history = one(
        "epoch,step,train_loss_step,train_loss_epoch,val_loss,lr-AdamW\n0,49,3.0,,,\n"
        "0,49,,,,0.001\n0,99,2.5,,,\n0,99,,,2.6,\n0,99,,2.75,,\n1,149,2.0,,,\n"
    )
    assert points(history.train_loss) == [(49, 3.0), (99, 2.5), (149, 2.0)]
    assert points(history.validation_loss["validation"]) == [(99, 2.6)]
    assert points(history.learning_rate) == [(49, 0.001)]


def test_a_chart_exported_from_weights_and_biases_holds_several_runs() -> None:
    text = '"Step","a - loss","a - loss__MIN","a - loss__MAX","b - loss"\n'
    found = read_bytes((text + "1,3.0,3.0,3.0,4.0\n2,2.5,2.5,2.5,3.5\n").encode())
    assert [(run.name, run.train_loss.values) for run in found] == [
        ("a", (3.0, 2.5)),
        ("b", (4.0, 3.5)),
    ]


def test_a_curve_saved_from_tensorboard(tmp_path: Path) -> None:
    path = tmp_path / "run-a-tag-val_loss.csv"
    path.write_text("Wall time,Step,Value\n1.5,10,3.0\n2.5,20,2.0\n")
    assert points(read(path).validation_loss["validation"]) == [(10, 3.0), (20, 2.0)]


def test_arrow_and_the_csv_module_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when Arrow takes `nan` for an empty cell."""
    rows = [[k, 3.0 - k / 1e3, math.nan if k % 7 == 0 else 1.0, k if k % 5 else None] for k in
            range(400)]  # fmt: skip
    lines = ["step,loss,grad_norm,val_loss"]
    lines += [",".join("" if cell is None else str(cell) for cell in row) for row in rows]
    slow = one("\n".join(lines))
    monkeypatch.setattr("wellfit.diagnosis.importers.tables.LARGE", 0)
    assert repr(one("\n".join(lines))) == repr(slow)
    assert sum(map(math.isnan, slow.grad_norm.values)) == 58


# ── console text ───────────────────────────────────────────────────────────────────────────

TWO = [(10, 3.0), (20, 2.0)]
CONSOLE: dict[str, tuple[str, list[tuple[int, float]], list[tuple[int, float]]]] = {
    "build-nanogpt": (
        "10 val 3.1\n10 hella 0.24\n10 train 3.000000\n20 train 2.0\n",
        TWO,
        [(10, 3.1)],
    ),
    "nanoGPT": (
        "step 10: train loss 9.0, val loss 3.1\niter 10: loss 3.0, time 12.5ms, mfu -100.00%\n"
        "iter 20: loss 2.0, time 9ms, mfu 3%\n",
        TWO,
        [(10, 3.1)],
    ),
    "torchtune": (
        "Step 10 | loss:3.0 lr:2e-5 tokens_per_second_per_gpu:120.5 \n"
        "Step 20 | loss:2.0 lr:1e-5 tokens_per_second_per_gpu:121\n",
        TWO,
        [],
    ),
    "Megatron": (
        " iteration       10/  500000 | consumed samples:  51200 | elapsed time per iteration (ms): "  # noqa: E501
        "1234.5 | learning rate: 1.5E-04 | lm loss: 3.0E+00 | loss scale: 65536.0 | grad norm: 1.2 |"  # noqa: E501
        " number of skipped iterations:   0 | number of nan iterations:   0 |\n"
        " iteration       20/  500000 | consumed samples: 102400 | elapsed time per iteration (ms): "  # noqa: E501
        "1234.5 | learning rate: 1.5E-04 | lm loss: 2.0E+00 | loss scale: 65536.0 | grad norm: 1.1 |"  # noqa: E501
        " number of skipped iterations:   0 | number of nan iterations:   0 |\n"
        "--------------\n validation loss at iteration 20 | lm loss value: 2.1E+00 | lm loss PPL: "
        "8.1E+00 | \n",
        TWO,
        [(20, 2.1)],
    ),
    "fairseq": (
        '2024-01-01 10:00:00 | INFO | train | {"epoch": 1, "train_loss": "3.0", "train_num_updates"'
        ': "10", "train_gnorm": "1.1"}\n2024-01-01 10:01:00 | INFO | valid | {"epoch": 1, '
        '"valid_loss": "3.1", "valid_num_updates": "10", "valid_best_loss": "2.9"}\n'
        '2024-01-01 10:02:00 | INFO | train | {"epoch": 2, "train_loss": "2.0", "train_num_updates"'
        ': "20", "train_gnorm": "1.1"}\n',
        TWO,
        [(10, 3.1)],
    ),
    "Keras": (
        "Epoch 1/2\n  1/938 [......] - ETA: 1s - loss: 9.5\r938/938 [=====] - 5s 5ms/step - "
        "loss: 3.0 - accuracy: 0.9 - val_loss: 3.1\nEpoch 2/2\n938/938 [=====] - 5s 5ms/step - "
        "loss: 2.0 - accuracy: 0.9 - val_loss: 2.1\n",
        [(1, 3.0), (2, 2.0)],
        [(1, 3.1), (2, 2.1)],
    ),
    "Keras 3 in colours": (
        "Epoch 1/2\n\x1b[1m938/938\x1b[0m \x1b[32m━━━━━━\x1b[0m\x1b[37m\x1b[0m \x1b[1m5s\x1b[0m "
        "5ms/step - loss: 3.0 - val_loss: 3.1\nEpoch 2/2\n\x1b[1m938/938\x1b[0m \x1b[32m━━━━━━"
        "\x1b[0m \x1b[1m5s\x1b[0m 5ms/step - loss: 2.0 - val_loss: 2.1\n",
        [(1, 3.0), (2, 2.0)],
        [(1, 3.1), (2, 2.1)],
    ),
    "Lightning": (
        "Epoch 0: 100%|███| 3/3 [00:08<00:00, 15.94it/s, v_num=0, train_loss=3.0, val_loss=3.1]\n"
        "Epoch 1:  33%|█  | 1/3 [00:08<00:00, 15.94it/s, v_num=0, train_loss=2.5]\r"
        "Epoch 1: 100%|███| 3/3 [00:08<00:00, 15.94it/s, v_num=0, train_loss=2.0, val_loss=2.1]\n",
        [(3, 3.0), (4, 2.5), (6, 2.0)],
        [(3, 3.1), (6, 2.1)],
    ),
    "batches of an epoch": (
        "Epoch: [0][ 10/100]\tTime 0.5 (0.6)\tLoss 3.0 (3.4)\nEpoch: [0][ 20/100]\tTime 0.5 (0.6)"
        "\tLoss 2.0 (3.4)\nEpoch: [1][ 10/100]\tTime 0.5 (0.6)\tLoss 1.0 (3.4)\n",
        [*TWO, (110, 1.0)],
        [],
    ),
    "generic": ("step 10 lr 0.1 loss 3.0\nstep 20 lr 0.1 loss 2.0\n", TWO, []),
    "equal signs, logger": (
        "2024-05-01 12:00:00,123 - trainer - INFO - step=10 loss=3.0 lr=1.0e-03\n"
        "2024-05-01 12:00:01,123 - trainer - INFO - step=20 loss=2.0 lr=1.0e-03\n"
        "2024-05-01 12:00:01,123 - trainer - INFO - eval: step=20 loss=3.3\n",
        TWO,
        [(20, 3.3)],
    ),
    "brackets": (
        "[Epoch 1] Train Loss: 3.0 | Val Loss: 3.1\nSaved the best model (val loss 0.1)\n"
        "[Epoch 2] Train Loss: 2.0 | Val Loss: 2.1\n",
        [(1, 3.0), (2, 2.0)],
        [(1, 3.1), (2, 2.1)],
    ),
    "epoch lines": (
        "Epoch 1: train_loss=3.0 val_loss=3.1\nEpoch 2: val_loss=2.1 train_loss=2.0\n",
        [(1, 3.0), (2, 2.0)],
        [(1, 3.1), (2, 2.1)],
    ),
    "lines below an epoch": (
        "Epoch 1/2\n-----\ntrain Loss: 3.0 Acc: 0.3\nval Loss: 3.1 Acc: 0.2\n\nEpoch 2/2\n-----\n"
        "train Loss: 2.0 Acc: 0.3\nval Loss: 2.1 Acc: 0.2\n",
        [(1, 3.0), (2, 2.0)],
        [(1, 3.1), (2, 2.1)],
    ),
    "names without loss": ("step 10 train 3.0 val 3.1\nstep 20 train 2.0\n", TWO, [(10, 3.1)]),
    "time in brackets": (
        "[2024-01-01 10:00] step 10 loss 3.0\n[2024-01-01 10:01] step 20 loss 2.0\n",
        TWO,
        [],
    ),
    "thousands": ("step 1,000 | loss: 3.0\nstep 2,000 | loss: 2.0\n", [(1000, 3.0), (2000, 2.0)],
                  []),
    "litgpt": (
        "Epoch 1 | iter 10 step 10 | loss train: 3.0, val: n/a | iter time: 3.1 ms (step)\n"
        "Epoch 1 | iter 20 step 20 | loss train: 2.0, val: 2.1 | iter time: 3.1 ms (step)\n",
        TWO,
        [(20, 2.1)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONSOLE)
def test_every_console(name: str) -> None:
    """Fails when `_joined` takes the surest column of steps alone."""
    text, train, validation = CONSOLE[name]
    history = one(text)
    assert points(history.train_loss) == train
    assert points(history.validation_loss.get("validation", Series())) == validation


def test_what_a_console_says_of_the_plan() -> None:
    history = one(CONSOLE["Megatron"][0])
    assert history.context.planned_steps == 500_000 and history.grad_norm.values == (1.2, 1.1)
    assert one(CONSOLE["Keras"][0]).context.planned_epochs == 2
    text = "Num Epochs = 3\nTotal optimization steps = 300\nwarmup_steps: 10\nstep 5 loss 3.0\n"
    context = one(text).context
    assert (context.planned_epochs, context.planned_steps, context.warmup_steps) == (3, 300, 10)


@pytest.mark.parametrize("quote", ["", "'"])
def test_dictionaries_between_progress_bars(quote: str) -> None:
    """The bar before a dictionary tells its step; that of the evaluation does not.

    Fails when the bar of another total is taken."""
    q = quote
    text = (
        "  0%|      | 0/30 [00:00<?, ?it/s]\r 33%|███   | 10/30 [00:01<00:02, 9.1it/s]\n"
        f"{{'loss': {q}3.0{q}, 'grad_norm': {q}nan{q}, 'epoch': {q}1.0{q}}}\n"
        " 33%|███   | 10/30 [00:01<00:02, 9.1it/s]\r  0%|    | 0/5 [00:00<?, ?it/s]\r"
        f"100%|██████| 5/5 [00:00<00:00, 9.1it/s]{{'eval_loss': {q}3.1{q}, 'epoch': {q}1.0{q}}}\n"
        f" 66%|██████ | 20/30 [00:02<00:01, 9.1it/s]\n{{'loss': {q}2.0{q}, 'epoch': {q}2.0{q}}}\n"
        f"100%|████████| 30/30 [00:03<00:00, 9.1it/s]\n{{'loss': {q}1.0{q}, 'epoch': 3.0}}\n"
        f"{{'train_runtime': {q}3.1{q}, 'train_loss': {q}9.0{q}, 'epoch': 3.0}}\n"
    )
    history = one(text)
    assert points(history.train_loss) == [(10, 3.0), (20, 2.0), (30, 1.0)]
    assert points(history.validation_loss["validation"]) == [(10, 3.1)]
    assert history.context.planned_steps == 30 and history.status == "finished"


def test_not_a_number_is_read_where_a_number_is_meant() -> None:
    assert math.isnan(loss("step 10 loss nan\nstep 20 loss NaN\n")[0][1])
    assert loss("step 10 | number of nan steps: 4 | loss 2.0\n") == [(10, 2.0)]


def test_prose_about_trainings_is_no_log() -> None:
    """A table of notes, each worded anew. Fails when `PROSE` is 1,000."""
    notes = [
        "005,healthy,train 12.4 to 0.10 and eval 0.125 to 0.117",
        "019,divergence,train 0.67 to 0.37 by step 230 then 0.71",
        "066,overfitting,eval min 9.705 at step 200 while train only 7.48",
        "101,plateau,28.4 to 16.7 by step 100; eval loss 5.836",
        "124,too hot,loss 1.25 then 1.45 then 1.40 (ln4 is 1.386)",
        "143,plateau,loss 10.82 on every row",
        "147,overfitting,val min 4.673 (step 3000) then 4.802, train loss 2.84",
        "160,healthy,val loss from 10.95 down to 3.168 over 19073 steps",
    ]
    with pytest.raises(LogError):
        one("id,label,evidence\n" + "\n".join(notes) + "\n")


def test_text_without_a_loss_is_no_log() -> None:
    for text in ("the loss is high\n", "hello 1 2 3\n", "step 10\nstep 20\n", "loss: none\n"):
        with pytest.raises(LogError, match="no loss was found"):
            one(text)


# ── the traps of real logs ─────────────────────────────────────────────────────────────────


def test_steps_that_start_anew_at_every_epoch_are_added_up() -> None:
    """Fails when falling steps are always taken for a resume."""
    text = "epoch,step,loss\n0,0,3\n0,1,2.9\n0,2,2.8\n1,0,2.7\n1,1,2.6\n1,2,2.5\n"
    history = one(text)
    assert history.train_loss.steps == (0, 1, 2, 3, 4, 5) and history.attempts == 1
    # Without epochs, only a regular fall is one.
    regular = "".join(f"step {k % 50} loss {3 - k / 100}\n" for k in range(200))
    assert one(regular).train_loss.steps == tuple(range(200))


def test_a_resume_is_told_from_a_new_epoch() -> None:
    """Fails when a falling step is a new epoch although the epoch does not rise."""
    text = "step,epoch,loss,val_loss\n10,.1,3,\n20,.2,2.5,\n20,.2,,9\n30,.3,2.4,\n"
    text += "20,.2,2.6,\n20,.2,,8\n30,.3,2.2,\n"
    history = one(text)
    assert points(history.train_loss) == [(10, 3.0), (20, 2.6), (30, 2.2)]
    assert points(history.validation_loss["validation"]) == [(20, 8.0)]
    assert (history.attempts, history.superseded, history.jumps) == (2, 2, (20,))


def test_steps_that_the_later_attempt_did_not_log_are_gone_too() -> None:
    """Fails when `_drop_superseded` leaves the steps of the rows that it drops."""
    history = one("step,loss\n10,3\n20,2.5\n30,2.4\n15,2.6\n25,2.2\n")
    assert points(history.train_loss) == [(10, 3.0), (15, 2.6), (25, 2.2)]


def test_other_traps() -> None:
    middle = one("step,loss\n70250,3.1\n70500,3.0\n")
    assert middle.train_loss.steps == (70250, 70500)
    perplexity = one("step,train_ppl\n1,20.0\n2,10.0\n")
    assert perplexity.train_loss.values == pytest.approx((math.log(20), math.log(10)))
    twice = one("step,loss,val_loss\n1,3,\n1,,2.0\n1,,1.9\n")
    assert points(twice.validation_loss["validation"]) == [(1, 1.9)]
    epochs = one("epoch,train_loss,val_loss\n1,3,3\n2,2,2\n2,2.1,2.2\n3,1,1\n")
    assert epochs.axis == "epoch" and points(epochs.train_loss)[1] == (2, 2.1)
    rows = one("loss,grad_norm\n3,1e5\n2,inf\n1,2e5\n")
    assert rows.axis == "row" and rows.train_loss.steps == (1, 2, 3)
    reward = one("".join(f'{{"step": {k}, "loss": 0.0, "reward": 0.1}}\n' for k in range(3)))
    assert reward.context.task == "reinforcement"


# ── bytes ──────────────────────────────────────────────────────────────────────────────────

PLAIN = "step,loss\n1,3.0\n2,2.5\n"
BYTES: dict[str, bytes] = {
    "UTF-8": PLAIN.encode(),
    "UTF-8 with mark": PLAIN.encode("utf-8-sig"),
    "UTF-16": PLAIN.encode("utf-16"),
    "UTF-16 without mark": PLAIN.encode("utf-16-le"),
    "UTF-16 the other way": PLAIN.encode("utf-16-be"),
    "UTF-32": PLAIN.encode("utf-32"),
    "Latin-1": ("# Größe\n" + PLAIN).encode("latin-1"),
    "gzip": gzip.compress(PLAIN.encode()),
    "two gzip members": gzip.compress(PLAIN[:10].encode()) + gzip.compress(PLAIN[10:].encode()),
}


@pytest.mark.parametrize("name", BYTES)
def test_every_encoding(name: str) -> None:
    """Fails when the second member of a gzip file is left out."""
    history = one(BYTES[name])
    assert points(history.train_loss) == [(1, 3.0), (2, 2.5)]
    told = [note for note in history.notes if "Latin-1" in note]
    assert len(told) == (name == "Latin-1")


def test_a_gzip_file_that_is_cut_off_is_read_so_far() -> None:
    rows = "".join(f"{k},{(k * 7919) % 1009}.5\n" for k in range(4000))
    packed = gzip.compress(("step,loss\n" + rows).encode())
    history = one(packed[: len(packed) // 2])
    assert 100 < len(history.train_loss) < 3900
    assert "gzip file is cut off" in history.notes[0]


def test_binary_and_damaged_files_are_refused() -> None:
    for data, told in (
        (os.urandom(10) + bytes(range(32)) * 50, "binary"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", "binary"),
        (b"\x1f\x8b\x08\x00damaged", "gzip data is damaged"),
        (b"", "empty"),
        (b" \n\n", "empty"),
    ):
        with pytest.raises(LogError, match=told):
            one(data)


@pytest.mark.timeout(20)
def test_pipes_devices_and_closed_folders_are_refused(tmp_path: Path) -> None:
    """Fails (hangs) when a pipe is opened."""
    pipe = tmp_path / "pipe.log"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(LogError, match="no ordinary file"):
            read(path)
    with pytest.raises(LogError, match="the folder holds no log"):
        read(tmp_path)


# ── folders ────────────────────────────────────────────────────────────────────────────────


def test_a_folder_of_runs_gives_all_of_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text(PLAIN)
        (tmp_path / name / "config.json").write_text('{"loss": 3.0}')
    (tmp_path / "c.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    (tmp_path / "notes.txt").write_text("no log\n")
    assert [run.name for run in read_all(tmp_path)] == ["c.jsonl", "a", "b"]
    with pytest.raises(LogError, match=r"holds 3 logs: c\.jsonl, a/metrics\.csv, b/metrics\.csv"):
        read(tmp_path)


def test_one_run_logged_twice_is_read_once(tmp_path: Path) -> None:
    """Fails when every log of a folder counts as a run."""
    rows = [{"step": s, "loss": 3.0} for s in (1, 2)]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": rows}))
    (tmp_path / "trainer_log.jsonl").write_text('{"current_steps": 1, "loss": 3.0}\n' * 2)
    (tmp_path / "events.out.tfevents.1.host").write_bytes(b"")
    history = read(tmp_path)
    assert history.format == "trainer_state.json"
    assert history.notes == (
        "Of this run, `trainer_state.json` was read, not trainer_log.jsonl, TensorBoard events.",
    )


def test_the_search_of_a_folder_ends(tmp_path: Path) -> None:
    deep = tmp_path.joinpath(*"abcdefgh")
    deep.mkdir(parents=True)
    (deep / "log.csv").write_text(PLAIN)
    (tmp_path / "loop").symlink_to(tmp_path)
    with pytest.raises(LogError, match="the folder holds no log"):
        read_all(tmp_path)


# ── logs that no author chose ──────────────────────────────────────────────────────────────

LINES = st.sampled_from(
    ["step 1 loss 2.0", "loss nan", "step,loss", "1,2.0", "{'loss': 1}", '{"loss": 1, "step": 2}',
     "Epoch 1/2", "10/20 [00:01<00:02, 1it/s]", "1 train 3.0", "[1, 2.0]", "]", "{", '{"log_history": [{',  # noqa: E501
     "\x1b[1m", "5/5 [====] - loss: 0.1", "step 99999999999999999999 loss 1e999", "# c", ";;;",
     "loss: 1,000.5", "step -4 loss 3", "valid loss at step 3: 2", "1\t2\t3", "step 1.5.2 loss 3.4.5",  # noqa: E501
     "Epoch 3 [ 4/5] loss 2", "loss 1 2 3", "step\tloss", "-1,nan"]
)  # fmt: skip


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.lists(LINES, max_size=12).map(lambda lines: "\n".join(lines).encode()),
        st.lists(st.one_of(LINES, st.text(max_size=12)), max_size=8).map(
            lambda lines: "\n".join(lines).encode("utf-8", "replace")
        ),
    )
)
def test_any_bytes_give_histories_or_one_clear_error(data: bytes) -> None:
    """Fails when `_float` is left out and `step 1.5.2` reaches `float`."""
    try:
        found = read_bytes(data)
    except LogError as error:
        assert error.way_out
        return
    for history in found:
        for series in (history.train_loss, history.grad_norm, *history.validation_loss.values()):
            assert all(a < b for a, b in zip(series.steps, series.steps[1:], strict=False))
            assert len(series.steps) == len(series.values)


@pytest.mark.parametrize("name", ["resumed", "falling", "zigzag"])
@pytest.mark.timeout(30)
def test_a_long_log_that_jumps_back_is_read_in_linear_time(name: str) -> None:
    """Fails (takes minutes) when every jump looks at all rows before it."""
    n = 100_000
    steps = {
        "resumed": [*range(n), *range(n // 2, n)],
        "falling": list(range(n, 0, -1)),
        "zigzag": [n - k // 2 if k % 2 else k // 2 for k in range(n)],
    }[name]
    text = "step,loss\n" + "".join(f"{s},3.5\n" for s in steps)
    assert len(one(text).train_loss) <= n


# ── real logs ──────────────────────────────────────────────────────────────────────────────

real = pytest.mark.skipif(
    not LOGS.is_dir(), reason="the real training logs are not beside the repository"
)


@real
def test_all_real_logs_are_read() -> None:
    with (LOGS / "labels.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 60
    for row in rows:
        history = read(LOGS / row["file"])
        assert len(history.train_loss) >= 5, row["file"]
        assert ("no_validation" in row["labels"]) <= (len(history.validation_loss) <= 1)
        assert history.axis == {"151": "row", "157": "row", "164": "epoch", "176": "row"}.get(
            row["id"], "step"
        )


EXACT: dict[str, tuple[int, int, float, int, float, int, float]] = {
    # training losses, first step, first, last step, last; validation losses, the last of them
    "147": (25, 200, 5.954643909931183, 5000, 2.838142204284668, 25, 4.801538512706757),
    "148": (423, 250, 5.2442946434021, 105750, 3.1167469024658203, 423, 3.0496941924095156),
    "149": (331, 70250, 3.114011764526367, 152587, 3.183082342147827, 331, 3.1421633124351502),
    "150": (500, 0, 10.835443496704102, 4990, 3.5017528533935547, 500, 3.9461703300476074),
    "151": (5000, 1, 4.735599517822266, 5000, 0.3115813136100769, 0, 0.0),
    "157": (15, 1, 5.134106473250536, 15, 2.645877497836882, 15, 3.2004415839910507),
    "159": (1740, 0, 10.89043, 1739, 4.100227, 7, 4.2447),
    "160": (19073, 0, 10.95501, 19072, 3.181935, 78, 3.1681),
    "161": (100, 1, 0.3568677604198456, 100, 0.2132837176322937, 0, 0.0),
    "164": (33, 1, 2.0274, 33, 0.9466, 33, 0.8703),
    "165": (11, 0, 4.3502, 5000, 1.1806, 11, 1.5407),
    "171": (675, 10, 2.219, 6750, 1.5999, 13, 1.577560544013977),
    "176": (9, 1, 0.0, 9, 0.0, 0, 0.0),
}


@real
@pytest.mark.parametrize("name", EXACT)
def test_real_logs_exactly(name: str) -> None:
    history = read(LOGS / name)
    train = history.train_loss
    validation = history.validation_loss.get("validation", Series())
    last = validation.values[-1] if len(validation) else 0.0
    ends = (train.steps[0], train.values[0], train.steps[-1], train.values[-1])
    assert (len(train), *ends, len(validation), last) == EXACT[name]


@real
def test_the_console_excerpt_has_the_steps_of_its_bars() -> None:
    history = read(LOGS / "174")
    assert history.train_loss.steps == (500, 1000, 1500, 2000, 12500, 13000, 13500)
    assert history.validation_loss["validation"].steps == (12000,)
    assert history.context.planned_steps == 13605 and history.status == "finished"
    assert all(math.isnan(value) for value in history.train_loss.values[-3:])
