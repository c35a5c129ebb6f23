"""Attention by whole score matrices, a block of queries at a time: for CPUs and short rows.

Axes: B rows, H query heads, G key and value heads, Q = H/G query heads that share one, T query
tokens, S key tokens, W features of a head.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

# Queries of a block read only the keys up to its end: at 512 tokens 10 of 16 squares are computed.
# Smaller blocks skip more, and their products run slower (docs/model.md, "Speed").
BLOCK = 128


class _Scores(torch.autograd.Function):
    """By hand because the half that causality hides need not be computed, and because autograd
    copies a whole gradient for a mask that is added in place."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scale: float,
        causal: bool,
    ) -> Tensor:
        rows, heads, tokens, width = query.shape
        groups, keys = key.shape[1:3]
        shape = (rows, groups, heads // groups, tokens, width)
        queries = query.reshape(rows * groups, heads // groups, tokens, width)
        facing = key.reshape(rows * groups, keys, width)
        values = value.reshape(rows * groups, keys, width)
        # In memory [B, T, H, W]: joining the heads afterwards copies nothing.
        read = query.new_empty(rows, tokens, heads, width).transpose(1, 2)
        kept = []
        for first, last, seen in _blocks(tokens, keys, causal):
            part = queries[:, :, first:last].flatten(1, 2)
            scores = torch.baddbmm(
                part.new_zeros(()),
                part,
                facing[:, :seen].transpose(1, 2),
                beta=0,
                alpha=scale,
            )
            _hide(scores.view(*shape[:3], last - first, seen), mask, first, last, causal)
            weights = torch.softmax(scores, dim=-1)
            got = torch.bmm(weights, values[:, :seen])
            read[:, :, first:last] = got.view(rows, heads, last - first, width)
            if any(ctx.needs_input_grad):
                kept.append(weights)
        ctx.save_for_backward(queries, facing, values, *kept)
        ctx.shapes, ctx.scale, ctx.causal = (query.shape, key.shape), scale, causal
        return read

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        queries, facing, values, *kept = ctx.saved_tensors
        query_shape, key_shape = ctx.shapes
        tokens, keys = query_shape[2], key_shape[2]
        grad = grad.reshape(queries.shape)
        query_grad = torch.empty_like(queries)
        key_grad, value_grad = torch.zeros_like(facing), torch.zeros_like(values)
        blocks = _blocks(tokens, keys, ctx.causal)
        for (first, last, seen), weights in zip(blocks, kept, strict=True):
            part = queries[:, :, first:last].flatten(1, 2)
            got = grad[:, :, first:last].flatten(1, 2)
            value_grad[:, :seen].baddbmm_(weights.transpose(1, 2), got)
            slope = torch.bmm(got, values[:, :seen].transpose(1, 2))
            slope = torch._softmax_backward_data(slope, weights, -1, slope.dtype)
            found = torch.baddbmm(
                part.new_zeros(()), slope, facing[:, :seen], beta=0, alpha=ctx.scale
            )
            query_grad[:, :, first:last] = found.view_as(query_grad[:, :, first:last])
            key_grad[:, :seen].baddbmm_(slope.transpose(1, 2), part, alpha=ctx.scale)
        return (
            query_grad.view(query_shape),
            key_grad.view(key_shape),
            value_grad.view(key_shape),
            None,
            None,
            None,
        )


def _blocks(tokens: int, keys: int, causal: bool = True) -> list[tuple[int, int, int]]:
    """T queries and S keys → first query, one past the last, and keys that they may see.

    Causal queries are the last of the keys.

    >>> _blocks(200, 200), _blocks(200, 50, causal=False)
    ([(0, 128, 128), (128, 200, 200)], [(0, 128, 50), (128, 200, 50)])
    """
    firsts = range(0, tokens, BLOCK)
    lasts = [min(first + BLOCK, tokens) for first in firsts]
    return [
        (a, b, keys - tokens + b if causal else keys) for a, b in zip(firsts, lasts, strict=True)
    ]


def _hide(scores: Tensor, mask: Tensor | None, first: int, last: int, causal: bool) -> None:
    """Scores [B, G, Q, t, s] of queries first…last: −∞ is added where a key is not to be seen."""
    size, seen = last - first, scores.shape[-1]
    if mask is not None:
        scores.add_(mask[:, :, first:last, :seen].unsqueeze(1))
        return
    if size == 1 or not causal:
        return  # a last token, which sees all, as do those that look both ways
    later = torch.full((size, size), -torch.inf, dtype=scores.dtype, device=scores.device)
    scores[..., seen - size :].add_(later.triu(1))


def score_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float = 0.0,
    *,
    causal: bool = True,
) -> Tensor:
    """Queries [B, H, T, W], keys and values [B, G, S, W] → softmax(q·kᵀ·scale + mask)·v.

    The result is [B, H, T, W]; the scale is 1/√W where none is given. Causal: query t sees keys up
    to S − T + t. The mask [B or 1, 1, T, S] hides those and perhaps more; None hides those only.
    Without `causal` every query sees every key that the mask leaves.
    """
    scale = scale or query.shape[-1] ** -0.5
    return cast(Tensor, _Scores.apply(query, key, value, mask, scale, causal))  # type: ignore[no-untyped-call]
