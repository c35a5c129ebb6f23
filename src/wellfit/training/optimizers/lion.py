"""Lion: step by the sign of an interpolated momentum (arXiv 2302.06675, algorithm 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wellfit.recipe import schema
from wellfit.training.optimizers import gate
from wellfit.training.optimizers.method import Method, Moments

if TYPE_CHECKING:
    from torch import Tensor


def fresh(parameter: Tensor, settings: schema.Lion) -> Moments:
    """A parameter in; its momentum, zero, out."""
    import torch

    return {"exp_avg": torch.zeros_like(parameter)}


def update(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    moments: Sequence[Moments],
    *,
    settings: schema.Lion,
    rate: float,
    weight_decay: float,
    apply: Tensor | None,
) -> None:
    """Algorithm 2 of the paper, as `Update` says.

    The sign is that of beta1 * momentum + (1 - beta1) * gradient; then the momentum becomes
    beta2 * momentum + (1 - beta2) * gradient.
    """
    import torch

    momenta, steep = [own["exp_avg"] for own in moments], list(gradients)
    updates = torch._foreach_lerp(momenta, steep, 1 - settings.beta1)
    torch._foreach_sign_(updates)
    gate.silence(updates, apply)
    if apply is None:
        torch._foreach_lerp_(momenta, steep, 1 - settings.beta2)
    else:
        gate.write(momenta, torch._foreach_lerp(momenta, steep, 1 - settings.beta2), apply)
    gate.shrink(weights, rate * weight_decay, apply)
    torch._foreach_add_(list(weights), updates, alpha=-rate)


LION = Method(fresh, update)
