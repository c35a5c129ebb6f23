"""A corpus in, rows and batches out: a pure function of (corpus digest, data plan, step).

    split  = one stream of tokens: ␞ document ␞ document ␞ …            (␞ the separator)
    row r  = tokens [r·C : r·C + C + 1]: C inputs, and the C next tokens as labels
    epoch  = a keyed permutation of the full rows; step = the next rows of it

Axes: R rows of a batch, C context. All arrays are NumPy int64 [R, C]; nothing here knows torch,
workers, devices or micro-batches. Rows that cut fewer documents are in `packing/rows.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wellfit.data.corpus import Corpus
from wellfit.data.permutation import permutation_key, permute
from wellfit.data.plan import DataPlan
from wellfit.errors import DataError
from wellfit.records import IGNORED

Array = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Source:
    """What an encoder-decoder reads beside its targets: int64 arrays [R, S]."""

    tokens: Array
    positions: Array
    segments: Array
    """A target reads the segment of its own number."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows ready for a model: int64 arrays [R, C]; of targets, as many columns as these have."""

    tokens: Array
    labels: Array
    """The next token, be it the separator that ends the document; IGNORED in padding."""
    positions: Array
    """From 0 at each separator, and at the beginning of the row."""
    segments: Array
    """Number of the document within the row, from 0; tokens attend within their segment."""
    documents: Array
    """Row in the split's DocumentTable of the *input* token; −1 in padding.

    A label is scored for the document that predicts it: the separator belongs, as a label, to
    the document it ends. So every document owns one label a token of its text and one for its
    end (the very last document of a split has no end)."""
    source: Source | None = None
    """Where the rows are targets: what they are made from."""
    weights: NDArray[np.float32] | None = None
    """What each label's loss counts for in what is minimised; None: all the same."""

    def part(self, rows: slice) -> Batch:
        """Some of the rows, with all that belongs to them."""
        read = None
        if self.source is not None:
            read = Source(*(getattr(self.source, name)[rows] for name in SOURCE_ARRAYS))
        weights = None if self.weights is None else self.weights[rows]
        tokens, labels, positions, segments, documents = (
            getattr(self, name)[rows] for name in ARRAYS
        )
        return Batch(tokens, labels, positions, segments, documents, read, weights)


ARRAYS = ("tokens", "labels", "positions", "segments", "documents")
SOURCE_ARRAYS = ("tokens", "positions", "segments")


def joined(batches: Sequence[Batch]) -> Batch:
    """Several batches of one width → one with all their rows."""

    def together(parts: Sequence[object], name: str) -> Array:
        return np.concatenate([getattr(part, name) for part in parts])

    tokens, labels, positions, segments, documents = (together(batches, name) for name in ARRAYS)
    sources = [batch.source for batch in batches if batch.source is not None]
    read = Source(*(together(sources, name) for name in SOURCE_ARRAYS)) if sources else None
    weights = [batch.weights for batch in batches if batch.weights is not None]
    weighed = np.concatenate(weights) if weights else None
    return Batch(tokens, labels, positions, segments, documents, read, weighed)


Corrupt = Callable[[Batch, Array], Batch]
"""Rows, and the number of the visit of each, → rows in which something is hidden."""


class TrainingRows(Protocol):
    """Rows that a training reads: those of a stream (`Rows`), or `packing.rows.PackedRows`."""

    packing: str
    """What decides which tokens stand in which row, beside corpus and context."""
    full: int
    """Rows of an epoch: numbers 0 … full − 1."""
    separated: bool
    """Whether the separator stands only where a document begins."""

    def plain(self, indices: Sequence[int] | Array) -> Batch:
        """Numbers of rows → those rows as they stand in the corpus, nothing hidden."""


class ScoredRows(Protocol):
    """Rows that are scored: those of a stream (`Rows`), or `examples.rows.ExampleRows`."""

    of_examples: bool
    """Whether a document is an example, which as a whole is answered rightly or not."""

    @property
    def whole(self) -> bool:
        """Whether every token of a text is predicted, so that its bits can be counted."""

    def row(self, indices: Sequence[int] | Array) -> Batch:
        """Numbers of rows, any order, repeats allowed → those rows as one batch."""

    def holding(self, documents: Array) -> Array:
        """Numbers of documents → the rows that they stand in, in order."""


