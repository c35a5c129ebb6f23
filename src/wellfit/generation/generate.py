"""Prompt ids → a stream of new ids, each token read once.

Axes: T tokens of the one row, V vocabulary entries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from wellfit.generation.sample import sample
from wellfit.model.cache import Cache
from wellfit.model.protocol import LanguageModel
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
) -> Iterator[int]:
    """Prompt ids (at least one) → up to `section.tokens` new ids, as they are drawn.

    Ends before a stop id, which is not given out. Same weights, prompt and section: same ids;
    torch's global random state is neither read nor moved. The model is in evaluation mode while a
    token is made and in its former mode between tokens.
    Raises RunError where the logits are not finite.
    """
    assert len(prompt_ids) > 0, "a prompt needs at least one token, such as the separator"
    ids = list(prompt_ids)
    generator = torch.Generator().manual_seed(section.seed)
    cache = model.new_cache()
    start = 0
    for _ in range(section.tokens):
        begin = window_start(len(ids), cache.capacity)
        if begin != start:
            cache.clear()
            start = begin
        chosen = sample(_next_logits(model, ids[start + cache.length :], cache), section, generator)
        if chosen in stop_ids:
            return
        ids.append(chosen)
        yield chosen


def next_logits(model: LanguageModel, ids: Sequence[int]) -> Tensor:
    """Ids (at least one) → logits [V] after them, seen from the last `context` of them."""
    cache = model.new_cache()
    return _next_logits(model, ids[-cache.capacity :], cache)


def _next_logits(model: LanguageModel, ids: Sequence[int], cache: Cache) -> Tensor:
    device = next(iter(model.named_parameters()))[1].device
    training = model.training
    model.train(False)
    try:
        with torch.no_grad():
            hidden = model.hidden(torch.tensor([list(ids)], device=device), cache=cache)
            return model.logits(hidden[0, -1])
    finally:
        model.train(training)
