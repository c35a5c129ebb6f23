"""`training_metrics.json` (columns of equal length) → a History."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wellfit.diagnosis.importers.json_file import number, whole
from wellfit.diagnosis.importers.rows import Points, repetition_notes
from wellfit.errors import LogError
from wellfit.monitor.history import Context, History, Series

COLUMNS = {
    "train_loss": "training loss",
    "val_loss": "validation loss",
    "learning_rate": "learning rate",
    "epochs": "epoch",
}


def looks_like_columns(value: Any) -> bool:
    """Whether a JSON value has the columns `steps` and a loss."""
    return (
        isinstance(value, dict)
        and "steps" in value
        and bool({"train_loss", "val_loss"} & set(value))
    )


def from_columns(value: Any, path: Path) -> History:
    """The JSON value of a `training_metrics.json` → its History.

    Raises LogError where columns are missing, of unequal length, or hold something else than
    numbers, null, and the words `nan`, `inf`, `-inf`.
    """
    where = str(path)
    if not looks_like_columns(value):
        raise LogError(
            "there are no columns `steps` and `train_loss`",
            where=where,
            way_out="Give the training_metrics.json that wellfit wrote in the run folder.",
        )
    steps = _column(value, "steps", where)
    columns = {key: _column(value, key, where) for key in COLUMNS if value.get(key) is not None}
    lengths = {"steps": len(steps)} | {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{key} {length}" for key, length in lengths.items())
        raise LogError(
            f"the columns have unequal lengths: {told}",
            where=where,
            way_out="The file was written by something else or cut by hand; take the original.",
        )
    if not steps:
        raise LogError(
            "the log holds no steps",
            where=where,
            way_out="Diagnose again once the training has made its first step.",
        )
    points = {key: Points() for key in columns}
    for row, given in enumerate(steps):
        step = whole(given)
        if step is None:
            raise _bad("steps", row, given, "a whole number from 0", where)
        for key, column in columns.items():
            if column[row] is None:
                continue
            found = number(column[row])
            if found is None:
                raise _bad(key, row, column[row], "a number or null", where)
            points[key].add(step, found)
    notes = [
        n for key, column in points.items() for n in repetition_notes(COLUMNS[key], column)[:1]
    ]
    train = points.get("train_loss", Points())
    epoch = points.get("epochs", Points()).series()
    validation = points.get("val_loss", Points()).series()
    return History(
        name=path.parent.name or path.name,
        format="training_metrics.json",
        train_loss=train.series(),
        validation_loss={"validation": validation} if len(validation) else {},
        learning_rate=points.get("learning_rate", Points()).series(),
        epoch=epoch,
        context=Context(steps_per_epoch=steps_per_epoch(epoch)),
        attempts=1 + len(train.jumps),
        superseded=train.superseded,
        notes=tuple(dict.fromkeys(notes)),
    )


def steps_per_epoch(epoch: Series) -> float | None:
    """Epochs over steps → steps in one epoch, from the last point; None where it cannot be told."""
    if len(epoch) == 0 or not 0 < epoch.values[-1] < 1e6 or epoch.steps[-1] == 0:
        return None
    return epoch.steps[-1] / epoch.values[-1]


def _column(value: dict[str, Any], key: str, where: str) -> list[Any]:
    column = value[key]
    if not isinstance(column, list):
        raise LogError(
            f"`{key}` is not a list",
            where=where,
            way_out="Every column of training_metrics.json is a list with one entry a step.",
        )
    return column


def _bad(key: str, row: int, value: Any, wanted: str, where: str) -> LogError:
    shown = repr(value)
    return LogError(
        f"`{key}`, entry {row + 1}: {shown[:40]} is not {wanted}",
        where=where,
        way_out="Mend that entry, or take the original file.",
    )
