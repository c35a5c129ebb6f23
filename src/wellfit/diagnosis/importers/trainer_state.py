"""Hugging Face `trainer_state.json` → a History, its logger's lies corrected.

Known lies, and what is done about them:
- the `Trainer` replaces a NaN loss by the mean so far (`logging_nan_inf_filter`, on by default):
  a loss of 0, or exactly the last one, beside a NaN gradient norm is put back to NaN;
- rows of an earlier attempt stay after a resume: the later row of a step wins;
- `num_train_epochs` of 9.2e18 stands for "not given";
- the loss of reinforcement learning is no likelihood: it is marked by an event.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from wellfit.diagnosis.importers.json_file import number, whole
from wellfit.diagnosis.importers.rows import Points, repetition_notes
from wellfit.diagnosis.importers.training_metrics import steps_per_epoch
from wellfit.errors import LogError
from wellfit.monitor.history import Context, History, Series
from wellfit.records import Event

MAIN_NAMES = ("validation", "valid", "val", "dev", "eval")
"""Names of evaluation sets that are taken for the main one, in this order."""
REWARDS = ("reward", "rewards/mean", "frac_reward_zero_std", "objective/rlhf_reward")
"""Keys that only reinforcement learning logs."""
NO_EPOCHS = 1e6
"""Planned epochs from here on mean that none were planned (the Trainer writes 2^63 − 1)."""


def looks_like_state(value: Any) -> bool:
    """Whether a JSON value has the `log_history` of a Trainer."""
    return isinstance(value, dict) and "log_history" in value


def from_state(value: dict[str, Any], path: Path) -> History:
    """The JSON value of a `trainer_state.json` → its History.

    Raises LogError where `log_history` is no list, empty, or holds no row with a step and a loss.
    """
    where = str(path)
    log = value["log_history"]
    if not isinstance(log, list):
        raise LogError(
            "`log_history` is not a list",
            where=where,
            way_out="Give the trainer_state.json that the Trainer wrote in a checkpoint.",
        )
    if not log:
        raise LogError(
            "`log_history` is empty: nothing was logged",
            where=where,
            way_out="Take the file of a later checkpoint, or lower `logging_steps`.",
        )
    rows = [row for row in log if isinstance(row, dict)]
    train, validation, others = _collect(rows)
    if not train.steps and not any(points.steps for points in validation.values()):
        raise LogError(
            f"none of the {len(log)} rows of `log_history` holds a step and a loss",
            where=where,
            way_out="Take the file of a later checkpoint, or lower `logging_steps`.",
        )
    notes: list[str] = []
    if len(rows) < len(log):
        notes.append(f"{len(log) - len(rows)} rows of `log_history` are no objects; left out.")
    notes += repetition_notes("training loss", train)
    for name, points in validation.items():
        notes += repetition_notes(f"{name} loss", points)
    named = {name: points.series() for name, points in validation.items() if points.steps}
    named = _main_first(named, notes)
    loss, hidden = _unhide(train.series(), others["grad_norm"].series())
    if hidden:
        notes.append(
            f"The logger hid {hidden} NaN losses (their gradient norm is NaN, the loss shows 0 or "
            "repeats itself); they count as NaN."
        )
    reward = any(key in row for row in rows for key in REWARDS)
    if reward:
        notes.append("Rewards are logged: this loss is no likelihood, and is not judged as one.")
    planned_epochs = number(value.get("num_train_epochs"))
    if planned_epochs is not None and not 0 < planned_epochs < NO_EPOCHS:
        notes.append(f"num_train_epochs = {planned_epochs:.3g} means that none were planned.")
        planned_epochs = None
    planned_steps = whole(value.get("max_steps")) or None
    epoch = others["epoch"].series()
    ended = any("train_runtime" in row for row in rows)
    done = whole(value.get("global_step")) or 0
    return History(
        name=path.parent.name or path.name,
        format="trainer_state.json",
        train_loss=loss,
        validation_loss=named,
        learning_rate=others["learning_rate"].series(),
        grad_norm=others["grad_norm"].series(),
        epoch=epoch,
        tokens=others["num_tokens"].series(),
        context=Context(
            planned_steps=planned_steps,
            planned_epochs=planned_epochs,
            steps_per_epoch=steps_per_epoch(epoch),
            train_losses_are_per_step=_per_step(loss),
        ),
        events=(Event(0, "objective", "reinforcement learning", {"likelihood": False}),)
        if reward
        else (),
        status=_status(ended, done, planned_steps),
        attempts=1 + len(train.jumps),
        superseded=train.superseded,
        notes=tuple(notes),
    )


def _collect(rows: list[dict[str, Any]]) -> tuple[Points, dict[str, Points], dict[str, Points]]:
    """Rows → training losses, validation losses by set, and the other series of training rows."""
    train = Points()
    validation: dict[str, Points] = {}
    others = {key: Points() for key in ("learning_rate", "grad_norm", "epoch", "num_tokens")}
    for row in rows:
        step = whole(row.get("step"))
        if step is None:
            continue
        loss = number(row.get("loss"))
        if loss is not None:
            train.add(step, loss)
            for key, points in others.items():
                found = number(row.get(key))
                if found is not None:
                    points.add(step, found)
        for key, given in row.items():
            name = _evaluation_set(key)
            found = number(given) if name else None
            if name and found is not None:
                validation.setdefault(name, Points()).add(step, found)
    return train, validation, others


def _evaluation_set(key: str) -> str | None:
    """`eval_loss` → `validation`, `eval_books_loss` → `books`, other keys → None."""
    if key == "eval_loss":
        return "validation"
    if key.startswith("eval_") and key.endswith("_loss") and "/" not in key:
        return key.removeprefix("eval_").removesuffix("_loss")
    return None


def _main_first(named: dict[str, Series], notes: list[str]) -> dict[str, Series]:
    """The same sets, with one of them called `validation`."""
    if not named or "validation" in named:
        return named
    most = max(named, key=lambda name: len(named[name]))
    main = next((name for name in MAIN_NAMES if name in named), most)
    notes.append(f"The evaluation set `{main}` is taken for the main one.")
    return {"validation": named[main]} | {k: v for k, v in named.items() if k != main}


def _unhide(loss: Series, norms: Series) -> tuple[Series, int]:
    """Losses and gradient norms → losses with the hidden NaN put back, and their number."""
    broken = {s for s, v in zip(norms.steps, norms.values, strict=True) if math.isnan(v)}
    values: list[float] = []
    for i, (step, value) in enumerate(zip(loss.steps, loss.values, strict=True)):
        repeats = i > 0 and value == loss.values[i - 1]
        values.append(math.nan if step in broken and (value == 0.0 or repeats) else value)
    hidden = sum(
        math.isnan(new) and not math.isnan(old)
        for new, old in zip(values, loss.values, strict=True)
    )
    return Series(loss.steps, tuple(values)), hidden


def _per_step(loss: Series) -> bool:
    """Whether every step was logged; else the Trainer averages between two rows."""
    gaps = [b - a for a, b in zip(loss.steps[:-1], loss.steps[1:], strict=True)]
    return bool(gaps) and sorted(gaps)[len(gaps) // 2] == 1


def _status(ended: bool, done: int, planned: int | None) -> str:
    if ended or (planned is not None and done >= planned):
        return "finished"
    return "unknown"
