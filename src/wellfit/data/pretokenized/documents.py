"""Ids as they lie in files → documents: what stands between separators, or in a row of a table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wellfit.data.pretokenized.flat import Flat, open_bin, open_npy
from wellfit.data.pretokenized.inputs import Input
from wellfit.data.pretokenized.table import rows
from wellfit.errors import DataError
from wellfit.recipe.schema import Tokens

Ids = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class TokenText:
    """A document made of ids."""

    id: str
    """`FILE:PLACE` in a flat file, `FILE:ROW:PLACE` in a table: where its first id stands. FILE is
    the number of the file among all inputs."""
    ids: Ids
    """Without separators, at least one."""


@dataclass(slots=True)
class Seen:
    """What was met on the way."""

    separators: int = 0
    flat: int = 0
    """Flat files."""
    empty: int = 0
    """Stretches and rows without an id."""


@dataclass(slots=True)
class _Pending:
    """A document that is not at its end yet."""

    id: str = ""
    pieces: list[Ids] = field(default_factory=list)


def documents(
    inputs: Sequence[Input],
    first: int,
    section: Tokens,
    *,
    vocabulary_size: int,
    separator: int,
    seen: Seen,
    tell: Callable[[int], None],
) -> Iterator[TokenText]:
    """Files of a split, the number of its first one, and what is known of ids → its documents.

    Flat files are one stream, so a document may go on in the next file; a row of a table is a
    document, cut where a separator stands inside. `tell(n)` is called after the n-th file.
    Raises DataError for an id that the vocabulary does not have.
    """
    pending = _Pending()
    for number, one in enumerate(inputs, start=first):
        if one.kind in ("bin", "npy"):
            flat = open_flat(one, section, vocabulary_size)
            seen.flat += 1
            for place, ids in flat.blocks():
                _refuse_ids(one, ids, vocabulary_size, place, flat)
                name = f"{number}:"
                yield from _cut(pending, ids, separator, name, place, seen)
        else:
            yield from _end(pending)
            for row, ids in rows(one.path, one.kind, section.column):
                _refuse_ids(one, ids, vocabulary_size, row, None)
                before, empty = seen.separators, seen.empty
                found = list(_cut(pending, ids, separator, f"{number}:{row}:", 0, seen))
                found += _end(pending)
                # A table needs no separators, and a row counts once.
                seen.separators, seen.empty = before, empty + (not found)
                yield from found
        tell(number - first + 1)
    yield from _end(pending)


def open_flat(one: Input, section: Tokens, vocabulary_size: int) -> Flat:
    """A flat file → where its ids lie; raises DataError as `open_bin` and `open_npy`."""
    if one.kind == "npy":
        return open_npy(one.path)
    return open_bin(one.path, section.dtype, vocabulary_size)


def share_of(ids: Ids) -> float:
    """The ids of a document → a number from 0 to 1 that they alone decide.

    >>> share_of(np.array([1, 2], np.uint16)) == share_of(np.array([1, 2], np.int64))
    True
    """
    digest = hashlib.blake2b(ids.astype("<u4").tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def _cut(
    pending: _Pending, ids: Ids, separator: int, name: str, place: int, seen: Seen
) -> Iterator[TokenText]:
    """The next ids of a stream → the documents that end within them."""
    start = 0
    for at in np.flatnonzero(ids == separator).tolist():
        _add(pending, ids[start:at], f"{name}{place + start}")
        if not pending.pieces and (at or place):
            seen.empty += 1
        seen.separators += 1
        yield from _end(pending)
        start = at + 1
    _add(pending, ids[start:], f"{name}{place + start}")


def _add(pending: _Pending, ids: Ids, name: str) -> None:
    if len(ids):
        pending.id = pending.id or name
        pending.pieces.append(ids)


def _end(pending: _Pending) -> Iterator[TokenText]:
    if pending.pieces:
        pieces, name = pending.pieces, pending.id
        pending.pieces, pending.id = [], ""
        yield TokenText(name, pieces[0] if len(pieces) == 1 else np.concatenate(pieces))


def _refuse_ids(one: Input, ids: Ids, vocabulary_size: int, place: int, flat: Flat | None) -> None:
    if not len(ids) or (int(ids.max()) < vocabulary_size and int(ids.min()) >= 0):
        return
    at = int(np.flatnonzero((ids >= vocabulary_size) | (ids < 0))[0])
    where = f"row {place}, place {at}"
    if flat is not None:
        where = f"token {place + at} (byte {flat.byte(place + at)})"
    raise DataError(
        f"{where} is the id {int(ids[at])}, and the vocabulary has {vocabulary_size} entries, from "
        "0 on",
        where=str(one.path),
        way_out="Give the vocabulary_size or the tokenizer that the tokens were made with"
        + (", or their data.tokens.dtype." if flat is not None else "."),
    )
