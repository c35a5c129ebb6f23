"""Gradients by hand, each because autograd's own chain makes too many passes over memory.

Axes: B rows, T tokens of a row, N = B·T tokens, D width, H heads, W features of a head,
V vocabulary entries.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

# Rows of logits at a time. 512 × 4,096 bf16 logits are 4 MB: they stay in a core's cache between
# the product that makes them and the product that consumes them (docs/model.md, "Speed").
CHUNK_LOGITS = 2_097_152


class _RMSNorm(torch.autograd.Function):
    """By hand because torch's own becomes pow, mean, rsqrt and mul on CPUs, each with a copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        # The norm is summed in float32 and given in the dtype of x; asking for float32 copies x,
        # which only float16 needs: it ends at 65,504, and an infinite norm would give zeros.
        wide = torch.float32 if x.dtype == torch.float16 else None
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide).to(weight.dtype)
        scale = torch.rsqrt(size.square() / x.shape[-1] + epsilon).to(x.dtype)
        unit = x * scale
        scaling = weight.to(x.dtype)
        ctx.save_for_backward(unit, scale, scaling)
        ctx.weight_dtype = weight.dtype
        return unit * scaling

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        unit, scale, scaling = ctx.saved_tensors
        product = grad * unit
        # A product with ones sums in float32 on the matrix units; `sum` would copy to float32.
        rows = product.flatten(0, -2)
        weight_grad = (rows.new_ones(1, len(rows)) @ rows)[0].to(ctx.weight_dtype)
        along = (product @ scaling).unsqueeze(-1) / -unit.shape[-1]
        x_grad = torch.addcmul(grad * scaling, unit, along).mul_(scale)
        return x_grad, weight_grad, None


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Features [..., D] and weights [D] → w · x / √(mean(x²) + ε) in the dtype of x.

    Sums are taken in float32 at least; in bf16 each row's factor is rounded as its features are.
    """
    return cast(Tensor, _RMSNorm.apply(x, weight, epsilon))  # type: ignore[no-untyped-call]


class _SquaredReLU(torch.autograd.Function):
    """By hand because relu and square each keep an activation; here one is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive = x.clamp_min(0)
        ctx.save_for_backward(positive)
        return positive * positive

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return torch.addcmul(positive.new_zeros(()), grad, positive, value=2)


def squared_relu(x: Tensor) -> Tensor:
    """x → max(x, 0)²."""
    return cast(Tensor, _SquaredReLU.apply(x))  # type: ignore[no-untyped-call]


class _Rotation(torch.autograd.Function):
    """By hand because slices and `cat` copy each half several times, and zero-fill gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        ctx.save_for_backward(cosine, sine)
        rows, tokens, heads, width = x.shape
        out = x.new_empty(rows, heads, tokens, width)
        _turn(x, cosine, sine, 1.0, out.transpose(1, 2))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cosine, sine = ctx.saved_tensors
        grad = grad.transpose(1, 2)
        out = torch.empty(grad.shape, dtype=grad.dtype, device=grad.device)
        _turn(grad, cosine, sine, -1.0, out)
        return out, None, None


def _turn(x: Tensor, cosine: Tensor, sine: Tensor, sign: float, out: Tensor) -> None:
    """Write x [B, T, H, W] turned by sign · angle into `out`; feature i turns with i + W/2."""
    first, second = x.chunk(2, dim=-1)
    left, right = out.chunk(2, dim=-1)
    torch.mul(first, cosine, out=left)
    left.addcmul_(second, sine, value=-sign)
    torch.mul(second, cosine, out=right)
    right.addcmul_(first, sine, value=sign)


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Heads [B, T, H, W] turned by the angles [B or 1, T, 1, W/2] → [B, H, T, W] for attention."""
    if torch.compiler.is_compiling():  # torch.compile cannot write into views, and fuses this
        first, second = x.chunk(2, dim=-1)
        left, right = first * cosine - second * sine, second * cosine + first * sine
        return torch.cat((left, right), dim=-1).transpose(1, 2)
    return cast(Tensor, _Rotation.apply(x, cosine, sine))  # type: ignore[no-untyped-call]


class _LinearCrossEntropy(torch.autograd.Function):
    """By hand because autograd would keep all N·V logits and their gradient in memory.

    Backward makes the logits of a chunk again: one more product, in exchange for N·V numbers.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor, soft_cap: float, chunk: int
    ) -> Tensor:
        matrix = weight.to(hidden.dtype)
        exact = torch.promote_types(hidden.dtype, torch.float32)
        losses = hidden.new_empty(labels.shape, dtype=exact)
        for at in range(0, len(labels), chunk):
            part = slice(at, at + chunk)
            logits = (hidden[part] @ matrix.T).to(exact)
            if soft_cap:
                logits.div_(soft_cap).tanh_().mul_(soft_cap)
            picked = labels[part].clamp_min(0)[:, None]
            losses[part] = -logits.log_softmax(1).gather(1, picked)[:, 0]
        ctx.save_for_backward(hidden, matrix, labels)
        ctx.soft_cap, ctx.chunk, ctx.weight_dtype = soft_cap, chunk, weight.dtype
        return losses.masked_fill_(labels < 0, 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        hidden, matrix, labels = ctx.saved_tensors
        # A token's factor scales its features, not its V logits: one pass over memory less.
        factor = grad.masked_fill(labels < 0, 0)[:, None]
        scaled = (hidden * factor).to(hidden.dtype)
        hidden_grad = torch.empty_like(hidden)
        matrix_grad = torch.zeros(matrix.shape, dtype=ctx.weight_dtype, device=matrix.device)
        for at in range(0, len(labels), ctx.chunk):
            part = slice(at, at + ctx.chunk)
            logits = hidden[part] @ matrix.T
            slope = None
            if ctx.soft_cap:
                logits.div_(ctx.soft_cap).tanh_()
                slope = 1 - logits.square()
                logits.mul_(ctx.soft_cap)
            share = logits.softmax(1)
            # Indexed, since scatter_add_ copies all of a bf16 tensor.
            share[torch.arange(len(share), device=share.device), labels[part].clamp_min(0)] -= 1
            if slope is not None:
                share.mul_(slope)
            hidden_grad[part] = (share @ matrix) * factor[part]
            matrix_grad += share.T @ scaled[part]
        return hidden_grad, matrix_grad, None, None, None


def loss_chunk(vocabulary_size: int) -> int:
    """Vocabulary entries → rows of logits that the loss makes at a time.

    >>> loss_chunk(4096)
    512
    """
    return max(1, CHUNK_LOGITS // vocabulary_size)


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, soft_cap: float = 0.0, chunk: int = 0
) -> Tensor:
    """Features [N, D], matrix [V, D], labels [N] → nats [N] in float32 (float64 for such features).

    −ln softmax(cap·tanh(h·Wᵀ/cap))[label], without the cap where `soft_cap` is 0. Negative labels
    give 0 and no gradient. At most `chunk` rows of logits exist at a time; 0 chooses.
    """
    chunk = chunk or loss_chunk(weight.shape[0])
    losses = _LinearCrossEntropy.apply(hidden, weight, labels, soft_cap, chunk)  # type: ignore[no-untyped-call]
    return cast(Tensor, losses)
