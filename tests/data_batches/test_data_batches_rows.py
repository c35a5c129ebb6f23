"""Rows and batches: every token a label once, and nothing but (digest, plan, step) decides."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from batch_texts import prose
from hypothesis import given, settings
from hypothesis import strategies as st

from wellfit.data.batches import ARRAYS, Batch, Batches, Rows
from wellfit.data.corpus import Corpus
from wellfit.data.permutation import _rounds, permutation_key, permute
from wellfit.data.plan import DataPlan
from wellfit.errors import DataError
from wellfit.records import IGNORED


def same(one: Batch, two: Batch) -> bool:
    return all(np.array_equal(getattr(one, n), getattr(two, n)) for n in ARRAYS)


@pytest.mark.parametrize("context", [8, 13, 64, 5000])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_every_token_is_a_label_once(corpus: Corpus, split: str, context: int) -> None:
    """All rows in order: labels are the stream from its second token on; the rest is padding.

    Fails when rows overlap by one token (starts of r·(C + 1)), or the last row is dropped.
    """
    rows = Rows(corpus, split, context)
    stream = np.asarray(corpus.tokens(split)).astype(np.int64)
    batch = rows.row(range(len(rows)))
    scored = batch.labels != IGNORED
    assert np.array_equal(batch.labels[scored], stream[1:])
    assert np.array_equal(batch.tokens[scored], stream[:-1])
    assert scored[: rows.full].all() and len(rows) - rows.full in (0, 1)
    assert all(getattr(batch, name).dtype == np.int64 for name in ARRAYS)
    assert all(getattr(batch, name).shape == (len(rows), context) for name in ARRAYS)


@pytest.mark.parametrize("context", [8, 13, 64])
def test_documents_positions_segments(corpus: Corpus, context: int) -> None:
    """Against a walk token by token. Fails when positions go on over a separator, when a
    separator as a label is counted to the document it opens, or padding joins a document.
    """
    rows = Rows(corpus, "train", context)
    batch = rows.row(range(len(rows)))
    stream, table = np.asarray(corpus.tokens("train")), corpus.documents("train")
    owner = np.repeat(np.arange(len(table)), table.tokens)
    for r in range(len(rows)):
        position = segment = 0
        for c in range(context):
            place = r * context + c
            if place >= len(stream) - 1:
                assert batch.labels[r, c] == IGNORED and batch.documents[r, c] == -1
                assert (
                    batch.segments[r, c] not in batch.segments[r, : len(stream) - 1 - r * context]
                )
                continue
            if c and stream[place] == corpus.separator:
                position, segment = 0, segment + 1
            assert batch.positions[r, c] == position
            assert batch.segments[r, c] == segment
            assert batch.documents[r, c] == owner[place]
            position += 1
    # A document owns one label a token of its text, and one for its end (the last has no end).
    counts = Counter(batch.documents[batch.labels != IGNORED].tolist())
    expected = table.tokens.copy()
    expected[-1] -= 1
    assert [counts[d] for d in range(len(table))] == expected.tolist()


def test_rows_in_any_order(corpus: Corpus) -> None:
    """A row is the same alone, repeated, or among others: micro-batches cannot matter."""
    rows = Rows(corpus, "train", 16)
    order = [5, len(rows) - 1, 0, 5, 3]
    together = rows.row(order)
    for place, number in enumerate(order):
        alone = rows.row([number])
        for name in ARRAYS:
            assert np.array_equal(getattr(alone, name)[0], getattr(together, name)[place])


def test_an_epoch_takes_every_full_row_once(corpus: Corpus) -> None:
    """Over three epochs with a batch that does not divide them: each row once an epoch, in
    another order each time. Fails when the epoch is left out of the key, or rows restart.
    """
    batches = Batches(corpus, 16, 11, seed=3)
    count = batches.rows_per_epoch
    assert count == Rows(corpus, "train", 16).full and count % 11
    taken = np.concatenate([batches.rows(step) for step in range(1, 3 * count // 11 + 2)])
    epochs = [taken[e * count : (e + 1) * count].tolist() for e in range(3)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert batches.epoch(0) == 0.0
    assert batches.epoch(count) == 11.0
    rows = Rows(corpus, "train", 16)
    assert same(batches.batch(5), rows.row(batches.rows(5)))


def test_batch_depends_on_digest_plan_and_step_alone(
    corpus: Corpus, tmp_path: Path, write_corpus: Callable[..., Corpus], texts: dict[str, list[str]]
) -> None:
    """Steps in any order, from fresh objects, after a resume, over other shard files: the same.
    Another seed, another corpus: others. Fails when the generator keeps a state between steps.
    """
    path = tmp_path / "plan.jsonl"
    straight = Batches(corpus, 16, 5, 0, DataPlan.open(path))
    expected = {step: straight.batch(step) for step in range(1, 60)}
    resumed = Batches(Corpus.open(corpus.folder), 16, 5, 0, DataPlan.open(path))
    order = list(expected)
    random.Random(1).shuffle(order)
    assert all(same(resumed.batch(step), expected[step]) for step in order)
    other_seed = Batches(corpus, 16, 5, 1)
    assert not any(same(other_seed.batch(step), expected[step]) for step in range(1, 9))
    changed = {**texts, "test": ["another test"]}
    other = Batches(write_corpus(tmp_path / "c", changed), 16, 5, 0)
    assert not all(same(other.batch(step), expected[step]) for step in range(1, 9))


def test_plan_changes_ahead_and_is_replayed(corpus: Corpus, tmp_path: Path) -> None:
    """From step 10 on, 8 rows instead of 3: no row is lost or repeated, and a reopened plan
    gives the same. Fails when a segment's cursor is taken at the wrong step.
    """
    path = tmp_path / "plan.jsonl"
    plan = DataPlan.open(path)
    batches = Batches(corpus, 16, 3, 0, plan)
    before = [batches.rows(step).tolist() for step in range(1, 10)]
    plan.append(from_step=10, batch_rows=8, after_step=4)
    taken = [batches.rows(step).tolist() for step in range(1, 20)]
    assert taken[:9] == before and {len(rows) for rows in taken[9:]} == {8}
    assert (plan.rows(9), plan.rows(10), plan.rows(11)) == ((24, 27), (27, 35), (35, 43))
    flat = [row for rows in taken for row in rows]
    epoch = flat[: batches.rows_per_epoch]
    assert len(set(epoch)) == len(epoch) > 60
    again = Batches(corpus, 16, 8, 0, DataPlan.open(path))
    assert [again.rows(step).tolist() for step in range(1, 20)] == taken
    for step, made in ((10, 4), (12, 12), (5, 2)):
        with pytest.raises(DataError, match="does not lie ahead"):
            plan.append(from_step=step, batch_rows=8, after_step=made)


def test_plan_of_another_run_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    """Resuming with another batch size, context or seed: what differs, and the way out."""
    path = tmp_path / "plan.jsonl"
    Batches(corpus, 16, 3, 0, DataPlan.open(path))
    for context, batch_rows, seed, message in (
        (16, 4, 0, "batch_rows was 3 and is now 4"),
        (32, 3, 0, "context was 16 and is now 32"),
        (16, 3, 9, "seed was 0 and is now 9"),
    ):
        with pytest.raises(DataError) as fault:
            Batches(corpus, context, batch_rows, seed, DataPlan.open(path))
        assert message in str(fault.value)
        assert "begin a new run in another folder" in str(fault.value)


def test_torn_and_damaged_plans(corpus: Corpus, tmp_path: Path) -> None:
    """A kill anywhere in the writing leaves a plan that opens, or one never begun; a damaged
    middle or a later format is refused. Fails when a torn line is parsed, or kept.
    """
    path = tmp_path / "plan.jsonl"
    expected = Batches(corpus, 16, 3, 0, DataPlan.open(path)).rows(5).tolist()
    DataPlan.open(path).append(from_step=40, batch_rows=5, after_step=0)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 3):
        path.write_bytes(whole[:cut])
        batches = Batches(corpus, 16, 3, 0, DataPlan.open(path))
        assert batches.rows(5).tolist() == expected
        assert path.read_bytes().endswith(b"\n")
        assert len(DataPlan.open(path).segments) == 1
    path.write_bytes(whole.replace(b"cursor", b"c\xffrsor"))
    with pytest.raises(DataError, match="damaged"):
        DataPlan.open(path)
    path.write_bytes(whole.replace(b'"format_version": 1', b'"format_version": 7'))
    with pytest.raises(DataError, match="format_version 7 is unknown"):
        DataPlan.open(path)


def test_train_smaller_than_a_row(corpus: Corpus) -> None:
    """No full row: how many tokens there are, and the ways out."""
    with pytest.raises(DataError) as fault:
        Batches(corpus, 10**6, 1, 0)
    assert "less than one row of 1000000 + 1" in str(fault.value)
    assert "lower model.context" in str(fault.value)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers())
def test_permutation_is_a_bijection(size: int, seed: int) -> None:
    """Every place goes to another row. Fails when a round's sum is not taken modulo its side."""
    key = permutation_key(seed)
    for high, low in ((2, 2), (size, 3), (5, size + 1)):  # the rounds alone, without walking
        cells = _rounds(np.arange(high * low, dtype=np.uint64), high, low, key)
        assert sorted(cells.tolist()) == list(range(high * low))
    assert sorted(permute(np.arange(size), size, key).tolist()) == list(range(size))


