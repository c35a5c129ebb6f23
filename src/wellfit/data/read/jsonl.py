"""JSON lines, plain or compressed → one document a line, its bytes exact down to the escape.

A huge plain file is read in byte ranges: a line belongs to the range that its first byte is in.
Places count bytes of the decompressed stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from wellfit.data.read.decompress import DamagedStreamError, forward, opened
from wellfit.data.read.identity import document
from wellfit.recipe.schema import Source
from wellfit.records import Document, Origin, Rejected

LONGEST_LINE = 64 << 20
"""Bytes; a longer line is rejected without being held in memory."""

_MARK = b"\xef\xbb\xbf"
_WHITE = " \t\r\n"


def read_jsonl(
    file: Path, relative: str, source: Source, start: int, end: int, row: int = 0
) -> Iterator[Document | Rejected]:
    """JSON lines → documents; `row` is the number of the line that the byte `start` stands in."""
    with opened(file) as stream:
        place = start
        if start:
            forward(stream, start - 1)
            rest = _skip_line(stream)  # the end of a line that began in the range before
            place = start - 1 + rest
            # `row` holds byte `start`; unless that byte begins its line, ours is the next one.
            row += rest > 1
        while place < end:
            try:
                line = stream.readline(LONGEST_LINE + 1)
                length = len(line)
                if length > LONGEST_LINE and not line.endswith(b"\n"):
                    length += _skip_line(stream)
                    line = b""
                    fault = f"a line of {length} bytes, more than {LONGEST_LINE}"
                else:
                    fault = ""
            except DamagedStreamError as error:
                where = f"line {row + 1}, byte {place} of the decompressed stream"
                yield Rejected(source.path, relative, where, str(error))
                return
            if not length:
                return
            if fault or line.strip():
                yield _record(line, fault, relative, source, place, row)
            place += length
            row += 1


def text_at(path: Path, origin: Origin) -> str:
    """File and place → the text as it was read, before cleaning."""
    return cast(str, json.loads(_line(path, origin))[origin.member])


def byte_span(path: Path, origin: Origin, start_char: int, end_char: int) -> tuple[int, int]:
    """Characters of the text → their bytes inside the JSON string, (first, one past the last).

    An escape such as `\\u00e9` is one character of several bytes; a pair of `\\u` escapes that
    makes one character is one character of twelve.
    """
    line = _line(path, origin).decode("utf-8")
    literal = _literal(line, origin.member)
    offsets = [literal]
    character = literal
    for _ in range(end_char):
        character = _next_character(line, character)
        offsets.append(character)
    first, last = offsets[start_char], offsets[end_char]
    before = len(line[:first].encode())
    return origin.start + before, origin.start + before + len(line[first:last].encode())


def _record(
    line: bytes, fault: str, relative: str, source: Source, place: int, row: int
) -> Document | Rejected:
    """One line → its document, or what is wrong with it."""
    record: Any = None
    mark = len(_MARK) if place == 0 and line.startswith(_MARK) else 0
    if not fault:
        try:
            record = json.loads(line[mark:].decode("utf-8"))
        except UnicodeDecodeError as error:
            fault = f"not UTF-8 at byte {place + mark + error.start}"
        except json.JSONDecodeError as error:
            whole = "" if line.endswith(b"\n") else " (the file ends within this line)"
            fault = f"not JSON: {error.msg} at character {error.pos + 1}{whole}"
        except RecursionError:
            fault = "not JSON that can be read: nested too deeply"
        except ValueError:  # Python's guard against numbers that take for ever to convert
            fault = "not JSON that can be read: a number of thousands of digits"
    key = source.text_field
    if not fault and not isinstance(record, dict):
        fault = f"a JSON {_kind(record)}, not an object"
    if not fault and key not in record:
        listed = ", ".join(list(record)[:8])
        fault = f"no key {key!r}" + (f"; its keys: {listed}" if listed else "")
    if not fault and not isinstance(record[key], str):
        fault = f"the key {key!r} holds a {_kind(record[key])}, not a string"
    if not fault:
        try:
            record[key].encode("utf-8")
        except UnicodeEncodeError:
            fault = f"the key {key!r} holds half a surrogate pair, which is no text"
    if fault:
        return Rejected(source.path, relative, f"line {row + 1}", fault)
    end = place + len(line.rstrip(b"\r\n"))
    origin = Origin(relative, place + mark, end, row=row, member=key)
    return document(record[key], source.path, source.domain or "text", "text", "und", origin)


def _kind(value: Any) -> str:
    return {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}.get(
        type(value), "number"
    )


def _line(path: Path, origin: Origin) -> bytes:
    with opened(path) as stream:
        forward(stream, origin.start)
        return stream.read(origin.end - origin.start)


def _literal(line: str, key: str) -> int:
    """Line and key → where the characters of the key's string value begin (the last such key)."""
    decoder = json.JSONDecoder()
    found = -1
    place = _skip_white(line, line.index("{") + 1)
    while line[place] != "}":
        name, place = decoder.raw_decode(line, place)
        place = _skip_white(line, _skip_white(line, place) + 1)  # over the colon
        if name == key:
            found = place + 1
        _, place = decoder.raw_decode(line, place)
        place = _skip_white(line, place)
        if line[place] == ",":
            place = _skip_white(line, place + 1)
    assert found >= 0, key
    return found


def _skip_white(line: str, place: int) -> int:
    while line[place] in _WHITE:
        place += 1
    return place


def _next_character(line: str, place: int) -> int:
    """Place of a character in a JSON string literal → place of the next one."""
    if line[place] != "\\":
        return place + 1
    if line[place + 1] != "u":
        return place + 2
    first = int(line[place + 2 : place + 6], 16)
    if 0xD800 <= first <= 0xDBFF and line[place + 6 : place + 8] == "\\u":
        second = int(line[place + 8 : place + 12], 16)
        if 0xDC00 <= second <= 0xDFFF:
            return place + 12
    return place + 6


def _skip_line(stream: BinaryIO) -> int:
    """Stream → bytes up to and with the next line end, now behind us."""
    skipped = 0
    while part := stream.readline(1 << 20):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped
