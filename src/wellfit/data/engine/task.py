"""One task → its file and its marker, finished atomically or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wellfit.errors import DataError

Stamp = tuple[int, int]
"""Bytes of a file and when it was last written, in nanoseconds."""


@dataclass(frozen=True, slots=True)
class File:
    """A file and the digest of what of it is read: all of it, unless whoever names it says less."""

    path: Path
    sha256: str
    stamp: Stamp | None = None
    """Of the file when its digest was taken, where others may write to it; no part of a key."""


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work: the files it reads and what else decides its result."""

    name: str
    """For messages; no part of the key."""
    files: tuple[File, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    """JSON values."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished task left behind: its file, and the JSON values its function returned."""

    file: File
    summary: dict[str, Any]
    reused: bool = False


Work = Callable[[Task, Mapping[str, Any], Path], dict[str, Any]]
"""`function(task, parameters, output)` writes the file `output` and returns a small summary."""


def task_key(stage: str, task: Task, parameters: Mapping[str, Any], version: str) -> str:
    """What decides a task's result → 32 hex digits: digests, code version, parameters; no paths."""
    what = [stage, [file.sha256 for file in task.files], dict(task.data), dict(parameters), version]
    text = json.dumps(what, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def file_digest(path: Path) -> str:
    """File → SHA-256 of its bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def finished(folder: Path, key: str) -> Result | None:
    """Folder of a stage and key → the result, or None unless marker and file agree."""
    try:
        marker = json.loads((folder / f"{key}.marker.json").read_bytes())
        path = folder / marker["file"]
        if path.stat().st_size != marker["bytes"] or file_digest(path) != marker["sha256"]:
            return None
        return Result(File(path, marker["sha256"]), marker["summary"], reused=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def reference(function: Callable[..., Any]) -> str:
    """Function of a module → `module:function`, the form in which it travels to a worker."""
    assert "<" not in function.__qualname__, f"{function!r} cannot be named across processes"
    return f"{function.__module__}:{function.__qualname__}"


def load(name: str) -> Callable[..., Any]:
    """`module:function` → the function."""
    module, _, attribute = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found


def perform(
    folder: Path, key: str, suffix: str, function: Work, task: Task, parameters: Mapping[str, Any]
) -> Result:
    """Run one task → its result; file first, then marker, both renamed into place when whole.

    Nothing is forced to the disk: after a power failure a file that does not match its marker is
    made again. Raises DataError when the disk is full or not writable, or a file it reads changed
    since its digest was taken; nothing half-written is left standing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{key}.{os.getpid()}{suffix}"
    marker = folder / f".{key}.{os.getpid()}.marker.json"
    path = folder / f"{key}{suffix}"
    _refuse_changed(task)
    try:
        summary = function(task, parameters, unfinished)
        _refuse_changed(task)  # else its result would stand under the digest of the old bytes
        digest = file_digest(unfinished)
        content = {
            "task": task.name,
            "file": path.name,
            "bytes": unfinished.stat().st_size,
            "sha256": digest,
            "summary": summary,
        }
        text = json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True)
        marker.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
        unfinished.replace(path)
        marker.replace(folder / f"{key}.marker.json")
    except OSError as error:
        _refuse_changed(task)  # a file that went away is no fault of the folder
        raise no_room(error, folder) from error
    finally:
        for rest in (unfinished, marker):
            with contextlib.suppress(OSError):
                rest.unlink(missing_ok=True)
    return Result(File(path, digest), summary)


def stamp_of(file: Path | int) -> Stamp:
    """File, or the number of an open one → its stamp."""
    status = os.stat(file)  # noqa: PTH116 (an open file has a number, no Path)
    return status.st_size, status.st_mtime_ns


def _refuse_changed(task: Task) -> None:
    """Task → nothing; DataError where a file is no longer what its digest was taken of."""
    for file in task.files:
        if file.stamp is None:
            continue
        try:
            what = "" if stamp_of(file.path) == file.stamp else "changed"
        except OSError as error:
            what = f"went away ({error.strerror})"
        if what:
            raise DataError(
                f"the file {what} while the corpus was being built",
                where=str(file.path),
                way_out="Build again when nothing writes there; finished tasks are kept.",
            )


def sync(path: Path) -> None:
    """File → the same file, its bytes on the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def no_room(error: OSError, folder: Path) -> DataError:
    """An error of the file system while writing into `folder` → the message for a person."""
    # NumPy tells of a write cut short in words ("… requested and … written"), without a number.
    cut_short = error.errno is None and str(error).endswith("written")
    if cut_short or error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(
            f"the disk is full ({error.strerror or error})",
            where=str(folder),
            way_out="Free some space, or name another `data.folder`, and build again: "
            "finished tasks are kept, nothing half-written was left.",
        )
    return DataError(
        f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else ""),
        where=str(folder),
        way_out="See that the file exists and may be read, and that the folder can be written.",
    )
