"""Neptune exports → Logs: the Parquet files that the official neptune-exporter writes.

`DATA/PROJECT/RUN_part_N.parquet`, one row for each value, with the columns of
github.com/neptune-ai/neptune-exporter, `src/neptune_exporter/model.py`: `project_id`, `run_id`,
`attribute_path`, `attribute_type`, `step`, and a column for each type of value.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from wellfit.diagnosis.importers.log import Log
from wellfit.errors import LogError

FORMAT = "Neptune export"
COLUMNS = ("run_id", "attribute_path", "attribute_type", "step", "float_value")
SETTINGS = {
    "float": "float_value", "int": "int_value", "string": "string_value", "bool": "bool_value",
}  # fmt: skip
"""Types of single values that become facts → the column that holds them."""
WAY_OUT = (
    "Give the folder of Parquet files that `neptune-exporter export` wrote, or one of its files."
)


def looks_like_neptune(path: Path) -> bool:
    """Whether a path is a Parquet file with the exporter's columns, or a folder that holds one."""
    if path.is_dir():
        first = min((file for file in path.glob("*.parquet") if file.is_file()), default=None)
        return first is not None and looks_like_neptune(first)
    if path.suffix != ".parquet":
        return False
    import pyarrow
    from pyarrow import parquet

    try:
        names = parquet.read_schema(path).names
    except (OSError, pyarrow.ArrowException):
        return False
    return set(COLUMNS) <= set(names)


def read_neptune(path: Path) -> list[Log]:
    """A Parquet file of neptune-exporter, or a folder of them → one Log for each run with metrics.

    The parts of a run are joined in the order of their numbers.
    Raises LogError where no such file is there, one cannot be read, or no run has a metric.
    """
    files = _parquet_files(path) if path.is_dir() else [path]
    if not files:
        raise LogError("no Parquet file is in this folder", where=str(path), way_out=WAY_OUT)
    logs: dict[tuple[str, str], Log] = {}
    for file in files:
        _read_file(file, logs)
    found = [log for log in logs.values() if log.columns]
    if not found:
        raise LogError(
            f"none of its {len(logs)} runs has a metric" if logs else "no run is in it",
            where=str(path),
            way_out="Export the runs again with the class `metrics` included.",
        )
    return found


def _parquet_files(folder: Path) -> list[Path]:
    """A folder → its Parquet files, a run's parts in the order of their numbers."""
    found = [
        file
        for pattern in ("*.parquet", "*/*.parquet", "*/*/*.parquet")
        for file in folder.glob(pattern)
        if file.is_file()
    ]

    def order(file: Path) -> tuple[str, str, int]:
        part = re.fullmatch(r"(.*?)_?part_(\d+)", file.stem)
        return str(file.parent), part[1] if part else file.stem, int(part[2]) if part else 0

    return sorted(found, key=order)


def _read_file(path: Path, logs: dict[tuple[str, str], Log]) -> None:
    """Append the metrics and settings of a file to the Logs by project and run."""
    import pyarrow
    from pyarrow import compute, parquet

    where = str(path)
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            missing = [name for name in COLUMNS if name not in names]
            if missing:
                raise LogError(
                    f"this Parquet file is not Neptune's: it has no column `{missing[0]}`",
                    where=where,
                    way_out=WAY_OUT,
                )
            wanted = [*COLUMNS, "project_id", "int_value", "string_value", "bool_value"]
            table = file.read(columns=[name for name in wanted if name in names])
    except OSError as error:
        raise LogError(
            f"this file cannot be read ({error.strerror or error})", where=where, way_out=WAY_OUT
        ) from error
    except pyarrow.ArrowException as error:
        empty = path.is_file() and not path.stat().st_size
        raise LogError(
            "the file is empty" if empty else "this is no Parquet file, or a damaged one",
            where=where,
            way_out="Copy it again, or export the run again.",
        ) from error
    _add_settings(table, logs)
    kinds = table["attribute_type"]
    _add_series(table.filter(compute.equal(kinds, "float_series")), logs)


def _add_settings(table: Any, logs: dict[tuple[str, str], Log]) -> None:
    import pyarrow
    from pyarrow import compute

    single = compute.is_in(table["attribute_type"], pyarrow.array(list(SETTINGS)))
    for row in table.filter(single).to_pylist():
        log = _log(logs, row.get("project_id"), row["run_id"])
        value = row.get(SETTINGS[row["attribute_type"]])
        if value is None:
            continue
        path = row["attribute_path"]
        log.facts[path] = value
        if path == "sys/name" and value != row["run_id"]:
            log.name = f"{value} ({row['run_id']})"
        elif path == "sys/failed" and value is True:
            log.status = "failed"


def _add_series(series: Any, logs: dict[tuple[str, str], Log]) -> None:
    """Rows of `float_series` → points of their Logs, in the order of the rows.

    The exporter writes NaN as null, so a value that is missing at a step is NaN.
    """
    if not len(series):
        return
    steps = series["step"].cast("float64").to_numpy()
    values = series["float_value"].to_numpy()
    group = np.zeros(len(series), np.int64)
    names: list[list[Any]] = []
    for key in ("project_id", "run_id", "attribute_path"):
        if key not in series.column_names:
            names.append([None])
            continue
        coded = series[key].combine_chunks().dictionary_encode()
        names.append(coded.dictionary.to_pylist())
        group = group * len(names[-1]) + coded.indices.to_numpy()
    order = np.argsort(group, kind="stable")
    order = order[np.isfinite(steps[order])]
    bounds = np.flatnonzero(np.diff(group[order])) + 1
    for rows in np.split(order, bounds):
        if not len(rows):
            continue
        code = int(group[rows[0]])
        project_and_run, path = divmod(code, len(names[2]))
        project, run = divmod(project_and_run, len(names[1]))
        log = _log(logs, names[0][project], names[1][run])
        pairs = zip(steps[rows].tolist(), values[rows].tolist(), strict=True)
        log.add_points(str(names[2][path]), pairs)


def _log(logs: dict[tuple[str, str], Log], project: Any, run: Any) -> Log:
    return logs.setdefault((str(project), str(run)), Log(name=str(run), format=FORMAT))
