"""Arrow and Parquet files with a column of lists of ids → one list a row, a document each."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wellfit.errors import DataError

ROWS = 1024
"""Rows of a Parquet file that are read at a time; of Arrow it is one of its record batches."""
ARROW_FILE = b"ARROW1"
"""Begins the Arrow file format; without it the file is a stream, as `save_to_disk` writes."""


def rows(path: Path, kind: str, column: str) -> Iterator[tuple[int, NDArray[np.integer[Any]]]]:
    """A file, `arrow` or `parquet`, and its column → (row, its ids), in order.

    Raises DataError where the file cannot be read, has no such column, or holds nulls.
    """
    import pyarrow as pa

    number = 0
    try:
        for batch in _batches(path, kind, column):
            yield from of_batch(path, batch.column(column), column, number)
            number += batch.num_rows
    except (pa.ArrowException, OSError) as fault:
        raise DataError(
            f"no {kind} file that can be read, at row {number}: {str(fault).splitlines()[0]}",
            where=str(path),
            way_out="The file may be cut short: copy or write it again.",
        ) from fault


def _batches(path: Path, kind: str, column: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if kind == "parquet":
        with pq.ParquetFile(path) as table:
            _refuse_column(path, table.schema_arrow, column)
            yield from table.iter_batches(ROWS, columns=[column])
        return
    with pa.OSFile(str(path)) as file:
        if file.read(len(ARROW_FILE)) == ARROW_FILE:
            file.seek(0)
            with pa.ipc.open_file(file) as reader:
                _refuse_column(path, reader.schema, column)
                for place in range(reader.num_record_batches):
                    yield reader.get_batch(place)
            return
        file.seek(0)
        with pa.ipc.open_stream(file) as stream:
            _refuse_column(path, stream.schema, column)
            yield from stream


def _refuse_column(path: Path, schema: Any, column: str) -> None:
    import pyarrow as pa

    if column not in schema.names:
        near = difflib.get_close_matches(column, schema.names, 1)
        raise DataError(
            f"there is no column {column!r}, only {', '.join(schema.names[:12]) or 'none at all'}",
            where=str(path),
            way_out=f"Set data.tokens.column={near[0] if near else 'THE_COLUMN_OF_IDS'}.",
        )
    kind = schema.field(column).type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (
        (is_list or pa.types.is_fixed_size_list(kind)) and pa.types.is_integer(kind.value_type)
    ):
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        raise DataError(
            f"the column {column!r} holds {kind}, not lists of whole numbers",
            where=str(path),
            way_out="Text goes into `data.sources`."
            if text
            else "Set data.tokens.column to the one that holds the ids of each document.",
        )


def of_batch(
    path: Path, lists: Any, column: str, first: int
) -> Iterator[tuple[int, NDArray[np.integer[Any]]]]:
    """A file, lists of one of its batches, their column and first row → (row, its ids)."""
    import pyarrow as pa

    if lists.null_count:
        row = first + int(np.flatnonzero(lists.is_null().to_numpy(zero_copy_only=False))[0])
        raise _null(path, column, row)
    values = lists.flatten()
    if pa.types.is_fixed_size_list(lists.type):
        ends = np.arange(len(lists) + 1) * lists.type.list_size
    else:
        ends = lists.offsets.to_numpy()
        ends = ends - ends[0]
    if values.null_count:
        place = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise _null(path, column, first + int(np.searchsorted(ends, place, side="right")) - 1)
    ids = values.to_numpy(zero_copy_only=False)
    for row in range(len(lists)):
        yield first + row, ids[ends[row] : ends[row + 1]]


def _null(path: Path, column: str, row: int) -> DataError:
    return DataError(
        f"row {row} of the column {column!r} holds a null",
        where=str(path),
        way_out="Drop such rows before they are written.",
    )
