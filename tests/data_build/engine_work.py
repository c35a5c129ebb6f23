"""Functions for the engine's tests, in a module of their own so that workers can import them."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wellfit.data.engine.task import Task
from wellfit.errors import DataError


def shout(task: Task, parameters: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """Upper case of all files, with the parameter behind it; slow where a parameter asks for it."""
    time.sleep(parameters.get("seconds", 0))
    text = "".join(file.path.read_text() for file in task.files)
    with output.open("w") as stream:
        for line in text.splitlines():
            stream.write(line.upper() + parameters["mark"] + "\n")
            stream.flush()
    return {"lines": len(text.splitlines())}


def die(task: Task, parameters: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """As `shout`, but the process is killed where the file says so."""
    if "DIE" in task.files[0].path.read_text():
        time.sleep(0.3)  # so that the other worker finishes its own task first
        os.kill(os.getpid(), signal.SIGKILL)
    return shout(task, parameters, output)


def fill_the_disk(task: Task, parameters: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """Write to where the kernel says that the disk is full."""
    output.symlink_to("/dev/full")
    output.write_bytes(b"half")
    return {}


def refuse(task: Task, parameters: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """A fault for the user, from inside a task."""
    raise DataError("the word is wrong", where=task.name, way_out="Use another word.")


def loaded_modules(task: Task, parameters: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """Names of heavy libraries that this process has imported, and its id."""
    output.write_text("")
    sys.stdout.write("a user's function may print\n")
    heavy = [name for name in ("torch", "transformers", "matplotlib") if name in sys.modules]
    return {"heavy": heavy, "process": os.getpid()}


def emit_letters(task: Task, parameters: Mapping[str, Any]) -> Any:
    """File → rows (key: code of a letter, number of the file)."""
    text = task.files[0].path.read_text()
    return np.array(
        [(ord(letter), task.data["number"]) for letter in text],
        [("key", "<u8"), ("number", "<i8")],
    )


def count_keys(rows: Any, parameters: Mapping[str, Any]) -> Any:
    """Rows, those of one key side by side → (key, how many rows, sum of their numbers)."""
    starts = [0, *(np.flatnonzero(np.diff(rows["key"])) + 1), len(rows)] if len(rows) else []
    runs = [rows[start:end] for start, end in itertools.pairwise(starts)]
    return np.array(
        [(run["key"][0], len(run), run["number"].sum()) for run in runs],
        [("key", "<u8"), ("rows", "<i8"), ("numbers", "<i8")],
    )
