"""Rows of many tasks → rows regrouped by key, bucket by bucket, through files.

A file of rows is two NumPy arrays one behind the other: `buckets + 1` row numbers at which the
buckets begin (int64), then the rows, sorted by bucket.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wellfit.data.engine.task import Task, load

Rows = npt.NDArray[Any]
Emit = Callable[[Task, Mapping[str, Any]], Rows]
Combine = Callable[[Rows, Mapping[str, Any]], Rows]


def write_rows(task: Task, parameters: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """Task → file of its rows by bucket; the summary holds one digest a bucket."""
    rows = load(parameters["emit"])(task, parameters["parameters"])
    buckets: int = parameters["buckets"]
    bucket = rows["key"] % np.uint64(buckets)
    order = np.argsort(bucket, kind="stable")
    rows = np.ascontiguousarray(rows[order])
    starts = np.searchsorted(bucket[order], np.arange(buckets + 1, dtype=np.uint64))
    with output.open("wb") as stream:
        np.save(stream, starts.astype(np.int64))
        np.save(stream, rows)
    kind = str(rows.dtype.descr)
    slices = [
        hashlib.sha256(kind.encode() + rows[starts[b] : starts[b + 1]].tobytes()).hexdigest()
        for b in range(buckets)
    ]
    return {"rows": len(rows), "slices": slices}


def write_combined(task: Task, parameters: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """Files of rows → one bucket's rows of all of them, sorted, combined, as one `.npy` file."""
    bucket: int = task.data["bucket"]
    rows = np.concatenate([_slice(file.path, bucket) for file in task.files])
    rows.sort(order=list(rows.dtype.names or ()))
    combined = load(parameters["combine"])(rows, parameters["parameters"])
    with output.open("wb") as stream:
        np.save(stream, combined)
    return {"rows": len(combined)}


def _slice(path: Path, bucket: int) -> Rows:
    with path.open("rb") as stream:
        starts = np.load(stream)
        version = np.lib.format.read_magic(stream)
        assert version == (1, 0), version
        _, _, dtype = np.lib.format.read_array_header_1_0(stream)
        first, last = int(starts[bucket]), int(starts[bucket + 1])
        stream.seek(first * dtype.itemsize, 1)
        return np.fromfile(stream, dtype=dtype, count=last - first)
