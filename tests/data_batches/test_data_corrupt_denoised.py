"""Spans that leave a text: both sides give it back, and spans are spread as they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from corrupt_parts import SEPARATOR, SIZE, packed
from hypothesis import given, settings
from hypothesis import strategies as st

from wellfit.data.batches import ARRAYS, SOURCE_ARRAYS, Batch
from wellfit.data.corrupt.denoised import denoising
from wellfit.data.corrupt.marks import Marks, marks
from wellfit.recipe.objective_section import target_places
from wellfit.recipe.schema import Objective
from wellfit.records import IGNORED

MARKS = marks("encoder_decoder", {}, SIZE, SEPARATOR)
KEY = (3, "digest")


def texts(tokens: Any, segments: Any, real: Any) -> dict[int, list[int]]:
    """A row → its documents by number."""
    found: dict[int, list[int]] = {}
    for token, number, there in zip(tokens, segments, real, strict=True):
        if there:
            found.setdefault(int(number), []).append(int(token))
    return found


def rebuilt(batch: Batch, row: int, of: Marks) -> dict[int, list[int]]:
    """A row of sources and targets → the texts that they were made from."""
    source = batch.source
    assert source is not None
    context = source.tokens.shape[1]
    sources = texts(source.tokens[row], source.segments[row], source.segments[row] < context)
    real = batch.documents[row] >= 0
    inputs = texts(batch.tokens[row], batch.segments[row], real)
    labels = texts(batch.labels[row], batch.segments[row], real)
    assert inputs.keys() == labels.keys() <= sources.keys()
    result = {}
    for number, text in sources.items():
        said = labels.get(number, [])
        spans: dict[int, list[int]] = {}
        if said:
            assert inputs[number] == [of.separator, *said[:-1]] and said[-1] == of.separator
            assert of.separator not in said[:-1], "a separator never leaves"
            for token in said[:-1]:
                if token in of.sentinels:
                    assert token not in spans
                    spans[token] = []
                else:
                    spans[list(spans)[-1]].append(token)
            assert list(spans) == list(of.sentinels[: len(spans)]), "sentinels begin anew, in order"
            assert all(spans.values()), "no span is empty"
        whole: list[int] = []
        for before, token in zip([None, *text], text, strict=False):
            assert not (before in of.sentinels and token in of.sentinels), "spans touch"
            whole += spans.pop(token) if token in of.sentinels else [token]
        assert not spans
        result[number] = whole
    return result


@given(
    st.integers(8, 130), st.sampled_from([0.0, 0.02, 0.2, 0.6]), st.integers(0, 20),
    st.sampled_from([0.05, 0.15, 0.4, 0.8]), st.sampled_from([1.0, 3.0, 9.0]), st.integers(1, 100),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_source_and_target_give_the_text_back(
    context: int, ends: float, seed: int, share: float, length: float, sentinels: int
) -> None:
    """Token by token, whatever the documents are, with few sentinels and in padding too.

    Breaks tried: separators that may leave; sentinels that run on through the row; the last words
    of a text forgotten.
    """
    padding = seed % 7 if context > 20 else 0
    before = packed(3, context, ends, seed=seed, padding=padding)
    few = Marks(SIZE + sentinels, SEPARATOR, SIZE, sentinels=tuple(range(SIZE, SIZE + sentinels)))
    objective = Objective(share=share, span_length=length)
    after = denoising(objective, few, KEY)(before, np.arange(3) + seed)
    assert after.tokens.shape == (3, target_places(context, objective))
    assert after.source is not None and after.source.tokens.shape == (3, context)
    for row in range(3):
        real = before.documents[row] >= 0
        expected = texts(before.tokens[row], before.segments[row], real)
        assert rebuilt(after, row, few) == expected
        numbers = dict(
            zip(before.segments[row].tolist(), before.documents[row].tolist(), strict=True)
        )
        there = after.documents[row] >= 0
        owners = dict(zip(after.segments[row][there], after.documents[row][there], strict=True))
        assert all(numbers[number] == owner for number, owner in owners.items())
        for segments, positions in (
            (after.segments[row], after.positions[row]),
            (after.source.segments[row], after.source.positions[row]),
        ):
            begins = np.r_[True, segments[1:] != segments[:-1]]
            columns = np.arange(len(segments))
            restart = columns - np.maximum.accumulate(np.where(begins, columns, 0))
            assert np.array_equal(positions, restart)
        assert ((after.labels[row] == IGNORED) == (after.documents[row] < 0)).all()


@pytest.mark.parametrize(("share", "length"), [(0.15, 3.0), (0.3, 5.0)])
def test_share_and_length_are_those_asked_for(share: float, length: float) -> None:
    """Exact but for rounding; and each place far from the ends is as likely to leave as any other.

    Breaks tried: round each document's count down; begin every text with words that stay, as the
    reference does, so that its first place never leaves.
    """
    before = packed(1500, 64, ends=0.0)
    objective = Objective(share=share, span_length=length)
    after = denoising(objective, MARKS, KEY)(before, np.arange(1500))
    left = (after.labels > 0) & (after.labels < SIZE)
    spans = after.labels >= SIZE
    count = left.sum(axis=1)
    assert set(count.tolist()) <= {int(64 * share), int(64 * share) + 1}
    assert abs(count.mean() - 64 * share) < 5 * 0.5 / 1500**0.5
    assert abs(left.sum() / spans.sum() - length) < 0.02 * length
    gone = np.zeros((1500, 64), bool)
    for row in range(1500):
        at = 0
        words = iter(after.source.tokens[row].tolist() if after.source else [])
        said = after.labels[row].tolist()
        for token in words:
            if at >= 64:
                break
            if token >= SIZE:
                start = said.index(token) + 1
                while 0 < said[start] < SIZE:
                    gone[row, at] = True
                    at, start = at + 1, start + 1
            else:
                at += 1
    deviation = (share * (1 - share) / 1500) ** 0.5
    # Far from the ends all alike; an end leaves only with a span that touches it: one of the
    # spans fills one certain gap of those around the words that stay.
    assert abs(gone[:, 16:48].mean(axis=0) - share).max() < 5 * deviation
    touches = float((spans.sum(axis=1) / (64 - count + 1)).mean())
    for end in (0, 63):
        assert abs(gone[:, end].mean() - touches) < 5 * (touches / 1500) ** 0.5


def test_short_documents_lose_their_share_too() -> None:
    """Documents of two words: most lose none, and all together the share.

    Break tried: round each document's count by itself (0.3 becomes 0: nothing ever leaves).
    """
    tokens = np.tile([SEPARATOR, 5, 6], (500, 20))
    segments = np.repeat(np.arange(20), 3)[None].repeat(500, 0)
    positions = np.tile([0, 1, 2], (500, 20))
    before = Batch(tokens, tokens, positions, segments, segments)
    after = denoising(Objective(), MARKS, KEY)(before, np.arange(500))
    left = ((after.labels > 0) & (after.labels < SIZE)).sum()
    assert abs(left / (500 * 40) - 0.15) < 0.01


def test_what_leaves_follows_from_key_visit_and_place() -> None:
    """Break tried: draw by the row's place in the batch."""
    before, corrupt = packed(5, 64, ends=0.05), denoising(Objective(), MARKS, KEY)
    visits = np.array([4, 9, 2, 70, 1])
    whole = corrupt(before, visits)
    for row in range(5):
        one, alone = (
            whole.part(slice(row, row + 1)),
            corrupt(before.part(slice(row, row + 1)), visits[row : row + 1]),
        )
        assert all(np.array_equal(getattr(one, n), getattr(alone, n)) for n in ARRAYS)
        assert one.source is not None and alone.source is not None
        assert all(
            np.array_equal(getattr(one.source, n), getattr(alone.source, n)) for n in SOURCE_ARRAYS
        )
    other = corrupt(before, visits + 100)
    assert other.source is not None and whole.source is not None
    assert ((other.source.tokens != whole.source.tokens).sum(axis=1) > 0).all()
