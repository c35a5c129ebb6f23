"""Texts made up for these tests, the same for the same seed."""

from __future__ import annotations

import random

PLAIN = "the cat sat on a mat and def return self import naïve 漢字 12345 ( ) [ ] =="
WORDS = [*PLAIN.split(), "", "    ", ":\n    ", "\n"]


def prose(seed: int, words: int) -> str:
    """Text of so many words, the same for the same seed."""
    draw = random.Random(seed)
    return " ".join(draw.choice(WORDS) + draw.choice(["", "s", "ed", "1"]) for _ in range(words))
