"""Are the right tokens supervised, and does the loss pair them with the right places?

Axes: N rows of a batch, T tokens of a row, R rows of the probe.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from wellfit.training.proofs.ground import (
    Answer,
    Ground,
    Reading,
    UnsettledError,
    failed,
    looks_ahead,
    not_assessed,
    passed,
    predicts,
)

if TYPE_CHECKING:
    from torch import Tensor

    from wellfit.data.batches import Batch

OFFSETS = (-1, 0, 1, 2, 3)
"""Places from a token to the one that its label is compared with; +1 is the next token."""
RIGHT = 0.5
"""The loss belongs to its labels where it is at most half as far from their cross-entropy as from
that of the labels of any neighbouring place: rounding is a thousandth, another place is all."""
LEAST_LABELS = 20
"""Masked labels from which it is no chance that all stand open: a tenth of them may."""
CLEAR = 0.5
"""Nats by which another offset must be better before trained weights are said to predict it."""


def supervised_tokens(ground: Ground) -> Answer:
    """Every batch has labels, ends of documents are among them, and padding is not (D08, D11, D12).

    Counted in the next batches, whole.
    """
    shares = [float(np.mean(batch.labels >= 0)) for batch in ground.batches]
    told: dict[str, Any] = {"shares": shares}
    if (outside := ids_outside(ground)) is not None:
        what, largest, entries = outside
        return failed(
            "ids_outside",
            f"{what} {largest:,} stands in the batches, and the model has {entries:,} entries, 0 "
            f"to {entries - 1:,}.",
            largest=largest,
            **told,
        )
    for number, share in enumerate(shares):
        if share == 0:
            return failed(
                "mask_all",
                f"No token of the batch of step {ground.step + 1 + number} has a label: there is "
                "nothing to learn from.",
                **told,
            )
    padded = sum(int(np.sum((b.documents < 0) & (b.labels >= 0))) for b in ground.batches)
    if padded:
        return failed(
            "pad_in_loss",
            f"{_count(padded, 'label')} of the first batches stand in padding.",
            padded=padded,
            **told,
        )
    words = " and ".join(f"{share:.1%}" for share in shares)
    text = f"{words} of the tokens of the first {_count(len(shares), 'batch', 'batches')} have a "
    text += "label"
    if predicts(ground.model) != "tokens":
        return passed(f"{text}.", **told)
    if ground.separator is None:
        return passed(f"{text}; which token ends a document is not known.", **told)
    ends = sum(int(np.sum(_ends(batch, ground.separator))) for batch in ground.batches)
    learnt = sum(int(np.sum(batch.labels == ground.separator)) for batch in ground.batches)
    told |= {"document_ends": ends, "document_ends_supervised": learnt}
    if ends and not learnt and not looks_ahead(ground.model):
        return failed(
            "eos_masked",
            f"{_count(ends, 'document')} end{'s' if ends == 1 else ''} in these batches, and no "
            "end has a label: the model would never learn to stop.",
            **told,
        )
    more = f", {_count(learnt, 'end')} of documents among them" if learnt else ""
    if looks_ahead(ground.model):
        more = "; ends of documents are never hidden"
    return passed(f"{text}{more}.", **told)


def ids_outside(ground: Ground) -> tuple[str, int, int] | None:
    """A ground in; the largest token or label that the model has no entry for, and its entries out.

    Tokens are looked up, labels are compared with logits; None where all of them fit.
    """
    batches = ground.batches
    read = [b.tokens for b in batches] + [b.source.tokens for b in batches if b.source is not None]
    largest = {
        "Token": (max(int(tokens.max()) for tokens in read), ground.vocabulary),
        "Label": (max(int(batch.labels.max()) for batch in batches), ground.outputs),
    }
    return next(((what, *one) for what, one in largest.items() if one[0] >= one[1]), None)


def _ends(batch: Batch, separator: int) -> Any:
    """Places [N, T−1] after which a document ends: the next token is the separator, no padding."""
    return (batch.tokens[:, 1:] == separator) & (batch.documents[:, 1:] >= 0)


def label_offset(ground: Ground) -> Answer:
    """Labels are the next tokens, and the loss of a place belongs to its label (D01, D02, D03).

    Three witnesses. The batches: `labels[t]` must be `tokens[t + 1]` wherever both are of one
    document. The model: `token_loss` must be the cross-entropy of its logits with the label of
    that place, not of a neighbour (a model that shifts labels itself shifts them twice). And of
    trained weights the scan: their logits must fit the tokens at offset +1 best.

    Where tokens see later ones, labels are tokens that were hidden: then the batches must not show
    them all, and no scan is made.
    """
    kind = predicts(ground.model)
    if kind == "span":
        return not_assessed("A span is chosen among places, and its labels are no tokens.")
    masked = kind == "tokens" and bool(looks_ahead(ground.model))
    if masked and (answer := _labels_stand_open(ground.batches)):
        return answer
    plain = kind == "tokens" and not masked
    shares = match_shares(ground.batches) if plain else dict.fromkeys(OFFSETS)
    told: dict[str, Any] = {"matches": {str(o): s for o, s in shares.items() if s is not None}}
    if shares[1] is not None and shares[1] < 1:
        best = max(OFFSETS, key=lambda offset: shares[offset] or 0.0)
        sure = (shares[best] or 0.0) > 0.99 and best != 1
        fault = {0: "labels_not_shifted", 2: "labels_double_shift"}.get(best if sure else 1)
        text = f"Only {shares[1]:.1%} of the labels are the next token of their row"
        if sure:
            text += f"; {shares[best] or 0.0:.1%} are the token at offset {best:+d}"
        return failed(fault or "labels_misaligned", f"{text}.", **told)
    paired = _pairing(ground)
    told |= {"loss_distance": {str(offset): value for offset, value in paired.items()}}
    nearest = min(paired, key=lambda offset: (paired[offset], offset != 0))
    others = [value for offset, value in paired.items() if offset != 0]
    if nearest != 0 and paired[nearest] < RIGHT * paired[0]:
        fault = "labels_double_shift" if nearest == 1 else "labels_not_shifted"
        return failed(
            fault if nearest in (1, -1) else "labels_misaligned",
            f"The model's loss at a place is that of the label {abs(nearest)} "
            f"{'later' if nearest > 0 else 'earlier'}: it shifts labels that are shifted already.",
            **told,
        )
    if others and paired[0] > RIGHT * min(others):
        return failed(
            "loss_not_cross_entropy",
            "The model's loss is not the cross-entropy of its own logits: "
            f"{paired[0]:.3g} nats a token lie between them.",
            **told,
        )
    if ground.scan:
        told["scan"] = {str(offset): value for offset, value in ground.scan.items()}
        best = min(ground.scan, key=lambda offset: ground.scan[offset])
        if best != 1 and ground.scan[best] < ground.scan[1] - CLEAR:
            return failed(
                {0: "labels_not_shifted", 2: "labels_double_shift"}.get(best, "labels_misaligned"),
                f"These weights predict the token at offset {best:+d} "
                f"({ground.scan[best]:.2f} nats), not the next one ({ground.scan[1]:.2f}).",
                **told,
            )
    if masked:
        return passed(
            "Labels are hidden from the input, and the loss of a place is that of its label.",
            **told,
        )
    if kind == "classes":
        return passed("Labels are classes, and the loss of a place is that of its label.", **told)
    if shares[1] is None:
        return not_assessed(
            "The batches do not show it: no label has its next token in the same row.", **told
        )
    scan = " The weights predict the next token best." if ground.scan else ""
    return passed(
        "Every label is the next token, and the loss of a place is that of its label." + scan,
        **told,
    )


def _labels_stand_open(batches: tuple[Batch, ...]) -> Answer | None:
    """Batches of masked tokens in; what is wrong where every label stands in the input, out."""
    labelled = [batch.labels >= 0 for batch in batches]
    count = sum(int(np.sum(where)) for where in labelled)
    same = [b.labels[w] == b.tokens[w] for b, w in zip(batches, labelled, strict=True)]
    seen = sum(int(np.sum(one)) for one in same)
    if count < LEAST_LABELS or seen < count:
        return None
    return failed(
        "labels_not_shifted",
        f"All {count:,} labels stand open in the input, at the place that must predict them.",
        labels=count,
    )


def match_shares(batches: tuple[Batch, ...]) -> dict[int, float | None]:
    """Batches in; offset → share of the labels that are the token there, out.

    Only labels whose place and the next belong to the same document of the row count. None where
    there is no such label.
    """
    hits = dict.fromkeys(OFFSETS, 0)
    counts = dict.fromkeys(OFFSETS, 0)
    for batch in batches:
        length = batch.tokens.shape[1]
        places = np.arange(length)
        inside = (batch.labels >= 0) & (places < length - 1)
        inside[:, :-1] &= batch.segments[:, :-1] == batch.segments[:, 1:]
        for offset in OFFSETS:
            there = places + offset
            seen = inside & (there >= 0) & (there < length)
            token = batch.tokens[:, there.clip(0, length - 1)]
            hits[offset] += int(np.sum(seen & (batch.labels == token)))
            counts[offset] += int(np.sum(seen))
    return {o: hits[o] / counts[o] if counts[o] else None for o in OFFSETS}


def _pairing(ground: Ground) -> dict[int, float]:
    """A ground in; offset → mean distance, in nats, of the loss from the cross-entropy there.

    At offset k the logits of place t meet the label of place t + k; 0 is right. Every place of
    the probe is labelled with a random token: what the data's labels are does not matter here.
    """
    labels = ground.other_tokens(ground.tokens, salt=11) % ground.outputs
    reading, losses = ground.losses(labels)
    if losses.shape != labels.shape:
        raise UnsettledError(f"token_loss gives {tuple(losses.shape)}, not {tuple(labels.shape)}")
    return {
        offset: float((losses[:, kept] - entropy).abs().mean())
        for offset in (-1, 0, 1)
        for kept, entropy in [_entropy(reading, labels, offset)]
        if len(kept)
    }


def _entropy(reading: Reading, tokens: Tensor, offset: int) -> tuple[Tensor, Tensor]:
    """A reading, ids [R, T] and an offset in; the places that have such an id, and the
    cross-entropy [R, places] of their logits with it, out."""
    import torch

    there = reading.places + offset
    seen = (there >= 0) & (there < tokens.shape[1])
    chances = reading.logits[:, seen].log_softmax(-1)
    picked = chances.gather(-1, tokens[:, there[seen]][..., None])[..., 0]
    if not bool(torch.isfinite(picked).all()):
        raise UnsettledError("logits are not finite")
    return reading.places[seen], -picked


def offset_scan(ground: Ground) -> dict[int, float]:
    """A ground with trained weights in; offset → cross-entropy with the tokens there, nats.

    Empty where a row is too short. Tokens, not labels: masks play no part.
    """
    reading = ground.read(ground.tokens, *ground.places)
    found = {}
    for offset in OFFSETS:
        _, entropy = _entropy(reading, ground.tokens, offset)
        if not entropy.numel():
            return {}
        found[offset] = float(entropy.mean())
    return found if all(map(math.isfinite, found.values())) else {}


def _count(number: int, word: str, plural: str = "") -> str:
    return f"{number:,} {word if number == 1 else plural or word + 's'}"
