"""A prompt → what a model is given, so that it writes on: ids to begin with, and a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prompt:
    """What `generate` is given."""

    ids: tuple[int, ...]
    """What the decoder begins with."""
    stop_ids: tuple[int, ...]
    source: tuple[int, ...] | None = None
    """What an encoder-decoder reads."""


def continuing(encoded: Sequence[int], *, separator: int, sentinels: Sequence[int] = ()) -> Prompt:
    """A prompt's ids → what makes a model continue it.

    A decoder reads it behind a separator. With sentinels, of an encoder-decoder, it is a text
    whose end is missing: the source is the prompt and the first sentinel, and what the decoder
    writes behind that sentinel, up to the next one, is the continuation.

    >>> continuing([7, 8], separator=0)
    Prompt(ids=(0, 7, 8), stop_ids=(0,), source=None)
    >>> continuing([7, 8], separator=0, sentinels=[90, 91])
    Prompt(ids=(0, 90), stop_ids=(0, 90, 91), source=(0, 7, 8, 90))
    """
    if not sentinels:
        return Prompt((separator, *encoded), (separator,))
    first = sentinels[0]
    return Prompt((separator, first), (separator, *sentinels), (separator, *encoded, first))
