"""Records ↔ lines of JSON, and files of such lines that may have been cut off anywhere.

One line is `seq, attempt, time`, then the fields of the record, then what was measured beside it.
JSON has no NaN, so non-finite floats are the strings `"nan"`, `"inf"` and `"-inf"`.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from wellfit.records import Evaluated, Event, Proof, ProofState, Record, Sampled, Saved, Step

Line = dict[str, Any]

_SPELLED = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_CHUNK_BYTES = 1 << 22


def spelled(value: Any) -> Any:
    """A value that strict JSON can hold, from one that may contain non-finite floats.

    >>> spelled({"loss": float("nan"), "norms": (1.0, float("-inf"))})
    {'loss': 'nan', 'norms': [1.0, '-inf']}
    """
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, dict):
        return {str(key): spelled(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [spelled(part) for part in value]
    return value


def unspelled(value: Any) -> Any:
    """The value with its floats again, from what `spelled` gave (tuples come back as lists).

    A text that is exactly `nan`, `inf` or `-inf` also becomes a float.

    >>> unspelled({"norms": [1.0, "-inf"]})
    {'norms': [1.0, -inf]}
    """
    if isinstance(value, str):
        return _SPELLED.get(value, value)
    if isinstance(value, dict):
        return {key: unspelled(part) for key, part in value.items()}
    if isinstance(value, list):
        return [unspelled(part) for part in value]
    return value


def now() -> str:
    """The present moment as it stands in a line: ISO 8601, UTC, milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def line_text(line: Line) -> str:
    """One line of strict JSON in ASCII, without its newline, from a dict with any floats and texts.

    ASCII, so that neither a rare line separator nor half a character can break a line for anyone.
    """
    try:
        return json.dumps(line, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(spelled(line), allow_nan=False, separators=(",", ":"))


def record_fields(record: Record) -> Line:
    """The fields of a record by name (one level: nested values are passed on as they are)."""
    return {name: getattr(record, name) for name in _FIELDS[type(record)]}


def file_name(record: Record) -> str:
    """The file in `records/` that a record belongs to, on the only process of a run."""
    return FILES[type(record)]


def read_record(kind: type[Any], line: Line) -> Any:
    """The record of this kind, from its line.

    Raises KeyError, TypeError or ValueError where a field is missing or is not what it should be.
    """
    if kind is Evaluated:
        return _evaluated(line)
    if kind is Sampled:
        guesses = tuple((str(token), float(share)) for token, share in line["predictions"])
        return Sampled(int(line["step"]), str(line["prompt"]), str(line["text"]), guesses)
    if kind is Saved:
        return Saved(
            step=int(line["step"]),
            path=str(line["path"]),
            sha256=str(line["sha256"]),
            bytes=int(line["bytes"]),
            seconds=float(line["seconds"]),
        )
    if kind is Event:
        return Event(
            step=int(line["step"]),
            kind=str(line["kind"]),
            text=str(line["text"]),
            data=dict(unspelled(line["data"])),
        )
    if kind is Proof:
        return _proof(line)
    assert kind is Step, kind
    whole = ("step", "supervised_tokens", "tokens")
    values: Line = {name: float(line[name]) for name in _FIELDS[Step] if name not in whole}
    values.update({name: int(line[name]) for name in whole}, clipped=bool(line["clipped"]))
    return Step(**values)


def _proof(line: Line) -> Proof:
    if line["state"] not in get_args(ProofState):
        raise ValueError(f"{line['state']!r} is no state of a proof")
    return Proof(
        step=int(line["step"]),
        name=str(line["name"]),
        state=line["state"],
        text=str(line["text"]),
        data=dict(unspelled(line["data"])),
    )


_MAY_BE_UNKNOWN = ("bits_per_byte", "bits_per_byte_se")


def _evaluated(line: Line) -> Evaluated:
    whole = ("step", "tokens", "bytes", "documents")
    values: Line = {
        name: _number(line[name])
        for name in _FIELDS[Evaluated]
        if name not in (*whole, *_MAY_BE_UNKNOWN, "split", "by_domain")
    }
    values |= {n: None if line[n] is None else float(line[n]) for n in _MAY_BE_UNKNOWN}
    values.update({name: int(line[name]) for name in whole}, split=str(line["split"]))
    by_domain = {
        str(domain): {str(name): _number(value) for name, value in scores.items()}
        for domain, scores in line["by_domain"].items()
    }
    return Evaluated(**values, by_domain=by_domain)


def _number(value: Any) -> float | None:
    """A score as written → the number; None, which is unknown, stays."""
    return None if value is None else float(value)


def read_lines(path: Path, unreadable: Counter[str]) -> Iterator[list[Line]]:
    """The readable lines of a file in their order, some thousands at a time.

    The others are counted under the file's name.

    A last line without its newline is taken if it is whole and otherwise left out without being
    counted: its writer may be at work. A file that does not exist has no lines.
    """
    for block, ended in _blocks(path):
        lines, bad = _parse(block)
        if bad and ended:
            unreadable[path.name] += bad
        yield lines


def last_line(path: Path) -> Line | None:
    """The last readable line of a file, read from its end; None where there is none."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            tail = b""
            while end > 0:
                start = max(0, end - 65_536)
                file.seek(start)
                tail = file.read(end - start) + tail
                end = start
                # The first piece may be the end of a longer line, unless the file begins here.
                pieces = tail.split(b"\n")
                for piece in reversed(pieces if start == 0 else pieces[1:]):
                    found, _ = _parse([piece])
                    if found:
                        return found[0]
                tail = pieces[0]
    except FileNotFoundError:
        pass
    return None


def _blocks(path: Path) -> Iterator[tuple[list[bytes], bool]]:
    """Lists of lines, and whether their last line had its newline."""
    try:
        with path.open("rb") as file:
            rest = b""
            while data := file.read(_CHUNK_BYTES):
                *whole, rest = (rest + data).split(b"\n")
                if whole:
                    yield whole, True
            if rest:
                yield [rest], False
    except FileNotFoundError:
        return


def _parse(block: list[bytes]) -> tuple[list[Line], int]:
    """The lines that are JSON objects with `seq` and `attempt`, and how many others there are."""
    # One call for many lines is three times as fast as one call for each. Lines that are not
    # whole make it fail or change the count, and are then looked at one by one.
    if len(block) > 1 and all(line[:1] == b"{" and line[-1:] == b"}" for line in block):
        try:
            whole = json.loads(b"[" + b",".join(block) + b"]")
        except (ValueError, RecursionError):
            whole = []
        if len(whole) == len(block) and all(map(_has_place, whole)):
            return whole, 0
    lines = []
    unreadable = 0
    for text in block:
        if not text.strip():
            continue
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            line = None
        if _has_place(line):
            lines.append(line)
        else:
            unreadable += 1
    return lines, unreadable


def _has_place(line: Any) -> bool:
    return type(line) is dict and type(line.get("seq")) is int and type(line.get("attempt")) is int


_FIELDS: dict[type[Any], tuple[str, ...]] = {
    kind: tuple(part.name for part in fields(kind))
    for kind in (Step, Evaluated, Sampled, Saved, Event, Proof)
}

FILES: dict[type[Any], str] = {
    Step: "steps-0.jsonl",
    Evaluated: "evaluations-0.jsonl",
    Sampled: "samples-0.jsonl",
    Saved: "saved-0.jsonl",
    Event: "events-0.jsonl",
    Proof: "proofs-0.jsonl",
}
