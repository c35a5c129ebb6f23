"""Prompt ids → new ids as they are drawn, of one prompt or of several at once.

Axes: B rows, V vocabulary entries.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from wellfit.generation.prompts import Prompt
from wellfit.generation.rows import Written, empty_cache, open_rows, read_on
from wellfit.generation.sample import greedy, penalised, sample
from wellfit.model.protocol import LanguageModel
from wellfit.recipe.schema import Sampling

READ_AT_ONCE = 8192
"""Tokens of prompts that go through the model at once, unless a single prompt has more."""


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
    model: Written,
    prompt_ids: Sequence[int],
    section: Sampling,
    *,
    stop_ids: Collection[int] = (),
    source: Sequence[int] | None = None,
) -> Iterator[int]:
    """Prompt ids (at least one) → up to `section.tokens` new ids, as they are drawn.

    As `generate_rows` for a single prompt. `section.stop` needs text and is not looked at here:
    see `write.write_rows`.
    """
    reads = None if source is None else tuple(source)
    prompt = Prompt(tuple(prompt_ids), tuple(stop_ids), reads)
    drawn = generate_rows(model, [prompt], section)
    return (token for _, token in drawn if token is not None)


def generate_rows(
    model: Written,
    prompts: Sequence[Prompt],
    section: Sampling,
    *,
    seeds: Sequence[int] | None = None,
    done: Collection[int] = (),
) -> Iterator[tuple[int, int | None]]:
    """Prompts → pairs (number of the prompt, new id) as they are drawn; see `Prompt`.

    A prompt gets up to `section.tokens` ids. It ends before one of its stop ids, in whose place
    None is given out, and where the caller adds its number to `done` before asking for more.
    Each prompt draws with numbers of its own, from `seeds` or all from `section.seed`, so that
    what is written behind it does not depend on the others; torch's global random state is
    neither read nor moved.

    Same weights, prompts and section: same ids. A model is in evaluation mode while tokens are
    made and in its former mode between them; weights made ready by `decoding` stay as they were.
    An encoder-decoder reads a prompt's source, of which it sees the last tokens where it is longer
    than the context. Raises RunError where the logits are not finite, or the model is an encoder.
    """
    assert all(prompt.ids for prompt in prompts), (
        "a prompt needs at least one token, such as the separator"
    )
    if not prompts:
        return
    rows = open_rows(model, prompts, section.tokens)
    chosen = [section.seed] * len(prompts) if seeds is None else seeds
    live = [_Row(prompt, n, chosen[n], rows.context) for n, prompt in enumerate(prompts)]
    live.sort(key=_Row.lengths)
    found: list[Tensor] = []
    first = 0
    for (length, _), group in groupby(live, key=_Row.lengths):
        alike = list(group)
        at_once = max(1, READ_AT_ONCE // length)
        for part in (alike[at : at + at_once] for at in range(0, len(alike), at_once)):
            unread = [row.ids[row.start :] for row in part]
            found.append(rows.read(first, unread, [row.source for row in part]))
            first += len(part)
    logits = torch.cat(found)
    while True:
        ended = []
        for place, (row, token) in enumerate(zip(live, _drawn(logits, live, section), strict=True)):
            if token in row.prompt.stop_ids:
                ended.append(place)
                yield row.number, None
                continue
            row.take(token)
            yield row.number, token
            if row.number in done or len(row.ids) - len(row.prompt.ids) == section.tokens:
                ended.append(place)
        for place in reversed(ended):
            rows.drop(place)
            live[place] = live[-1]
            live.pop()
        if not live:
            return
        for place, row in enumerate(live):
            begin = window_start(len(row.ids), rows.context)
            if begin != row.start:
                row.start = begin
                rows.read(place, [row.ids[begin:-1]], [row.source])
        logits = rows.step([row.ids[-1] for row in live])


def _drawn(logits: Tensor, live: Sequence[_Row], section: Sampling) -> list[int]:
    """Logits [B, V] of rows → an id of each."""
    if section.repetition_penalty != 1:
        penalty = section.repetition_penalty
        both = zip(logits, live, strict=True)
        logits = torch.stack([penalised(of, row.stood(of), penalty) for of, row in both])
    if section.temperature == 0:
        return greedy(logits)
    both = zip(logits, live, strict=True)
    return [sample(of, section, row.generator) for of, row in both]


def next_logits(
    model: LanguageModel, ids: Sequence[int], source: Sequence[int] | None = None
) -> Tensor:
    """Ids (at least one) → logits [V] after them, seen from the last `context` of them.

    Raises RunError where the model is an encoder.
    """
    cache = empty_cache(model)
    seen = None if source is None else source[-cache.capacity :]
    return read_on(model, [ids[-cache.capacity :]], cache, [seen])[0]


class _Row:
    """A prompt that is being continued, its ids so far, and what it draws with."""

    def __init__(self, prompt: Prompt, number: int, seed: int, context: int) -> None:
        self.prompt, self.number = prompt, number
        self.source = None if prompt.source is None else prompt.source[-context:]
        self.ids = list(prompt.ids)
        self.start = window_start(len(self.ids), context)
        """First of the ids that the model still sees."""
        self.generator = torch.Generator().manual_seed(seed)
        self.seen: Tensor | None = None

    def lengths(self) -> tuple[int, int]:
        """Tokens that the model has yet to read, and those of the source."""
        return len(self.ids) - self.start, len(self.source or ())

    def stood(self, logits: Tensor) -> Tensor:
        """Which of the ids that the logits [V] are of stood in prompt or continuation [V]."""
        if self.seen is None:
            self.seen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
            self.seen[self.ids] = True
        return self.seen

    def take(self, token: int) -> None:
        """One more id."""
        self.ids.append(token)
        if self.seen is not None:
            self.seen[token] = True
