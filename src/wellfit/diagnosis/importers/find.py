"""A path → the log that stands there, read."""

from __future__ import annotations

from pathlib import Path

from wellfit.diagnosis.importers.json_file import read_json
from wellfit.diagnosis.importers.trainer_state import from_state, looks_like_state
from wellfit.diagnosis.importers.training_metrics import from_columns, looks_like_columns
from wellfit.errors import LogError
from wellfit.monitor.history import History

NAMES = ("training_metrics.json", "trainer_state.json")
LONGEST = 200
"""Characters of a path that a message shows."""
READABLE = "a run folder, a training_metrics.json, or a Hugging Face trainer_state.json"


def read(path: Path) -> History:
    """A run folder, a log file, or a folder that holds one → its History.

    A folder with `records/` is a run folder; otherwise its `training_metrics.json` or
    `trainer_state.json` is taken, then that of its newest `checkpoint-*`, then the only one
    below it. A file is known by what it holds, not by its name.
    Raises LogError where nothing there can be read, or where it is not clear which is meant.
    """
    path = Path(path)
    where = str(path)
    try:
        exists = path.exists()
    except OSError as error:
        raise LogError(
            f"this path cannot be looked at ({error.strerror or error})",
            where=where if len(where) <= LONGEST else f"{where[:LONGEST]}…",
            way_out=f"Give the path of {READABLE}.",
        ) from error
    if not exists:
        raise LogError(
            "there is no such file or folder",
            where=where,
            way_out=f"Give the path of {READABLE}.",
        )
    if path.is_dir():
        return _from_folder(path)
    if not path.is_file():
        raise LogError("this is no ordinary file", where=where, way_out=f"Give {READABLE}.")
    value = read_json(path)
    if looks_like_state(value):
        return from_state(value, path)
    if looks_like_columns(value):
        return from_columns(value, path)
    raise LogError(
        "this JSON is not a log known here: it has neither `log_history` nor `steps` and "
        "`train_loss`",
        where=where,
        way_out=f"Give {READABLE}.",
    )


def _from_folder(folder: Path) -> History:
    if (folder / "records").is_dir():
        from wellfit.monitor.folder import read_history

        return read_history(folder)
    for name in NAMES:
        if (folder / name).is_file():
            return read(folder / name)
    newest = _newest_checkpoint(folder)
    if newest is not None:
        return read(newest)
    found = _below(folder)
    if len(found) == 1:
        return read(found[0])
    if not found:
        raise LogError(
            f"the folder holds no log: no records/, none of {', '.join(NAMES)}",
            where=str(folder),
            way_out=f"Give the path of {READABLE}.",
        )
    shown = ", ".join(str(path.relative_to(folder)) for path in found[:5])
    raise LogError(
        f"the folder holds {len(found)} logs: {shown}{', …' if len(found) > 5 else ''}",
        where=str(folder),
        way_out="Give the path of one of them.",
    )


def _newest_checkpoint(folder: Path) -> Path | None:
    """The `trainer_state.json` of the `checkpoint-*` with the highest number."""
    numbered = [
        (int(number), path)
        for path in folder.glob("checkpoint-*/trainer_state.json")
        if (number := path.parent.name.removeprefix("checkpoint-")).isdecimal()
    ]
    return max(numbered)[1] if numbered else None


def _below(folder: Path) -> list[Path]:
    """Logs one or two folders down, newest checkpoint only."""
    found: list[Path] = []
    for child in sorted(entry for entry in folder.iterdir() if entry.is_dir()):
        direct = [child / name for name in NAMES if (child / name).is_file()]
        if (child / "records").is_dir():
            found.append(child)
        elif direct:
            found.append(direct[0])
        elif newest := _newest_checkpoint(child):
            found.append(newest)
    return found
