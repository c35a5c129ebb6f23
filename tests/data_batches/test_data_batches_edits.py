"""The map between cleaned text and text as read is always right, and usually fine."""

from __future__ import annotations

import time
import unicodedata

from hypothesis import given, settings
from hypothesis import strategies as st

from wellfit.data.edits import Edit, apply, edits, to_read

TEXT = st.text(st.sampled_from("ab \n\r\té’â€™ﬁ\u200b漢\U0001f600"), max_size=120)


def check(read: str, clean: str) -> list[Edit]:
    """Rows in order, apart, within both texts; unchanged stretches equal; applied, they clean."""
    changes = edits(read, clean)
    place = (0, 0)
    for low, high, read_low, read_high in changes:
        assert place[0] <= low <= high and place[1] <= read_low <= read_high
        assert clean[place[0] : low] == read[place[1] : read_low]
        assert (low, read_low) != (high, read_high)
        place = (high, read_high)
    assert clean[place[0] :] == read[place[1] :]
    assert apply(changes, read, clean) == clean
    return changes


@settings(max_examples=400, deadline=None)
@given(TEXT, TEXT)
def test_any_two_texts(read: str, clean: str) -> None:
    """However different: the map is right. Fails when a resynchronisation is off by one."""
    check(read, clean)


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXT, max_size=12), st.randoms(use_true_random=False))
def test_cleaned_texts(lines: list[str], draw) -> None:  # type: ignore[no-untyped-def]
    """Lines cleaned in the ways of cleaners, some dropped: right, stretch by stretch."""
    kept = [line for line in lines if draw.random() < 0.8]
    clean = "\n".join(unicodedata.normalize("NFKC", line).replace("\r", "") for line in kept)
    read = "\n".join(lines)
    changes = check(read, clean)
    for _ in range(20):
        start = draw.randint(0, len(clean))
        end = draw.randint(start, len(clean))
        low, high, exact = to_read(changes, start, end)
        assert 0 <= low <= high <= len(read)
        if exact:
            assert read[low:high] == clean[start:end]


def test_line_ends() -> None:
    """CRLF → LF: one deletion a line, and every character but those leads back exactly."""
    read = "".join(f"line {i} of the file\r\n" for i in range(500))
    clean = read.replace("\r\n", "\n")
    changes = check(read, clean)
    assert len(changes) == 500
    assert len(check("a\r\n\r\n\r\nb\r\n", "a\n\n\nb\n")) == 4
    assert all(high == low and after - before == 1 for low, high, before, after in changes)
    for place, character in enumerate(clean):
        low, high, exact = to_read(changes, place, place + 1)
        assert exact and read[low:high] == character


def test_local_fixes_in_one_long_line() -> None:
    """A hundred repaired characters in one line of 10 kB: each edit is as small as its fix."""
    pieces = [f"word{i} it’s so " for i in range(100)]
    clean = "".join(pieces)
    read = clean.replace("’", "â€™")
    changes = check(read, clean)
    assert len(changes) == 100
    assert all(high - low == 1 and after - before == 3 for low, high, before, after in changes)


def test_touching_an_edit_is_not_exact() -> None:
    """Stretches over, into and beside an edit."""
    changes = edits("one twooo three four five", "one two three four five")
    assert changes == [(7, 7, 7, 9)]
    assert to_read(changes, 0, 7) == (0, 7, True)
    assert to_read(changes, 7, 13) == (9, 15, True)
    assert to_read(changes, 6, 8) == (6, 10, False)
    replaced = [(4, 5, 4, 7)]
    assert to_read(replaced, 4, 5) == (4, 7, False)
    assert to_read(replaced, 0, 9) == (0, 11, False)
    assert to_read(replaced, 4, 4) == (4, 4, True)


def test_dropped_lines_do_not_blur_the_rest() -> None:
    """A hundred lines of a boilerplate head removed: one edit, everything behind it exact."""
    head = "".join(f"boilerplate {i * 7919 % 101} and more of it\n" for i in range(100))
    body = "".join(f"content {i * i} stays as it is\n" for i in range(100))
    assert check(head + body, body) == [(0, 0, 0, len(head))]


def test_equal_and_large_texts_are_quick() -> None:
    """Equal texts cost nothing; a megabyte with 20,000 line ends and one all changed, seconds."""
    text = "some words that are on every line of this file\r\n" * 20_000
    assert edits(text, text) == []
    began = time.process_time()
    assert len(check(text, text.replace("\r\n", "\n"))) == 20_000
    check(text, text.upper())
    assert time.process_time() - began < 10
