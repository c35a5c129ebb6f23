"""Causal self-attention within documents, with grouped queries, QK-norm and rotary positions.

Axes: B rows, T query tokens, S key tokens, D width, H query heads, G key and value heads
(H/G queries share one), W = D/H features of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wellfit.model.cache import Cache
from wellfit.model.kernels import rotate
from wellfit.model.linear import Linear
from wellfit.model.norm import RMSNorm
from wellfit.model.scores import score_attention
from wellfit.recipe.schema import Model

# Up to this many keys a CPU multiplies whole score matrices quicker than it tiles them: torch's
# flash kernel for CPUs spends most of its backward pass in small pieces (docs/model.md, "Speed").
WHOLE_SCORES = 512


class Attention(nn.Module):
    """Features [B, T, D] → features [B, T, D], each token reading itself and earlier ones."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.head_width = model.width // model.heads
        narrow = model.kv_heads * self.head_width
        self.query = Linear(model.width, model.width, bias=model.bias)
        self.key = Linear(model.width, narrow, bias=model.bias)
        self.value = Linear(model.width, narrow, bias=model.bias)
        self.output = Linear(model.width, model.width, bias=model.bias)
        self.query_norm = RMSNorm(self.head_width, model.norm_epsilon) if model.qk_norm else None
        self.key_norm = RMSNorm(self.head_width, model.norm_epsilon) if model.qk_norm else None

    def forward(
        self,
        x: Tensor,
        angles: tuple[Tensor, Tensor] | None,
        mask: Tensor | None,
        cache: Cache | None,
        layer: int,
    ) -> Tensor:
        rows, tokens, _ = x.shape
        query = self.query(x).view(rows, tokens, -1, self.head_width)
        key = self.key(x).view(rows, tokens, -1, self.head_width)
        value = self.value(x).view(rows, tokens, -1, self.head_width).transpose(1, 2)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if angles is None:
            query, key = query.transpose(1, 2), key.transpose(1, 2)
        else:
            query, key = rotate(query, *angles), rotate(key, *angles)
        if cache is not None:
            key, value = cache.extend(layer, key, value)
        read = attend(query, key, value, mask)
        return self.output(read.transpose(1, 2).reshape(rows, tokens, -1))  # type: ignore[no-any-return]


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Queries [B, H, T, W], keys and values [B, G, S, W] → what they read [B, H, T, W].

    softmax(q·kᵀ/√W + mask)·v. The mask broadcasts to [B, H, T, S]; it is added to the scores.
    None is causal when T = S, and all of the keys for a single query.
    """
    tokens, keys = query.shape[2], key.shape[2]
    if query.device.type == "cpu" and keys <= WHOLE_SCORES:
        return score_attention(query, key, value, mask)
    causal = mask is None and tokens > 1
    grouped = key.shape[1] < query.shape[1]
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=grouped
    )


def attention_mask(
    segments: Tensor | None, tokens: int, seen: int, dtype: torch.dtype, device: torch.device
) -> Tensor | None:
    """Added to the scores of `tokens` queries after `seen` tokens: 0 where visible, else −∞.

    `segments` [B, T] (only with `seen` = 0) hide other documents: [B, 1, T, T]. Without them the
    mask is [1, 1, T, seen + T]. None where `attend` needs no mask: a single query, or queries that
    are all of the tokens, which it treats causally on its own.
    """
    assert segments is None or seen == 0, "documents are packed in training, never behind a cache"
    if segments is not None and bool((segments == segments[:, :1]).all()):
        segments = None
    if segments is None and (tokens == 1 or seen == 0):
        return None
    keys = torch.arange(seen + tokens, device=device)
    visible = (keys <= keys[seen:, None])[None, None]
    if segments is not None:
        visible = visible & (segments[:, None, :, None] == segments[:, None, None, :])
    return torch.zeros((), dtype=dtype, device=device).masked_fill(~visible, -torch.inf)
