"""A path → the logs that stand there, read."""

from __future__ import annotations

import gc
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from wellfit.diagnosis.importers import json_file
from wellfit.diagnosis.importers.assemble import Given, assemble
from wellfit.diagnosis.importers.console import log_of_console
from wellfit.diagnosis.importers.json_lines import log_of_lines, looks_like_lines, values_of
from wellfit.diagnosis.importers.json_shapes import logs_of_value
from wellfit.diagnosis.importers.log import Log
from wellfit.diagnosis.importers.tables import delimiter_of, logs_of_table
from wellfit.diagnosis.importers.text_file import read_bytes_of, to_text, without_colours
from wellfit.errors import LogError
from wellfit.monitor.history import History

KNOWN = (
    "trainer_state.json", "training_metrics.json", "trainer_log.jsonl", "metrics.csv",
    "metrics.jsonl", "loss_history.json", "train_log.jsonl", "training_log.csv", "history.json",
    "train_history.json", "log.csv", "log.jsonl", "training_logs.csv", "loss_log.csv", "log.txt",
    "train.log", "training.log",
)  # fmt: skip
"""Names that trainers give to their logs; in a folder, the first of them is the run's log."""
ENDINGS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".log", ".out")
"""A file of another name is opened in a folder only where it ends like this (or then `.gz`)."""
NO_LOGS = frozenset(
    ["config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "package.json",
     "special_tokens_map.json", "generation_config.json", "adapter_config.json", "merges.txt",
     "added_tokens.json", "requirements.txt", "readme.txt", "license.txt", "environment.json",
     "model.safetensors.index.json", "preprocessor_config.json", "all_results.json",
     "train_results.json", "eval_results.json"]
)  # fmt: skip
"""Files beside logs that hold no curve."""
PARTS = ("train", "validation", "val", "eval", "test")
"""Folders with the event files of the parts of one run."""
DEEPEST = 4
MOST_FILES = 500
MOST_IN_FOLDER = 20_000_000
"""Bytes above which a file without a known name is not opened while searching a folder."""
LONGEST = 200
"""Characters of a path that a message shows."""
READABLE = "a run folder or a log: trainer_state.json, JSON, JSON Lines, CSV, console text"


def read(path: Path | str, given: Given | None = None) -> History:
    """The one log at a path → its History. Raises LogError where there is none, or several."""
    path = Path(path)
    found = _all(path, given)
    if len(found) == 1:
        return found[0][1]
    shown = ", ".join(place or one.name for place, one in found[:5])
    raise LogError(
        f"the {'folder' if path.is_dir() else 'file'} holds {len(found)} logs: {shown}"
        f"{', …' if len(found) > 5 else ''}",
        where=str(path),
        way_out="Give the path of one of them.",
    )


def read_all(path: Path | str, given: Given | None = None) -> list[History]:
    """A run folder, a log, or a folder of them → every run's History, at least one.

    A file is known by what it holds, not by its name; in a folder, what is no log is passed over.
    Raises LogError where nothing there can be read.
    """
    return [history for _, history in _all(Path(path), given)]


def _all(path: Path, given: Given | None) -> list[tuple[str, History]]:
    """A path → the Histories there, each with its place below a folder."""
    where = str(path)
    try:
        exists, is_folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise LogError(
            f"this path cannot be looked at ({getattr(error, 'strerror', None) or error})",
            where=where if len(where) <= LONGEST else f"{where[:LONGEST]}…",
            way_out=f"Give the path of {READABLE}.",
        ) from error
    if not exists:
        raise LogError(
            "there is no such file or folder",
            where=where,
            way_out=f"Give the path of {READABLE}.",
        )
    if is_folder:
        return _from_folder(path, given)
    return [("", history) for history in _from_file(path, given)]


def _from_file(path: Path, given: Given | None) -> list[History]:
    where = str(path)
    with _no_collection():
        if path.is_file():
            for looks, reads in _stores():
                if looks(path):
                    return _histories(reads(path), given, where)
        return _histories(logs_of_bytes(read_bytes_of(path), _name(path), where), given, where)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of rows make no garbage cycles, but looking for them doubles the time to read."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def read_bytes(
    data: bytes, name: str = "standard input", given: Given | None = None
) -> list[History]:
    """The content of a log → its Histories. Raises LogError where it is none."""
    with _no_collection():
        return _histories(logs_of_bytes(data, name, name), given, name)


def _histories(logs: list[Log], given: Given | None, where: str) -> list[History]:
    """Logs → the Histories of those that hold a loss. Raises LogError where none does."""
    found: list[History] = []
    refused: LogError | None = None
    for log in logs:
        try:
            found.append(assemble(log, given))
        except LogError as error:
            refused = refused or LogError(error.what, where=where, way_out=error.way_out)
    if not found:
        raise refused or LogError(
            "no run was found in it", where=where, way_out=f"Give the path of {READABLE}."
        )
    return found


