"""A corpus of examples and a context in, rows of whole examples out, with labels of their own.

    best_fit   row = example example … padding      no example is cut, none sees another
    padded     row = example padding                to the longest example of the batch

An example takes as many places as the longer of its tokens and its source, which begin at the same
place, so that target k reads source k. What is left is padding, one segment more.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wellfit.data.batches import Array, Batch, Source
from wellfit.data.corpus import Corpus
from wellfit.data.packing.best_fit import Packing, pack
from wellfit.errors import DataError
from wellfit.records import IGNORED

MULTIPLE = 8
"""Padded rows are a multiple of so many places wide."""


class ExampleRows:
    """The rows of a split of examples; what `Batches` and `evaluate` read in place of `Rows`."""

    separated = False
    of_examples = True
    whole = False

    def __init__(
        self, corpus: Corpus, split: str, context: int, packing: str, *, balanced: bool = False
    ) -> None:
        """A corpus of examples, one of its splits, tokens a row, and `best_fit` or `padded`.

        With `balanced` batches have weights: examples / (classes · examples of its class), a class
        being a domain, so that all classes weigh the same together, and an example 1 on average.
        Raises DataError for a missing split, or where an example is longer than a row.
        """
        self.context, self.packing = context, packing
        self.separator = corpus.separator
        self._tokens, self._labels = corpus.tokens(split), corpus.labels(split)
        table = corpus.documents(split)
        self._first, self._count = table.first_token, table.tokens
        self._source_first, self._source_count = table.source_first, table.source_tokens
        self._sources = None if table.source_first is None else corpus.sources(split)
        self._places = self._count
        if self._source_count is not None:
            self._places = np.maximum(self._count, self._source_count)
        if int(self._places.max()) > context:
            raise DataError(
                f"an example of {split} has {int(self._places.max())} tokens, and a row {context}",
                where=str(corpus.folder),
                way_out="Raise model.context, or leave data.examples.longest out and build again.",
            )
        packed = packing == "best_fit"
        made = pack(self._first, self._places, context) if packed else _alone(self._first)
        self._members = np.searchsorted(self._first, made.starts, side="right") - 1
        self._bounds = made.bounds
        self.full = len(made.bounds) - 1
        self._row_of = np.empty(len(table), np.int64)
        self._row_of[self._members] = np.repeat(np.arange(self.full), np.diff(made.bounds))

        self._weights = _balanced(table.domain) if balanced else None

    def __len__(self) -> int:
        return self.full

    def row(self, indices: Sequence[int] | Array) -> Batch:
        """Numbers of rows → those rows as one batch; the same as `plain`."""
        return self.plain(indices)

    def holding(self, documents: Array) -> Array:
        """Numbers of examples → the rows they stand in, in order."""
        return np.unique(self._row_of[documents])

    def plain(self, indices: Sequence[int] | Array) -> Batch:
        """Numbers of rows, any order, repeats allowed → those rows as one batch."""
        rows = [self._members[self._bounds[n] : self._bounds[n + 1]] for n in np.asarray(indices)]
        width = self.context
        if self.packing == "padded":
            most = max((int(self._places[one].sum()) for one in rows), default=1)
            width = min(self.context, -(-most // MULTIPLE) * MULTIPLE)
        target, source = _Side(len(rows), width, self), _Side(len(rows), width, self)
        labels = np.full((len(rows), width), IGNORED, np.int64)
        documents = np.full((len(rows), width), -1, np.int64)
        for row, members in enumerate(rows):
            place = 0
            for number, one in enumerate(members.tolist()):
                first, count = int(self._first[one]), int(self._count[one])
                here = slice(place, place + count)
                target.put(row, here, self._tokens[first : first + count], number)
                labels[row, here] = self._labels[first : first + count]
                documents[row, here] = one
                if self._sources is not None:
                    assert self._source_first is not None and self._source_count is not None
                    first, count = int(self._source_first[one]), int(self._source_count[one])
                    there = slice(place, place + count)
                    source.put(row, there, self._sources[first : first + count], number)
                place += int(self._places[one])
        read = None
        if self._sources is not None:
            read = Source(source.tokens, source.positions, source.segments)
        weights = None
        if self._weights is not None:
            weights = np.where(documents >= 0, self._weights[documents], np.float32(0))
        places = target.positions, target.segments
        return Batch(target.tokens, labels, *places, documents, read, weights)


class _Side:
    """Arrays [R, W] of padding, into which examples are put."""

    def __init__(self, rows: int, width: int, of: ExampleRows) -> None:
        self.tokens = np.full((rows, width), of.separator, np.int64)
        self._begins = np.zeros((rows, width), bool)
        self._begins[:, 0] = True
        self.segments = np.full((rows, width), of.context, np.int64)

    def put(self, row: int, here: slice, tokens: Array, number: int) -> None:
        self.tokens[row, here] = tokens
        self.segments[row, here] = number
        self._begins[row, here.start] = True
        self._begins[row, here.stop : here.stop + 1] = True  # padding, or the next one

    @property
    def positions(self) -> Array:
        """From 0 at each example, and at what is padding behind it."""
        columns = np.arange(self._begins.shape[1])
        begun: Array = np.maximum.accumulate(np.where(self._begins, columns, 0), axis=1)
        return columns - begun


def _balanced(domains: NDArray[np.str_]) -> NDArray[np.float32]:
    """The class of each example → its weight."""
    names, which, counts = np.unique(domains, return_inverse=True, return_counts=True)
    return (len(domains) / (len(names) * counts)).astype(np.float32)[which]


def _alone(first: Array) -> Packing:
    return Packing(first, np.arange(len(first) + 1))
