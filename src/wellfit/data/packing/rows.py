"""A corpus and a context in, rows of whole documents out: `Rows` for `data.packing: best_fit`.

    row = piece piece … padding        a piece: a document, or up to C tokens of a longer one

A piece of n tokens stands at n places, and each of them has a label: the next token of its
document, and at its end the separator, as in the rows of a stream. The last token of a piece that
was cut has the next token of its own document as its label, which stands as an input elsewhere. So
every token of every document is an input once, and a label once, and no label belongs to another
document; the last document of a split has an end too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wellfit.data.batches import Array, Batch
from wellfit.data.corpus import Corpus
from wellfit.data.packing.index import METHOD, opened
from wellfit.records import IGNORED


class PackedRows:
    """The rows of a split, packed by best fit; what `Batches` reads in place of `Rows`.

    `len(rows)` and `rows.full` count all of them: each is trained on, padded or not.
    """

    separated = True

    def __init__(self, corpus: Corpus, split: str, context: int) -> None:
        """A corpus, one of its splits, and tokens a row.

        Raises DataError for a missing split, or where the index cannot be written.
        """
        assert context > 0
        self.context = context
        self.separator = corpus.separator
        self.stream = corpus.tokens(split)
        index = opened(corpus, split, context)
        self.packing = f"{METHOD} {index.sha256[:12]}"
        self._starts, self._bounds = index.packing.starts, index.packing.bounds
        table = corpus.documents(split)
        self._first_token, self._ends = table.first_token, table.first_token + table.tokens
        self.full = len(self._bounds) - 1

    def __len__(self) -> int:
        return self.full

    def plain(self, indices: Sequence[int] | Array) -> Batch:
        """Numbers of rows, any order, repeats allowed → those rows as one batch."""
        C, numbers = self.context, np.asarray(indices, np.int64)
        shape = len(numbers), C
        tokens = np.full(shape, self.separator, np.int64)
        labels = np.full(shape, IGNORED, np.int64)
        documents = np.full(shape, -1, np.int64)
        begins = np.zeros(shape, bool)
        for row, number in enumerate(numbers.tolist()):
            starts = self._starts[self._bounds[number] : self._bounds[number + 1]]
            owners = np.searchsorted(self._first_token, starts, side="right") - 1
            lengths = np.minimum(C, self._ends[owners] - starts)
            at = np.concatenate(([0], np.cumsum(lengths)))
            places = zip(at[:-1].tolist(), starts.tolist(), lengths.tolist(), strict=True)
            for place, start, length in places:
                part = self.stream[start : start + length + 1]
                tokens[row, place : place + length] = part[:length]
                labels[row, place : place + len(part) - 1] = part[1:]
                if len(part) == length:  # the end of the split
                    labels[row, place + length - 1] = self.separator
            documents[row, : at[-1]] = np.repeat(owners, lengths)
            begins[row, at[at < C]] = True  # padding is one more segment
        segments = np.cumsum(begins, axis=1) - 1
        columns = np.arange(C)
        positions = columns - np.maximum.accumulate(np.where(begins, columns, 0), axis=1)
        return Batch(tokens, labels, positions, segments, documents)
