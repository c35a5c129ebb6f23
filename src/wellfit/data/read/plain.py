"""Text, Markdown and source files → documents; large files are cut where a paragraph ends.

A file is one document unless it is large: then it is cut near every multiple of a piece length,
behind the next empty line, else behind the next line end. A cut depends only on the bytes around
it, so several workers can cut one file without knowing of each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from wellfit.data.read.encoding import UndecodableError, declared, decode, encode_prefix
from wellfit.data.read.identity import document
from wellfit.data.read.names import code_language
from wellfit.recipe.schema import Source
from wellfit.records import Document, Origin, Rejected

PIECE_BYTES = {"text": 64 << 10, "markdown": 64 << 10, "code": 512 << 10}
"""A file of more than twice this many bytes is cut into pieces of about as many."""


def read_text(
    file: Path, relative: str, source: Source, start: int, end: int, row: int = 0
) -> Iterator[Document | Rejected]:
    """Text file → documents of content type `text`; those whose piece starts in [start, end)."""
    return _read(file, relative, source, start, end, "text")


def read_markdown(
    file: Path, relative: str, source: Source, start: int, end: int, row: int = 0
) -> Iterator[Document | Rejected]:
    """Markdown file → documents of content type `markdown`."""
    return _read(file, relative, source, start, end, "markdown")


def read_code(
    file: Path, relative: str, source: Source, start: int, end: int, row: int = 0
) -> Iterator[Document | Rejected]:
    """Source file → documents of content type `code`, its language told by the file's name."""
    return _read(file, relative, source, start, end, "code")


def text_at(path: Path, origin: Origin) -> str:
    """File and place → the text as it was read, before cleaning."""
    with path.open("rb") as stream:
        stream.seek(origin.start)
        return stream.read(origin.end - origin.start).decode(origin.encoding)


def byte_span(path: Path, origin: Origin, start_char: int, end_char: int) -> tuple[int, int]:
    """Characters of the text as read → their bytes in the file, (first, one past the last)."""
    text = text_at(path, origin)
    return (
        origin.start + len(encode_prefix(text, start_char, origin.encoding)),
        origin.start + len(encode_prefix(text, end_char, origin.encoding)),
    )


def _read(
    file: Path, relative: str, source: Source, start: int, end: int, content_type: str
) -> Iterator[Document | Rejected]:
    code = content_type == "code"
    language = code_language(relative) if code else "und"
    size = file.stat().st_size
    with file.open("rb") as stream:
        encoding, mark = declared(stream.read(4096), python=language == "python")
        for first, last in _pieces(stream, size, mark, encoding, start, end, content_type):
            stream.seek(first)
            data = stream.read(last - first)
            try:
                text, used = decode(data, encoding)
            except UndecodableError as fault:
                place = f"byte {first + fault.offset}"
                yield Rejected(source.path, relative, place, str(fault))
                continue
            origin = Origin(relative, first, last, encoding=used)
            domain = source.domain or ("code" if code else "text")
            yield document(text, source.path, domain, content_type, language, origin)


def _pieces(
    stream: BinaryIO,
    size: int,
    mark: int,
    encoding: str,
    start: int,
    end: int,
    content_type: str,
) -> Iterator[tuple[int, int]]:
    """Open file → (first byte, one past the last) of the pieces with a multiple in [start, end)."""
    step = PIECE_BYTES[content_type]
    if size <= 2 * step:
        if start == 0:
            yield min(mark, size), size
        return
    for nominal in range(-(-start // step) * step, min(end, size), step):
        if nominal + step // 2 >= size:  # what is left belongs to the piece before
            break
        first = mark if nominal == 0 else _cut(stream, nominal, step // 2, encoding)
        following = nominal + step
        is_last = following + step // 2 >= size
        yield first, size if is_last else _cut(stream, following, step // 2, encoding)


def _cut(stream: BinaryIO, nominal: int, window: int, encoding: str) -> int:
    """Where the piece of the multiple `nominal` begins: behind an empty line, line, character."""
    stream.seek(nominal)
    data = stream.read(window)
    line_end = "\n".encode(encoding or "utf-8")
    width = len(line_end)
    return_ = "\r".encode(encoding or "utf-8")
    for mark in (line_end + line_end, line_end + return_ + line_end, line_end):
        place = data.find(mark)
        while place % width and place >= 0:  # found across two characters
            place = data.find(mark, place + 1)
        if place >= 0:
            return nominal + place + len(mark)
    place = 0
    if width == 2:  # never between the two halves of a surrogate pair
        high = data[1] if encoding == "utf-16-le" else data[0]
        place = 2 if 0xDC <= high <= 0xDF else 0
    elif width == 1:
        while place < 3 and data[place] & 0xC0 == 0x80:
            place += 1
    return nominal + place
