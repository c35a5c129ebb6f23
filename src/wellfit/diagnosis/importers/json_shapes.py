"""A JSON value of any shape that trainers write → Logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

from wellfit.diagnosis.importers import names
from wellfit.diagnosis.importers.json_file import loose, number, whole
from wellfit.diagnosis.importers.log import Column, Log
from wellfit.errors import LogError

WRAPPERS = ("log_history", "history", "logs", "log", "training_history", "train_history", "records",
            "rows", "data", "metrics", "training_log", "results")  # fmt: skip
"""Keys under which a file holds its log, beside settings."""
OURS = ("steps", "train_loss", "val_loss", "learning_rate", "epochs")
"""The columns of a training_metrics.json."""
POSITIONS = ("step", "train_loss", "val_loss", "learning_rate")
"""What the numbers of a row without names are."""
DEEPEST = 6


def logs_of_value(value: Any, name: str, where: str, notes: Sequence[str] = ()) -> list[Log]:
    """A JSON value → its Logs (one). Raises LogError where it is no log, or a broken one."""
    if isinstance(value, dict) and "log_history" in value:
        log = _state(value, name, where)
    elif isinstance(value, dict) and {"steps", "train_loss"} <= set(value) <= set(OURS):
        log = _ours(value, name, where)
    else:
        log = Log(name, "JSON")
        if not _fill(log, value, 0):
            raise LogError(
                "this JSON is not a log known here: no rows, columns or list of losses",
                where=where,
                way_out="Give a log of a trainer: `step` and `loss` in rows or columns.",
            )
    log.notes[:0] = notes
    return [log]


# ── two formats with names of their own ────────────────────────────────────────────────────


def _state(value: dict[str, Any], name: str, where: str) -> Log:
    """The JSON value of a Hugging Face `trainer_state.json` → its Log."""
    history = value["log_history"]
    if not isinstance(history, list):
        raise LogError(
            "`log_history` is not a list",
            where=where,
            way_out="Give the trainer_state.json that the Trainer wrote in a checkpoint.",
        )
    if not history:
        raise LogError(
            "`log_history` is empty: nothing was logged",
            where=where,
            way_out="Take the file of a later checkpoint, or lower `logging_steps`.",
        )
    log = Log(name, "trainer_state.json")
    objects = [row for row in history if isinstance(row, dict)]
    rows = [row for row in objects if whole(row.get("step")) is not None]
    if not any(_has_loss(row) for row in rows):
        raise LogError(
            f"none of the {len(history)} rows of `log_history` holds a step and a loss",
            where=where,
            way_out="Take the file of a later checkpoint, or lower `logging_steps`.",
        )
    if len(objects) < len(history):
        log.notes.append(
            f"{len(history) - len(objects)} rows of `log_history` are no objects; left out."
        )
    add_rows(log, rows)
    log.facts = {key: one for key, one in value.items() if key != "log_history"}
    planned, done = whole(value.get("max_steps")), whole(value.get("global_step")) or 0
    if any("train_runtime" in row for row in rows) or (planned and done >= planned):
        log.status = "finished"
    return log


def _has_loss(row: dict[str, Any]) -> bool:
    return any(
        (role := names.role(key)) is not None
        and role.kind in ("train", "validation")
        and key != "train_loss"
        and loose(value) is not None
        for key, value in row.items()
    )


def _ours(value: dict[str, Any], name: str, where: str) -> Log:
    """The JSON value of a `training_metrics.json` → its Log; every entry must be a number or null.

    A validation loss that was measured less often may be shorter.
    """
    columns: dict[str, list[Any]] = {}
    for key in OURS:
        if value.get(key) is None and key not in ("steps", "train_loss"):
            continue
        if not isinstance(value[key], list):
            raise LogError(
                f"`{key}` is not a list",
                where=where,
                way_out="Every column of training_metrics.json is a list with one entry a step.",
            )
        columns[key] = value[key]
    count = len(columns["steps"])
    seldom = len(columns.get("val_loss", columns["steps"]))
    spread = 0 < seldom < count and count % seldom == 0
    lengths = {key: len(column) for key, column in columns.items()}
    if len({n for key, n in lengths.items() if not (spread and key == "val_loss")}) > 1:
        told = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise LogError(
            f"the columns have unequal lengths: {told}",
            where=where,
            way_out="The file was written by something else or cut by hand; take the original.",
        )
    if not count:
        raise LogError(
            "the log holds no steps",
            where=where,
            way_out="Diagnose again once the training has made its first step.",
        )
    for key, column in columns.items():
        read: Callable[[Any], float | None] = whole if key == "steps" else number
        for i, entry in enumerate(column):
            if read(entry) is None and (entry is not None or key == "steps"):
                wanted = "a whole number from 0" if key == "steps" else "a number or null"
                raise LogError(
                    f"`{key}`, entry {i + 1}: {repr(entry)[:40]} is not {wanted}",
                    where=where,
                    way_out="Mend that entry, or take the original file.",
                )
    log = Log(name, "training_metrics.json")
    _columns(log, columns)
    return log


# ── every other shape ──────────────────────────────────────────────────────────────────────


def _fill(log: Log, value: Any, depth: int) -> bool:
    """Put a JSON value into a log; whether it has the shape of one."""
    if depth > DEEPEST:
        return False
    if isinstance(value, list):
        return _list(log, value)
    if not isinstance(value, dict) or not value:
        return False
    if all(_is_step(key) for key in value):
        return _by_step(log, value)
    for key in WRAPPERS:
        if isinstance(value.get(key), dict | list):
            inner = Log(log.name, log.format)
            if _fill(inner, value[key], depth + 1) and _any_loss(inner):
                log.columns, log.rows, log.steps = inner.columns, inner.rows, inner.steps
                log.notes += inner.notes
                log.facts |= inner.facts | _flat({k: v for k, v in value.items() if k != key})
                return True
    flat = _flat(value)
    columns = {key: one for key, one in flat.items() if isinstance(one, list) and one}
    plain = {
        k: one for k, one in columns.items() if not any(isinstance(e, list | dict) for e in one)
    }
    log.facts |= {key: one for key, one in flat.items() if not isinstance(one, list | dict)}
    if any(_loss_name(key) for key in plain):
        _columns(log, plain)
        return True
    nested = {k: one for k, one in columns.items() if k not in plain}
    for key, rows in nested.items():  # {"train": [{"step": …}, …], "val": [[step, loss], …]}
        _prefixed(log, key, rows)
    if log.rows:
        return True
    if any(_loss_name(key) and loose(one) is not None for key, one in flat.items()):
        add_rows(log, [flat])  # one row: a log of one point
        return True
    return False


def _list(log: Log, value: list[Any]) -> bool:
    rows = [row for row in value if isinstance(row, dict)]
    if rows and len(rows) >= 0.5 * len(value):
        if len(rows) < len(value):
            log.notes.append(f"{len(value) - len(rows)} rows are no objects; left out.")
        add_rows(log, rows)
        return bool(log.columns)
    lists = [row for row in value if isinstance(row, list) and row]
    if lists and len(lists) >= 0.5 * len(value):
        if len(lists) < len(value):
            log.notes.append(f"{len(value) - len(lists)} rows are no lists; left out.")
        return add_unnamed(log, lists)
    losses = [number(one) for one in value]
    known = [one for one in losses if one is not None]
    # Whole numbers alone are counts or labels, hardly losses.
    if len(known) < 0.5 * len(value) or all(isinstance(one, int) for one in value):
        return False
    log.notes.append("The file is a list of numbers; it is taken for the training loss.")
    add_column(log, "loss", [i for i, one in enumerate(losses) if one is not None], known)
    return True


def add_unnamed(log: Log, rows: Sequence[Sequence[Any]]) -> bool:
    """Rows of numbers without names → columns step, train, val by position."""
    width = min(max(map(len, rows)), len(POSITIONS))
    columns = [[loose(row[i]) if i < len(row) else None for row in rows] for i in range(width)]
    first = [one for one in columns[0] if one is not None]
    counts = len(first) > 0 and all(one == int(one) for one in first if abs(one) < 1e15)
    rising = np.mean(np.diff(first) > 0) > 0.5 if len(first) > 1 else counts
    if width == 1:
        positions: tuple[str, ...] = ("train_loss",)
    elif counts and rising:
        positions = POSITIONS[:width]
    elif width == 2:
        positions = ("train_loss", "val_loss")
    else:
        return False
    log.notes.append(f"The rows have no names; they are read as {', '.join(positions)}.")
    for key, column in zip(positions, columns, strict=False):
        kept = [i for i, one in enumerate(column) if one is not None]
        if kept:
            add_column(log, key, kept, [one for one in column if one is not None])
    return bool(log.columns)


def _by_step(log: Log, value: dict[str, Any]) -> bool:
    """A dict of step → loss or metrics."""
    rows = []
    for key, one in value.items():
        row = _flat(one) if isinstance(one, dict) else {"loss": one}
        if isinstance(one, list):
            row = dict(zip(POSITIONS[1:], one, strict=False))
        rows.append({"step": float(key)} | row)
    add_rows(log, rows)
    return len(log.columns) > 1


def _is_step(key: str) -> bool:
    key = key.removeprefix("step").strip("_ ")
    return key.isascii() and key.isdigit() and len(key) < 16


def _prefixed(log: Log, prefix: str, rows: list[Any]) -> None:
    """Rows of one kind, their losses named after it: `val` and `loss` → `val/loss`."""
    made: list[dict[str, Any]] = []
    if not _loss_name(prefix) and not any(isinstance(row, dict) for row in rows):
        return
    for row in rows:
        if isinstance(row, dict):
            flat = _flat(row)
            named = {k: names.role(k) for k in flat}
            made.append(
                {
                    k if (role := named[k]) is not None and role.kind in ("step", "epoch")
                    else f"{prefix}/{k}": v
                    for k, v in flat.items()
                }
            )  # fmt: skip
        elif isinstance(row, list) and len(row) >= 2:
            made.append({"step": row[0], prefix: row[1]})
    add_rows(log, made)


def _loss_name(key: str) -> bool:
    role = names.role(key)
    return role is not None and role.kind in ("train", "validation")


def _any_loss(log: Log) -> bool:
    return any(_loss_name(key) for key in log.columns)


def _columns(log: Log, columns: Mapping[str, list[Any]]) -> None:
    """Columns of a dict of lists; a shorter one was measured less often."""
    step_names = [k for k in columns if (r := names.role(k)) and r.kind in ("step", "epoch")]
    lead = [k for k in columns if _loss_name(k)]
    count = max((len(columns[key]) for key in lead), default=0)
    for key, column in columns.items():
        if not lead or len(column) > count or (key in step_names and len(column) != count):
            if key in step_names:
                log.notes.append(
                    f"`{key}` has {len(column):,} entries, the losses {count:,}; it was left out."
                )
            continue
        places = _spread(len(column), count)
        if len(column) < count and key in lead:
            log.notes.append(
                f"`{key}` has {len(column):,} entries for {count:,} rows; they were placed evenly."
            )
        values = [loose(one) for one in column]
        kept = [place for place, one in zip(places, values, strict=True) if one is not None]
        if kept:
            add_column(log, key, kept, [one for one in values if one is not None])
    log.rows = count


def _spread(few: int, many: int) -> list[int]:
    """Rows of values that were measured less often than there are rows.

    >>> _spread(2, 6), _spread(3, 5), _spread(3, 3)
    ([2, 5], [0, 2, 4], [0, 1, 2])
    """
    if few > 1 and many % few and (many - 1) % (few - 1) == 0:  # the first and the last row too
        return [i * (many - 1) // (few - 1) for i in range(few)]
    return [max((i + 1) * many // few - 1, 0) for i in range(few)]


# ── rows of objects, fast ──────────────────────────────────────────────────────────────────


def add_column(log: Log, name: str, rows: list[int], values: list[float]) -> None:
    """Put a whole column into a log, its rows ascending."""
    log.columns[name] = Column(rows, values)
    log.rows = max(log.rows, rows[-1] + 1)


def add_rows(log: Log, rows: list[dict[str, Any]]) -> None:
    """Append objects as rows; objects within them become names with `/`."""
    if any(isinstance(one, dict) for row in rows[:100] for one in row.values()):
        rows = [_flat(row) for row in rows]
    first = log.rows
    values: list[float]
    everywhere = list(range(first, first + len(rows)))
    for name in dict.fromkeys(chain.from_iterable(rows)):
        try:
            cells = list(map(itemgetter(name), rows))  # three times faster, where all have it
        except KeyError:
            cells = [row.get(name) for row in rows]
        kinds = set(map(type, cells))
        if kinds <= {float}:
            at, values = everywhere, cells
        elif kinds <= {float, type(None)}:
            at = [row for row, one in zip(everywhere, cells, strict=True) if one is not None]
            values = [one for one in cells if one is not None]
        elif kinds <= {float, int, type(None)} and (plain := _floats(cells)) is not None:
            at = [row for row, one in zip(everywhere, cells, strict=True) if one is not None]
            values = plain
        elif not kinds & {int, float, str}:
            continue
        else:
            read = [loose(one) for one in cells]
            at = [row for row, one in zip(everywhere, read, strict=True) if one is not None]
            values = [one for one in read if one is not None]
        column = log.columns.get(name)
        if column is not None:
            column.rows = column.rows + at  # the list may be shared
            column.values = column.values + values
        elif at:
            log.columns[name] = Column(at, values)
    log.rows = first + len(rows)


def _floats(cells: list[Any]) -> list[float] | None:
    try:
        return [float(one) for one in cells if one is not None]
    except OverflowError:
        return None


def _flat(value: dict[str, Any], depth: int = 0) -> dict[str, Any]:
    """Objects within objects → one, names joined by `/`.

    >>> _flat({"train": {"loss": 1.0}, "step": 3})
    {'train/loss': 1.0, 'step': 3}
    """
    found: dict[str, Any] = {}
    for key, one in value.items():
        if isinstance(one, dict) and depth < DEEPEST:
            found |= {f"{key}/{inner}": deep for inner, deep in _flat(one, depth + 1).items()}
        else:
            found[str(key)] = one
    return found
