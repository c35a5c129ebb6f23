"""SGD: step against the gradient, or against its momentum (Sutskever et al. 2013)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wellfit.recipe import schema
from wellfit.training.optimizers import gate
from wellfit.training.optimizers.method import Method, Moments

if TYPE_CHECKING:
    from torch import Tensor


def fresh(parameter: Tensor, settings: schema.SGD) -> Moments:
    """A parameter in; its momentum, zero, out; nothing where the settings have no momentum."""
    import torch

    return {"momentum_buffer": torch.zeros_like(parameter)} if settings.momentum else {}


def update(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    moments: Sequence[Moments],
    *,
    settings: schema.SGD,
    rate: float,
    weight_decay: float,
    apply: Tensor | None,
) -> None:
    """One step, as `Update` says; momentum as torch.optim.SGD has it, without dampening.

    momentum = beta * momentum + gradient; the step goes along it, or with `nesterov` along
    gradient + beta * momentum.
    """
    import torch

    steep = list(gradients)
    if settings.momentum:
        buffers = [own["momentum_buffer"] for own in moments]
        grown = list(torch._foreach_mul(buffers, settings.momentum))
        torch._foreach_add_(grown, steep)
        gate.write(buffers, grown, apply)
        updates = grown
        if settings.nesterov:
            updates = list(torch._foreach_add(steep, grown, alpha=settings.momentum))
    else:
        updates = steep if apply is None else [gradient.clone() for gradient in steep]
    gate.silence(updates, apply)
    gate.shrink(weights, rate * weight_decay, apply)
    torch._foreach_add_(list(weights), updates, alpha=-rate)


SGD = Method(fresh, update)
