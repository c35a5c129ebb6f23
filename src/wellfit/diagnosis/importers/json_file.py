"""JSON text → its value, and JSON values → numbers."""

from __future__ import annotations

import json
import math
from typing import Any

from wellfit.errors import LogError

_NOT_FINITE = {"nan", "inf", "-inf", "infinity", "-infinity", "+inf"}


class TooDeepError(Exception):
    """The JSON is nested too deeply, or holds a number too long."""


def parse(text: str) -> Any:
    """JSON text → its value. Raises JSONDecodeError, or TooDeepError."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (RecursionError, ValueError) as error:
        raise TooDeepError from error


def is_cut(text: str, error: json.JSONDecodeError) -> bool:
    """Whether JSON text ends before its value does."""
    return error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated")


def broken_json(text: str, error: json.JSONDecodeError, where: str) -> LogError:
    """What to say of JSON that is broken, or cut off."""
    cut = is_cut(text, error)
    return LogError(
        f"line {error.lineno}, column {error.colno}: {error.msg}"
        + ("; the file seems to be cut off" if cut else ""),
        where=where,
        way_out="Copy the file again, or take the one of an older checkpoint."
        if cut
        else "Mend that line; the file must be one JSON value.",
    )


def too_deep(where: str) -> LogError:
    """What to say of JSON that no trainer wrote."""
    return LogError(
        "the JSON is nested too deeply or holds a number too long to read",
        where=where,
        way_out="Give a log that a trainer wrote.",
    )


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


def loose(value: Any) -> float | None:
    """A logged value → a float, numbers written as text included; None where it is no number.

    >>> loose("3.5"), loose(2), loose("0:00:32"), loose("1_000")
    (3.5, 2.0, None, None)
    """
    if isinstance(value, str):
        try:
            return float(value) if "_" not in value else None
        except ValueError:
            return None
    return number(value)


def whole(value: Any) -> int | None:
    """A JSON value → a step: a whole number ≥ 0 of at most 15 digits; None where it is none.

    >>> whole(10.0), whole(10.5), whole(-1)
    (10, None, None)
    """
    found = number(value)
    if found is None or not math.isfinite(found) or found < 0 or found != int(found):
        return None
    return int(found) if found < 1e15 else None
