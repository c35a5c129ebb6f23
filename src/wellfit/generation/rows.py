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

Written: TypeAlias = "LanguageModel | Decoding"
"""A model as it is, or its weights made ready by `decoding`."""


class Rows(Protocol):
    """Rows numbered from 0; each has read the tokens that it was given."""

    context: int
    """Tokens that a row may hold."""

    def read(self, row: int, ids: Sequence[int], source: Sequence[int] | None) -> Tensor:
        """Forget what a row has read (the next number is a new row), read ids → logits [V]."""
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
    model: LanguageModel, ids: Sequence[int], cache: Cache, source: Sequence[int] | None
) -> Tensor:
    """A model, new ids of one row, its cache, and a source to read from now on → logits [V]."""
    device = next(iter(model.named_parameters()))[1].device
    with evaluating(model), torch.no_grad():
        more: Beside = {}
        if source is not None:
            more["source"] = torch.tensor([list(source)], device=device), None, None
        hidden = model.hidden(torch.tensor([list(ids)], device=device), cache=cache, **more)
        return model.logits(hidden[0, -1])


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

    def read(self, row: int, ids: Sequence[int], source: Sequence[int] | None) -> Tensor:
        """See `Rows`."""
        if row == len(self.caches):
            self.caches.append(empty_cache(self.model))
        self.caches[row].clear()
        return read_on(self.model, ids, self.caches[row], source)

    def step(self, tokens: Sequence[int]) -> Tensor:
        """See `Rows`."""
        both = zip(tokens, self.caches, strict=True)
        return torch.stack([read_on(self.model, [one], cache, None) for one, cache in both])

    def drop(self, row: int) -> None:
        """See `Rows`."""
        self.caches[row] = self.caches[-1]
        self.caches.pop()


class AllAtOnce:
    """Our own transformer: rows of any lengths share each step, without a token of padding.

    Prompts are read one by one, each for as long as it is. A row's keys begin at place 0 of its
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

    def read(self, row: int, ids: Sequence[int], source: Sequence[int] | None) -> Tensor:
        """See `Rows`."""
        if row == len(self.lengths):
            self.lengths.append(0)
            self.source_lengths.append(0)
        cache = Cache.over(self.keys[:, row : row + 1], self.values[:, row : row + 1])
        logits = read_on(self.ready.model, ids, cache, source)
        self.lengths[row] = cache.length
        if self.source is not None:
            for layer, found in cache.source.items():
                length = found[0].shape[2]
                for whole, part in zip(self.source, found, strict=True):
                    whole[layer, row, :, :length] = part[0]
                self.source_lengths[row] = length
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
