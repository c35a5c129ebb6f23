"""Gradients by hand, each because autograd's own chain makes too many passes over memory.

Axes: B rows, T tokens of a row, N = B·T tokens, D width, H heads, W features of a head,
V vocabulary entries.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from wellfit.model.products import product

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

    The gradient is known as soon as the logits are, up to each token's factor. Training gives all
    tokens one factor, so on a CPU both gradients are made at once, while a chunk's logits are in
    the cache, and only scaled in the backward pass. Where factors differ, and on devices that
    would have to be waited for to know, the backward pass makes the logits again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        soft_cap: float,
        chunk: int,
        at_once: bool,
    ) -> Tensor:
        matrix = weight.to(hidden.dtype)
        losses = hidden.new_empty(labels.shape, dtype=_exact(hidden.dtype))
        ctx.gradients = None
        if at_once:
            hidden_grad = torch.empty_like(hidden)
            # A frozen matrix, as of a base with an adapter, has no use for a gradient.
            trained = ctx.needs_input_grad[1]
            matrix_grad = torch.zeros(matrix.shape, dtype=weight.dtype) if trained else None
            ctx.gradients = hidden_grad, matrix_grad
        holes = labels < 0
        for at in range(0, len(labels), chunk):
            part = slice(at, at + chunk)
            losses[part], pull = _chunk(hidden[part], matrix, labels[part], soft_cap, pulls=at_once)
            if pull is not None:
                if bool(holes[part].any()):
                    pull.masked_fill_(holes[part, None], 0)
                hidden_grad[part] = product(pull, matrix.T)
                if matrix_grad is not None:
                    matrix_grad += pull.T @ hidden[part]
                del pull  # its memory is the next chunk's
        ctx.save_for_backward(hidden, matrix, labels)
        ctx.soft_cap, ctx.chunk, ctx.weight_dtype = soft_cap, chunk, weight.dtype
        return losses.masked_fill_(holes, 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, matrix, labels = ctx.saved_tensors
        if ctx.gradients is not None and _all_the_same(counted := grad[labels >= 0]):
            factor = counted[:1].sum()  # 0 where nothing is supervised
            hidden_grad, matrix_grad = ctx.gradients
            ctx.gradients = None  # scaled in place, so good for one pass
            if matrix_grad is not None:
                matrix_grad.mul_(factor)
            return hidden_grad.mul_(factor), matrix_grad, None, None, None, None
        # A token's factor scales its features, not its V logits: one pass over memory less.
        factor = grad.masked_fill(labels < 0, 0)[:, None]
        scaled = (hidden * factor).to(hidden.dtype)
        hidden_grad = torch.empty_like(hidden)
        matrix_grad = None
        if ctx.needs_input_grad[1]:
            matrix_grad = torch.zeros(matrix.shape, dtype=ctx.weight_dtype, device=matrix.device)
        for at in range(0, len(labels), ctx.chunk):
            part = slice(at, at + ctx.chunk)
            _, pull = _chunk(hidden[part], matrix, labels[part], ctx.soft_cap, pulls=True)
            assert pull is not None
            hidden_grad[part] = product(pull, matrix.T) * factor[part]
            if matrix_grad is not None:
                matrix_grad += pull.T @ scaled[part]
            del pull
        return hidden_grad, matrix_grad, None, None, None, None


def _chunk(
    hidden: Tensor, matrix: Tensor, labels: Tensor, soft_cap: float, *, pulls: bool
) -> tuple[Tensor, Tensor | None]:
    """Features [n, D], matrix [V, D], labels [n] → losses [n], and their gradient by the logits.

    The gradient [n, V] is p, and p − 1 at the label, in the dtype of the features.
    """
    logits = product(hidden, matrix).to(_exact(hidden.dtype))
    bend = None
    if soft_cap:
        logits.div_(soft_cap).tanh_()
        bend = 1 - logits.square() if pulls else None
        logits.mul_(soft_cap)
    likely = logits.log_softmax(1)
    del logits
    picked = labels.clamp_min(0)
    losses = -likely.gather(1, picked[:, None])[:, 0]
    if not pulls:
        return losses, None
    share = likely.exp_()
    share[torch.arange(len(share), device=share.device), picked] -= 1
    if bend is not None:
        share.mul_(bend)
    return losses, share.to(hidden.dtype)


def _exact(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _all_the_same(values: Tensor) -> bool:
    return not len(values) or bool((values == values[0]).all())


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
    trains = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    at_once = trains and hidden.device.type == "cpu"
    losses = _LinearCrossEntropy.apply(hidden, weight, labels, soft_cap, chunk, at_once)  # type: ignore[no-untyped-call]
    return cast(Tensor, losses)
