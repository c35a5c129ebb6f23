"""The `topics` of Python's own `pydoc_data/topics.py` → one document a topic.

The file is Python code: a dictionary from a topic's name to its text, written as string literals,
one behind the other or triple-quoted. The origin's bytes are those of the value's literals.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from wellfit.data.read.identity import document
from wellfit.recipe.schema import Source
from wellfit.records import Document, Origin, Rejected

_ESCAPE = re.compile(
    r"\\(?:\n|[0-7]{1,3}|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|N\{[^}]+\}|.)", re.DOTALL
)


def read_topics(
    file: Path, relative: str, source: Source, start: int, end: int, row: int = 0
) -> Iterator[Document | Rejected]:
    """`topics.py` → documents of the domain `documentation`, one a topic, in the file's order."""
    data = file.read_bytes()
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError) as error:
        yield Rejected(source.path, relative, "the file", f"not Python: {error}")
        return
    lines = _line_starts(data)
    domain = source.domain or "documentation"
    for name, value in _entries(tree):
        assert value.end_lineno is not None and value.end_col_offset is not None
        first = lines[value.lineno - 1] + value.col_offset
        last = lines[value.end_lineno - 1] + value.end_col_offset
        origin = Origin(relative, first, last, member=name)
        yield document(str(value.value), source.path, domain, "text", "en", origin)


def text_at(path: Path, origin: Origin) -> str:
    """File and place → the topic's text."""
    return "".join(text for text, _ in _characters(_segment(path, origin)))


def byte_span(path: Path, origin: Origin, start_char: int, end_char: int) -> tuple[int, int]:
    """Characters of the topic → bytes in the string literals, a gap between two included."""
    segment = _segment(path, origin)
    places = [span for text, span in _characters(segment) if text]
    if not places:
        return origin.start, origin.start
    first = places[start_char][0] if start_char < len(places) else places[-1][1]
    last = places[end_char - 1][1] if end_char > start_char else first
    return (
        origin.start + len(segment[:first].encode()),
        origin.start + len(segment[:last].encode()),
    )


def _entries(tree: ast.Module) -> Iterator[tuple[str, ast.Constant]]:
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict):
            for key, value in zip(statement.value.keys, statement.value.values, strict=True):
                if (
                    isinstance(key, ast.Constant)
                    and isinstance(value, ast.Constant)
                    and isinstance(value.value, str)
                ):
                    yield str(key.value), value


def _line_starts(data: bytes) -> list[int]:
    return [0, *(match.end() for match in re.finditer(rb"\r\n?|\n", data))]


def _segment(path: Path, origin: Origin) -> str:
    with path.open("rb") as stream:
        stream.seek(origin.start)
        return stream.read(origin.end - origin.start).decode("utf-8")


def _characters(segment: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """String literals → each character of their value with its span in the segment.

    An escaped line end has no character: its text is empty.
    """
    starts = [0, *(match.end() for match in re.finditer("\n", segment))]
    # Inside parentheses, literals on several lines are one expression, as in the file.
    wrapped = io.StringIO(f"({segment})").readline
    for token in tokenize.generate_tokens(wrapped):
        if token.type != tokenize.STRING:
            continue
        row, column = token.start
        begin = starts[row - 1] + column - (row == 1)  # the parenthesis stands on the first line
        prefix = token.string[: token.string.index(token.string[-1])].lower()
        quote = 3 if token.string[len(prefix) :].startswith(token.string[-1] * 3) else 1
        place = len(prefix) + quote
        while place < len(token.string) - quote:
            match = None if "r" in prefix else _ESCAPE.match(token.string, place)
            unit = match.group() if match else token.string[place]
            text = ast.literal_eval(f'"""{unit}"""') if match and unit != "\\\n" else unit
            if match and unit == "\\\n":
                text = ""
            yield text, (begin + place, begin + place + len(unit))
            place += len(unit)
