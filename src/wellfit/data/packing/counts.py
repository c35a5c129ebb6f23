"""The documents of a split and a context in, what each packing makes of them out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wellfit.data.packing.best_fit import rows_needed


@dataclass(frozen=True, slots=True)
class Packed:
    """One pass over a split; tokens are those that are inputs with a label."""

    packing: str
    rows: int
    tokens: int
    padding: int
    """Places of these rows where no token stands: they cost a step as much as others."""
    left_out: int
    """Tokens that no row of an epoch holds: the rest of a stream that does not fill one."""
    documents: int
    cut: int
    """Documents that stand in several rows, in none of which they are whole."""

    @property
    def padding_share(self) -> float:
        """Padding / places; 0 where there are no rows."""
        return self.padding / max(1, self.padding + self.tokens)


def packed_examples(places: NDArray[np.int64], context: int) -> dict[str, Packed]:
    """The places that each example takes, and those of a row → counts by packing.

    A padded row is as wide as the longest example of its batch; counted is its own padding in a
    row of the whole context, the most that it can be.

    >>> each = packed_examples(np.array([3, 2, 1]), 4)
    >>> each["best_fit"].rows, each["best_fit"].padding, each["padded"].padding
    (2, 2, 6)
    """
    count, tokens = len(places), int(places.sum())
    rows = {"best_fit": rows_needed(places, context), "padded": count}
    return {
        name: Packed(name, made, tokens, made * context - tokens, 0, count, cut=0)
        for name, made in rows.items()
    }


def packed_by_each(
    first_token: NDArray[np.int64], tokens: NDArray[np.int64], context: int
) -> dict[str, Packed]:
    """Where documents begin, their tokens, and the places of a row → counts by packing.

    >>> each = packed_by_each(np.array([0, 5, 8]), np.array([5, 3, 1]), 4)
    >>> each["stream"].cut, each["stream"].rows, each["best_fit"].cut, each["best_fit"].padding
    (1, 2, 1, 3)
    """
    count, documents = int(tokens.sum()), len(tokens)
    full = max(0, count - 1) // context
    in_stream = first_token // context != (first_token + tokens - 1) // context
    rows = rows_needed(tokens, context)
    return {
        "stream": Packed(
            "stream",
            rows=full,
            tokens=full * context,
            padding=0,
            left_out=count - full * context,
            documents=documents,
            cut=int(in_stream.sum()),
        ),
        "best_fit": Packed(
            "best_fit",
            rows=rows,
            tokens=count,
            padding=rows * context - count,
            left_out=0,
            documents=documents,
            cut=int((tokens > context).sum()),
        ),
    }
