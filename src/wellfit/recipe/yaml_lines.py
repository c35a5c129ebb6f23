"""YAML text in; plain values, the line of each, and every fault out.

Stricter than YAML 1.1 where that surprises people: `3e-4` and `1e6` are numbers, only `true` and
`false` are booleans (`yes`, `on` and `True` stay words), dates and `1:30` stay words, a key may
stand once in a mapping, and anchors, aliases and tags are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

Place = tuple[str | int, ...]
"""Keys and list positions from the top of a recipe down to one value."""

_WHOLE = re.compile(r"[-+]?(?:0|[1-9]\d*(?:_\d+)*)")
_FRACTION = re.compile(
    r"[-+]?(?:\d+(?:_\d+)*\.(?:\d+)?|\.\d+|\d+(?:_\d+)*(?=[eE]))(?:[eE][-+]?\d{1,6})?"
)
_WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "true": True, "false": False,
    ".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan"),
}  # fmt: skip
_DEEPEST = 40
# A longer run of digits is a word: Python refuses to turn more than 4,300 into a number.
_LONGEST_NUMBER = 400

_PROBLEMS = (
    ("cannot start any token", "a tab or a sign that YAML does not allow here; indent with spaces"),
    (
        "mapping values are not allowed",
        "a second `key: value` on one line, or wrong indentation; "
        "text that holds a colon needs quotes",
    ),
    ("could not find expected ':'", "a key without its colon; write `key: value`"),
    ("expected <block end>", "this line does not fit the indentation above it"),
    ("expected ',' or", "a bracket or brace is not closed, or a comma is missing"),
    ("while scanning a quoted", "a quote is not closed"),
    ("unexpected end of stream", "the text ends before a quote or bracket is closed"),
    ("unknown escape", "an unknown \\ escape inside double quotes; single quotes take \\ as it is"),
    ("special characters", "a control character, which YAML does not allow"),
)


@dataclass(frozen=True, slots=True)
class Located:
    """Values with the line (from 1) of each place, and the faults found: (line, sentence)."""

    value: Any
    lines: dict[Place, int]
    faults: tuple[tuple[int, str], ...]


def plain_value(text: str) -> Any:
    """An unquoted word → the number, boolean or nothing that it writes, else the word itself.

    >>> [plain_value(word) for word in ("3e-4", "1e6", "65_536", "true", "yes", "1b")]
    [0.0003, 1000000.0, 65536, True, 'yes', '1b']
    """
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= _LONGEST_NUMBER:
        if _WHOLE.fullmatch(text):
            return int(text)
        if _FRACTION.fullmatch(text):
            return float(text)
    return text


def read_yaml(text: str) -> Located:
    """YAML text → its one document with lines; faults are returned, not raised.

    After a fault of syntax the value is None, since nothing below that line can be trusted.
    """
    builder = _Builder()
    try:
        value = builder.document(yaml.parse(text, Loader=yaml.SafeLoader))
    except yaml.YAMLError as fault:
        builder.faults.append((_line_of(fault, text), _sentence(fault)))
        value = None
    except _TooDeepError as fault:
        builder.faults.append((fault.line, f"more than {_DEEPEST} sections inside one another"))
        value = None
    return Located(value, builder.lines, tuple(builder.faults))


class _TooDeepError(Exception):
    def __init__(self, line: int) -> None:
        self.line = line


class _Builder:
    """Turns the parser's events into values; keeps lines and faults."""

    def __init__(self) -> None:
        self.lines: dict[Place, int] = {}
        self.faults: list[tuple[int, str]] = []

    def document(self, events: Iterator[Any]) -> Any:
        value: Any = None
        documents = 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents == 1:
                    value = self.node(next(events), events, ())
                else:
                    line = _line(event)
                    self.faults.append((line, "a second document begins; a recipe is one document"))
                    break
        return value

    def node(self, event: Any, events: Iterator[Any], place: Place) -> Any:
        line = _line(event)
        self.lines.setdefault(place, line)
        if len(place) > _DEEPEST:
            raise _TooDeepError(line)
        if isinstance(event, yaml.AliasEvent):
            self.faults.append(
                (line, f"`*{event.anchor}` is not used in recipes; write the value, or use `base:`")
            )
            return None
        if event.tag is not None:
            self.faults.append(
                (line, f"the tag `{event.tag}` is not used in recipes; leave it out")
            )
        if isinstance(event, yaml.MappingStartEvent):
            return self.mapping(events, place)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(events, place)
        return plain_value(event.value) if event.style is None else event.value

    def mapping(self, events: Iterator[Any], place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent):
                self.faults.append((line, "a key is one word, not a list or a mapping"))
                self.node(event, events, (*place, "?"))
                self.node(next(events), events, (*place, "?"))
                continue
            here = (*place, event.value)
            if event.value in values:
                path = dotted(here)
                self.faults.append(
                    (line, f"{path} stands twice, in lines {self.lines[here]} and {line}; keep one")
                )
                # The first one stays; the second is read only to get past it.
                _Builder().node(next(events), events, here)
                continue
            self.lines[here] = line
            values[event.value] = self.node(next(events), events, here)
        return values

    def sequence(self, events: Iterator[Any], place: Place) -> list[Any]:
        values: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            values.append(self.node(event, events, (*place, len(values))))
        return values


def dotted(place: Place) -> str:
    """A place → its dotted path.

    >>> dotted(("data", "sources", 0, "path"))
    'data.sources.0.path'
    """
    return ".".join(str(part) for part in place)


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None
    return event.start_mark.line + 1


def _line_of(fault: yaml.YAMLError, text: str) -> int:
    mark = getattr(fault, "problem_mark", None) or getattr(fault, "context_mark", None)
    if mark is not None:
        return int(mark.line) + 1
    position = getattr(fault, "position", None)
    return text[:position].count("\n") + 1 if isinstance(position, int) else 1


def _sentence(fault: yaml.YAMLError) -> str:
    told = " ".join(
        str(getattr(fault, part, "") or "") for part in ("context", "problem", "reason")
    )
    for sign, sentence in _PROBLEMS:
        if sign in told:
            return f"this is not YAML: {sentence}"
    return "this is not YAML: look at quotes, brackets, colons and indentation near this line"
