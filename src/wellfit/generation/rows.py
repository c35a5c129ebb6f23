"""Rows that are being written, and the logits of their next tokens: one by one, or all at once.

Axes: B rows, V vocabulary entries, L layers, G key and value heads, C tokens that fit, W features
of a head.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from wellfit.errors import RunError
from wellfit.generation.prompts import Prompt
from wellfit.model.cache import Cache
from wellfit.model.decoding import Decoding, Places, Seen
from wellfit.model.protocol import Beside, LanguageModel

Ids: TypeAlias = "Sequence[int]"

Written: TypeAlias = "LanguageModel | Decoding"
"""A model as it is, or its weights made ready by `decoding`."""


class Rows(Protocol):
    """Rows numbered from 0; each has read the tokens that it was given."""

    context: int
    """Tokens that a row may hold."""

    def read(self, first: int, ids: Sequence[Ids], sources: Sequence[Ids | None]) -> Tensor:
        """Forget what n rows from `first` on have read, read as many ids of each → logits [n, V].

        The number behind the last row makes new rows. Sources too are of one length, or None.
        """
        ...

    def step(self, tokens: Sequence[int]) -> Tensor:
        """One more token of every row → logits [B, V]."""
        ...

    def drop(self, row: int) -> None:
        """A row is finished; the last one takes its number."""
        ...


def open_rows(model: Written, prompts: Sequence[Prompt], tokens: int) -> Rows:
    """A model, its prompts and the most new tokens of each → rows that have read nothing yet.

    Raises RunError where the model does not write text.
    """
    if isinstance(model, Decoding):
        return AllAtOnce(model, prompts, tokens)
    return OneByOne(model)


def empty_cache(model: LanguageModel) -> Cache:
    """A model → its empty cache; raises RunError where it does not write text."""
    try:
        return model.new_cache()
    except NotImplementedError as error:
        raise RunError(
            f"this model does not write text: {error}",
            where="generate",
            way_out="An encoder fills gaps that it is shown. To write, train a decoder "
            "(model.kind=decoder) or an encoder_decoder.",
        ) from error


def read_on(
    model: LanguageModel, ids: Sequence[Ids], cache: Cache, sources: Sequence[Ids | None]
) -> Tensor:
    """A model, as many new ids of each row, their cache, and sources to read from now on, or None
    for each → logits [B, V]."""
    device = next(iter(model.named_parameters()))[1].device
    with evaluating(model), torch.no_grad():
        more: Beside = {}
        given = [list(source) for source in sources if source is not None]
        if given:
            more["source"] = torch.tensor(given, device=device), None, None
        tokens = torch.tensor([list(row) for row in ids], device=device)
        return model.logits(model.hidden(tokens, cache=cache, **more)[:, -1])


@contextmanager
def evaluating(model: LanguageModel) -> Iterator[None]:
    """The model is in evaluation mode inside, and in its former mode afterwards."""
    training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(training)


class OneByOne:
    """Any model: each row has a cache of the model's own, and a step goes through it alone."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.context = empty_cache(model).capacity
        self.caches: list[Cache] = []

    def read(self, first: int, ids: Sequence[Ids], sources: Sequence[Ids | None]) -> Tensor:
        """See `Rows`."""
        found = []
        for row, (new, source) in enumerate(zip(ids, sources, strict=True), first):
            if row == len(self.caches):
                self.caches.append(empty_cache(self.model))
            self.caches[row].clear()
            found.append(read_on(self.model, [new], self.caches[row], [source]))
        return torch.cat(found)

    def step(self, tokens: Sequence[int]) -> Tensor:
        """See `Rows`."""
        both = zip(tokens, self.caches, strict=True)
        return torch.cat([read_on(self.model, [[one]], cache, [None]) for one, cache in both])

    def drop(self, row: int) -> None:
        """See `Rows`."""
        self.caches[row] = self.caches[-1]
        self.caches.pop()


