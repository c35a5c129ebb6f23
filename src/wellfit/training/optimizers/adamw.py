"""AdamW: step along the mean gradient over the root of its mean square (arXiv 1711.05101)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wellfit.recipe import schema
from wellfit.training.optimizers.method import Method, Moments

if TYPE_CHECKING:
    from torch import Tensor

    Settings = schema.AdamW | schema.AdamW8bit | schema.Muon


def fresh(parameter: Tensor, settings: Settings) -> Moments:
    """A parameter in; its step counter and both moments, all zero, out."""
    import torch

    return {
        "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
        "exp_avg": torch.zeros_like(parameter),
        "exp_avg_sq": torch.zeros_like(parameter),
    }


def update(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    moments: Sequence[Moments],
    *,
    settings: Settings,
    rate: float,
    weight_decay: float,
    apply: Tensor | None,
) -> None:
    """Algorithm 2 of the paper, as `Update` says; torch's kernel, one pass over all tensors."""
    from torch.optim import adamw

    adamw.adamw(
        list(weights),
        list(gradients),
        [own["exp_avg"] for own in moments],
        [own["exp_avg_sq"] for own in moments],
        [],
        [own["step"] for own in moments],
        fused=True,
        # The kernel's own gate, made for loss scaling: 1 leaves everything as it is.
        found_inf=None if apply is None else 1 - apply,
        amsgrad=False,
        beta1=settings.beta1,
        beta2=settings.beta2,
        lr=rate,
        weight_decay=weight_decay,
        eps=settings.epsilon,
        maximize=False,
    )


ADAMW = Method(fresh, update)
