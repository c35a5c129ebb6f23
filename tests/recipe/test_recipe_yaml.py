"""The strict YAML reader: values, lines, faults."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wellfit.recipe.show import scalar
from wellfit.recipe.yaml_lines import plain_value, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3e-4", 3e-4), ("1e6", 1e6), ("1E+6", 1e6), (".5", 0.5), ("5.", 5.0), ("-1.5e3", -1500.0),
        ("0", 0), ("-7", -7), ("65_536", 65_536), ("1_000.5", 1000.5), ("true", True),
        ("false", False), ("null", None), ("~", None), (".inf", math.inf), ("-.inf", -math.inf),
    ],
)  # fmt: skip
def test_numbers_and_words_that_count(text: str, value: Any) -> None:
    """Breaks when the pattern of fractions loses its exponent, as YAML 1.1 would have it."""
    read = read_yaml(f"x: {text}").value["x"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    "text",
    ["yes", "no", "on", "off", "True", "FALSE", "Null", "2026-11-22", "1:30", "007", "0x10", "1b",
     "1__0", "_1", "1e", "e5", ".", "-", "1.2.3", "1e5000000", "9" * 5_000],
)  # fmt: skip
def test_words_that_stay_words(text: str) -> None:
    assert plain_value(text) == text


def test_lines_of_every_place() -> None:
    text = "# comment\na: 1\nb:\n  - x\n  - k: v\n\n    m: [1,\n     2]\n"
    located = read_yaml(text)
    assert located.value == {"a": 1, "b": ["x", {"k": "v", "m": [1, 2]}]}
    assert located.lines[("a",)] == 2
    assert located.lines[("b",)] == 3
    assert located.lines[("b", 0)] == 4
    assert located.lines[("b", 1, "k")] == 5
    assert located.lines[("b", 1, "m", 1)] == 8
    assert not located.faults


def test_a_key_twice_names_both_lines_and_keeps_the_first() -> None:
    located = read_yaml("a:\n  b: 1\n  c: 2\n  b: {x: {y: 3}}\n")
    assert located.value == {"a": {"b": 1, "c": 2}}
    assert located.faults == ((4, "a.b stands twice, in lines 2 and 4; keep one"),)
    assert ("a", "b", "x") not in located.lines


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\n\tb: 2", 2, "indent with spaces"),
        ("a: b: c", 1, "text that holds a colon needs quotes"),
        ("a: 1\nb\nc: 2", 3, "write `key: value`"),
        ("a: [1, 2\nb: 3", 2, "a bracket or brace is not closed"),
        ('a: 1\nb: "open', 2, "a quote is not closed"),
        ("a:\n  - 1\n b: 2", 3, "does not fit the indentation"),
        ('a: "\\q"', 1, "unknown \\ escape"),
        ("a: 1\nb: \x07", 2, "a control character"),
        ("a: &x 1\nb: *x", 2, "`*x` is not used in recipes"),
        ("a: !!python/object/apply:os.system [ls]", 1, "the tag"),
        ("a: 1\n---\nb: 2", 2, "a second document begins"),
        ("? [a, b]\n: 1", 1, "a key is one word"),
        ("[" * 60 + "]" * 60, 1, "more than 40 sections inside one another"),
        ("@", 1, "a tab or a sign that YAML does not allow here"),
    ],
)
def test_what_is_not_yaml_is_said_in_our_words(text: str, line: int, words: str) -> None:
    located = read_yaml(text)
    assert any(number == line and words in told for number, told in located.faults), located.faults


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
@settings(deadline=None, max_examples=150)
def test_written_values_read_back(value: Any) -> None:
    """Breaks when `quoted` stops escaping control characters, or `scalar` writes `yes` bare."""
    located = read_yaml(f"x: {scalar(value)}")
    assert not located.faults
    assert located.value == {"x": value}
    assert type(located.value["x"]) is type(value)


@given(VALUES)
@settings(deadline=None, max_examples=100)
def test_json_is_read_as_json(value: Any) -> None:
    """An independent writer: our own writer and reader could share one mistake."""
    if "\\ud8" in (text := json.dumps(value)) or "Infinity" in text or "\\u" in text:
        return
    located = read_yaml(f"x: {text}")
    if "\x7f" in text:  # YAML does not allow it bare
        assert located.faults
    else:
        assert located.value == {"x": value}


@given(st.text(alphabet="ab:-[]{}#&*!|>'\"%@`,? \n\t0.e~\\", max_size=40))
@settings(deadline=None, max_examples=300)
def test_any_text_gives_values_or_faults(text: str) -> None:
    located = read_yaml(text)
    assert located.faults or all(line >= 1 for line in located.lines.values())
