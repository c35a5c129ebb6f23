"""What is minimised beside the loss that is reported: label smoothing and z-loss.

Axes: N tokens, D width, V vocabulary entries.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from wellfit.model.kernels import linear_cross_entropy, loss_chunk


class _LinearObjective(torch.autograd.Function):
    """By hand for the reason of `kernels.linear_cross_entropy`: N·V numbers are never kept.

    With p = softmax(l), Z = Σ exp(l), label y: the loss is ln Z − l_y and the extra
    ε·(l_y − mean(l)) + z·(ln Z)². Their gradients by the logits are p − 1_y and
    ε·(1_y − 1/V) + 2z·ln Z·p; one pass over the logits serves both.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        soft_cap: float,
        chunk: int,
        label_smoothing: float,
        z_loss: float,
    ) -> tuple[Tensor, Tensor]:
        matrix = weight.to(hidden.dtype)
        exact = torch.promote_types(hidden.dtype, torch.float32)
        losses = hidden.new_empty(labels.shape, dtype=exact)
        extra = torch.empty_like(losses)
        log_sizes = torch.empty_like(losses)
        for at in range(0, len(labels), chunk):
            part = slice(at, at + chunk)
            logits = (hidden[part] @ matrix.T).to(exact)
            if soft_cap:
                logits.div_(soft_cap).tanh_().mul_(soft_cap)
            picked = labels[part].clamp_min(0)[:, None]
            likely = logits.log_softmax(1)
            losses[part] = -likely.gather(1, picked)[:, 0]
            log_sizes[part] = logits.gather(1, picked)[:, 0] + losses[part]
            extra[part] = label_smoothing * (-likely.mean(1) - losses[part])
        extra += z_loss * log_sizes.square()
        ctx.save_for_backward(hidden, matrix, labels, log_sizes)
        ctx.soft_cap, ctx.chunk, ctx.weight_dtype = soft_cap, chunk, weight.dtype
        ctx.label_smoothing, ctx.z_loss = label_smoothing, z_loss
        ignored = labels < 0
        return losses.masked_fill_(ignored, 0), extra.masked_fill_(ignored, 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, extra_grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, matrix, labels, log_sizes = ctx.saved_tensors
        # What is common to a token's slopes stays apart from its V logits, and what is common to
        # all tokens is multiplied at the end in float32: nothing vanishes or overflows in 16 bits.
        factor = torch.maximum(grad.abs(), extra_grad.abs()).masked_fill(labels < 0, 0)
        whole = torch.where(factor > 0, factor, 1)
        own, other = grad / whole, extra_grad / whole
        by_share = own + 2 * ctx.z_loss * log_sizes * other
        by_label = (ctx.label_smoothing * other - own).to(hidden.dtype)
        by_all = (ctx.label_smoothing / matrix.shape[0] * other).to(hidden.dtype)[:, None]
        by_share = by_share.to(hidden.dtype)[:, None]
        most = factor.max().clamp_min(torch.finfo(factor.dtype).tiny)
        scaled = (hidden * (factor / most)[:, None]).to(hidden.dtype)
        hidden_grad = torch.empty_like(hidden)
        matrix_grad = None
        if ctx.needs_input_grad[1]:
            matrix_grad = torch.zeros(matrix.shape, dtype=ctx.weight_dtype, device=matrix.device)
        for at in range(0, len(labels), ctx.chunk):
            part = slice(at, at + ctx.chunk)
            logits = hidden[part] @ matrix.T
            bend = None
            if ctx.soft_cap:
                logits.div_(ctx.soft_cap).tanh_()
                bend = 1 - logits.square()
                logits.mul_(ctx.soft_cap)
            slope = logits.softmax(1).mul_(by_share[part]).sub_(by_all[part])
            rows = torch.arange(len(slope), device=slope.device)
            slope[rows, labels[part].clamp_min(0)] += by_label[part]
            if bend is not None:
                slope.mul_(bend)
            hidden_grad[part] = (slope @ matrix) * factor[part, None]
            if matrix_grad is not None:
                matrix_grad += slope.T @ scaled[part]
        if matrix_grad is not None:
            matrix_grad *= most
        return hidden_grad, matrix_grad, None, None, None, None, None, None


def linear_objective(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    *,
    soft_cap: float = 0.0,
    chunk: int = 0,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Features [N, D], matrix [V, D], labels [N] → the label's nats [N] and what is added, [N].

    Minimised is their sum, (1−ε)·nll + ε·mean over the vocabulary of −ln p + z·(ln Z)², with
    ε = `label_smoothing` (arXiv 1512.00567) and z = `z_loss` (PaLM, arXiv 2204.02311). The nats
    are those of `linear_cross_entropy` bit for bit; negative labels give 0 in both. Where both
    settings are 0 nothing is computed for the addition, and its gradient does not exist.
    """
    if not label_smoothing and not z_loss:
        losses = linear_cross_entropy(hidden, weight, labels, soft_cap, chunk)
        return losses, torch.zeros_like(losses, requires_grad=False)
    chunk = chunk or loss_chunk(weight.shape[0])
    both = _LinearObjective.apply(  # type: ignore[no-untyped-call]
        hidden, weight, labels, soft_cap, chunk, label_smoothing, z_loss
    )
    return cast("tuple[Tensor, Tensor]", both)