class AllAtOnce:
    """Our own transformer: rows of any lengths share each step, without a token of padding.

    Prompts of one length are read at once, and no other ones. A row's keys begin at place 0 of its
    own cache, and what another row has beyond them is masked. The rows that still write come first,
    so a finished one is not computed any more.
    """

    def __init__(self, ready: Decoding, prompts: Sequence[Prompt], tokens: int) -> None:
        self.ready = ready
        section = ready.model.model
        self.context, self.window = section.context, section.window
        longest = max(len(prompt.ids) for prompt in prompts)
        room = min(self.context, longest + tokens)
        cache = ready.model.new_cache()
        self.room = room

        def space(places: int) -> Tensor:
            shape = (section.layers, len(prompts), section.kv_heads, places, cache.keys.shape[-1])
            return cache.keys.new_zeros(shape)

        self.keys, self.values = space(room), space(room)
        sources = [len(prompt.source or ()) for prompt in prompts]
        self.source = (space(max(sources)), space(max(sources))) if any(sources) else None
        self.lengths: list[int] = []
        self.source_lengths: list[int] = []
        self.zero = cache.keys.new_zeros(())

    def read(self, first: int, ids: Sequence[Ids], sources: Sequence[Ids | None]) -> Tensor:
        """See `Rows`."""
        if first == len(self.lengths):
            self.lengths += [0] * len(ids)
            self.source_lengths += [0] * len(ids)
        rows = slice(first, first + len(ids))
        cache = Cache.over(self.keys[:, rows], self.values[:, rows])
        logits = read_on(self.ready.model, ids, cache, sources)
        self.lengths[rows] = [cache.length] * len(ids)
        if self.source is not None:
            for layer, found in cache.source.items():
                length = found[0].shape[2]
                for whole, part in zip(self.source, found, strict=True):
                    whole[layer, rows, :, :length] = part
                self.source_lengths[rows] = [length] * len(ids)
        return logits

    def step(self, tokens: Sequence[int]) -> Tensor:
        """See `Rows`."""
        device = self.keys.device
        with torch.inference_mode():
            positions = torch.tensor(self.lengths, device=device)
            self.lengths = [length + 1 for length in self.lengths]
            return self.ready.logits(
                torch.tensor(tokens, device=device),
                positions,
                self.keys,
                self.values,
                self._places(positions),
            )

    def drop(self, row: int) -> None:
        """See `Rows`."""
        last = len(self.lengths) - 1
        if row != last:
            length = self.lengths[last]
            for whole in (self.keys, self.values):
                whole[:, row, :, :length] = whole[:, last, :, :length]
            for whole in self.source or ():
                whole[:, row] = whole[:, last]
            self.lengths[row] = self.lengths[last]
            self.source_lengths[row] = self.source_lengths[last]
        self.lengths.pop()
        self.source_lengths.pop()

    def _places(self, positions: Tensor) -> Places:
        """Places [B] that the new tokens take → what each layer writes and sees."""
        lengths, window = self.lengths, self.window
        longest, rows = max(lengths), torch.arange(len(lengths), device=positions.device)
        even = min(lengths) == longest
        near = max(0, longest - window) if window else 0
        everywhere, local = Seen(0, longest, None), Seen(near, longest, None)
        if not even:
            place = torch.arange(longest, device=positions.device)
            visible = place <= positions[:, None]
            everywhere = Seen(0, longest, self._mask(visible))
            # The window of a shorter row begins before that of the longest.
            inside = visible & (place > positions[:, None] - window)
            local = Seen(0, longest, self._mask(inside)) if window else everywhere
        source = None
        if self.source is not None:
            most = max(self.source_lengths)
            uneven = min(self.source_lengths) < most
            ends = torch.tensor(self.source_lengths, device=positions.device)
            visible = torch.arange(most, device=positions.device) < ends[:, None]
            mask = self._mask(visible) if uneven else None
            source = *self.source, Seen(0, most, mask)
        return Places(even, longest - 1, rows, everywhere, local, source)

    def _mask(self, visible: Tensor) -> Tensor:
        """What each row sees [B, S] → what is added to its scores [B·G, 1, S]."""
        mask = torch.where(visible, self.zero, -torch.inf)
        return mask.repeat_interleave(self.keys.shape[2], dim=0)[:, None]
