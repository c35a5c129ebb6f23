"""Streamed text never breaks a character, and its pieces are the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from wellfit.generation.text import Until, stream_text


def decode_bytes(ids: Sequence[int]) -> str:
    """A byte-level tokenizer in its plainest form: a token is a byte."""
    return bytes(ids).decode("utf-8", errors="replace")


@given(st.text(max_size=300), st.text(max_size=20))
@settings(max_examples=150, deadline=None)
def test_pieces_join_to_the_text(text: str, prompt: str) -> None:
    """Breaks when the prompt's text is given out again."""
    before = list(prompt.encode())
    pieces = list(stream_text(text.encode(), decode_bytes, before))
    assert "".join(pieces) == text
    assert all(pieces)


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_bytes_at_all(raw: bytes) -> None:
    """Broken UTF-8 too: the pieces are what decoding everything at once gives."""
    assert "".join(stream_text(raw, decode_bytes)) == decode_bytes(list(raw))


def test_long_texts_lose_nothing() -> None:
    """Breaks when the window is cut while a character is unfinished."""
    text = "é😀a€" * 100
    assert "".join(stream_text(text.encode(), decode_bytes)) == text


def test_a_character_comes_whole_and_at_once() -> None:
    """Four tokens, one piece. Breaks when the replacement character of half a character shows."""
    assert list(stream_text("a😀é".encode(), decode_bytes)) == ["a", "😀", "é"]


def test_unfinished_bytes_show_at_the_end() -> None:
    assert list(stream_text("a😀".encode()[:-1], decode_bytes)) == ["a", "\ufffd"]


def test_text_comes_as_soon_as_it_is_known() -> None:
    """Breaks when a piece waits for the token after it."""
    given_out = []

    def tokens() -> Iterator[int]:
        for number, token in enumerate(b"hello"):
            assert len(given_out) == number
            yield token

    for piece in stream_text(tokens(), decode_bytes):
        given_out.append(piece)
    assert given_out == list("hello")


STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3)


def by_hand(text: str, stops: list[str]) -> str:
    """The text before the stop string that is complete first, character by character."""
    for length in range(len(text) + 1):
        starts = [length - len(stop) for stop in stops if text[:length].endswith(stop)]
        if starts:
            return text[: min(starts)]
    return text


@given(st.lists(st.text("abc\n", max_size=5), max_size=12), STOPS)
@settings(max_examples=400, deadline=None)
def test_stop_strings_in_pieces_of_any_cut(pieces: list[str], stops: list[str]) -> None:
    """What is given out is never taken back, and ends where it does character by character.

    Breaks tried: the stop string that begins first; holding back only whole stop strings; what
    was held back lost at the end.
    """
    until = Until(stops)
    shown = ""
    for piece in pieces:
        shown += until.feed(piece)
        assert by_hand("".join(pieces), stops).startswith(shown)
    assert shown + until.rest() == by_hand("".join(pieces), stops)


def test_text_that_only_begins_like_a_stop_string_comes_out() -> None:
    """As soon as it is decided. Break tried: holding back as long as the longest stop string."""
    until = Until(["\n\nUser:"])
    assert [until.feed(piece) for piece in ("one\n", "\nU", "s", "es", " two")] == [
        "one", "", "", "\n\nUses", " two",
    ]  # fmt: skip
    assert until.feed("\n\nUser") + until.rest() == "\n\nUser"
