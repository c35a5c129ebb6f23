"""Corpora of made-up ids, and packings made the slow way, piece by piece."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wellfit.data.corpus import Corpus
from wellfit.data.tokens import shards

SEPARATOR = 0


def ids_corpus(
    folder: Path, lengths: Sequence[int], *, seed: int = 0, shard_bytes: int = 1 << 20
) -> Corpus:
    """Folder and tokens of each train document, separator included → a corpus of ids 1 … 999."""
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    shards.write(
        folder,
        (
            shards.TokenDocument(
                f"d{n}", "train", "ids", -1, draw.integers(1, 1000, length - 1).tolist()
            )
            for n, length in enumerate(lengths)
        ),
        vocabulary_size=1000,
        separator=SEPARATOR,
        tokenizer_sha256="",
        shard_bytes=shard_bytes,
    )
    return Corpus.open(folder)


def drawn(seed: int, count: int, context: int) -> list[int]:
    """Lengths of documents: empty, short, exactly a row, a little and much longer than one."""
    draw = np.random.default_rng(seed)
    special = [1, context, context + 1, 2 * context, 3 * context - 1]
    free = np.maximum(1, draw.lognormal(np.log(context) - 1, 1, count)).astype(int).tolist()
    return [int(n) for n in draw.permutation([*special, *free])]


def best_fit_by_hand(lengths: Sequence[int], context: int) -> list[int]:
    """Lengths up to C, in order → the room left in each row, by looking at every row."""
    rooms: list[int] = []
    for length in lengths:
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms[rooms.index(min(fitting))] -= length
        else:
            rooms.append(context - length)
    return rooms


def first_fit(lengths: Sequence[int], context: int) -> int:
    """Lengths up to C, in order → rows, each piece being put into the first row with room."""
    rooms: list[int] = []
    for length in lengths:
        place = next((n for n, room in enumerate(rooms) if room >= length), None)
        if place is None:
            rooms.append(context - length)
        else:
            rooms[place] -= length
    return len(rooms)


def fewest_rows(lengths: Sequence[int], context: int) -> int:
    """Lengths up to C → the fewest rows that hold them, by trying all ways."""
    ordered = sorted(lengths, reverse=True)
    best = len(ordered)

    def place(at: int, rooms: list[int]) -> None:
        nonlocal best
        if len(rooms) >= best and at < len(ordered):
            return
        if at == len(ordered):
            best = min(best, len(rooms))
            return
        for n in range(len(rooms)):
            if rooms[n] >= ordered[at] and rooms[n] not in rooms[:n]:
                rooms[n] -= ordered[at]
                place(at + 1, rooms)
                rooms[n] += ordered[at]
        place(at + 1, [*rooms, context - ordered[at]])

    place(0, [])
    return best
