"""One optimizer step: a batch in, gradients over all its supervised tokens, one update out.

Nothing here waits for the device: what was measured stays there as tensors until `Measured.read`.
Axes: N rows of the batch, B rows of a micro-batch, T tokens of a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wellfit.training.own_loss import OwnLoss, own_losses

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor
    from torch.nn import Parameter

    from wellfit.data.batches import Batch
    from wellfit.model.protocol import Beside, LanguageModel


@dataclass(frozen=True, slots=True)
class Objective:
    """What is minimised beside the plain loss, and how its gradient is bounded."""

    document_mask: bool = True
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    loss: OwnLoss | None = None
    """Minimised in place of the cross-entropy, which is reported all the same."""
    clip_norm: float = 0.0
    """Largest 2-norm of the gradient; 0 turns it off."""
    clip_value: float = 0.0
    """Largest size of any number of the gradient; 0 turns it off."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one step measured, as numbers."""

    loss: float
    """Nats a supervised token, over the whole batch; nothing else is in it."""
    grad_norm: float
    clipped: bool
    supervised_tokens: int
    applied: bool
    """False where weights and moments are as before the step."""
    spike: bool = False
    """Loss or gradient norm stand far above those of the last steps."""
    overflow: bool = False
    """A float16 gradient was too large for its scale, which is now smaller."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one step measured, still on the device (0-dimensional tensors)."""

    loss: Tensor
    grad_norm: Tensor
    clipped: Tensor
    supervised_tokens: int
    applied: Tensor
    spike: Tensor
    overflow: Tensor

    def read(self) -> Outcome:
        """Waits for the device, and gives the numbers."""
        return Outcome(
            loss=float(self.loss),
            grad_norm=float(self.grad_norm),
            clipped=bool(self.clipped),
            supervised_tokens=self.supervised_tokens,
            applied=bool(self.applied),
            spike=bool(self.spike),
            overflow=bool(self.overflow),
        )


def accumulate(
    model: LanguageModel,
    batch: Batch,
    objective: Objective,
    *,
    micro_batch: int,
    device: torch.device,
    key: tuple[int, int],
    scale: Tensor | None = None,
    keeping: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> tuple[Tensor, int]:
    """A batch [N, T] in; mean loss (a tensor) and supervised tokens out, gradients in parameters.

    Every micro-batch's summed loss is divided by the supervised tokens of the *whole* batch, so
    the gradient is that of one pass over all N rows, however they are cut and however the labels
    are spread over them; with `batch.weights` each loss counts for its weight in the gradient, and
    for one in what is reported. `key` is (seed, step), the source of dropout. With a `scale` the
    gradients are that many times too large. `keeping()` surrounds each forward pass.
    """
    import torch

    count = int(np.count_nonzero(batch.labels >= 0))
    # MPS has no float64.
    exact = torch.float32 if device.type == "mps" else torch.float64
    total = torch.zeros((), dtype=exact, device=device)
    more = bool(objective.label_smoothing or objective.z_loss)
    for first in range(0, batch.tokens.shape[0], micro_batch):
        part = slice(first, first + micro_batch)
        labels = _on(device, batch.labels[part])
        weights = None if batch.weights is None else _on(device, batch.weights[part])
        places: tuple[Tensor | None, Tensor | None] = (None, None)
        if objective.document_mask:
            places = _on(device, batch.positions[part]), _on(device, batch.segments[part])
        model.dropout_key(*key, first)
        with keeping():
            source = source_on(device, batch, part)
            hidden = model.hidden(_on(device, batch.tokens[part]), *places, **source)
            if objective.loss is not None:
                with torch.no_grad():
                    losses = model.token_loss(hidden, labels)
                own = own_losses(model, objective.loss, hidden, labels, batch.labels[part])
                aim = own.sum() / max(count, 1)
            elif more:
                losses, extra = model.token_objective(
                    hidden,
                    labels,
                    label_smoothing=objective.label_smoothing,
                    z_loss=objective.z_loss,
                )
                aim = _total(losses + extra, weights) / max(count, 1)
            else:
                losses = model.token_loss(hidden, labels)
                aim = _total(losses, weights) / max(count, 1)
            weight = np.count_nonzero(batch.labels[part] >= 0) / max(count, 1)
            aim = aim + model.auxiliary_loss() * weight
        (aim if scale is None else aim * scale).backward()  # type: ignore[no-untyped-call]
        total += losses.detach().to(exact).sum()
    # Without a single label there is no loss: not a number, rather than a perfect zero.
    return total / (count if count else math.nan), count


def _total(losses: Tensor, weights: Tensor | None) -> Tensor:
    """Losses [B, T] and what each counts for → their sum."""
    return losses.sum() if weights is None else (losses * weights).sum()


def source_on(device: torch.device, batch: Batch, part: slice) -> Beside:
    """Some rows of a batch in; what `hidden` is given to read beside them out: often nothing."""
    if batch.source is None:
        return {}
    read = batch.source
    arrays = (read.tokens[part], read.positions[part], read.segments[part])
    tokens, positions, segments = (_on(device, array) for array in arrays)
    return {"source": (tokens, positions, segments)}


def _on(device: torch.device, array: NDArray[np.generic]) -> Tensor:
    """An array in, a tensor on the device out; a copy to CUDA does not wait for the device."""
    import torch

    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def gradients(parameters: Sequence[Parameter]) -> list[Tensor]:
    """Parameters in, the gradients of those that have one out."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def clip(grads: list[Tensor], objective: Objective) -> tuple[Tensor, Tensor]:
    """Gradients in, bounded in place; their 2-norm before, and whether they were bounded, out.

    First every number is clamped to `clip_value`, then all are scaled so that their 2-norm is at
    most `clip_norm`. A gradient that is not finite is left alone: its update is not applied.
    """
    import torch

    norm = torch.nn.utils.get_total_norm(grads)
    clipped = torch.zeros((), dtype=torch.bool, device=norm.device)
    after = norm
    if objective.clip_value:
        largest = torch.nn.utils.get_total_norm(grads, math.inf)
        clipped = largest > objective.clip_value
        torch._foreach_clamp_max_(grads, objective.clip_value)
        torch._foreach_clamp_min_(grads, -objective.clip_value)
        after = torch.nn.utils.get_total_norm(grads)
    if objective.clip_norm:
        over = torch.isfinite(after) & (after > objective.clip_norm)
        clipped = clipped | over
        # On a CPU nothing is waited for, and most steps need no pass over the gradients.
        if norm.device.type != "cpu" or bool(over):
            factor = torch.where(over, objective.clip_norm / after, 1.0)
            torch._foreach_mul_(grads, factor)
    return norm, clipped
