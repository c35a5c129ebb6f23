"""Which ids stand for what is hidden: the tokenizer's own, or ones behind its last."""

from __future__ import annotations

import numpy as np

from wellfit.data.corrupt.draws import draws
from wellfit.data.corrupt.marks import SENTINELS, marks


def test_marks_of_the_tokenizer_come_first() -> None:
    """Breaks tried: always put the mask behind; take sentinels past a gap in their numbers."""
    known = {
        "a": 0,
        "<mask>": 3,
        "[MASK]": 7,
        "<extra_id_0>": 9,
        "<extra_id_1>": 8,
        "<extra_id_3>": 6,
    }
    masked = marks("encoder", known, 10, 0)
    assert (masked.mask, masked.vocabulary_size) == (7, 10)
    denoised = marks("encoder_decoder", known, 10, 0)
    assert (denoised.sentinels, denoised.vocabulary_size) == ((9, 8), 10)
    assert denoised.spelling(8) == "<extra_id_1>" and denoised.spelling(7) == ""
    assert marks("decoder", known, 10, 0).vocabulary_size == 10


def test_missing_marks_stand_behind_the_vocabulary() -> None:
    assert marks("encoder", {}, 10, 0).vocabulary_size == 11
    behind = marks("encoder_decoder", {}, 10, 0)
    assert behind.sentinels == tuple(range(10, 10 + SENTINELS))
    assert behind.vocabulary_size == 10 + SENTINELS and behind.text_size == 10


def test_draws_are_even_and_the_same_everywhere() -> None:
    """The first numbers of a name, written down. Break tried: keep the lowest bits instead."""
    assert draws("key", 3, count=2).tolist() == [0.8146312342168542, 0.16529929064462356]
    many = draws("key", 4, count=100_000)
    assert many.min() >= 0 and many.max() < 1
    counts = np.histogram(many, bins=20, range=(0, 1))[0]
    assert abs(counts - 5000).max() < 5 * (5000 * 0.95) ** 0.5
