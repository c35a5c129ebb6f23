"""Products of large matrices in 8-bit floats: inputs and weights e4m3, gradients e5m2.

Both formats are those of arXiv 2209.05433: e4m3 keeps 3 bits behind the point and ends at 448,
e5m2 keeps 2 and ends at 57,344. Every tensor is scaled by its own largest number just before it is
rounded ("dynamic, per tensor"): that number becomes the largest of the format, so nothing
overflows and no history is kept from step to step. Sums are float32; results have the arithmetic
around them (bf16), and the gradient of a weight is float32.

Axes: N tokens, I inputs and O outputs of a matrix.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2
MULTIPLE = 16
"""Sides of all three products must be multiples of this: the kernels' own condition."""
SMALL_OUTPUTS, SMALL_INPUTS = 4_096, 1_024
"""A matrix with no more of either gains nothing: rounding it takes longer than is saved. Measured
by torchao for this way of scaling, on an H100; not measured here."""


def pays(outputs: int, inputs: int) -> bool:
    """The sides of a matrix → whether it is multiplied in 8 bits.

    >>> pays(4096, 2048), pays(4096, 1024), pays(8192, 1020)
    (True, False, False)
    """
    whole = outputs % MULTIPLE == inputs % MULTIPLE == 0
    return whole and (outputs > SMALL_OUTPUTS or inputs > SMALL_INPUTS)


def fits(x: Tensor) -> bool:
    """Features [..., I] → whether their tokens can be multiplied in 8 bits: bf16, 16 at a time.

    Other arithmetic is asked for where a number must be exact, as in a proof.
    """
    return x.dtype == torch.bfloat16 and (x.numel() // x.shape[-1]) % MULTIPLE == 0


def rounded(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """A tensor and an 8-bit type → x / scale in that type, and the scale, a float32 scalar.

    The largest |x| becomes the largest number of the type. A tensor of zeros has a scale above
    zero; one that holds infinities or NaN gives NaN, so that a bad gradient stays seen.

    >>> values, scale = rounded(torch.tensor([896.0, -2.0, 0.0]), torch.float8_e4m3fn)
    >>> values.float(), scale
    (tensor([448.,  -1.,   0.]), tensor(2.))
    """
    most = torch.finfo(dtype).max
    scale = (x.abs().amax().float() / most).clamp_min(torch.finfo(torch.float32).tiny)
    # Division may round the largest number up by a bit of float32, which rounds down again here.
    return (x.float() / scale).to(dtype), scale


class _Float8Linear(torch.autograd.Function):
    """By hand because each of the three products takes its own two roundings.

    Kept for the backward pass are the rounded features and weights, a byte a number.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        features, feature_scale = rounded(x.reshape(-1, x.shape[-1]), FORWARD)
        matrix, matrix_scale = rounded(weight, FORWARD)
        out = _product(features, feature_scale, matrix, matrix_scale, x.dtype, fast=True)
        ctx.save_for_backward(features, feature_scale, matrix, matrix_scale)
        ctx.shape, ctx.dtype, ctx.weight_dtype = x.shape, x.dtype, weight.dtype
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        features, feature_scale, matrix, matrix_scale = ctx.saved_tensors
        slope, slope_scale = rounded(grad.reshape(-1, grad.shape[-1]), BACKWARD)
        x_grad = weight_grad = None
        if ctx.needs_input_grad[0]:
            turned = matrix.t().contiguous()
            x_grad = _product(slope, slope_scale, turned, matrix_scale, ctx.dtype)
            x_grad = x_grad.view(ctx.shape)
        if ctx.needs_input_grad[1]:
            rows, columns = slope.t().contiguous(), features.t().contiguous()
            weight_grad = _product(rows, slope_scale, columns, feature_scale, ctx.weight_dtype)
        return x_grad, weight_grad


def _product(
    left: Tensor,
    left_scale: Tensor,
    right: Tensor,
    right_scale: Tensor,
    dtype: torch.dtype,
    *,
    fast: bool = False,
) -> Tensor:
    """left [A, B] · rightᵀ, right [C, B], both row by row in memory as the kernels want it.

    `fast` lets NVIDIA's kernels sum in fewer bits, as is usual for the forward product alone.
    """
    return torch._scaled_mm(
        left,
        right.t(),
        scale_a=left_scale,
        scale_b=right_scale,
        out_dtype=dtype,
        use_fast_accum=fast and left.device.type == "cuda",
    )


def float8_linear(x: Tensor, weight: Tensor) -> Tensor:
    """Features [..., I] that fit, master weights [O, I] → features [..., O] in the dtype of x."""
    return cast(Tensor, _Float8Linear.apply(x, weight))  # type: ignore[no-untyped-call]
