"""The inner features of a feed-forward and the product behind them, gradients by hand.

Autograd would keep the inner features for the weights of the product, and beside them what they
were made of. They cost a pass over memory to make again, and are as large as all else that a block
keeps of its feed-forward.

Axes: N tokens, D width, F hidden features.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from wellfit.model.products import linear, product


class _GatedDown(torch.autograd.Function):
    """down(silu(gate) · up), keeping gate and up."""

    @staticmethod
    def forward(ctx: Any, up: Tensor, gate: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(up, gate, weight)
        return linear(functional.silu(gate).mul_(up), weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        up, gate, weight = ctx.saved_tensors
        active = functional.silu(gate)
        weight_grad = _weight_grad(ctx, grad, active * up)
        inner_grad = product(grad, weight.T)
        up_grad = active.mul_(inner_grad)
        gate_grad = torch.ops.aten.silu_backward(inner_grad.mul_(up), gate)
        return up_grad, gate_grad, weight_grad


class _SquaredDown(torch.autograd.Function):
    """down(max(up, 0)²), keeping max(up, 0)."""

    @staticmethod
    def forward(ctx: Any, up: Tensor, weight: Tensor) -> Tensor:
        positive = up.clamp_min(0)
        ctx.save_for_backward(positive, weight)
        return linear(positive * positive, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        positive, weight = ctx.saved_tensors
        weight_grad = _weight_grad(ctx, grad, positive * positive)
        inner_grad = product(grad, weight.T)
        return inner_grad.mul_(positive).mul_(2), weight_grad


def _weight_grad(ctx: Any, grad: Tensor, inner: Tensor) -> Tensor | None:
    if not ctx.needs_input_grad[-1]:
        return None
    return grad.flatten(0, -2).T @ inner.flatten(0, -2)


def gated_down(up: Tensor, gate: Tensor, weight: Tensor) -> Tensor:
    """up and gate [..., F], weight [D, F], of one dtype → (silu(gate) · up)·weightᵀ [..., D]."""
    return cast(Tensor, _GatedDown.apply(up, gate, weight))  # type: ignore[no-untyped-call]


def squared_down(up: Tensor, weight: Tensor) -> Tensor:
    """up [..., F], weight [D, F], of one dtype → (max(up, 0)²)·weightᵀ [..., D]."""
    return cast(Tensor, _SquaredDown.apply(up, weight))  # type: ignore[no-untyped-call]
