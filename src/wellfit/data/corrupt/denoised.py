"""Denoising: spans leave a text, and the model writes them down (arXiv 1910.10683, section 3.1.4).

    text    ␞ Thank you for inviting me to your party last week .
    source  ␞ Thank you <0> me to your party <1> week .
    target  <0> for inviting <1> last ␞         (read behind a ␞, one token earlier)

Each document of a row is a text of its own: spans stay within it, its sentinels begin anew, and
its target is a segment of the same number. Axes: R rows, C context, T places of targets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wellfit.data.batches import Array, Batch, Corrupt, Source
from wellfit.data.corrupt.draws import draws
from wellfit.data.corrupt.marks import Marks
from wellfit.recipe.objective_section import Objective, target_places
from wellfit.records import IGNORED


def denoising(objective: Objective, marks: Marks, key: tuple[object, ...]) -> Corrupt:
    """An objective, the ids of marks and a key → the function that makes sources and targets.

    Of a row's N tokens (separators left out) ⌊share·N + u⌋ leave, u even in [0, 1), and each
    document loses its share; spans of `span_length` on the average, all cuts equally likely. A
    document whose spans are more than the sentinels gets longer ones instead. Targets have
    `target_places` places; where many small documents would need more, fewer tokens leave.
    """
    assert marks.sentinels

    def denoised(batch: Batch, visits: Array) -> Batch:
        context = batch.tokens.shape[1]
        places = target_places(context, objective)
        sources, targets = [], []
        for row, visit in enumerate(visits.tolist()):
            numbers = draws("denoised", *key, visit, count=3 + 2 * context)
            source, target = _Side(context), _Side(places)
            texts = _texts(batch, row, marks.separator)
            counts = _shares_out(
                np.array([text.length for text in texts]), objective, numbers[:3], marks, places
            )
            for text, (tokens, spans) in zip(texts, counts, strict=True):
                drawn = numbers[3 + 2 * text.begin :]
                _cut(batch, row, text, tokens, spans, drawn, marks, source, target)
            sources.append(source)
            targets.append(target)
        return Batch(
            tokens=_column(targets, "tokens", marks.separator),
            labels=_column(targets, "labels", IGNORED),
            positions=_column(targets, "positions", None),
            segments=_column(targets, "segments", context),
            documents=_column(targets, "documents", -1),
            source=Source(
                tokens=_column(sources, "tokens", marks.separator),
                positions=_column(sources, "positions", None),
                segments=_column(sources, "segments", context),
            ),
        )

    return denoised


@dataclass(frozen=True, slots=True)
class _Text:
    """The part of a document that stands in a row: places begin … end, a separator included."""

    begin: int
    end: int
    head: int
    """1 where it begins with a separator, which stays."""
    number: int
    """Of its segment."""

    @property
    def length(self) -> int:
        return self.end - self.begin - self.head


@dataclass(slots=True)
class _Side:
    """A row of sources or targets as it grows; `places` long once padded."""

    places: int
    tokens: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    documents: list[int] = field(default_factory=list)

    def add(self, tokens: list[int], labels: list[int], number: int, document: int) -> None:
        count = len(tokens)
        self.tokens += tokens
        self.labels += labels
        self.positions += range(count)
        self.segments += [number] * count
        self.documents += [document] * count


def _texts(batch: Batch, row: int, separator: int) -> list[_Text]:
    segments, real = batch.segments[row], batch.documents[row] >= 0
    borders = [0, *(np.flatnonzero(np.diff(segments)) + 1).tolist(), len(segments)]
    return [
        _Text(begin, end, int(batch.tokens[row, begin] == separator), int(segments[begin]))
        for begin, end in pairwise(borders)
        if real[begin]
    ]


def _shares_out(
    lengths: Array, objective: Objective, u: NDArray[np.float64], marks: Marks, places: int
) -> list[tuple[int, int]]:
    """Tokens of each text of a row → how many of them leave, and in how many spans.

    Counts are differences of one rounded running sum, so that the whole is off by less than 1 and
    a document loses its share on the average, however short it is.
    """
    share = objective.share
    while True:
        leave = _steps(lengths * share, u[0])
        if lengths.sum() and not leave.any():  # a row without labels would teach nothing
            leave[np.searchsorted(lengths.cumsum(), u[2] * lengths.sum(), side="right")] = 1
        spans = _steps(leave / objective.span_length, u[1])
        most = np.minimum(np.minimum(leave, lengths - leave + 1), len(marks.sentinels))
        spans = np.where(leave > 0, np.clip(spans, 1, np.maximum(most, 1)), 0)
        needed = int((leave + spans + (leave > 0)).sum())
        if needed <= places or leave.sum() <= 1:
            return list(zip(leave.tolist(), spans.tolist(), strict=True))
        share *= 0.95


def _steps(amounts: NDArray[np.floating[Any]], u: float) -> Array:
    """Amounts that are no whole numbers → whole ones, by one running sum begun at u."""
    ends = np.floor(np.concatenate(([0.0], amounts.cumsum())) + u)
    return np.diff(ends).astype(np.int64)


def _cut(
    batch: Batch,
    row: int,
    text: _Text,
    leave: int,
    spans: int,
    drawn: NDArray[np.float64],
    marks: Marks,
    source: _Side,
    target: _Side,
) -> None:
    """One text and what shall leave it → its source and its target, added to both sides."""
    tokens = batch.tokens[row, text.begin : text.end].tolist()
    document = int(batch.documents[row, text.begin])
    kept, said = tokens[: text.head], []
    words, stay = tokens[text.head :], text.length - leave
    # The gaps between words that stay: a span fills one, so that no two touch.
    gaps = np.sort(np.argsort(drawn[: stay + 1], kind="stable")[:spans])
    cuts = np.sort(np.argsort(drawn[stay + 1 : stay + leave], kind="stable")[: max(0, spans - 1)])
    borders = [0, *(cuts + 1).tolist(), leave]
    at = before = 0
    for number, (gap, size) in enumerate(zip(gaps.tolist(), np.diff(borders), strict=False)):
        kept += [*words[at : at + gap - before], marks.sentinels[number]]
        at += gap - before
        said += [marks.sentinels[number], *words[at : at + size]]
        at, before = at + int(size), gap
    kept += words[at:]
    source.add(kept, [], text.number, document)
    if spans:
        target.add([marks.separator, *said], [*said, marks.separator], text.number, document)


def _column(sides: list[_Side], name: str, padding: int | None) -> Array:
    """Sides of one length → one of their columns [R, places]; None pads with 0, 1, 2 …"""
    result = np.empty((len(sides), sides[0].places if sides else 0), np.int64)
    for row, side in enumerate(sides):
        values = getattr(side, name)
        rest = side.places - len(values)
        result[row, : len(values)] = values
        result[row, len(values) :] = np.arange(rest) if padding is None else padding
    return result
