"""Corrupted batches and rows: a visit is corrupted anew, the same visit always alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wellfit.data.batches import ARRAYS, Batch, Batches, Corrupt, Rows, Source, joined
from wellfit.data.corpus import Corpus
from wellfit.data.corrupt.denoised import denoising
from wellfit.data.corrupt.marks import marks
from wellfit.data.corrupt.masked import masking
from wellfit.data.plan import DataPlan
from wellfit.recipe.schema import Objective
from wellfit.records import IGNORED

CONTEXT, ROWS = 32, 8


def corrupting(corpus: Corpus, kind: str) -> Corrupt:
    if kind == "encoder":
        found = marks("encoder", {}, corpus.vocabulary_size, corpus.separator)
        return masking(Objective(), found, (3, corpus.digest))
    found = marks("encoder_decoder", {}, corpus.vocabulary_size, corpus.separator)
    return denoising(Objective(), found, (3, corpus.digest))


def same(one: Batch, other: Batch) -> bool:
    sides = [(one, other, ARRAYS)]
    if one.source is not None and other.source is not None:
        sides.append((one.source, other.source, Source.__slots__))  # type: ignore[arg-type]
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b, names in sides
        for name in names
    )


@pytest.mark.parametrize("kind", ["encoder", "encoder_decoder"])
def test_a_step_is_always_the_same_and_an_epoch_is_not(
    corpus: Corpus, kind: str, tmp_path: Path
) -> None:
    """Also by a second reader of the plan, and after a rewind with rows not seen before.

    Breaks tried: number visits by the row in the split (each epoch then hides the same); by the
    place within the step.
    """
    corrupt = corrupting(corpus, kind)

    def opened() -> Batches:
        plan = DataPlan.open(tmp_path / "data-plan.jsonl")
        return Batches(corpus, CONTEXT, ROWS, 3, plan, corrupt)

    batches = opened()
    first = batches.batch(2)
    assert same(first, batches.batch(2)) and same(first, opened().batch(2))
    assert (first.source is not None) == (kind == "encoder_decoder")
    per_epoch = batches.rows_per_epoch
    row = int(batches.rows(1)[0])
    visits = [v for v in range(1, 4 * per_epoch // ROWS) if row in batches.rows(v)]
    shown = []
    for step in visits[:3]:
        at = batches.rows(step).tolist().index(row)
        one = batches.batch(step).part(slice(at, at + 1))
        shown.append((one.source.tokens if one.source is not None else one.labels).tobytes())
    assert len(set(shown)) == 3, "the same row, three times, each time hidden otherwise"
    before = batches.batch(5)
    batches.skip(after_step=4, through_step=9)
    assert not same(before, batches.batch(5))
    batches.restore(after_step=4)
    assert same(before, batches.batch(5))


def test_held_out_rows_hide_the_same_however_they_are_asked_for(corpus: Corpus) -> None:
    """Break tried: number the visits from 0 in each call."""
    rows = Rows(corpus, "validation", CONTEXT, corrupting(corpus, "encoder"))
    plain = Rows(corpus, "validation", CONTEXT)
    indices = list(range(min(6, len(rows))))
    whole = rows.row(indices)
    assert same(whole, joined([rows.row([index]) for index in indices]))
    hidden = whole.labels != IGNORED
    assert np.array_equal(whole.labels[hidden], plain.row(indices).tokens[hidden])
    assert same(rows.plain(indices), plain.row(indices))


def test_parts_of_a_batch_take_their_sources_along(corpus: Corpus) -> None:
    """Break tried: leave the source out of `part`, or out of `joined`."""
    rows = Rows(corpus, "train", CONTEXT, corrupting(corpus, "encoder_decoder"))
    whole = rows.row([0, 1, 2, 3])
    again = joined([whole.part(slice(0, 1)), whole.part(slice(1, 4))])
    assert again.source is not None and same(whole, again)
