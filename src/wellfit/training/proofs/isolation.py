"""Who may see whom? Not later tokens, not other rows, not other documents of the row.

Axes: R rows, T tokens of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from wellfit.training.proofs.ground import (
    Answer,
    Ground,
    Reading,
    compared,
    failed,
    gap,
    in_float32,
    looks_ahead,
    mixes,
    not_assessed,
    other_shape,
    passed,
)

if TYPE_CHECKING:
    from torch import Tensor

    from wellfit.data.batches import Batch
    from wellfit.model.protocol import Source


@dataclass(frozen=True, slots=True)
class _Cut:
    """For each row the place after which tokens are changed."""

    last: Tensor
    """[R]"""
    before: Tensor
    """[R, T], true up to and with that place."""


def causality(ground: Ground) -> Answer:
    """No token changes features or logits of an earlier place (A08).

    Every token after place t is changed, for several t, in training mode with the same dropout,
    with the documents of the batch and as one document. The allowed difference is that of plain
    repetitions. That the change is seen at all is tested too: what is blind proves nothing.
    """
    if reason := mixes(ground.model):
        return not_assessed(f"The model says that its tokens may see later ones: {reason}.")
    if reason := looks_ahead(ground.model):
        return not_assessed(
            f"Not asked: {reason}. That labels do not stand open in the input is part of "
            "`label_offset`."
        )
    if ground.length < 2:
        return not_assessed("Rows of one token have no later one.")
    largest, allowed, moved, cuts = 0.0, 0.0, 0.0, 0
    for packed in _views(ground):
        for number in range(2):
            cut = _cut(ground, ground.segments if packed else None, number)
            if cut is None:
                continue
            other = ground.other_tokens(ground.tokens, salt=31 + number)
            read = _reader(ground, ground.tokens.where(cut.before, other), packed=packed)
            base = _base(ground, packed=packed)
            found, limit = compared(ground, base, read, cut.before)
            if found > limit:
                if not _leaks_alone(ground, cut, other, packed=packed):
                    return not_assessed(
                        "Rows see each other, so that a later token of one reaches another; a row "
                        "alone does not see its own.",
                        gap=found,
                        allowed=limit,
                    )
                return failed(
                    "causal_leak",
                    f"{_first_seen(base(False), read(), cut, limit)} changed when only tokens "
                    f"after it were changed (by {found:.2g} of the largest value; {limit:.1g} is "
                    "allowed): the model sees what it must predict.",
                    gap=found,
                    allowed=limit,
                )
            moved = moved or gap(base(False), read(), ~cut.before)
            largest, allowed = max(largest, found), max(allowed, limit)
            cuts += ground.rows
    if not moved:
        return not_assessed("Other tokens change nothing at all: the model does not read them.")
    return passed(
        f"Changing all later tokens at {cuts} places left everything before them "
        f"{_as_it_was(largest)}.",
        gap=largest,
        allowed=allowed,
        moved=moved,
    )


def _views(ground: Ground) -> tuple[bool, ...]:
    """Whether to read with the documents of the batch, and as one each: kernels differ."""
    several = bool((ground.segments != ground.segments[:, :1]).any())
    return (True, False) if ground.document_mask and several else (False,)


def _base(ground: Ground, *, packed: bool) -> Callable[[bool], Reading]:
    return lambda again: ground.trained(packed=packed, again=again)


def _reader(ground: Ground, tokens: Tensor, *, packed: bool) -> Callable[[], Reading]:
    places = (ground.positions, ground.segments) if packed else (None, None)
    return lambda: ground.read(tokens, *places, training=True)


def _cut(ground: Ground, segments: Tensor | None, number: int) -> _Cut | None:
    """A place a row, the next one of which is in the same document; None where there is none."""
    import torch

    length = ground.length
    candidates = (0, length // 2, length - 2, length // 4)
    last = []
    for row in range(ground.rows):
        wanted = candidates[(number * ground.rows + row) % len(candidates)]
        wanted = max(0, min(wanted, length - 2))
        places = list(range(length - 1))
        if segments is not None:
            same = (segments[row, 1:] == segments[row, :-1]).tolist()
            places = [place for place in places if same[place]]
        if not places:
            return None
        last.append(min(places, key=lambda place: abs(place - wanted)))
    chosen = torch.tensor(last, device=ground.tokens.device)
    columns = torch.arange(length, device=chosen.device)
    return _Cut(chosen, columns[None] <= chosen[:, None])


def _leaks_alone(ground: Ground, cut: _Cut, other: Tensor, *, packed: bool) -> bool:
    """Whether some row, alone in its pass, sees past its cut: rows may also see each other."""
    for row in range(ground.rows):
        one = slice(row, row + 1)
        alone = replace(
            ground,
            tokens=ground.tokens[one],
            positions=ground.positions[one],
            segments=ground.segments[one],
            source=_source_of(ground, one),
            known={},
        )
        before = cut.before[one]
        read = _reader(alone, alone.tokens.where(before, other[one]), packed=packed)
        found, limit = compared(alone, _base(alone, packed=packed), read, before)
        if found > limit:
            return True
    return False


def _first_seen(base: Reading, changed: Reading, cut: _Cut, allowed: float) -> str:
    """Two readings that differ before the cut in; the farthest place that saw past it, in words."""
    scale = float(base.hidden.abs().max())
    differs = ((base.hidden - changed.hidden).abs().amax(-1) > allowed * scale) & cut.before
    rows, places = differs.nonzero(as_tuple=True)
    if not len(rows):
        return "Logits"
    row, place = int(rows[0]), int(places[0])
    return f"Place {place} of a row, with the tokens up to {int(cut.last[row])} kept,"


def batch_versus_single(ground: Ground) -> Answer:
    """A row reads in a batch as it reads alone, and no other row changes it (A24).

    First in training mode and in the precision of the run: the other rows get other tokens. Then
    alone, in evaluation mode and float32: another shape is rounded differently, and 16 bits would
    hide a small fault.
    """
    if reason := mixes(ground.model):
        return not_assessed(f"The model says that its rows may see each other: {reason}.")
    if ground.rows < 2:
        return not_assessed("Every row has its pass for itself: `train.micro_batch` is 1.")
    first = _rows(ground, 1)
    others = ground.tokens.where(first, ground.other_tokens(ground.tokens, salt=41))
    for packed in _views(ground):
        read = _reader(ground, others, packed=packed)
        found, allowed = compared(ground, _base(ground, packed=packed), read, first)
        if found > allowed:
            return failed(
                "row_mixing",
                f"A row changed when only another row got other tokens (by {found:.2g} of the "
                f"largest value; {allowed:.1g} is allowed): rows of a batch see each other.",
                gap=found,
                allowed=allowed,
            )
    with in_float32(ground.model):
        together = ground.read(ground.tokens, *ground.places)
        positions, segments = ground.places
        alone = ground.read(
            ground.tokens[:1],
            None if positions is None else positions[:1],
            None if segments is None else segments[:1],
        )
    allowed = other_shape(together)
    found = gap(_part(together, 1), _part(alone, 1), first[:1])
    if found > allowed:
        return failed(
            "row_mixing",
            f"A row alone reads differently from the same row in a batch (by {found:.2g} of the "
            f"largest value; {allowed:.1g} is allowed).",
            gap=found,
            allowed=allowed,
        )
    return passed(
        f"A row alone reads as in a batch (to {found:.1g} of the largest value).",
        gap=found,
        allowed=allowed,
    )


def packing_isolation(ground: Ground) -> Answer:
    """Documents packed into one row do not see each other (D19).

    Three documents are cut from each row, and from the source of each row where there is one. The
    middle one gets other tokens, and the others must
    stay as they were; the last one must read as it does alone. With a separator the batches' own
    borders are checked as well.
    """
    import torch

    if not ground.document_mask:
        return not_assessed("`train.document_mask` is off: documents of a row see each other.")
    if reason := mixes(ground.model):
        return not_assessed(f"The model says that its documents may see each other: {reason}.")
    if ground.length < 3:
        return not_assessed("Rows are too short to hold several documents.")
    if not borders_stand(ground.batches, ground.separator if ground.separated else None):
        return failed(
            "segments_wrong",
            "Segments or positions of the batches do not begin anew where a document begins.",
        )
    begins = (0, ground.length // 3, ground.length // 3 + max(1, ground.length // 4))
    columns = torch.arange(ground.length, device=ground.tokens.device)
    segments = sum(((columns >= begin).long() for begin in begins[1:]), torch.zeros_like(columns))
    starts = torch.tensor(begins, device=columns.device)
    positions = (columns - starts[segments]).expand_as(ground.tokens)
    segments = segments.expand_as(ground.tokens)
    middle = segments == 1
    changed = ground.tokens.where(~middle, ground.other_tokens(ground.tokens, salt=51))

    sources = _packed_sources(ground)

    def base(again: bool) -> Reading:
        return ground.read(ground.tokens, positions, segments, training=True, source=sources[0])

    def other() -> Reading:
        return ground.read(changed, positions, segments, training=True, source=sources[1])

    found, allowed = compared(ground, base, other, ~middle)
    if found > allowed:
        return failed(
            "pack_leak",
            f"Documents changed when only another one of their row was changed (by {found:.2g} of "
            f"the largest value; {allowed:.1g} is allowed).",
            gap=found,
            allowed=allowed,
        )
    last = begins[2]
    with in_float32(ground.model):
        packed = ground.read(ground.tokens, positions, segments, source=sources[0])
        alone = ground.read(ground.tokens[:, last:].contiguous(), source=sources[2])
    limit = other_shape(packed)
    scale = float(packed.hidden[:, last:].abs().max()) or 1.0
    apart = float((packed.hidden[:, last:] - alone.hidden).abs().max()) / scale
    if not apart <= limit:
        return failed(
            "pack_leak",
            f"A document reads differently in a packed row than alone (by {apart:.2g} of the "
            f"largest value; {limit:.1g} is allowed).",
            gap=apart,
            allowed=limit,
        )
    return passed(
        f"Changing one document of a row left the others {_as_it_was(found)}, and one alone reads "
        "as in the row.",
        gap=found,
        allowed=allowed,
        alone=apart,
    )


def _packed_sources(ground: Ground) -> tuple[Source | None, Source | None, Source | None]:
    """What three packed targets read: as it is, the middle one changed, and the last one alone."""
    import torch

    if ground.source is None:
        return None, None, None
    ids = ground.source[0]
    columns = torch.arange(ids.shape[1], device=ids.device)
    third = max(1, ids.shape[1] // 3)
    segments = (columns // third).clamp(max=2)
    places = (columns - segments * third).expand_as(ids), segments.expand_as(ids)
    changed = torch.where(segments == 1, ground.other_tokens(ids, salt=52), ids)
    return (ids, *places), (changed, *places), (ids[:, 2 * third :].contiguous(), None, None)


def _source_of(ground: Ground, rows: slice) -> Source | None:
    if ground.source is None:
        return None
    ids, positions, segments = ground.source
    return (
        ids[rows],
        None if positions is None else positions[rows],
        None if segments is None else segments[rows],
    )


def borders_stand(batches: tuple[Batch, ...], separator: int | None) -> bool:
    """Batches in; whether each document of a row has a segment and positions of its own out.

    Documents begin where their number changes, and at each separator, where these stand only there.
    """
    for batch in batches:
        real = batch.documents[:, 1:] >= 0
        begins = batch.documents[:, 1:] != batch.documents[:, :-1]
        if separator is not None:
            begins |= batch.tokens[:, 1:] == separator
        begins &= real
        new = batch.segments[:, 1:] != batch.segments[:, :-1]
        restarted = batch.positions[:, 1:] == 0
        if np.any(begins & ~(new & restarted)):
            return False
    return True


def _rows(ground: Ground, count: int) -> Tensor:
    """Mask [R, T] of the first rows."""
    import torch

    chosen = torch.arange(ground.rows, device=ground.tokens.device) < count
    return chosen[:, None].expand(ground.rows, ground.length)


def _part(reading: Reading, rows: int) -> Reading:
    """The first rows of a reading whose logits stand at all places, else its features alone."""
    whole = reading.logits.shape[1] == reading.hidden.shape[1]
    logits = reading.logits[:rows] if whole else reading.logits[:rows, :0]
    places = reading.places if whole else reading.places[:0]
    return Reading(reading.hidden[:rows], logits, places, reading.dtype)


def _as_it_was(found: float) -> str:
    return "as it was, bit for bit" if found == 0 else f"as it was, to {found:.1g}"
