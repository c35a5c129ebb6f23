"""Logits that a model gives as a whole → the nats of their labels, with no second copy kept.

Axes: N tokens, V vocabulary entries.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from wellfit.model.kernels import loss_chunk


class _LogitsObjective(torch.autograd.Function):
    """By hand because autograd keeps the log-softmax [N, V] beside the logits, in float32.

    With p = softmax(l), Z = Σ exp(l), label y: the loss is ln Z − l_y and the extra
    ε·(l_y − mean(l)) + z·(ln Z)². Kept are the logits as they came and one number a token.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, labels: Tensor, label_smoothing: float, z_loss: float
    ) -> tuple[Tensor, Tensor]:
        exact = torch.promote_types(logits.dtype, torch.float32)
        losses = logits.new_empty(labels.shape, dtype=exact)
        extra, log_sizes = torch.zeros_like(losses), torch.empty_like(losses)
        for part in _parts(logits):
            wide = logits[part].to(exact)
            picked = wide.gather(1, labels[part].clamp_min(0)[:, None])[:, 0]
            log_sizes[part] = wide.logsumexp(1)
            losses[part] = log_sizes[part] - picked
            if label_smoothing:
                extra[part] = label_smoothing * (picked - wide.mean(1))
        if z_loss:
            extra += z_loss * log_sizes.square()
        ctx.save_for_backward(logits, labels, log_sizes)
        ctx.label_smoothing, ctx.z_loss = label_smoothing, z_loss
        ignored = labels < 0
        return losses.masked_fill_(ignored, 0), extra.masked_fill_(ignored, 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, extra_grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, labels, log_sizes = ctx.saved_tensors
        ignored = labels < 0
        own, other = grad.masked_fill(ignored, 0), extra_grad.masked_fill(ignored, 0)
        by_share = own + 2 * ctx.z_loss * log_sizes * other
        by_label = ctx.label_smoothing * other - own
        by_all = ctx.label_smoothing / logits.shape[1] * other
        slopes = torch.empty_like(logits)
        for part in _parts(logits):
            slope = (logits[part].to(log_sizes.dtype) - log_sizes[part, None]).exp_()
            slope.mul_(by_share[part, None]).sub_(by_all[part, None])
            rows = torch.arange(len(slope), device=slope.device)
            slope[rows, labels[part].clamp_min(0)] += by_label[part]
            slopes[part] = slope
        return slopes, None, None, None


def _parts(logits: Tensor) -> list[slice]:
    size = loss_chunk(logits.shape[1])
    return [slice(at, at + size) for at in range(0, len(logits), size)]


def logits_objective(
    logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0, z_loss: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Logits [N, V], labels [N] → the label's nats [N] and what is added, [N], both float32.

    As `objective.linear_objective`, for a model that makes its logits itself. Negative labels
    give 0 in both.
    """
    both = _LogitsObjective.apply(logits, labels, label_smoothing, z_loss)  # type: ignore[no-untyped-call]
    return cast("tuple[Tensor, Tensor]", both)
