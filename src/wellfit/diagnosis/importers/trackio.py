"""Trackio's local store → Logs: one SQLite file for each project, one Log for each run.

The tables are those of `trackio/sqlite_storage.py`: `metrics` with one row of JSON for each call
of `log` ("NaN" and "Infinity" as words), and `configs`. A store is never written to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wellfit.diagnosis.importers.database import has_tables, open_database
from wellfit.diagnosis.importers.log import Log, flattened
from wellfit.errors import LogError

FORMAT = "Trackio store"
WAY_OUT = "Give the PROJECT.db of a Trackio project, by default below ~/.cache/huggingface/trackio."


def looks_like_trackio(path: Path) -> bool:
    """Whether a path is a database with Trackio's tables; of a folder, each file is asked."""
    return path.is_file() and has_tables(path, {"metrics", "configs"})


def read_trackio(path: Path) -> list[Log]:
    """A `PROJECT.db` of Trackio, or a folder of them → one Log for each run.

    Raises LogError where a store cannot be read or is locked, is not Trackio's, or no run in it
    logged a number.
    """
    if not path.is_dir():
        return _from_database(path)
    files = [file for file in sorted(path.glob("*.db")) if looks_like_trackio(file)]
    if not files:
        raise LogError("no project of Trackio is in this folder", where=str(path), way_out=WAY_OUT)
    logs: list[Log] = []
    faults: list[LogError] = []
    for file in files:
        try:
            found = _from_database(file)
        except LogError as error:
            faults.append(error)
            continue
        for log in found if len(files) > 1 else ():
            log.name = f"{file.stem}/{log.name}"
        logs += found
    if not logs:
        raise faults[0]
    return logs


def _from_database(path: Path) -> list[Log]:
    logs: dict[str, Log] = {}
    broken: dict[str, int] = {}
    with open_database(path, WAY_OUT) as database:
        columns = {row[1] for row in database.execute("PRAGMA table_info(metrics)")}
        if not {"run_name", "step", "metrics"} <= columns:
            raise LogError(
                "this database is not Trackio's: it has no table `metrics` of runs and steps",
                where=str(path),
                way_out=WAY_OUT,
            )
        # Older stores know runs by their name alone.
        run_id = "run_id" if "run_id" in columns else "run_name"
        rows = f"SELECT {run_id}, run_name, step, metrics FROM metrics ORDER BY id"
        for run, name, step, text in database.execute(rows):
            log = logs.setdefault(run, Log(name=str(name), format=FORMAT))
            row = _object(text)
            if row is None:
                broken[run] = broken.get(run, 0) + 1
            else:
                log.add_row(flattened(_without_media(row)), float(step))
        settings = {row[1] for row in database.execute("PRAGMA table_info(configs)")}
        if {"run_name", "config"} <= settings:
            run_id = "run_id" if "run_id" in settings and run_id == "run_id" else "run_name"
            for run, text in database.execute(f"SELECT {run_id}, config FROM configs"):
                config = _object(text) or {}
                if run in logs:
                    named = {k: v for k, v in config.items() if not k.startswith("_")}
                    logs[run].facts |= flattened(named)
    for run, count in broken.items():
        logs[run].notes.append(f"{count:,} rows are no JSON objects; they were left out.")
    found = [log for log in logs.values() if log.columns]
    if not found:
        raise LogError(
            f"none of its {len(logs)} runs logged a number" if logs else "no run is in it",
            where=str(path),
            way_out="Give a project whose runs called `trackio.log` with numbers.",
        )
    return found


def _object(text: Any) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _without_media(row: Mapping[str, Any]) -> dict[str, Any]:
    """Tables, images and histograms are objects with a `_type`."""
    return {k: v for k, v in row.items() if not (isinstance(v, dict) and "_type" in v)}
