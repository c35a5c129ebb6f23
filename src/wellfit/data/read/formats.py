"""The formats: name → how files are read, and how a place in a text leads back to its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wellfit.data.read import jsonl, parquet, plain, topics
from wellfit.recipe.schema import Source
from wellfit.records import Document, Origin, Rejected

Read = Callable[[Path, str, Source, int, int, int], Iterator[Document | Rejected]]
"""`read(file, relative, source, start, end, row)`: what begins in [start, end) of the file."""


@dataclass(frozen=True, slots=True)
class Reader:
    """How one format is read, and how its texts lead back to their files."""

    read: Read
    text_at: Callable[[Path, Origin], str]
    """`text_at(path, origin)`: the text as it was read, before cleaning."""
    byte_span: Callable[[Path, Origin, int, int], tuple[int, int] | None]
    """`byte_span(path, origin, start, end)`: bytes of these characters; None without any."""


READERS = {
    "text": Reader(plain.read_text, plain.text_at, plain.byte_span),
    "markdown": Reader(plain.read_markdown, plain.text_at, plain.byte_span),
    "code": Reader(plain.read_code, plain.text_at, plain.byte_span),
    "jsonl": Reader(jsonl.read_jsonl, jsonl.text_at, jsonl.byte_span),
    "parquet": Reader(parquet.read_parquet, parquet.text_at, parquet.byte_span),
    "topics": Reader(topics.read_topics, topics.text_at, topics.byte_span),
}
