"""A Log → a History: names become roles, steps become increasing, loggers' lies are corrected.

Known lies and habits, and what is done about them:
- the Hugging Face `Trainer` replaces a NaN loss by the mean so far (`logging_nan_inf_filter`, on
  by default): a loss of 0, or exactly the last one, beside a NaN gradient norm is put back;
- a resumed run writes steps again, or a step counter starts anew at every epoch: told apart by
  the epochs beside them; of a repeated step the later row wins;
- `num_train_epochs` of 9.2e18 stands for "not given";
- columns of Lightning are sparse, evaluations stand between training rows or before them;
- perplexities are logged in place of losses: their logarithm is taken;
- the loss of reinforcement learning is no likelihood: it is marked by an event.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from wellfit.diagnosis.importers import names
from wellfit.diagnosis.importers.json_file import loose, whole
from wellfit.diagnosis.importers.log import Column, Log
from wellfit.diagnosis.importers.steps import find_steps, series_of
from wellfit.errors import LogError
from wellfit.monitor.history import Context, History, Series
from wellfit.records import Event

MAIN_SETS = ("validation", "valid", "val", "dev", "eval", "test")
"""Names of evaluation sets that are taken for the main one, in this order."""
NO_EPOCHS = 1e6
"""Planned epochs from here on mean that none were planned (the Trainer writes 2^63 − 1)."""


@dataclass(frozen=True, slots=True)
class Given:
    """What the user says about a run beside its log; it wins over what the log says."""

    vocabulary_size: int | None = None
    epochs: float | None = None
    task: str | None = None
    """`language` (next token), `classification`, `preference` or `reinforcement`."""


def assemble(log: Log, given: Given | None = None) -> History:
    """A Log → its History. Raises LogError where it holds no loss."""
    given = given or Given()
    notes = list(log.notes)
    chosen = _choose(log, notes)
    if "train" not in chosen and not any(key.startswith("validation:") for key in chosen):
        raise LogError(
            "no loss was found in it" + _seen(log),
            where=log.name,
            way_out="Name the columns as trainers do: `step`, `train_loss`, `val_loss`, "
            "`learning_rate`, `grad_norm`.",
        )
    steps, axis, jumps, superseded = find_steps(log, chosen, notes)
    series = {key: series_of(column, steps) for key, column in chosen.items() if key != "step"}
    train = series.get("train", (Series(), 0))[0]
    for key, (_, repeated) in series.items():
        told = "training" if key == "train" else key.partition(":")[2]
        if repeated and told:
            notes.append(
                f"{repeated} steps carried the {told} loss twice; the later value was taken."
            )
    loss, hidden = _unhide(train, series.get("norm", (Series(), 0))[0])
    if hidden:
        notes.append(
            f"The logger hid {hidden} NaN losses (their gradient norm is NaN, the loss shows 0 or "
            "repeats itself); they count as NaN."
        )
    sets = {key.partition(":")[2]: one for key, (one, _) in series.items() if ":" in key}
    validation = _main_first({key: one for key, one in sets.items() if len(one)}, notes)
    if not len(loss) and not validation:
        raise LogError(
            "no loss in it has a step",
            where=log.name,
            way_out="Give a log whose rows hold a step and a loss.",
        )
    epoch = series.get("epoch", (Series(), 0))[0]
    task = given.task or _task(log)
    if task == "reinforcement":
        notes.append("Rewards are logged: this loss is no likelihood, and is not judged as one.")
    return History(
        name=log.name,
        format=log.format,
        train_loss=loss,
        validation_loss=validation,
        learning_rate=series.get("rate", (Series(), 0))[0],
        grad_norm=series.get("norm", (Series(), 0))[0],
        epoch=epoch,
        tokens=series.get("tokens", (Series(), 0))[0],
        tokens_per_second=series.get("speed", (Series(), 0))[0],
        seconds=series.get("seconds", (Series(), 0))[0],
        context=_context(log, given, task, epoch, loss, notes),
        events=(Event(0, "objective", "reinforcement learning", {"likelihood": False}),)
        if task == "reinforcement"
        else (),
        status="finished"
        if log.status == "unknown" and "train_runtime" in log.columns
        else log.status,
        axis=axis,
        jumps=tuple(jumps),
        attempts=1 + len(jumps),
        superseded=superseded,
        notes=tuple(notes),
    )


def _seen(log: Log) -> str:
    if not log.columns:
        return ""
    shown = ", ".join(f"`{name[:40]}`" for name in list(log.columns)[:8])
    return f" (it holds {shown}{', …' if len(log.columns) > 8 else ''})"


# ── which column is what ───────────────────────────────────────────────────────────────────


def _choose(log: Log, notes: list[str]) -> dict[str, Column]:
    """A log → its columns by role: `step`, `epoch`, `train`, `rate`, …, `validation:NAME`."""
    candidates: dict[str, list[tuple[int, int, str, names.Role]]] = {}
    summaries = set(log.columns["train_runtime"].rows) if "train_runtime" in log.columns else set()
    for name, column in log.columns.items():
        if summaries and not summaries.isdisjoint(column.rows[-1:]) and name == "train_loss":
            continue  # the mean over the whole run, in the row that a Trainer writes last
        if not column.rows or (found := names.role(name)) is None:
            continue
        key = found.kind if found.kind != "validation" else f"validation:{found.set}"
        candidates.setdefault(key, []).append((found.rank, -len(column.rows), name, found))
    chosen: dict[str, Column] = {}
    for key, found_columns in candidates.items():
        if key == "step":
            chosen[key] = _joined([log.columns[one[2]] for one in sorted(found_columns)])
            continue
        most = max(-count for _, count, _, _ in found_columns)
        # A final summary row, or a mean by epoch, is not the curve.
        enough = 0.5 * most if found_columns[0][3].kind != "validation" else min(2, most)
        full = [one for one in found_columns if -one[1] >= enough]
        _, _, name, role = min(full)
        column = log.columns[name]
        if role.perplexity:
            notes.append(f"`{name}` is a perplexity; its logarithm is taken as the loss.")
            column = Column(column.rows, [_log(value) for value in column.values])
        others = [one[2] for one in full if one[2] != name]
        if key == "train" and others and len(full) > 1:
            shown = ", ".join(f"`{other}`" for other in sorted(others)[:3])
            notes.append(f"`{name}` is taken for the training loss, not {shown}.")
        chosen[key] = column
    return chosen


def _joined(columns: list[Column]) -> Column:
    """Columns of steps, the surest first → the first of them, with those that stand in other rows:
    `iter 10: loss …` and `step 10: val loss …` in one log."""
    rows, values = list(columns[0].rows), list(columns[0].values)
    taken = set(rows) if len(columns) > 1 else set()
    for column in columns[1:]:
        if taken.isdisjoint(column.rows):
            rows, values = rows + column.rows, values + column.values
            taken.update(column.rows)
    return Column(rows, values)


def _log(value: float) -> float:
    if value > 0:
        return math.log(value)
    return -math.inf if value == 0 else math.nan


def _main_first(named: dict[str, Series], notes: list[str]) -> dict[str, Series]:
    """The same sets, with one of them called `validation`."""
    if not named or "validation" in named:
        return named
    most = max(named, key=lambda name: len(named[name]))
    main = next((name for name in MAIN_SETS if name in named), most)
    notes.append(f"The evaluation set `{main}` is taken for the main one.")
    return {"validation": named[main]} | {k: v for k, v in named.items() if k != main}


# ── lies and facts ─────────────────────────────────────────────────────────────────────────


def _unhide(loss: Series, norms: Series) -> tuple[Series, int]:
    """Losses and gradient norms → losses with the hidden NaN put back, and their number."""
    if len(norms.finite[0]) == len(norms):
        return loss, 0
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


def _task(log: Log) -> str | None:
    keys = {names.plain(name) for name in log.columns}
    if keys & set(names.REWARDS):
        return "reinforcement"
    if keys & set(names.PREFERENCES):
        return "preference"
    if any(
        {"accuracy", "acc", "f1"} & set(key.split("_")) and "token" not in key for key in keys
    ) and not any("ppl" in key or "perplexity" in key for key in keys):
        return "classification"
    return None


def _fact(log: Log, wanted: str) -> float | None:
    facts = {
        names.plain(key.rpartition("/")[2].rpartition(".")[2]): v for key, v in log.facts.items()
    }
    for name, column in log.columns.items():  # some repeat a setting in every row
        if column.values and names.role(name) is None:
            facts.setdefault(names.plain(name), column.values[-1])
    found = (loose(facts.get(key)) for key in names.SETTINGS[wanted])
    return next((one for one in found if one is not None and one > 0), None)


def _context(
    log: Log, given: Given, task: str | None, epoch: Series, loss: Series, notes: list[str]
) -> Context:
    planned_epochs = given.epochs or _fact(log, "planned_epochs")
    if planned_epochs is not None and planned_epochs >= NO_EPOCHS:
        notes.append(f"num_train_epochs = {planned_epochs:.3g} means that none were planned.")
        planned_epochs = None
    vocabulary = given.vocabulary_size or whole(_fact(log, "vocabulary_size"))
    optimizer: Any = log.facts.get("optimizer") or log.facts.get("optim")
    return Context(
        vocabulary_size=vocabulary,
        planned_steps=whole(_fact(log, "planned_steps")),
        planned_epochs=planned_epochs,
        steps_per_epoch=steps_per_epoch(epoch),
        clip_norm=_fact(log, "clip_norm"),
        warmup_steps=whole(_fact(log, "warmup_steps")),
        accumulation=whole(_fact(log, "accumulation")),
        optimizer=optimizer if isinstance(optimizer, str) else None,
        task=task,
        train_losses_are_per_step=_per_step(loss),
    )


def steps_per_epoch(epoch: Series) -> float | None:
    """Epochs over steps → steps in one epoch, from the last point; None where it cannot be told."""
    if len(epoch) == 0 or not 0 < epoch.values[-1] < 1e6 or epoch.steps[-1] == 0:
        return None
    return epoch.steps[-1] / epoch.values[-1]


def _per_step(loss: Series) -> bool:
    """Whether every step was logged; else the logger averages, or picks, between two rows."""
    gaps = np.diff(np.asarray(loss.steps[:2000], dtype=np.float64))
    return bool(len(gaps)) and float(np.median(gaps)) == 1.0