def test_permutation_of_huge_epochs() -> None:
    """10^12 rows: places are found without a table, apart and within bounds."""
    places = np.arange(10**11, 10**11 + 20_000)
    found = permute(places, 10**12, permutation_key("huge"))
    assert len(set(found.tolist())) == 20_000
    assert found.min() >= 0 and found.max() < 10**12
    assert abs(float(found.mean()) / 10**12 - 0.5) < 0.02


def test_permutation_is_fair() -> None:
    """All 24 orders of 4 rows over 4,800 keys: chi-square within 6 deviations of its mean.

    Fails with 2 rounds.
    """
    counts = Counter(
        tuple(permute(np.arange(4), 4, permutation_key(i)).tolist()) for i in range(4_800)
    )
    assert set(counts) == set(permutations(range(4)))
    statistic = sum((count - 200) ** 2 / 200 for count in counts.values())
    assert statistic < 23 + 6 * (2 * 23) ** 0.5


def test_permutation_leaves_no_neighbours() -> None:
    """Rows that stood side by side are spread: the share still adjacent is that of chance."""
    found = permute(np.arange(10_000), 10_000, permutation_key("spread"))
    assert (np.abs(np.diff(found)) == 1).sum() < 12


def test_a_batch_takes_a_millisecond(tmp_path: Path, write_corpus: Callable[..., Corpus]) -> None:
    """16 rows of 256 from a corpus of a thousand documents, in processor time; the limit leaves
    room for a busy machine. Fails when a batch walks tokens or documents in Python.
    """
    made = write_corpus(tmp_path / "c", {"train": [prose(i % 50, 150) for i in range(1000)]})
    batches = Batches(made, 256, 16, 0)
    began = time.process_time()
    for step in range(1, 201):
        batches.batch(step)
    assert (time.process_time() - began) / 200 < 0.003
