"""Prompt ids → a stream of new ids, each token read once.

Axes: T tokens of the one row, V vocabulary entries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from wellfit.errors import RunError
from wellfit.generation.sample import sample
from wellfit.model.cache import Cache
from wellfit.model.protocol import Beside, LanguageModel
from wellfit.recipe.schema import Sampling


def window_start(length: int, context: int) -> int:
    """Tokens so far and the model's context → the first token that the model still sees.

    A model never sees more tokens than it was trained on. When its context is full, the older
    half is forgotten and the rest is read again from position 0, so learned and rotary positions
    behave alike and the result does not depend on the cache.

    >>> [window_start(length, 8) for length in (1, 8, 9, 12, 13)]
    [0, 0, 4, 4, 8]
    """
    half = context - context // 2
    return max(0, -((context - length) // half) * half)


def generate(
    model: LanguageModel,
    prompt_ids: Sequence[int],
    section: Sampling,
    *,
    stop_ids: Collection[int] = (),
    source: Sequence[int] | None = None,
) -> Iterator[int]:
    """Prompt ids (at least one) → up to `section.tokens` new ids, as they are drawn.

    Ends before a stop id, which is not given out. Same weights, prompt and section: same ids;
    torch's global random state is neither read nor moved. The model is in evaluation mode while a
    token is made and in its former mode between tokens. An encoder-decoder reads the `source`,
    of which it sees the last tokens where it is longer than the context.
    Raises RunError where the logits are not finite, or the model is an encoder.
    """
    assert len(prompt_ids) > 0, "a prompt needs at least one token, such as the separator"
    ids = list(prompt_ids)
    generator = torch.Generator().manual_seed(section.seed)
    cache = empty_cache(model)
    start = 0
    for _ in range(section.tokens):
        begin = window_start(len(ids), cache.capacity)
        if begin != start:
            cache.clear()
            start = begin
        logits = _next_logits(model, ids[start + cache.length :], cache, source)
        source = None  # the cache has it from now on
        chosen = sample(logits, section, generator)
        if chosen in stop_ids:
            return
        ids.append(chosen)
        yield chosen


def next_logits(
    model: LanguageModel, ids: Sequence[int], source: Sequence[int] | None = None
) -> Tensor:
    """Ids (at least one) → logits [V] after them, seen from the last `context` of them.

    Raises RunError where the model is an encoder.
    """
    cache = empty_cache(model)
    return _next_logits(model, ids[-cache.capacity :], cache, source)


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


def _next_logits(
    model: LanguageModel, ids: Sequence[int], cache: Cache, source: Sequence[int] | None
) -> Tensor:
    device = next(iter(model.named_parameters()))[1].device
    training = model.training
    model.train(False)
    try:
        with torch.no_grad():
            more: Beside = {}
            if source is not None:
                seen = list(source)[-cache.capacity :]
                more["source"] = torch.tensor([seen], device=device), None, None
            new = torch.tensor([list(ids)], device=device)
            hidden = model.hidden(new, cache=cache, **more)
            return model.logits(hidden[0, -1])
    finally:
        model.train(training)