class Rows:
    """The packed rows of a split: every token but the first is a label exactly once.

    `len(rows)` counts all of them, `rows.full` the ones without padding (all but perhaps the last).
    """

    packing = "stream"
    separated = True
    of_examples = False

    def __init__(
        self, corpus: Corpus, split: str, context: int, corrupt: Corrupt | None = None
    ) -> None:
        """A corpus, one of its splits, and tokens a row. Raises DataError for a missing split.

        With `corrupt` the rows are those it makes, the number of a row being that of its visit.
        """
        assert context > 0
        self.context = context
        self.corrupt = corrupt
        self.separator = corpus.separator
        self.stream = corpus.tokens(split)
        table = corpus.documents(split)
        self._first_token, self._tokens = table.first_token, table.tokens
        labels = max(0, len(self.stream) - 1)
        self.full = labels // context
        self._count = -(-labels // context)

    def __len__(self) -> int:
        return self._count

    @property
    def whole(self) -> bool:
        """Whether every token of a text is predicted, so that its bits can be counted."""
        return self.corrupt is None

    def holding(self, documents: Array) -> Array:
        """Numbers of documents → the rows that hold their tokens: token t is in row t // C."""
        first = self._first_token[documents]
        last = first + self._tokens[documents] - 1
        low, high = first // self.context, np.minimum(last // self.context, len(self) - 1)
        edges = np.zeros(len(self) + 1, np.int64)
        inside = low <= high
        np.add.at(edges, low[inside], 1)
        np.add.at(edges, high[inside] + 1, -1)
        return np.flatnonzero(np.cumsum(edges)[: len(self)] > 0)

    def row(self, indices: Sequence[int] | Array) -> Batch:
        """Numbers of rows, any order, repeats allowed → those rows as one batch."""
        plain = self.plain(indices)
        return self.corrupt(plain, np.asarray(indices, np.int64)) if self.corrupt else plain

    def plain(self, indices: Sequence[int] | Array) -> Batch:
        """Numbers of rows → those rows as they stand in the corpus, nothing hidden."""
        C = self.context
        starts = np.asarray(indices, np.int64) * C
        window = np.full((len(starts), C + 1), self.separator, np.int64)
        ends = np.minimum(starts + C + 1, len(self.stream))
        for place, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
            window[place, : end - start] = self.stream[start:end]
        inputs = ends - starts - 1  # places with a label, C but in the last row

        columns = np.arange(C)
        padding = columns >= inputs[:, None]
        tokens, labels = window[:, :C], np.where(padding, IGNORED, window[:, 1:])
        # Padding is one more segment, so that no real token shares attention with it.
        begins = (tokens == self.separator) & ~padding
        begins |= columns == inputs[:, None]
        begins[:, 0] = True
        segments = np.cumsum(begins, axis=1) - 1
        positions = columns - np.maximum.accumulate(np.where(begins, columns, 0), axis=1)
        first = np.searchsorted(self._first_token, starts, side="right") - 1
        documents = np.where(padding, -1, first[:, None] + segments)
        return Batch(np.ascontiguousarray(tokens), labels, positions, segments, documents)


class Batches:
    """The training batches of a run: `batch(step)` gives the whole global batch of a step."""

    def __init__(
        self,
        corpus: Corpus,
        context: int,
        batch_rows: int,
        seed: int,
        plan: DataPlan | None = None,
        corrupt: Corrupt | None = None,
        rows: TrainingRows | None = None,
    ) -> None:
        """A corpus, tokens a row, rows a step, the run's seed and its data plan.

        A plan not yet begun is begun here; one that exists must fit, and is replayed. With
        `corrupt` the rows are those it makes, visits being counted over all epochs. `rows` are
        those of train as another packing makes them; by default it is one stream. Raises
        DataError where train has less than one full row, or the plan belongs to another run.
        """
        self.corrupt = corrupt
        self._rows: TrainingRows = Rows(corpus, "train", context) if rows is None else rows
        self.rows_per_epoch = self._rows.full
        self.separator = corpus.separator
        self.separated = self._rows.separated
        if not self.rows_per_epoch:
            count = len(corpus.tokens("train"))
            raise DataError(
                f"train has {count} tokens, less than one row of {context} + 1",
                where=str(corpus.folder),
                way_out="Add documents, or lower model.context.",
            )
        self._identity = (seed, corpus.digest)
        self.plan = plan if plan is not None else DataPlan()
        identity: dict[str, object] = {
            "corpus": corpus.digest,
            "context": context,
            "seed": seed,
            "packing": self._rows.packing,
        }
        self.plan.begin(identity, batch_rows=batch_rows)

    def batch(self, step: int) -> Batch:
        """A step (from 1) → its batch [rows, context], always the same one."""
        plain = self._rows.plain(self.rows(step))
        if self.corrupt is None:
            return plain
        return self.corrupt(plain, np.arange(*self.plan.rows(step), dtype=np.int64))

    def skip(self, *, after_step: int, through_step: int) -> int:
        """Steps after `after_step` will be made again, with the rows that follow `through_step`.

        Gives how many rows are passed over; raises DataError where the plan cannot be written.
        """
        return self.plan.skip(after_step=after_step, through_step=through_step)

    def restore(self, *, after_step: int) -> None:
        """Steps after `after_step` will be made again, with the rows first planned for them."""
        self.plan.restore(after_step=after_step)

    @property
    def skips(self) -> int:
        """How often rows were passed over so far."""
        return self.plan.skips

    def rows(self, step: int) -> Array:
        """A step (from 1) → the numbers of its rows among those of train."""
        places = np.arange(*self.plan.rows(step), dtype=np.int64)
        epochs, within = np.divmod(places, self.rows_per_epoch)
        result = np.empty_like(within)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            here = epochs == epoch
            key = permutation_key(*self._identity, epoch)
            result[here] = permute(within[here], self.rows_per_epoch, key)
        return result

    def epoch(self, step: int) -> float:
        """A step (from 0) → passes over the training rows finished after it.

        At 0, before the first step, none is.
        """
        return self.plan.rows(step)[1] / self.rows_per_epoch if step else 0.0
