"""Examples stand whole in their rows, each once an epoch, with their own labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from example_files import TASKS, answers, corpus_of, labelled, recipe_of

from wellfit.data.batches import Batches, joined
from wellfit.data.corpus import Corpus
from wellfit.data.examples.rows import ExampleRows
from wellfit.data.locate import locate
from wellfit.errors import DataError
from wellfit.records import IGNORED
from wellfit.run.parts import training_batches


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("packing", ["best_fit", "padded"])
def test_every_example_stands_whole_and_once(tmp_path: Path, task: str, packing: str) -> None:
    """What the rows of an epoch hold, cut at their segments, are the examples of the split.
    Breaks when an example begins one place too late, and when sources do not begin with their
    targets."""
    corpus = corpus_of(recipe_of(tmp_path, task))
    rows = ExampleRows(corpus, "train", 64, packing)
    found: dict[int, tuple[list[int], ...]] = {}
    for number in range(rows.full):
        batch = rows.plain([number])
        for one in np.unique(batch.documents[batch.documents >= 0]).tolist():
            (places,) = np.nonzero(batch.documents[0] == one)
            assert np.array_equal(places, np.arange(places[0], places[-1] + 1))
            segment = batch.segments[0, places[0]]
            assert np.array_equal(batch.positions[0, places], np.arange(len(places)))
            assert set(batch.segments[0, places].tolist()) == {segment}
            source: list[int] = []
            if batch.source is not None:
                where = batch.source.segments[0] == segment
                source = batch.source.tokens[0, where].tolist()
                assert np.array_equal(batch.source.positions[0, where], np.arange(len(source)))
            assert one not in found
            found[one] = (
                batch.tokens[0, places].tolist(),
                batch.labels[0, places].tolist(),
                source,
            )
        assert (batch.labels[batch.documents < 0] == IGNORED).all()
        assert (batch.segments[batch.documents < 0] == 64).all()
    table = corpus.documents("train")
    stored = _stored(corpus)
    assert [found[one] for one in range(len(table))] == stored


def _stored(corpus: Corpus) -> list[tuple[list[int], ...]]:
    table = corpus.documents("train")
    tokens, labels = np.asarray(corpus.tokens("train")), np.asarray(corpus.labels("train"))
    result = []
    for one in range(len(table)):
        here = slice(table.first_token[one], table.first_token[one] + table.tokens[one])
        source: list[int] = []
        if table.source_first is not None and table.source_tokens is not None:
            first = table.source_first[one]
            source = np.asarray(corpus.sources("train"))[
                first : first + table.source_tokens[one]
            ].tolist()
        result.append((tokens[here].tolist(), labels[here].tolist(), source))
    return result


def test_a_padded_batch_is_as_wide_as_its_longest(tmp_path: Path) -> None:
    """Break: make it as wide as the context."""
    corpus = corpus_of(recipe_of(tmp_path, "answer"))
    rows = ExampleRows(corpus, "train", 64, "padded")
    lengths = corpus.documents("train").tokens
    assert rows.full == len(lengths)
    for numbers in ([3], [0, 5, 9], list(range(rows.full))):
        assert rows.plain(numbers).tokens.shape[1] == -(-int(lengths[numbers].max()) // 8) * 8


def test_rows_of_an_example_are_found(tmp_path: Path) -> None:
    """Break: give the rows before them."""
    corpus = corpus_of(recipe_of(tmp_path, "answer"))
    rows = ExampleRows(corpus, "train", 64, "best_fit")
    assert rows.full < len(corpus.documents("train")) / 2
    for wanted in ([0], [7, 2, 30], range(len(corpus.documents("train")))):
        held = rows.row(rows.holding(np.array(wanted))).documents
        assert set(wanted) <= set(held.ravel().tolist())
        assert all(set(row.tolist()) & set(wanted) for row in held)


def test_weights_make_classes_even(tmp_path: Path) -> None:
    """9 : 1 in the file; together both weigh the same, and an example 1 on average. They follow
    their rows into parts and joined batches. Breaks when a weight is examples / examples of its
    class, and when `part` leaves them whole."""
    rows = labelled(180, classes=["bad"]) + labelled(20, 1, classes=["good"])
    recipe = recipe_of(tmp_path, "classification", rows, train__class_weights="balanced")
    corpus = corpus_of(recipe)
    batches = training_batches(recipe, corpus)
    every = joined([ExampleRows(corpus, "train", 64, "best_fit", balanced=True).plain([n])
                    for n in range(batches.rows_per_epoch)])  # fmt: skip
    assert every.weights is not None
    asked = every.labels >= 0
    sums = [float(every.weights[every.labels == one].sum()) for one in (0, 2)]
    assert sums[0] == pytest.approx(sums[1]) and every.weights[asked].mean() == pytest.approx(1)
    part = batches.batch(1).part(slice(1, 3))
    assert part.weights is not None and part.weights.shape == part.labels.shape
    plain = recipe_of(tmp_path, "classification", rows)
    assert training_batches(plain, corpus).batch(1).weights is None


def test_a_step_is_a_pure_function(tmp_path: Path) -> None:
    """Break: draw the order anew for each `Batches`."""
    recipe = recipe_of(tmp_path, "apart")
    corpus = corpus_of(recipe)
    one, other = (training_batches(recipe, Corpus.open(corpus.folder)) for _ in range(2))
    assert isinstance(one, Batches)
    for step in (1, 2, 9):
        left, right = one.batch(step), other.batch(step)
        assert left.source is not None and right.source is not None
        assert np.array_equal(left.tokens, right.tokens)
        assert np.array_equal(left.source.tokens, right.source.tokens)


def test_an_example_longer_than_a_row_is_refused(tmp_path: Path) -> None:
    corpus = corpus_of(recipe_of(tmp_path, "answer", answers(30)))
    with pytest.raises(DataError) as caught:
        ExampleRows(corpus, "train", 16, "best_fit")
    assert "tokens, and a row 16" in str(caught.value) and "model.context" in str(caught.value)


def test_a_token_leads_back_to_its_line(tmp_path: Path) -> None:
    """Break: count the lines from 0."""
    recipe = recipe_of(tmp_path, "classification", data__examples__validation_share=0.0)
    corpus = corpus_of(recipe)
    lines = (tmp_path / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    (shard,) = corpus.shards()
    for number in (0, 7, 30):
        place = locate(
            corpus.folder, f"train-00000:{shard['documents']['first_token'][number] + 1}"
        )
        assert place.path == str(tmp_path / "examples.jsonl") and place.line is not None
        assert (place.clean_text + place.after)[:8] in lines[place.line - 1]
        assert place.start_byte is None and not place.exact
