"""History → `training_metrics.json`, the small file that other tools read.

Five arrays of equal length, one entry for each optimizer step that counts. JSON has no NaN: a
loss that was not finite is `null` here, as is a validation loss where there was no evaluation.
`records/` keeps what it really was.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from wellfit.monitor.folder import replace_file
from wellfit.monitor.history import History, Series

FILE = "training_metrics.json"


def training_metrics(history: History) -> dict[str, list[Any]]:
    """A history → `train_loss`, `val_loss`, `learning_rate`, `epochs` and `steps`, equally long.

    An evaluation at a step without a training loss (such as before the first step) has no place
    here and stands in `records/` only.

    >>> from wellfit.monitor.history import History, Series
    >>> curve = Series((1, 2), (4.0, float("nan")))
    >>> validation = {"validation": Series((2,), (3.5,))}
    >>> made = training_metrics(History("a", "run folder", curve, validation))
    >>> made["train_loss"], made["val_loss"], made["steps"]
    ([4.0, None], [None, 3.5], [1, 2])
    """
    steps = history.train_loss.steps
    return {
        "train_loss": _finite(history.train_loss.values),
        "val_loss": _at(steps, history.validation_loss.get("validation", Series())),
        "learning_rate": _at(steps, history.learning_rate),
        "epochs": _at(steps, history.epoch),
        "steps": list(steps),
    }


def write_metrics(history: History, folder: Path, *, durable: bool = True) -> None:
    """Replace the folder's `training_metrics.json` in one move.

    Raises OSError where it cannot be written.
    """
    text = json.dumps(training_metrics(history), allow_nan=False) + "\n"
    replace_file(folder / FILE, text, durable=durable)


def _at(steps: tuple[int, ...], series: Series) -> list[float | None]:
    if series.steps == steps:
        return _finite(series.values)
    known = dict(zip(series.steps, _finite(series.values), strict=True))
    return [known.get(step) for step in steps]


def _finite(values: tuple[float, ...]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]
