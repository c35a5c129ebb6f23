"""Documents ⇄ Parquet parts: text, provenance, digest, edits, and a column for every score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wellfit.records import Document

_COLUMNS = {
    "id": "string",
    "text": "large_string",
    "source": "string",
    "domain": "string",
    "content_type": "string",
    "language": "string",
    "path": "string",
    "start": "int64",
    "end": "int64",
    "row": "int64",
    "member": "string",
    "encoding": "string",
    "sha256": "string",
    "bytes": "int64",
    "edits": "list",
}
"""Column → type. `edits` is flat: four numbers a row, (clean start, clean end, read start, end).
`sha256` and `bytes` are those of the cleaned text in UTF-8."""

_FLUSH_CHARACTERS = 4 << 20
_BATCH_CHARACTERS = 1 << 20


class PartWriter:
    """Documents → one Parquet file, written in row groups of a few megabytes."""

    def __init__(self, path: Path, scores: tuple[str, ...]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        kinds = {
            "string": pa.string(),
            "large_string": pa.large_string(),
            "int64": pa.int64(),
            "list": pa.list_(pa.int64()),
        }
        fields = [(name, kinds[kind]) for name, kind in _COLUMNS.items()]
        self._schema = pa.schema([*fields, *((f"score_{name}", pa.float64()) for name in scores)])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []
        self._characters = 0

    def add(
        self,
        document: Document,
        *,
        sha256: str,
        size: int,
        edits: list[tuple[int, int, int, int]],
        scores: Mapping[str, float],
    ) -> None:
        """One cleaned document and what was found out about it → a row."""
        origin = document.origin
        self._rows.append(
            {
                "id": document.id,
                "text": document.text,
                "source": document.source,
                "domain": document.domain,
                "content_type": document.content_type,
                "language": document.language,
                "path": origin.path,
                "start": origin.start,
                "end": origin.end,
                "row": origin.row,
                "member": origin.member,
                "encoding": origin.encoding,
                "sha256": sha256,
                "bytes": size,
                "edits": [number for row in edits for number in row],
                **{f"score_{name}": value for name, value in scores.items()},
            }
        )
        self._characters += len(document.text)
        if self._characters >= _FLUSH_CHARACTERS:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []
        self._characters = 0


def columns(path: Path, names: list[str]) -> dict[str, list[Any]]:
    """Part and names of columns → their values; the whole part, so ask for small columns."""
    import pyarrow.parquet as pq

    found: dict[str, list[Any]] = pq.read_table(path, columns=names).to_pydict()
    return found


def rows(path: Path, *, names: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Part → its rows, a few megabytes in memory at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(256, columns=names):
            yield from batch.to_pylist()


def text_batches(path: Path, names: list[str]) -> Iterator[dict[str, list[Any]]]:
    """Part and names of columns, `text` among them → those columns, some megabytes at a time."""
    batch: dict[str, list[Any]] = {name: [] for name in names}
    held = 0
    for row in rows(path, names=names):
        for name in names:
            batch[name].append(row[name])
        held += len(row["text"])
        if held >= _BATCH_CHARACTERS:
            yield batch
            batch, held = {name: [] for name in names}, 0
    if batch["text"]:
        yield batch
