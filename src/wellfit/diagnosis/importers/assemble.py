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
from numpy.typing import NDArray

from wellfit.diagnosis.importers import names
from wellfit.diagnosis.importers.json_file import number, whole
from wellfit.diagnosis.importers.log import Column, Log
from wellfit.errors import LogError
from wellfit.monitor.history import Context, History, Series
from wellfit.records import Event

Array = NDArray[np.float64]

MAIN_SETS = ("validation", "valid", "val", "dev", "eval", "test")
"""Names of evaluation sets that are taken for the main one, in this order."""
NO_EPOCHS = 1e6
"""Planned epochs from here on mean that none were planned (the Trainer writes 2^63 − 1)."""
FACTS: dict[str, tuple[str, ...]] = {
    "vocabulary_size": ("vocab_size", "padded_vocab_size", "n_vocab", "vocabulary_size"),
    "planned_steps": (
        "max_steps", "total_steps", "max_iters", "train_iters", "num_training_steps",
        "total_iterations", "max_iterations", "num_iterations",
    ),
    "planned_epochs": (
        "num_train_epochs", "num_epochs", "max_epochs", "epochs", "n_epochs", "total_epochs",
    ),
    "accumulation": (
        "gradient_accumulation_steps", "accumulate_grad_batches", "grad_accum_steps", "grad_accum",
    ),
    "clip_norm": ("max_grad_norm", "gradient_clip_val", "grad_clip", "clip_grad", "clip_grad_norm"),
    "warmup_steps": ("warmup_steps", "warmup_iters", "lr_warmup_iters", "num_warmup_steps"),
}  # fmt: skip
"""What a History wants to know → the settings that tell it, by their trainers' names."""


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
    steps, axis, jumps, superseded = _steps(log, chosen, notes)
    series = {key: _series(column, steps) for key, column in chosen.items() if key != "step"}
    train, repeated = series.get("train", (Series(), 0))
    if repeated and not jumps:
        notes.append(
            f"{repeated} steps carried the training loss twice; the later value was taken."
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
        status=log.status,
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
    for name, column in log.columns.items():
        if not column.rows or (found := names.role(name)) is None:
            continue
        key = found.kind if found.kind != "validation" else f"validation:{found.set}"
        candidates.setdefault(key, []).append((found.rank, -len(column.rows), name, found))
    chosen: dict[str, Column] = {}
    for key, found_columns in candidates.items():
        most = max(-count for _, count, _, _ in found_columns)
        # A final summary row, or a mean by epoch, is not the curve.
        full = [one for one in found_columns if -one[1] >= 0.5 * most]
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


# ── steps ──────────────────────────────────────────────────────────────────────────────────


def _steps(
    log: Log, chosen: dict[str, Column], notes: list[str]
) -> tuple[Array, str, list[int], int]:
    """A log → the step of every row (NaN: the row is superseded or has none), what a step is,
    where the log jumps back as after a resume, and how many losses a later attempt replaced."""
    steps = np.full(log.rows, np.nan)
    if log.steps:
        steps[np.fromiter(log.steps.keys(), int)] = np.fromiter(log.steps.values(), float)
    if "step" in chosen:
        steps[chosen["step"].rows] = chosen["step"].values
    epochs = np.full(log.rows, np.nan)
    if "epoch" in chosen:
        epochs[chosen["epoch"].rows] = chosen["epoch"].values
    axis = "step"
    if not np.isfinite(steps).any():
        steps, axis = _without_steps(log, chosen, epochs, notes)
    elif _is_fraction(steps):
        # A "step" that counts epochs in fractions.
        steps, axis = _without_steps(log, chosen, steps, notes)
    steps = _filled(steps)
    losses = [c.rows for key, c in chosen.items() if key == "train" or key.startswith("validation")]
    if log.steps:  # each column of a store has its own order
        return steps, axis, *_latest_by_column(chosen, steps)
    marked = np.unique(np.concatenate([np.asarray(rows, int) for rows in losses]))
    if axis == "step" and (offset := _epoch_resets(steps, epochs, marked)) is not None:
        notes.append("The step counter starts anew at every epoch; the steps were added up.")
        steps = steps + offset
    jumps, superseded = _drop_superseded(steps, marked)
    if jumps:
        notes.append(_jump_note(jumps, superseded))
    return steps, axis, jumps, superseded


def _is_fraction(steps: Array) -> bool:
    known = steps[np.isfinite(steps)]
    return bool(np.mean(known != np.round(known)) > 0.5)


def _without_steps(
    log: Log, chosen: dict[str, Column], epochs: Array, notes: list[str]
) -> tuple[Array, str]:
    """Rows without steps → whole epochs where each row is one, else row numbers."""
    known = epochs[np.isfinite(epochs)]
    train = chosen.get("train") or next(c for k, c in chosen.items() if k.startswith("validation"))
    rows = np.asarray(train.rows)
    if len(known) and np.all(known == np.round(known)):
        filled = _filled(epochs)
        at = filled[rows]
        if len(np.unique(at[np.isfinite(at)])) >= 0.5 * len(at):
            notes.append("The log holds no steps; its epochs stand for them.")
            return epochs, "epoch"
    notes.append(
        "The log holds no steps; its rows are counted, so nothing is said about steps as such."
    )
    steps = np.full(log.rows, np.nan)
    steps[rows] = np.arange(1, len(rows) + 1)
    return steps, "row"


def _filled(steps: Array) -> Array:
    """Rows without a step belong to the last one before them, else to the first after."""
    known = np.flatnonzero(np.isfinite(steps))
    if len(known) in (0, len(steps)):
        return steps
    before = np.maximum.accumulate(np.where(np.isfinite(steps), np.arange(len(steps)), -1))
    return np.asarray(np.where(before >= 0, steps[before], steps[known[0]]))


def _epoch_resets(steps: Array, epochs: Array, marked: Array) -> Array | None:
    """Steps that start anew while the epoch rises → what to add to each row; None elsewhere.

    Without epochs, three falls and more to the same beginning, each from about the same height,
    are taken for epochs too: a run is hardly killed so regularly.
    """
    falls = np.flatnonzero(np.diff(steps) < 0) + 1
    if len(falls) == 0:
        return None
    tops, starts = steps[falls - 1], steps[falls]
    first = steps[0]
    known = _filled(epochs)
    if np.isfinite(known).any():
        rises = known[falls] > known[falls - 1]
        same = np.abs(starts - first) <= 0.1 * np.maximum(tops, 1)
        if not np.all(rises & same):
            return None
    elif len(falls) < 3 or np.ptp(tops) > 0.1 * tops.max() or np.ptp(starts) > 0.05 * tops.max():
        return None
    # An epoch is as long as its highest step; where counting begins at 0 that is one less.
    length = tops + (1 if first == 0 else 0)
    offset = np.zeros(len(steps))
    offset[falls] = length
    return np.asarray(np.cumsum(offset))


def _drop_superseded(steps: Array, marked: Array) -> tuple[list[int], int]:
    """Row order → NaN for rows that a later attempt wrote again; where the log jumps back.

    Evaluations are often written out of order by a row or two: only the order of rows with
    losses counts, and a jump must leave more than one of them behind it.
    """
    at = steps[marked]
    highest = np.maximum.accumulate(at)
    falls = np.flatnonzero(at[1:] < highest[:-1]) + 1
    jumps: list[int] = []
    superseded = 0
    for place in falls:
        step = at[place]
        older = marked[:place][steps[marked[:place]] >= step]
        if len(older) == 0:
            continue
        if step == at[0] and place == 1:
            continue
        jumps.append(int(step))
        superseded += len(older)
        begin, end = int(older[0]), int(marked[place])
        inside = np.arange(begin, end)
        steps[inside[steps[inside] >= step]] = np.nan
    return jumps, superseded


def _latest_by_column(chosen: dict[str, Column], steps: Array) -> tuple[list[int], int]:
    """Stores keep each metric apart, in the order of writing: the later attempt of each wins."""
    jumps: list[int] = []
    superseded = 0
    for key, column in chosen.items():
        rows = np.asarray(column.rows, int)
        found, count = _drop_superseded(steps, rows)
        if key == "train":
            jumps, superseded = found, count
    return jumps, superseded


def _jump_note(jumps: list[int], superseded: int) -> str:
    return (
        f"The steps of the training loss jump back {len(jumps)} times (to step {jumps[0]:,} "
        f"first), as after a resume; {superseded} points of earlier attempts were replaced by "
        "later ones."
    )


def _series(column: Column, steps: Array) -> tuple[Series, int]:
    """A column and the step of every row → a Series, and how many steps came twice."""
    at = steps[np.asarray(column.rows, int)]
    values = np.asarray(column.values, dtype=np.float64)
    keep = np.isfinite(at) & (at >= 0) & (at < 1e15)
    at, values = at[keep], values[keep]
    if np.any(np.diff(at) < 0):
        order = np.argsort(at, kind="stable")
        at, values = at[order], values[order]
    last = np.append(at[1:] != at[:-1], True) if len(at) else np.zeros(0, bool)
    return (
        Series(tuple(np.round(at[last]).astype(np.int64).tolist()), tuple(values[last].tolist())),
        int(len(at) - last.sum()),
    )


# ── lies and facts ─────────────────────────────────────────────────────────────────────────


def _unhide(loss: Series, norms: Series) -> tuple[Series, int]:
    """Losses and gradient norms → losses with the hidden NaN put back, and their number."""
    broken = {s for s, v in zip(norms.steps, norms.values, strict=True) if math.isnan(v)}
    if not broken:
        return loss, 0
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
    for key in FACTS[wanted]:
        found = number(facts.get(key)) if key in facts else None
        if found is None and key in facts and isinstance(facts[key], str):
            try:
                found = float(facts[key])
            except ValueError:
                found = None
        if found is not None and found > 0:
            return found
    return None


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
