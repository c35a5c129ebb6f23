"""MLflow's stores → Logs: the SQLite database, and the folder `mlruns` of files.

The tables are those of `mlflow/store/tracking/dbmodels/models.py`: `runs`, `metrics`, `params`,
`experiments`. The file store is `EXPERIMENT/RUN/` with `meta.yaml`, `metrics/NAME` (lines of
`timestamp value step`) and `params/NAME` (`mlflow/store/tracking/file_store.py`).
A store is never written to.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from wellfit.diagnosis.importers.database import has_tables, open_database
from wellfit.diagnosis.importers.log import Log
from wellfit.errors import LogError

FORMAT = "MLflow store"
LARGEST = 1.7976931348623157e308
"""What the database holds for an infinite value."""
WAY_OUT = "Give an MLflow store: mlflow.db, or the folder mlruns, an experiment or a run in it."
STATUS = {
    "FINISHED": "finished", "FAILED": "failed", "KILLED": "stopped",
    "3": "finished", "4": "failed", "5": "stopped",
}  # fmt: skip
"""The words of the database and the numbers of `meta.yaml` → ours. `RUNNING` tells nothing: a
process that was killed leaves it behind."""
RUN_NAME = "mlflow.runName"
"""The tag that held a run's name before MLflow 2."""


def looks_like_mlflow(path: Path) -> bool:
    """Whether a path is a database with MLflow's tables, or `mlruns`, an experiment or a run."""
    if path.is_dir():
        return bool(_run_folders(path, "*/*/"))
    return has_tables(path, {"experiments", "runs", "metrics", "params"})


def read_mlflow(path: Path) -> list[Log]:
    """An `mlflow.db`, or `mlruns`, an experiment or a run in it → a Log for each run with metrics.

    The folder above an `mlruns` or an `mlflow.db` will do. Deleted runs are left out, and runs
    without metrics.
    Raises LogError where the store cannot be read or is locked, or no run has a metric.
    """
    if not path.is_dir():
        return _from_database(path)
    folders = _run_folders(path, "*/*/") or _run_folders(path, "mlruns/*/*/")
    if folders:
        return _from_folders(path, folders)
    if (path / "mlflow.db").is_file():
        return _from_database(path / "mlflow.db")
    raise LogError("no run of MLflow is in this folder", where=str(path), way_out=WAY_OUT)


# ── databases ──────────────────────────────────────────────────────────────────────────────


def _from_database(path: Path) -> list[Log]:
    with open_database(path, WAY_OUT) as database:
        found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {str(name) for (name,) in found}
        missing = {"runs", "metrics", "params"} - tables
        if missing:
            raise LogError(
                f"this database is not MLflow's: it has no table `{min(missing)}`",
                where=str(path),
                way_out=WAY_OUT,
            )
        logs: dict[str, Log] = {}
        runs = "SELECT run_uuid, name, status FROM runs WHERE lifecycle_stage = 'active'"
        for run, name, status in database.execute(f"{runs} ORDER BY start_time, rowid"):
            logs[run] = Log(
                name=str(name or run), format=FORMAT, status=STATUS.get(str(status), "unknown")
            )
        if "tags" in tables:
            tags = "SELECT run_uuid, value FROM tags WHERE key = ?"
            for run, name in database.execute(tags, (RUN_NAME,)):
                if run in logs and logs[run].name == run and name:
                    logs[run].name = str(name)
        for run, key, value in database.execute("SELECT run_uuid, key, value FROM params"):
            if run in logs:
                logs[run].facts[str(key)] = value
        metrics = "SELECT run_uuid, key, step, value, is_nan FROM metrics"
        points: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for run, key, step, value, nan in database.execute(f"{metrics} ORDER BY rowid"):
            if run in logs and isinstance(value, int | float):
                number = math.nan if nan else _unbounded(float(value))
                points.setdefault((run, key), []).append((float(step), number))
    for (run, key), pairs in points.items():
        logs[run].add_points(key, pairs)
    return _with_metrics(list(logs.values()), path)


def _unbounded(value: float) -> float:
    return math.copysign(math.inf, value) if abs(value) >= LARGEST else value


def _with_metrics(logs: list[Log], path: Path) -> list[Log]:
    kept = [log for log in logs if log.columns]
    if not kept:
        raise LogError(
            f"none of its {len(logs)} runs has a metric" if logs else "no run is in it",
            where=str(path),
            way_out="Give a store in which a run called `log_metric`; deleted runs are not read.",
        )
    return kept


# ── folders ────────────────────────────────────────────────────────────────────────────────


def _run_folders(path: Path, deepest: str) -> list[Path]:
    """`mlruns`, an experiment or a run → the runs' folders, as far down as a pattern says."""
    for pattern in ("", "*/", deepest):
        found = [
            meta.parent
            for meta in path.glob(f"{pattern}meta.yaml")
            if (meta.parent / "metrics").is_dir() or (meta.parent / "params").is_dir()
        ]
        if found:
            return sorted(found)
    return []


def _from_folders(path: Path, folders: list[Path]) -> list[Log]:
    logs: list[tuple[float, Log]] = []
    for folder in folders:
        if folder.parent.name == ".trash":
            continue
        meta = _meta(folder / "meta.yaml")
        if meta.get("lifecycle_stage", "active") != "active":
            continue
        tag = folder / "tags" / RUN_NAME
        log = Log(
            name=str(meta.get("run_name") or (tag.is_file() and _text(tag)) or folder.name),
            format=FORMAT,
            status=STATUS.get(str(meta.get("status")), "unknown"),
        )
        for file in _files(folder / "params"):
            name = file.relative_to(folder / "params").as_posix()
            log.facts[name] = _text(file).strip()
        for file in _files(folder / "metrics"):
            name = file.relative_to(folder / "metrics").as_posix()
            points, broken = _points(_text(file))
            if points:
                log.add_points(name, points)
            if broken:
                log.notes.append(f"{broken:,} lines of the metric `{name}` could not be read.")
        start = meta.get("start_time")
        logs.append((float(start) if isinstance(start, int | float) else 0.0, log))
    logs.sort(key=lambda one: one[0])
    return _with_metrics([log for _, log in logs], path)


def _meta(path: Path) -> dict[str, Any]:
    import yaml

    try:
        meta = yaml.safe_load(_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise LogError(
            "this file is no YAML",
            where=str(path),
            way_out="Copy the run again, or remove its folder.",
        ) from error
    return meta if isinstance(meta, dict) else {}


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise LogError(
            f"this file cannot be read ({error.strerror or error})",
            where=str(path),
            way_out="Give a store that you may read.",
        ) from error


def _points(text: str) -> tuple[list[tuple[float, float]], int]:
    """Lines of `timestamp value step` → (step, value) pairs, and how many could not be read.

    >>> _points("1700000000000 2.5 10\\n1700000001000 nan 20\\n17000")
    ([(10.0, 2.5), (20.0, nan)], 1)
    """
    points: list[tuple[float, float]] = []
    broken = 0
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        try:
            points.append((float(words[2]) if len(words) > 2 else 0.0, float(words[1])))
        except (ValueError, IndexError):
            broken += 1
    return points, broken
