"""JSON Lines → a Log; bad lines are counted, not fatal."""

from __future__ import annotations

import json
import re
from typing import Any

from wellfit.diagnosis.importers.json_shapes import add_rows, add_unnamed
from wellfit.diagnosis.importers.log import Log

MOST_BAD = 0.5
"""Above this share of lines that are no JSON the file is something else."""
_BEGIN = re.compile(r"\s*[{\[]")


def looks_like_lines(text: str) -> bool:
    """Whether most of the first lines are JSON values of their own."""
    lines = [line for line in text[:100_000].split("\n", 200)[:100] if line.strip()]
    if len(lines) > 1 and len(text) > 100_000:
        lines.pop()  # may be cut by the limit
    good = sum(_value(line) is not None for line in lines)
    return good > 0 and good >= MOST_BAD * len(lines)


def log_of_lines(text: str, name: str) -> Log | None:
    """JSON Lines → their Log; None where most lines are no JSON objects or lists."""
    lines = [line for line in text.split("\n") if line and not line.isspace()]
    try:
        values = json.loads("[" + ",".join(lines) + "]")  # at once is three times faster
        if len(values) != len(lines):
            raise ValueError
    except (ValueError, RecursionError):
        values = [_value(line) for line in lines]
    log = Log(name, "JSON Lines")
    rows = [one for one in values if isinstance(one, dict)]
    bare = [one for one in values if isinstance(one, list)] if not rows else []
    bad = len(values) - len(rows) - len(bare)
    if bad > MOST_BAD * len(values) or not (rows or bare):
        return None
    if bad:
        log.notes.append(f"{bad:,} lines are no JSON objects; they were left out.")
    if rows:
        add_rows(log, rows)
    else:
        add_unnamed(log, bare)
    return log


def values_of(text: str) -> list[Any]:
    """JSON values that follow each other, pretty-printed or not → the list of them."""
    decoder = json.JSONDecoder()
    found: list[Any] = []
    place = 0
    while (match := _BEGIN.match(text, place)) is not None:
        try:
            value, place = decoder.raw_decode(text, match.end() - 1)
        except (ValueError, RecursionError):
            break
        found.append(value)
    return found


def _value(line: str) -> Any:
    """A line → its JSON object or list, else None."""
    line = line.strip().removesuffix(",")
    if line[:1] not in ("{", "["):
        return None
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
