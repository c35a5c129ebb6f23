"""Parquet files → one document a row of the text column."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from wellfit.data.read.identity import document
from wellfit.recipe.schema import Source
from wellfit.records import Document, Origin, Rejected

_ROWS_AT_ONCE = 256


def read_parquet(
    file: Path, relative: str, source: Source, start: int, end: int, row: int = 0
) -> Iterator[Document | Rejected]:
    """Parquet file → documents; `start` and `end` count *rows* and lie between row groups."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = source.text_field
    try:
        with pq.ParquetFile(file) as table:
            fault = _column_fault(table.schema_arrow, column)
            if fault:
                yield Rejected(source.path, relative, "the file", fault)
                return
            groups, first = _groups(table, start, end)
            number = first
            for batch in table.iter_batches(_ROWS_AT_ONCE, row_groups=groups, columns=[column]):
                for value in batch.column(0):
                    yield _row(value, relative, source, number)
                    number += 1
    except (pa.ArrowException, OSError) as error:
        reason = f"no Parquet that can be read: {str(error).splitlines()[0]}"
        yield Rejected(source.path, relative, "the file", reason)


def text_at(path: Path, origin: Origin) -> str:
    """File and row → the text as it was read, before cleaning."""
    import pyarrow.parquet as pq

    assert origin.row is not None
    with pq.ParquetFile(path) as table:
        first = 0
        for group in range(table.num_row_groups):
            rows = table.metadata.row_group(group).num_rows
            if origin.row < first + rows:
                column = table.read_row_group(group, columns=[origin.member]).column(0)
                return cast(str, column[origin.row - first].as_py())
            first += rows
    raise IndexError(f"row {origin.row} of {first}")


def byte_span(path: Path, origin: Origin, start_char: int, end_char: int) -> None:
    """None: the values of a Parquet file are packed, so no bytes of it are these characters."""


def row_ranges(path: Path, range_bytes: int) -> list[tuple[int, int]]:
    """File → ranges of rows, whole row groups of `range_bytes` or so; one, empty, if unreadable."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            groups = [table.metadata.row_group(g) for g in range(table.num_row_groups)]
            sizes = [(group.num_rows, group.total_byte_size) for group in groups]
    except (pa.ArrowException, OSError):
        return [(0, 0)]
    ranges: list[tuple[int, int]] = []
    start = end = held = 0
    for rows, size in sizes:
        end += rows
        held += size
        if held >= range_bytes:
            ranges.append((start, end))
            start, held = end, 0
    if end > start or not ranges:
        ranges.append((start, end))
    return ranges


def _row(scalar: Any, relative: str, source: Source, number: int) -> Document | Rejected:
    reason = f"the column {source.text_field!r} holds null"
    try:
        value = scalar.as_py()
    except UnicodeDecodeError as error:
        value, reason = None, f"not UTF-8 at byte {error.start} of the value"
    if value is None:
        return Rejected(source.path, relative, f"row {number}", reason)
    origin = Origin(relative, 0, 0, row=number, member=source.text_field)
    return document(value, source.path, source.domain or "text", "text", "und", origin)


def _column_fault(schema: object, column: str) -> str:
    """Arrow schema and the wanted column → what is wrong with it, or ""."""
    import difflib

    import pyarrow as pa

    assert isinstance(schema, pa.Schema)
    if column not in schema.names:
        near = difflib.get_close_matches(column, schema.names, 1)
        hint = f"; nearest: {near[0]!r}" if near else ""
        return f"no column {column!r}; its columns: {', '.join(schema.names[:12])}{hint}"
    if schema.names.count(column) > 1:
        return f"{schema.names.count(column)} columns are called {column!r}"
    kind = schema.field(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return f"the column {column!r} holds {kind}, not text"
    return ""


def _groups(table: object, start: int, end: int) -> tuple[list[int], int]:
    """Open file and a range of rows → (its row groups, number of its first row)."""
    import pyarrow.parquet as pq

    assert isinstance(table, pq.ParquetFile)
    groups = []
    first = 0
    for group in range(table.num_row_groups):
        if start <= first < end:
            groups.append(group)
        first += table.metadata.row_group(group).num_rows
    return groups, start
