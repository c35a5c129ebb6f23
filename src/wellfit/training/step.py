"""One optimizer step: a batch in, gradients over all its supervised tokens, one update out.

Axes: N rows of the batch, B rows of a micro-batch, T tokens of a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wellfit.data.batches import IGNORED

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Parameter

    from wellfit.data.batches import Batch
    from wellfit.model.protocol import LanguageModel
    from wellfit.training.optimizers import Optimizers


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step measured."""

    loss: float
    """Nats a supervised token, over the whole batch; auxiliary losses not included."""
    grad_norm: float
    clipped: bool
    supervised_tokens: int
    applied: bool
    """False where loss or gradient are not finite: weights and moments then are as before."""


def accumulate(
    model: LanguageModel,
    batch: Batch,
    *,
    micro_batch: int,
    document_mask: bool,
    device: torch.device,
    key: tuple[int, int],
) -> tuple[float, int]:
    """A batch [N, T] in; mean loss and supervised tokens out, gradients in the parameters.

    Every micro-batch's summed loss is divided by the supervised tokens of the *whole* batch, so
    the gradient is that of one pass over all N rows, however they are cut and however the labels
    are spread over them. `key` is (seed, step), the source of dropout.
    """
    import torch

    count = int(np.count_nonzero(batch.labels != IGNORED))
    total = torch.zeros((), dtype=torch.float64)
    rows = batch.tokens.shape[0]
    for number, first in enumerate(range(0, rows, micro_batch)):
        part = slice(first, first + micro_batch)
        labels = torch.from_numpy(batch.labels[part]).to(device)
        places: tuple[Tensor | None, Tensor | None] = (None, None)
        if document_mask:
            places = (
                torch.from_numpy(batch.positions[part]).to(device),
                torch.from_numpy(batch.segments[part]).to(device),
            )
        model.dropout_key(*key, number)
        hidden = model.hidden(torch.from_numpy(batch.tokens[part]).to(device), *places)
        losses = model.token_loss(hidden, labels)
        weight = np.count_nonzero(batch.labels[part] != IGNORED) / max(count, 1)
        objective = losses.sum() / max(count, 1) + model.auxiliary_loss() * weight
        objective.backward()  # type: ignore[no-untyped-call]
        total += losses.detach().to("cpu", torch.float64).sum()
    # Without a single label there is no loss: not a number, rather than a perfect zero.
    return (total.item() / count if count else math.nan), count


def clip(parameters: Sequence[Parameter], clip_norm: float) -> tuple[float, bool]:
    """Parameters with gradients in; their 2-norm before clipping and whether it was clipped out.

    Gradients with a larger norm than `clip_norm` are scaled down to it; 0 turns it off.
    """
    import torch

    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients))
    clipped = bool(clip_norm) and math.isfinite(norm) and norm > clip_norm
    if clipped:
        torch._foreach_mul_(gradients, clip_norm / norm)
    return norm, clipped


def take_step(
    model: LanguageModel,
    optimizers: Optimizers,
    parameters: Sequence[Parameter],
    batch: Batch,
    *,
    micro_batch: int,
    document_mask: bool,
    clip_norm: float,
    device: torch.device,
    key: tuple[int, int],
) -> Outcome:
    """A batch in; one update at the rates that are set, and what was measured, out."""
    loss, count = accumulate(
        model, batch, micro_batch=micro_batch, document_mask=document_mask, device=device, key=key
    )
    norm, clipped = clip(parameters, clip_norm)
    applied = math.isfinite(loss) and math.isfinite(norm)
    if applied:
        optimizers.step()
    optimizers.zero_grad()
    return Outcome(loss, norm, clipped, count, applied)
