"""Prompts → the texts that a model writes behind them, in pieces, and how each ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from wellfit.generation.generate import generate_rows
from wellfit.generation.prompts import Prompt
from wellfit.generation.rows import Written
from wellfit.generation.text import Spelling, Until
from wellfit.recipe.schema import Sampling

Reason: TypeAlias = Literal["end", "stop", "length"]
"""The model ended its text; a stop string came; it had as many tokens as were asked for."""


@dataclass(frozen=True, slots=True)
class Piece:
    """More text of a prompt."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A prompt's continuation is whole."""

    number: int
    text: str
    tokens: int
    """New tokens that the model drew for it, those of a stop string included."""
    reason: Reason
    seconds: float
    """From the first prompt's reading to this end."""


def write_rows(
    model: Written,
    prompts: Sequence[Prompt],
    section: Sampling,
    decode: Callable[[Sequence[int]], str],
    *,
    seeds: Sequence[int] | None = None,
) -> Iterator[Piece | Ended]:
    """Prompts, how to draw and a tokenizer's `decode` → pieces of text as they are known.

    Each prompt ends with `Ended`, whose text is its pieces joined. A stop string of the section
    ends a prompt, is not given out, and neither is its beginning. It is looked for in the new text
    alone. Raises as `generate_rows` does.
    """
    began = time.perf_counter()
    texts = [_Text(prompt, section.stop, decode) for prompt in prompts]
    done: set[int] = set()
    for number, token in generate_rows(model, prompts, section, seeds=seeds, done=done):
        one = texts[number]
        piece = one.finish() if token is None else one.feed(token)
        full = one.tokens == section.tokens
        if full and token is not None:
            piece += one.finish()
        if piece:
            yield Piece(number, piece)
        if one.until.found:
            done.add(number)
        if token is None or full or one.until.found:
            reason: Reason = "stop" if one.until.found else "end" if token is None else "length"
            seconds = time.perf_counter() - began
            yield Ended(number, one.text, one.tokens, reason, seconds)


class _Text:
    """One prompt's new text."""

    def __init__(
        self, prompt: Prompt, stops: Sequence[str], decode: Callable[[Sequence[int]], str]
    ) -> None:
        self.spelling = Spelling(decode, prompt.source or prompt.ids)
        self.until = Until(stops)
        self.text, self.tokens = "", 0

    def feed(self, token: int) -> str:
        """An id → what may be shown now."""
        self.tokens += 1
        piece = self.until.feed(self.spelling.feed(token))
        self.text += piece
        return piece

    def finish(self) -> str:
        """The end of the ids → what was kept back."""
        if self.until.found:
            return ""
        piece = self.until.feed(self.spelling.rest())
        if not self.until.found:
            piece += self.until.rest()
        self.text += piece
        return piece
