"""Does the same input give the same answer? In evaluation, by dropout's key, and with a cache.

Axes: R rows, T tokens of a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wellfit.training.proofs.ground import (
    SAME_SHAPE,
    Answer,
    Ground,
    Reading,
    failed,
    gap,
    in_float32,
    not_assessed,
    other_shape,
    passed,
)

if TYPE_CHECKING:
    from torch import Tensor

    from wellfit.model.protocol import Beside

SINGLE, CHUNK = 8, 4
"""Tokens read one by one, and the chunk before them; the rest is read at once."""


def evaluation_determinism(ground: Ground) -> Answer:
    """Evaluation gives the same twice, training the same for the same key (E02).

    In evaluation neither the key of dropout nor torch's random state may matter. In training
    another key must matter where the model has dropout.
    """
    everywhere = ground.tokens >= 0
    one = ground.read(ground.tokens, *ground.places, key=0)
    if ground.model.training:
        return failed("dropout_eval", "`train(False)` leaves the model in training mode.")
    two = ground.read(ground.tokens, *ground.places, key=1)
    evaluated = gap(one, two, everywhere)
    if evaluated > SAME_SHAPE:
        return failed(
            "dropout_eval",
            f"The same batch gave two answers in evaluation (apart by {evaluated:.2g} of the "
            "largest value): something random is on, such as dropout.",
            gap=evaluated,
        )
    base = ground.trained(packed=ground.document_mask)
    same = ground.trained(packed=ground.document_mask, again=True)
    keyed = ground.read(ground.tokens, *ground.places, training=True, key=1)
    repeated, other = gap(base, same, everywhere), gap(base, keyed, everywhere)
    told: dict[str, Any] = {"gap": evaluated, "repeated": repeated, "other_key": other}
    asked = dropout_of(ground)
    if repeated > SAME_SHAPE:
        return failed(
            "dropout_unkeyed",
            "In training the same batch with the same key gave two answers (apart by "
            f"{repeated:.2g}): dropout is not drawn from its key, so that a resumed run differs.",
            **told,
        )
    if asked and not other:
        return failed(
            "dropout_inert",
            f"Dropout is {asked:g}, and training gives the same whatever its key: it is not on.",
            **told,
        )
    bits = "the same bits" if evaluated == 0 else f"the same to {evaluated:.1g}"
    text = f"Evaluating twice gives {bits}"
    if other > SAME_SHAPE:
        text += "; dropout is off there, and in training a function of its key"
    return passed(f"{text}.", **told)


def dropout_of(ground: Ground) -> float | None:
    """A ground in; the share that the model says it drops out, None where it does not say."""
    model: Any = ground.model
    for owner in (getattr(model, "model", None), model):
        share = getattr(owner, "dropout", None)
        if isinstance(share, int | float):
            return float(share)
    return None


def cache_versus_full(ground: Ground) -> Answer:
    """Reading on behind a cache gives what reading it all gives (A20).

    One row up to the whole capacity, in float32: most of it at once, a few tokens as a chunk, the
    last ones singly. Each piece must agree with the pass over the whole row.
    """
    import torch

    model = ground.model
    with in_float32(model):
        model.train(False)
        try:
            cache = model.new_cache()
        except (NotImplementedError, AttributeError) as error:
            return not_assessed(f"The model has no cache ({str(error) or type(error).__name__}).")
        if cache is None:
            return not_assessed("The model has no cache.")
        length = min(ground.length, int(getattr(cache, "capacity", ground.length)))
        if length < 2:
            return not_assessed("A row of one token needs no cache.")
        tokens = ground.tokens[:1, :length]
        whole = ground.read(tokens)
        found: dict[str, float] = {}
        at = 0
        for size in pieces(length):
            part = tokens[:, at : at + size]
            more: Beside = {} if at else ground.beside(part, packed=False)
            with torch.no_grad():
                hidden = model.hidden(part, cache=cache, **more)
                read = _features(ground, hidden)
            kind = "first" if at == 0 else "single" if size == 1 else "chunk"
            there = _features_at(ground, whole, at, size)
            apart = gap(there, read, torch.ones_like(part, dtype=torch.bool))
            found[kind] = max(found.get(kind, 0.0), apart)
            at += size
    allowed = other_shape(whole)
    worst = max(found, key=lambda kind: found[kind])
    if found[worst] > allowed:
        where = {"first": "from the beginning", "chunk": "in a chunk", "single": "one by one"}
        return failed(
            "kv_cache_bug",
            f"Tokens read {where[worst]} with the cache differ from the pass without it (by "
            f"{found[worst]:.2g} of the largest value; {allowed:.1g} is allowed): samples would be "
            "wrong.",
            gap=found[worst],
            allowed=allowed,
            by_piece=found,
        )
    return passed(
        f"{length:,} tokens read piece by piece with the cache agree with one pass (to "
        f"{found[worst]:.1g} of the largest value).",
        gap=found[worst],
        allowed=allowed,
        by_piece=found,
    )


def pieces(length: int) -> list[int]:
    """Tokens in; sizes of the pieces in which they are read, in order, out.

    >>> pieces(32), pieces(8), pieces(2)
    ([20, 4, 1, 1, 1, 1, 1, 1, 1, 1], [3, 2, 1, 1, 1], [1, 1])
    """
    single = min(SINGLE, max(1, length * 3 // 8))
    chunk = min(CHUNK, max(0, (length - single) // 2))
    if chunk < 2:
        chunk = 0
    first = length - single - chunk
    return [size for size in (first, chunk, *[1] * single) if size]


def _features(ground: Ground, hidden: Tensor) -> Reading:
    """Features of a few tokens in; the reading with all their logits out."""
    return _few(ground, hidden, hidden.dtype)


def _features_at(ground: Ground, whole: Reading, at: int, size: int) -> Reading:
    part = whole.hidden[:, at : at + size].to(whole.dtype)
    return _few(ground, part, whole.dtype)


def _few(ground: Ground, hidden: Tensor, dtype: Any) -> Reading:
    import torch

    # Logits of a long first piece would be large, and its last place is the one that is used.
    places = torch.tensor([hidden.shape[1] - 1], device=hidden.device)
    logits = ground.model.logits(hidden[:, places])
    return Reading(hidden.detach().float(), logits.detach().float(), places, dtype)
