"""A model and a held-out split → its scores, with standard errors over documents.

Axes: B rows, T tokens of a row, D width, V vocabulary entries.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wellfit.errors import DataError
from wellfit.evaluation.ratio import ratio
from wellfit.model.protocol import Beside, LanguageModel
from wellfit.records import Evaluated

if TYPE_CHECKING:
    from wellfit.data.batches import Batch, ScoredRows
    from wellfit.data.corpus import DocumentTable

# Tokens whose logits are made at a time for the accuracy: 1,024 × 32,000 float32 are 131 MB.
ACCURACY_CHUNK = 1024

GOLDEN = (math.sqrt(5) - 1) / 2

Guess = Callable[[Tensor, Tensor], Tensor]
"""Logits [B, T, V] and labels [B, T] → what the model answers at each place, as a label [B, T]."""


def evaluate(
    model: LanguageModel,
    rows: ScoredRows,
    documents: DocumentTable,
    *,
    step: int,
    split: str,
    micro_batch: int,
    tokens: int = 0,
    guess: Guess | None = None,
) -> Evaluated:
    """A model, the packed rows of a split and its documents → loss, bits per byte and accuracy.

    loss: mean nats of the scored tokens; those of a document are its text and the separator that
    ends it. bits_per_byte: the same nats / ln 2, over the bytes of the text of those documents;
    None where these are unknown.
    Documents are scored whole, so the bytes are exact. `tokens` = 0 scores all; otherwise
    documents spread evenly over the split, as many as hold that many tokens (`choose_documents`).

    Where rows hide something, or ask for something else than the next token, only that is scored:
    loss and accuracy are those of the labels, and bits a byte are unknown (None), since most bytes
    of a text were never predicted. `guess` says what the model answers where that is not the
    likeliest logit of a place. Of examples `exact` is the share whose labels are all right.

    The arithmetic is in `model.compute_dtype`. Dropout is off; the mode of the model is restored.
    Raises DataError where nothing can be scored.
    """
    began = time.perf_counter()
    lengths = np.asarray(documents.tokens)
    chosen = choose_documents(lengths, tokens)
    wanted = np.zeros(len(lengths), dtype=bool)
    wanted[chosen] = True
    indices = rows.holding(chosen)
    if not len(indices):
        raise DataError(
            "there are no tokens to score",
            where=f"split {split}",
            way_out="Give the split a larger share of the data (data.split), or more data.",
        )
    sums = np.zeros((3, len(lengths)))
    training = model.training
    model.train(False)
    try:
        with torch.no_grad():
            for at in range(0, len(indices), micro_batch):
                batch = rows.row(indices[at : at + micro_batch])
                sums += _score(model, batch, wanted, guess)
    finally:
        model.train(training)
    seconds = time.perf_counter() - began
    return _summary(sums, documents, step, split, seconds, rows)


def choose_documents(lengths: NDArray[Any], tokens: int) -> NDArray[np.int64]:
    """Tokens of each document and how many are wanted (0: all) → numbers of the documents to score.

    Documents are taken whole, in the order of the multiples of the golden ratio, whose every
    beginning is spread evenly over the split, until the wanted number of tokens is reached.

    >>> choose_documents(np.array([5, 5, 5, 5, 5, 5]), 9).tolist()
    [1, 4]
    """
    count = len(lengths)
    if tokens == 0 or lengths.sum() <= tokens:
        return np.arange(count)
    order = np.argsort((np.arange(1, count + 1) * GOLDEN) % 1.0, kind="stable")
    enough = int(np.searchsorted(np.cumsum(lengths[order]), tokens)) + 1
    return np.sort(order[:enough])


def _score(
    model: LanguageModel, batch: Batch, wanted: NDArray[np.bool_], guess: Guess | None
) -> NDArray[np.float64]:
    """Sums [3, documents] over the wanted labels of a batch: nats, right guesses, tokens."""
    device = next(iter(model.named_parameters()))[1].device
    owner = np.asarray(batch.documents)
    labels = np.where(wanted[np.maximum(owner, 0)], batch.labels, -100)
    scored = labels >= 0

    def there(array: NDArray[np.int64]) -> Tensor:
        return torch.as_tensor(array, device=device)

    more: Beside = {}
    if (source := batch.source) is not None:
        more["source"] = there(source.tokens), there(source.positions), there(source.segments)
    places = there(batch.positions), there(batch.segments)
    hidden = model.hidden(there(batch.tokens), *places, **more)
    targets = torch.as_tensor(labels, device=device)
    losses = model.token_loss(hidden, targets).cpu().double().numpy()[scored]
    if guess is not None:
        right = guess(model.logits(hidden), targets).cpu().numpy()[scored] == labels[scored]
    else:
        picked = hidden[torch.as_tensor(scored, device=device)]
        parts = torch.split(picked, ACCURACY_CHUNK)
        guesses = [model.logits(part).argmax(-1).cpu().numpy() for part in parts]
        right = np.concatenate(guesses) == labels[scored]
    weights = (losses, right, np.ones(len(losses)))
    return np.stack([np.bincount(owner[scored], weight, len(wanted)) for weight in weights])


def _summary(
    sums: NDArray[np.float64],
    documents: DocumentTable,
    step: int,
    split: str,
    seconds: float,
    rows: ScoredRows,
) -> Evaluated:
    """Sums [3, documents] over some rows → scores."""
    # A split's last document has no label where it is only a separator.
    scored = sums[2] > 0
    nats, right, tokens = sums[:, scored]
    length = np.asarray(documents.bytes, dtype=np.float64)[scored]
    told = bool((length >= 0).all())
    domains = np.asarray(documents.domain)[scored]
    loss, loss_se = ratio(nats, tokens)
    known = told and rows.whole
    bits, bits_se = ratio(nats / math.log(2), length) if known else (None, None)
    accuracy, accuracy_se = ratio(right, tokens)
    by_domain: dict[str, dict[str, float | None]] = {}
    for domain in sorted(set(domains.tolist())):
        inside = domains == domain
        by_domain[str(domain)] = {
            "loss": ratio(nats[inside], tokens[inside])[0],
            "bits_per_byte": ratio(nats[inside] / math.log(2), length[inside])[0]
            if known
            else None,
            "accuracy": ratio(right[inside], tokens[inside])[0],
            "tokens": int(tokens[inside].sum()),
            "bytes": int(length[inside].sum()) if told else None,
        }
    return Evaluated(
        step=step,
        split=split,
        loss=loss,
        loss_se=loss_se,
        perplexity=float(np.exp(np.float64(loss))) if loss < 700 else loss * math.inf,
        bits_per_byte=bits,
        bits_per_byte_se=bits_se,
        accuracy=accuracy,
        accuracy_se=accuracy_se,
        tokens=int(tokens.sum()),
        bytes=int(length.sum()) if told else 0,
        documents=int(scored.sum()),
        seconds=seconds,
        by_domain=by_domain,
        exact=float(np.mean(right == tokens)) if rows.of_examples else None,
    )
