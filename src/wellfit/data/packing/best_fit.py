"""Documents of known lengths in, what stands in which row out: best-fit decreasing.

Documents longer than a row are cut into rows and a rest. Pieces are taken from the longest to the
shortest; each goes into the row that it leaves the least room in, or into a new one where none has
room ("Fewer truncations improve language modeling", arXiv 2404.10830, section 3). Lengths are whole
numbers up to the context C, so rows are kept by their remaining room: all pieces of one length move
together, and what one move leaves of a row's room is less than half of it. Hence O(C · log C) moves
and O(pieces + rows · log C) numbers copied.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.int64]


class Move(NamedTuple):
    """`rows` rows with `room` free places take `each` pieces of `length` places apiece."""

    length: int
    room: int
    """That of a whole row: they are new rows."""
    rows: int
    each: int


@dataclass(frozen=True, slots=True)
class Packing:
    """What stands in each row, left to right."""

    starts: Array
    """Where each piece begins in the tokens of the split [pieces], row by row."""
    bounds: Array
    """Row r holds the pieces bounds[r] … bounds[r + 1] − 1 [rows + 1]."""


def pack(first_token: Array, tokens: Array, context: int) -> Packing:
    """Where documents begin, their tokens, and the places of a row → rows; the same every time.

    >>> packed = pack(np.array([0, 5, 8]), np.array([5, 3, 1]), 4)
    >>> packed.starts.tolist(), packed.bounds.tolist()
    ([0, 5, 4, 8], [0, 1, 3, 4])
    """
    starts, lengths = pieces(first_token, tokens, context)
    order = np.argsort(-lengths, kind="stable")
    groups: dict[int, list[Array]] = {}
    row_of = np.empty(len(lengths), np.int64)
    taken = count = 0
    for move in moves(np.bincount(lengths, minlength=context + 1), context):
        if move.room == context:
            rows = np.arange(count, count + move.rows)
            count += move.rows
        else:
            there = np.concatenate(groups.pop(move.room))
            rows = there[: move.rows]
            if len(there) > move.rows:
                groups[move.room] = [there[move.rows :]]
        if left := move.room - move.each * move.length:
            groups.setdefault(left, []).append(rows)
        row_of[taken : taken + move.rows * move.each] = np.repeat(rows, move.each)
        taken += move.rows * move.each
    by_row = np.argsort(row_of, kind="stable")
    bounds = np.concatenate(([0], np.cumsum(np.bincount(row_of, minlength=count))))
    return Packing(starts[order[by_row]], bounds)


def pieces(first_token: Array, tokens: Array, context: int) -> tuple[Array, Array]:
    """Documents → where their pieces begin and how long they are, in the order of the split.

    >>> pieces(np.array([0, 9]), np.array([9, 2]), 4)
    (array([0, 4, 8, 9]), array([4, 4, 1, 2]))
    """
    each = -(-tokens // context)
    ends = np.repeat(first_token + tokens, each)
    number = np.arange(len(ends)) - np.repeat(np.cumsum(each) - each, each)
    starts = np.repeat(first_token, each) + number * context
    return starts, np.minimum(context, ends - starts)


def moves(counts: Array, context: int) -> Iterator[Move]:
    """How many pieces there are of each length 0 … C, and C → the moves that pack them.

    A piece in the fullest row that has room for it leaves that row the fullest one, so a row takes
    as many pieces of a length as go into it before the next row gets any.

    >>> list(moves(np.array([0, 1, 0, 2, 0]), 4))
    [Move(length=3, room=4, rows=2, each=1), Move(length=1, room=1, rows=1, each=1)]
    """
    rows_with: dict[int, int] = {}
    rooms: list[int] = []
    for length in range(context, 0, -1):
        left = int(counts[length])
        while left:
            at = bisect_left(rooms, length)
            room = rooms[at] if at < len(rooms) else context
            each = room // length
            rows = min(rows_with.get(room, left), left // each)
            if not rows:  # what is left does not fill one
                rows, each = 1, left
            yield Move(length, room, rows, each)
            left -= rows * each
            if room < context:
                rows_with[room] -= rows
                if not rows_with[room]:
                    del rows_with[room], rooms[at]
            if rest := room - each * length:
                if rest not in rows_with:
                    rows_with[rest] = 0
                    insort(rooms, rest)
                rows_with[rest] += rows


def rows_needed(tokens: Array, context: int) -> int:
    """Tokens of documents and the places of a row → how many rows `pack` makes of them.

    >>> rows_needed(np.array([5, 3, 1]), 4)
    3
    """
    counts = np.bincount(tokens % context, minlength=context + 1)
    counts[0] = 0
    counts[context] = int((tokens // context).sum())
    return sum(move.rows for move in moves(counts, context) if move.room == context)
