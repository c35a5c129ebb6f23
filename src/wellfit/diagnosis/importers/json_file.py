"""A JSON file → its value, whatever a trainer did to it short of losing it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from wellfit.errors import LogError

_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
_NOT_FINITE = {"nan", "inf", "-inf", "infinity", "-infinity", "+inf"}


def read_json(path: Path) -> Any:
    """A JSON file → its value; bare `NaN` and `Infinity` are read as numbers.

    Raises LogError where the file is absent, empty, binary, in an unknown encoding or broken.
    """
    where = str(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise LogError(
            f"this file cannot be read ({error.strerror or error})",
            where=where,
            way_out="Give the path of a log that exists and that you may read.",
        ) from error
    if not raw.strip():
        raise LogError(
            "the file is empty",
            where=where,
            way_out="The trainer wrote nothing yet, or the disk was full: look for an older copy.",
        )
    encoding = next((name for mark, name in _MARKS.items() if raw.startswith(mark)), "utf-8")
    if encoding != "utf-16" and b"\x00" in raw[:65_536]:
        raise LogError(
            "this is a binary file, not a log",
            where=where,
            way_out="Give the trainer_state.json or training_metrics.json of the run.",
        )
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise LogError(
            f"byte {error.start:,} is not valid {encoding}",
            where=where,
            way_out="Save the file again as UTF-8, or copy it again in binary mode.",
        ) from error
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        if (other := _other_format(text, error)) is not None:
            raise LogError(
                other,
                where=where,
                way_out="Give the run folder, or the training_metrics.json or trainer_state.json "
                "that the trainer wrote beside it.",
            ) from error
        cut = error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated")
        raise LogError(
            f"line {error.lineno}, column {error.colno}: {error.msg}"
            + ("; the file seems to be cut off" if cut else ""),
            where=where,
            way_out="Copy the file again, or take the one of an older checkpoint."
            if cut
            else "Mend that line; the file must be one JSON value.",
        ) from error
    except (RecursionError, ValueError) as error:
        raise LogError(
            "the JSON is nested too deeply or holds a number too long to read",
            where=where,
            way_out="Give a log that a trainer wrote.",
        ) from error


def _other_format(text: str, error: json.JSONDecodeError) -> str | None:
    """What a text that is no JSON is instead; None where it is JSON gone wrong."""
    if error.msg == "Extra data" and text[error.pos :].lstrip()[:1] in ("{", "["):
        return "this is a file of several JSON values (JSON Lines), a format not read here"
    begun = text.strip()
    # A dictionary printed by Python begins like JSON, and goes wrong at its first quote.
    if begun[0] in '{["' and (len(begun) < 3 or error.pos > text.index(begun[0]) + 1):
        return None
    return "this is no JSON; logs in CSV or plain text are not read here"


def number(value: Any) -> float | None:
    """A JSON value → a float, `"nan"` and `"inf"` included; None where it is no number.

    >>> number(3), number("-inf"), number(True), number("three")
    (3.0, -inf, None, None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str) and value.strip().lower() in _NOT_FINITE:
        return float(value)
    return None


def whole(value: Any) -> int | None:
    """A JSON value → a step: a whole number ≥ 0 of at most 15 digits; None where it is none.

    >>> whole(10.0), whole(10.5), whole(-1)
    (10, None, None)
    """
    found = number(value)
    if found is None or not math.isfinite(found) or found < 0 or found != int(found):
        return None
    return int(found) if found < 1e15 else None
