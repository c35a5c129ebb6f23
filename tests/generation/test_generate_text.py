"""Streamed text never breaks a character, and its pieces are the whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from wellfit.generation.text import stream_text


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
