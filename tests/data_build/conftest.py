"""Texts that no filter objects to, made of a seeded vocabulary."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

_SYLLABLES = [
    "ba",
    "ce",
    "di",
    "fo",
    "gu",
    "ha",
    "ji",
    "ko",
    "lu",
    "me",
    "na",
    "po",
    "qui",
    "ro",
    "su",
    "ta",
    "ve",
    "wo",
    "xy",
    "za",
]


@pytest.fixture(scope="session")
def prose() -> Callable[..., str]:
    """Seed and number of words → a text; different seeds share hardly a shingle."""

    def write(seed: int, words: int = 120) -> str:
        draw = random.Random(seed)
        return " ".join(
            "".join(draw.choices(_SYLLABLES, k=draw.randint(1, 4))) for _ in range(words)
        )

    return write
