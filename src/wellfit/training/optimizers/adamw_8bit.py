"""AdamW whose moments are kept in one byte a number (arXiv 2110.02861).

Two bytes a parameter instead of eight, and 4 bytes for every 128. The arithmetic is in float32:
moments are restored, updated, used, and then quantised again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wellfit.recipe import schema
from wellfit.training.optimizers import adamw, blockwise, gate
from wellfit.training.optimizers.method import Method, Moments

if TYPE_CHECKING:
    from torch import Tensor

# Norms, biases and tiny matrices: nothing to save, and much to lose.
SMALLEST = 4096
# Numbers at once: restored moments take 8 bytes each while they are worked on.
SLICE = 2**14 * blockwise.BLOCK


def fresh(parameter: Tensor, settings: schema.AdamW8bit) -> Moments:
    """A parameter in; its step counter and moments, all zero, out.

    Codes have the parameter's shape, `absmax` one number a block. A tensor of fewer than 4,096
    numbers keeps the moments of AdamW.
    """
    if parameter.numel() < SMALLEST:
        return adamw.fresh(parameter, settings)
    import torch

    made = {"step": torch.zeros((), dtype=torch.float32, device=parameter.device)}
    for name, signed in (("exp_avg", True), ("exp_avg_sq", False)):
        codes, scales = blockwise.zeros(parameter.numel(), parameter.device, signed=signed)
        made[name] = codes.view(parameter.shape)
        made[f"{name}_absmax"] = scales
    return made


def update(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    moments: Sequence[Moments],
    *,
    settings: schema.AdamW8bit,
    rate: float,
    weight_decay: float,
    apply: Tensor | None,
) -> None:
    """The paper's procedure, as `Update` says; weights move by the moments before quantisation."""
    small = [place for place, own in enumerate(moments) if "exp_avg_absmax" not in own]
    if small:
        adamw.update(
            [weights[place] for place in small],
            [gradients[place] for place in small],
            [moments[place] for place in small],
            settings=settings,
            rate=rate,
            weight_decay=weight_decay,
            apply=apply,
        )
    for weight, gradient, own in zip(weights, gradients, moments, strict=True):
        if "exp_avg_absmax" not in own:
            continue
        step = own["step"] + 1
        flat_weight, flat_gradient = weight.view(-1), gradient.reshape(-1)
        for first in range(0, weight.numel(), SLICE):
            part = slice(first, min(first + SLICE, weight.numel()))
            blocks = slice(first // blockwise.BLOCK, -(-part.stop // blockwise.BLOCK))
            _update_part(
                flat_weight[part],
                flat_gradient[part],
                [own["exp_avg"].view(-1)[part], own["exp_avg_absmax"][blocks]],
                [own["exp_avg_sq"].view(-1)[part], own["exp_avg_sq_absmax"][blocks]],
                step,
                settings=settings,
                rate=rate,
                weight_decay=weight_decay,
                apply=apply,
            )
        gate.write([own["step"]], [step], apply)


def _update_part(
    weight: Tensor,
    gradient: Tensor,
    first: list[Tensor],
    second: list[Tensor],
    step: Tensor,
    *,
    settings: schema.AdamW8bit,
    rate: float,
    weight_decay: float,
    apply: Tensor | None,
) -> None:
    """Numbers [N] of a weight, their gradient and (codes, scales) of both moments in; updated."""
    mean = blockwise.restore(first[0], first[1], signed=True)
    mean.lerp_(gradient, 1 - settings.beta1)
    square = blockwise.restore(second[0], second[1], signed=False)
    square.mul_(settings.beta2).addcmul_(gradient, gradient, value=1 - settings.beta2)
    root = square.sqrt().div_((1 - settings.beta2**step).sqrt()).add_(settings.epsilon)
    move = (mean / root).mul_(rate / (1 - settings.beta1**step))
    gate.silence([move], apply)
    gate.write(first, blockwise.quantise(mean, signed=True), apply)
    gate.write(second, blockwise.quantise(square, signed=False), apply)
    gate.shrink([weight], rate * weight_decay, apply)
    weight.sub_(move)


ADAMW_8BIT = Method(fresh, update)
