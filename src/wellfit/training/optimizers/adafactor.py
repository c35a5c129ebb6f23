"""Adafactor: a matrix's mean squares from its rows' and columns' alone (arXiv 1804.04235).

A matrix of m rows and n columns keeps m + n numbers instead of the 2 * m * n of AdamW.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wellfit.recipe import schema
from wellfit.training.optimizers import gate
from wellfit.training.optimizers.method import Method, Moments

if TYPE_CHECKING:
    from torch import Tensor


def fresh(parameter: Tensor, settings: schema.Adafactor) -> Moments:
    """A parameter [..., m, n] in; step counter, row means [..., m] and column means [..., n] out.

    A vector keeps the mean squares of all its numbers.
    """
    import torch

    step = {"step": torch.zeros((), dtype=torch.float32, device=parameter.device)}
    if parameter.ndim < 2:
        return step | {"exp_avg_sq": torch.zeros_like(parameter)}
    return step | {
        "exp_avg_sq_row": parameter.new_zeros(parameter.shape[:-1]),
        "exp_avg_sq_col": parameter.new_zeros(parameter.shape[:-2] + parameter.shape[-1:]),
    }


def update(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    moments: Sequence[Moments],
    *,
    settings: schema.Adafactor,
    rate: float,
    weight_decay: float,
    apply: Tensor | None,
) -> None:
    """Algorithms 4 and 5 of the paper without momentum, as `Update` says.

    beta2 of step t is 1 - t^(-`decay_power`). With `scale_by_size` a tensor's step is `rate` times
    the root mean square of its weights (at least `smallest_size`); its decay is not scaled.
    """
    for weight, gradient, own in zip(weights, gradients, moments, strict=True):
        step = own["step"] + 1
        share = step.pow(-settings.decay_power)
        square = gradient.square().add_(settings.epsilon)
        if "exp_avg_sq" in own:
            mean = own["exp_avg_sq"].lerp(square, share)
            direction = gradient * mean.rsqrt()
            new = {"step": step, "exp_avg_sq": mean}
        else:
            rows = own["exp_avg_sq_row"].lerp(square.mean(-1), share)
            columns = own["exp_avg_sq_col"].lerp(square.mean(-2), share)
            tall = (rows / rows.mean(-1, keepdim=True)).rsqrt_()
            direction = gradient * tall.unsqueeze(-1)
            direction.mul_(columns.rsqrt().unsqueeze(-2))
            new = {"step": step, "exp_avg_sq_row": rows, "exp_avg_sq_col": columns}
        too_large = (size(direction) / settings.clip_threshold).clamp_(min=1.0)
        length = rate / too_large
        if settings.scale_by_size:
            length = length * size(weight).clamp_(min=settings.smallest_size)
        direction.mul_(length)
        gate.silence([direction], apply)
        gate.write([own[name] for name in new], list(new.values()), apply)
        gate.shrink([weight], rate * weight_decay, apply)
        weight.sub_(direction)


def size(tensor: Tensor) -> Tensor:
    """A tensor in, the root mean square of its numbers (0-dim) out.

    >>> import torch
    >>> size(torch.tensor([3.0, -3.0]))
    tensor(3.)
    """
    return tensor.square().mean().sqrt()


ADAFACTOR = Method(fresh, update)