# ── one file ───────────────────────────────────────────────────────────────────────────────


def logs_of_bytes(data: bytes, name: str, where: str) -> list[Log]:
    """The content of a text log → its Logs. Raises LogError where it is none."""
    text, notes = to_text(data, where)
    text = without_colours(text)
    begun = text.lstrip()[:2]
    logs: list[Log] | None = None
    if begun[:1] in ("{", "[") and begun != "{'":
        logs = _json(text, name, where)
    if logs is None and (delimiter := delimiter_of(text)) is not None:
        logs = logs_of_table(text, delimiter, name)
    if logs is None and (log := log_of_console(text, name)) is not None:
        logs = [log]
    if logs is None:
        raise LogError(
            "no loss was found in it: no JSON, no table, no line like `step 10 loss 3.2`",
            where=where,
            way_out=f"Give {READABLE}.",
        )
    for log in logs:
        log.notes[:0] = notes
    return logs


def _json(text: str, name: str, where: str) -> list[Log] | None:
    """JSON, whole or in lines or cut → its Logs; None where the text only begins like JSON."""
    if "\n{" in text and looks_like_lines(text) and (log := log_of_lines(text, name)) is not None:
        return [log]
    try:
        value = json_file.parse(text)
        if isinstance(value, list) and any(isinstance(r, dict) and "_step" in r for r in value[:1]):
            from wellfit.diagnosis.importers.wandb import from_export, looks_like_export

            if looks_like_export(value):
                return [from_export(value, Path(name))]
        return logs_of_value(value, name, where)
    except json.JSONDecodeError as error:
        if looks_like_lines(text) and (log := log_of_lines(text, name)) is not None:
            return [log]
        if (values := values_of(text)) and len(values) > 1:
            return logs_of_value(values, name, where)
        # `[2024-01-01 …] step 3` and `[Epoch 3] loss` begin like JSON too.
        if text.lstrip()[0] == "[" and not re.match(r"\s*\[\s*[-\d\[{\"NI]", text):
            return None
        if re.match(r"\s*\[\d[^,\n]*\]", text) and error.msg == "Extra data":
            return None
        if re.match(r"\s*\[\d+[-/:]", text):
            return None
        whole = _complete_part(text) if json_file.is_cut(text, error) else None
        if whole is not None:
            try:
                return logs_of_value(whole, name, where, [_CUT.format(len(whole["log_history"]))])
            except LogError:
                pass
        raise json_file.broken_json(text, error, where) from error
    except json_file.TooDeepError as error:
        raise json_file.too_deep(where) from error


_CUT = "The file is cut off; the {:,} complete rows of `log_history` were read."


def _complete_part(text: str) -> dict[str, Any] | None:
    """A trainer_state.json that is cut off → what is complete of it; None where no row is."""
    begin = re.search(r'"log_history"\s*:\s*\[', text)
    if begin is None:
        return None
    end = text.rfind("}")
    while end > begin.end():
        try:
            rows = json.loads("[" + text[begin.end() : end + 1] + "]")
        except (ValueError, RecursionError):
            end = text.rfind("}", begin.end(), end)
            continue
        facts = re.findall(r'"(\w+)"\s*:\s*(-?\d+(?:\.\d+)?)\s*,', text[: begin.start()])
        return {key: float(value) for key, value in facts} | {"log_history": rows}
    return None


def _name(path: Path) -> str:
    """A run's name: of a file that is always called the same, that of its folder."""
    return path.parent.name or path.name if path.name in KNOWN else path.name


# ── a folder ───────────────────────────────────────────────────────────────────────────────


def _from_folder(folder: Path, given: Given | None) -> list[tuple[str, History]]:
    where = str(folder)
    search = _Search(given)
    try:
        search.folder(folder, 0)
    except OSError as error:
        raise LogError(
            f"this folder cannot be read ({error.strerror or error})",
            where=where,
            way_out="Give a folder that you may read.",
        ) from error
    if not search.found:
        if search.refused:
            raise search.refused[0]
        raise LogError(
            f"the folder holds no log: no records/, none of {', '.join(KNOWN[:2])}, no other file "
            "with a loss",
            where=where,
            way_out=f"Give the path of {READABLE}.",
        )
    if search.left <= 0:
        told = f"Only the first {MOST_FILES} files of the folder were looked at."
        search.found = [(at, replace(h, notes=(*h.notes, told))) for at, h in search.found]
    if len(search.found) == 1:
        return [("", search.found[0][1])]
    # Names that tell the runs apart: a folder's where it holds one log, else a path.
    places = [str(place.relative_to(folder)) for place, _ in search.found]
    parents = [str(place.parent.relative_to(folder)) for place, _ in search.found]
    named: list[tuple[str, History]] = []
    for (place, one), at, parent in zip(search.found, places, parents, strict=True):
        name = at if at != "." else one.name
        if places.count(at) > 1 and at != ".":
            name = f"{at}: {one.name}"
        elif place.name in KNOWN and parents.count(parent) == 1 and parent != ".":
            name = parent
        named.append((at if places.count(at) == 1 else name, replace(one, name=name)))
    return named


