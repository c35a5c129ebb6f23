"""An answer chosen among the places of a text: where it begins, and the place behind it.

Places to choose from stand together; what they must not be told apart from stands between them, so
labels alone say which places compete. Axes: B rows, T tokens of a row, P places of a choice.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wellfit.records import CANDIDATE, IGNORED


def span_losses(scores: Tensor, labels: Tensor) -> Tensor:
    """Scores [B, T, 2] and labels [B, T] → nats [B, T] in float32; 0 where no label is from 0 on.

    With s₀ for beginnings and s₁ for ends, the place labelled k costs ln Σ exp(s_k) over the P
    places of its choice, less its own s_k (BERT's span loss, arXiv 1810.04805, section 4.2).
    """
    choice = choices(labels)
    scores = scores.float().flatten(0, 1)
    competing = torch.where((labels == IGNORED).flatten()[:, None], -torch.inf, scores)
    # As many slots as places: how many choices there are is known to the device alone.
    slots = torch.full_like(competing, -torch.inf)
    index = choice.flatten()[:, None].expand_as(competing)
    largest = slots.scatter_reduce(0, index, competing.detach(), "amax")
    largest = largest.masked_fill(~torch.isfinite(largest), 0.0)
    shares = (competing - largest.gather(0, index)).exp()
    total = torch.zeros_like(shares).scatter_add(0, index, shares)
    logs = total.clamp_min(torch.finfo(total.dtype).tiny).log() + largest
    asked = labels.flatten().clamp_min(0)[:, None]
    losses = (logs.gather(0, index) - scores).gather(1, asked)[:, 0]
    return losses.view(labels.shape).masked_fill(labels < 0, 0.0)


def span_guesses(scores: Tensor, labels: Tensor) -> Tensor:
    """Scores [B, T, 2] and labels [B, T] → labels [B, T]: what the model says at asked places.

    A place that is asked keeps its label where no other place of its choice has a higher score of
    that kind, else it is CANDIDATE: beginning and end are judged apart.
    """
    index = choices(labels).flatten()[:, None].expand(-1, 2)
    scores = scores.float().flatten(0, 1)
    competing = torch.where((labels == IGNORED).flatten()[:, None], -torch.inf, scores)
    slots = torch.full_like(competing, -torch.inf)
    largest = slots.scatter_reduce(0, index, competing, "amax").gather(0, index)
    asked = labels.flatten().clamp_min(0)[:, None]
    best = (scores >= largest).gather(1, asked)[:, 0].view(labels.shape)
    return torch.where(best | (labels < 0), labels, CANDIDATE)


def choices(labels: Tensor) -> Tensor:
    """Labels [B, T] → the number of the choice that each place belongs to, from 0 [B, T].

    A choice is an unbroken run of places whose label is not IGNORED, within a row; other places
    have the number of the run before them, or 0.
    """
    inside = labels != IGNORED
    begins = inside.clone()
    begins[:, 1:] &= ~inside[:, :-1]
    return (begins.flatten().cumsum(0) - 1).clamp_min(0).view(labels.shape)


def best_span(scores: Tensor) -> tuple[int, int]:
    """Scores [P, 2] of the places of one choice → beginning and end with the largest sum, in order.

    The end is the place behind the span, so it comes later.

    >>> best_span(torch.tensor([[0.0, 9.0], [2.0, 0.0], [5.0, 1.0], [0.0, 3.0]]))
    (2, 3)
    """
    begins, ends = scores[:, 0], scores[:, 1]
    sums = begins[:, None] + ends[None, :]
    later = torch.ones_like(sums, dtype=torch.bool).triu(1)
    place = int(sums.masked_fill(~later, -torch.inf).argmax())
    return place // len(scores), place % len(scores)
