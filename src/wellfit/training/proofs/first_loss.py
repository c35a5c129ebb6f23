"""Does the loss begin where it must? Against ln V, the spread of the logits and the unigrams."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from wellfit.model.span import choices
from wellfit.records import IGNORED
from wellfit.training.proofs.ground import (
    Answer,
    Ground,
    UnsettledError,
    failed,
    not_assessed,
    passed,
    predicts,
)

if TYPE_CHECKING:
    from torch import Tensor

    from wellfit.data.batches import Batch

ABOVE = 1.0
"""Nats above ln V at which weights are drawn too large (FAULTS A11)."""
BELOW = 0.5
"""Nats below what untrained logits can reach; rounding and luck stay within a tenth of it where
logits are small, and `LUCK` standard errors are allowed besides."""
LUCK = 6.0
NOTHING_LEFT = 1e-3
"""Nats a token that no model of text reaches, however long it trained: a loss that knows its
labels does. Texts learned by heart end at a hundredth."""


def first_loss(ground: Ground) -> Answer:
    """The loss before the next step is possible: fresh weights begin near ln V (A11, D02, A08).

    Untrained logits know nothing of the labels, so their loss is the mean of ln Σ exp(z) − z̄,
    about ln V + ½·Var(z). Where a label repeats its own token, a tied matrix makes a difference
    that says nothing about the scale; those places, and the token's own logit, are left out. Of
    trained weights only the implausibly low side is judged.
    """
    kind = predicts(ground.model)
    if kind != "tokens":
        return _among_few(ground, kind)
    reading, losses = ground.losses(ground.labels)
    labels = ground.labels[:, reading.places]
    supervised = ground.labels >= 0
    if not bool(supervised.any()):
        return not_assessed("No token of the first rows has a label.")
    loss = float(losses[supervised].mean())
    uniform = math.log(ground.vocabulary)
    unigram = unigram_entropy(ground.batches)
    told: dict[str, Any] = {
        "loss": loss,
        "ln_vocabulary": uniform,
        "unigram_entropy": unigram,
        "fresh": ground.fresh,
    }
    figures = f"{loss:.3f} nats a token; ln {ground.vocabulary:,} is {uniform:.3f}"
    if not math.isfinite(loss):
        return failed("loss_not_finite", f"The first loss is {loss}.", **told)
    if not ground.fresh:
        if loss < NOTHING_LEFT:
            return failed("loss_too_low", f"The loss is {loss:.2g} nats a token.", **told)
        return passed(f"{figures}. These weights are trained: only far too low would tell.", **told)

    tokens = ground.tokens[:, reading.places]
    apart = (labels >= 0) & (labels != tokens)
    if not bool(apart.any()):
        return not_assessed(f"{figures}; every label of the first rows repeats its token.", **told)
    seen, expected, spread = _expected(reading.logits[apart], tokens[apart], labels[apart])
    concentration = _concentration(ground.batches)
    error = spread * math.sqrt(concentration + 1 / int(apart.sum()))
    told |= {"loss_apart": seen, "expected": expected, "logit_deviation": spread}
    if not all(map(math.isfinite, (seen, expected, spread))):
        raise UnsettledError("logits are not finite")
    lowest = min(expected - max(BELOW, LUCK * error), unigram)
    actual = float(losses[:, reading.places][apart].mean())
    if min(seen, actual) < lowest:
        return failed(
            "loss_too_low",
            f"{figures}, and no weights without training can be below {lowest:.3f}: the labels "
            "reach the logits.",
            **told,
        )
    if seen > uniform + ABOVE:
        return failed(
            "init_big",
            f"{figures}. Fresh weights should begin there; logits with a deviation of "
            f"{spread:.2g} begin {seen - uniform:.1f} nats above.",
            **told,
        )
    text = f"{figures}, frequencies alone would give {unigram:.3f} on these batches."
    if loss > uniform + ABOVE:
        text += " The tied matrix at first expects every token to repeat itself; that passes."
    return passed(text, **told)


def _among_few(ground: Ground, kind: str) -> Answer:
    """The first loss of a head for classes or a span: near that of guessing among its choices.

    Labels that few choices have are met by chance, so a loss below says little; above it by a nat,
    weights are drawn too large, as for tokens.
    """
    _, losses = ground.losses(ground.labels)
    asked = ground.labels >= 0
    if not bool(asked.any()):
        return not_assessed("Nothing is asked in the first rows.")
    loss = float(losses[asked].mean())
    uniform = math.log(ground.outputs) if kind == "classes" else _ln_places(ground.labels)
    told: dict[str, Any] = {"loss": loss, "uniform": uniform, "fresh": ground.fresh}
    figures = f"{loss:.3f} nats an answer; guessing costs {uniform:.3f}"
    if not math.isfinite(loss):
        return failed("loss_not_finite", f"The first loss is {loss}.", **told)
    if ground.fresh and loss > uniform + ABOVE:
        return failed(
            "init_big",
            f"{figures}. Fresh weights should begin there, not {loss - uniform:.1f} nats above.",
            **told,
        )
    return passed(f"{figures}.", **told)


def _ln_places(labels: Tensor) -> float:
    """Labels of spans [R, T] in; the mean over answers of ln of the places to choose from out."""
    import torch

    number = choices(labels)
    inside = labels != IGNORED
    places = torch.bincount(number[inside])
    return float(places[number[labels >= 0]].double().log().mean())


def _expected(logits: Tensor, tokens: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """Logits [P, V] of P places, their tokens and labels in; loss, expected loss and deviation out.

    The token's own logit takes part in none of them; the loss counts V entries all the same.
    """
    import torch

    count = logits.shape[-1]
    own = torch.zeros_like(logits, dtype=torch.bool).scatter_(-1, tokens[:, None], True)
    total = logits.masked_fill(own, -torch.inf).logsumexp(-1)
    others = max(1, count - 1)
    # As if the own logit were like the others: ln V, not ln (V − 1), is what guessing costs.
    total = total + math.log(count / others)
    centre = logits.masked_fill(own, 0).sum(-1) / others
    spread = ((logits - centre[:, None]).masked_fill(own, 0).square().sum(-1) / others).sqrt()
    label = logits.gather(-1, labels[:, None])[:, 0]
    return (
        float((total - label).mean()),
        float((total - centre).mean()),
        float(spread.square().mean().sqrt()),
    )


def unigram_entropy(batches: tuple[Batch, ...]) -> float:
    """Batches in; entropy of the frequencies of their labels, nats; 0 without labels."""
    shares = _frequencies(batches)
    return float(-(shares * np.log(shares)).sum()) if len(shares) else 0.0


def _concentration(batches: tuple[Batch, ...]) -> float:
    """Chance that two labels are the same: 1 / it is how many labels there are in effect."""
    return float(np.square(_frequencies(batches)).sum())


def _frequencies(batches: tuple[Batch, ...]) -> np.ndarray[Any, np.dtype[np.float64]]:
    labels = np.concatenate([batch.labels[batch.labels >= 0] for batch in batches])
    _, counts = np.unique(labels, return_counts=True)
    shares: np.ndarray[Any, np.dtype[np.float64]] = counts / max(1, counts.sum())
    return shares