class _Search:
    """Looks through a folder for logs: its own where it is a run's, else those below it."""

    def __init__(self, given: Given | None) -> None:
        self.given = given
        self.found: list[tuple[Path, History]] = []
        self.refused: list[LogError] = []
        """Errors of files that should have been logs."""
        self.left = MOST_FILES

    def folder(self, folder: Path, depth: int) -> None:
        """Add the logs of a folder. Raises OSError where it cannot be listed."""
        if (folder / "records").is_dir():
            from wellfit.monitor.folder import read_history

            self.found.append((folder, read_history(folder)))
            return
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        if self._own(folder, entries):
            return
        if _is_store(folder, entries) and self._add(folder, known=True):
            return
        for entry in entries:
            if _is_log_name(entry) and self.left > 0:
                self._add(Path(entry.path), known=False)
        for entry in entries:
            skipped = entry.name.startswith((".", "checkpoint-", "__")) or entry.is_symlink()
            if depth < DEEPEST and not skipped and entry.is_dir():
                with suppress(OSError):  # a folder that may not be read
                    self.folder(Path(entry.path), depth + 1)

    def _own(self, folder: Path, entries: list[os.DirEntry[str]]) -> bool:
        """Add the log of the run that a folder is: of a known name, or its newest checkpoint's."""
        present = {entry.name for entry in entries}
        places = [folder / name for name in KNOWN if name in present and (folder / name).is_file()]
        newest = _newest_checkpoint(folder)
        places += [newest] if newest is not None else []
        for i, place in enumerate(places):
            if not self._add(place, known=True):
                continue
            others = [other.name for other in places[i + 1 :] if other.parent == folder]
            others += ["TensorBoard events"] if any("tfevents" in name for name in present) else []
            if others:
                told = f"Of this run, `{place.name}` was read, not {', '.join(others)}."
                at, history = self.found[-1]
                self.found[-1] = (at, replace(history, notes=(*history.notes, told)))
            return True
        return False

    def _add(self, path: Path, *, known: bool) -> bool:
        """Add what a path holds; whether it holds a log."""
        self.left -= 1
        try:
            if path.is_dir():
                reads = next(reads for looks, reads in _stores() if looks(path))
                histories = _histories(reads(path), self.given, str(path))
            else:
                histories = _from_file(path, self.given)
        except LogError as error:
            if known:
                self.refused.append(error)
            return False
        self.found += [(path, history) for history in histories]
        return True


def _is_store(folder: Path, entries: list[os.DirEntry[str]]) -> bool:
    """Whether a folder itself is a store of runs. Event files far below it do not make it one:
    beside them, and nearer, may stand better logs of the same runs."""
    *stores, (is_tensorboard, _) = _stores()
    if any(looks(folder) for looks, _ in stores):
        return True
    near = any("tfevents" in e.name or (e.name in PARTS and e.is_dir()) for e in entries)
    return near and is_tensorboard(folder)


def _is_log_name(entry: os.DirEntry[str]) -> bool:
    name = entry.name.lower()
    if name in NO_LOGS or name.startswith(".") or not entry.is_file():
        return False
    if name.removesuffix(".gz").endswith(ENDINGS):
        return entry.stat().st_size <= MOST_IN_FOLDER
    return any(looks(Path(entry.path)) for looks, _ in _stores())


def _newest_checkpoint(folder: Path) -> Path | None:
    """The `trainer_state.json` of the `checkpoint-*` with the highest number."""
    numbered = [
        (int(number), path)
        for path in folder.glob("checkpoint-*/trainer_state.json")
        if (number := path.parent.name.removeprefix("checkpoint-")).isdecimal()
    ]
    return max(numbered)[1] if numbered else None


def _stores() -> list[tuple[Callable[[Path], bool], Callable[[Path], list[Log]]]]:
    """The readers of formats that are no text, imported when first asked."""
    found = []
    for module, looks, reads in STORES:
        room = import_module(f"wellfit.diagnosis.importers.{module}")
        found.append((getattr(room, looks), getattr(room, reads)))
    return found


STORES = (
    ("wandb", "looks_like_wandb", "read_wandb"),
    ("mlflow", "looks_like_mlflow", "read_mlflow"),
    ("trackio", "looks_like_trackio", "read_trackio"),
    ("neptune", "looks_like_neptune", "read_neptune"),
    ("tensorboard", "looks_like_tensorboard", "read_tensorboard"),
)
"""Module, what knows a path of its format, what reads it; the first that knows a path reads it."""
