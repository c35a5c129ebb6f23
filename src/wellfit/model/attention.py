"""Attention within documents, with grouped queries, QK-norm and rotary positions.

Tokens read themselves and earlier ones, in an encoder also later ones; and a decoder may read a
source, which has places of its own.

Layers of two kinds may alternate: global ones see the whole document, local ones a window of it.
Masks and angles come as pairs, for a global and for a local layer.

Axes: B rows, T query tokens, S key tokens, D width, H query heads, G key and value heads
(H/G queries share one), W features of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wellfit.model.cache import Cache
from wellfit.model.kernels import rotate
from wellfit.model.linear import Linear
from wellfit.model.norm import RMSNorm
from wellfit.model.positions import Angles
from wellfit.model.scores import score_attention
from wellfit.recipe.schema import Model

# Up to this many keys a CPU multiplies whole score matrices quicker than it tiles them: torch's
# flash kernel for CPUs spends most of its backward pass in small pieces (docs/model.md, "Speed").
WHOLE_SCORES = 512


class Attention(nn.Module):
    """Features [B, T, D] → features [B, T, D], each token reading itself and earlier ones.

    Without `causal` it reads later ones too. `read` reads a source instead.
    """

    def __init__(self, model: Model, layer: int, *, causal: bool = True) -> None:
        super().__init__()
        self.causal = causal
        self.head_width = model.features_per_head
        self.turned = model.rotary_features
        self.soft_cap = model.attention_soft_cap
        self.scale = model.score_scale
        self.local = model.is_local(layer)
        self.window = model.window if self.local else 0
        wide, narrow = model.heads * self.head_width, model.kv_heads * self.head_width
        bias = model.bias or model.qkv_bias
        self.query = Linear(model.width, wide, bias=bias)
        self.key = Linear(model.width, narrow, bias=bias)
        self.value = Linear(model.width, narrow, bias=bias)
        self.output = Linear(wide, model.width, bias=model.bias)
        self.query_norm = RMSNorm(self.head_width, model.norm_epsilon) if model.qk_norm else None
        self.key_norm = RMSNorm(self.head_width, model.norm_epsilon) if model.qk_norm else None

    def forward(
        self,
        x: Tensor,
        angles: tuple[Angles, Angles] | None,
        masks: tuple[Tensor | None, Tensor | None],
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
            query, key = (turn(x, angles[self.local], self.turned) for x in (query, key))
        if cache is not None:
            key, value = cache.extend(layer, key, value)
            if self.window and tokens == 1:
                key, value = key[:, :, -self.window :], value[:, :, -self.window :]
        masked, cap = masks[self.local], self.soft_cap
        read = attend(query, key, value, masked, cap, self.scale, causal=self.causal)
        return self.output(read.transpose(1, 2).reshape(rows, tokens, -1))  # type: ignore[no-any-return]

    def read(
        self, x: Tensor, source: Tensor, mask: Tensor | None, cache: Cache | None, layer: int
    ) -> Tensor:
        """Features [B, T, D] and those of a source [B, S, D] → what they read there [B, T, D].

        Positions play no part: two texts have no distance. A cache keeps keys and values.
        """
        rows, tokens, _ = x.shape
        query = self.query(x).view(rows, tokens, -1, self.head_width)
        if self.query_norm is not None:
            query = self.query_norm(query)
        kept = None if cache is None else cache.source.get(layer)
        if kept is None:
            key = self.key(source).view(rows, source.shape[1], -1, self.head_width)
            value = self.value(source).view(rows, source.shape[1], -1, self.head_width)
            if self.key_norm is not None:
                key = self.key_norm(key)
            kept = key.transpose(1, 2), value.transpose(1, 2)
            if cache is not None:
                cache.source[layer] = kept
        read = attend(query.transpose(1, 2), *kept, mask, self.soft_cap, self.scale, causal=False)
        return self.output(read.transpose(1, 2).reshape(rows, tokens, -1))  # type: ignore[no-any-return]


def turn(x: Tensor, angles: Angles, features: int) -> Tensor:
    """Heads [B, T, H, W], of which the first `features` turn by the angles → [B, H, T, W]."""
    if features == x.shape[-1]:
        return rotate(x, *angles)
    still = x[..., features:].transpose(1, 2)
    return torch.cat((rotate(x[..., :features], *angles), still), dim=-1)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    soft_cap: float = 0.0,
    scale: float = 0.0,
    *,
    causal: bool = True,
) -> Tensor:
    """Queries [B, H, T, W], keys and values [B, G, S, W] → what they read [B, H, T, W].

    softmax(cap(q·kᵀ·scale) + mask)·v with cap(s) = soft_cap·tanh(s/soft_cap) (arXiv 2408.00118),
    or s where it is 0, and a scale of 1/√W where none is given.

    The mask broadcasts to [B, H, T, S]. None is causal when T = S (never with a cap), and all of
    the keys for a single query, or where nothing is `causal`.
    """
    rows, heads, tokens, width = query.shape
    groups, keys = key.shape[1:3]
    scale = scale or width**-0.5
    if not soft_cap and query.device.type == "cpu" and keys <= WHOLE_SCORES:
        return score_attention(query, key, value, mask, scale, causal=causal)
    if not soft_cap:
        hides = causal and mask is None and tokens > 1
        return functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            is_causal=hides,
            enable_gqa=groups < heads,
            scale=scale,
        )
    # Queries that share a key head become further rows of one matrix, so keys are never copied.
    stacked = query.reshape(rows * groups, heads // groups * tokens, width)
    facing = key.reshape(rows * groups, keys, width).transpose(1, 2)
    scores = torch.baddbmm(stacked.new_zeros(()), stacked, facing, beta=0, alpha=scale)
    scores = torch.tanh(scores / soft_cap) * soft_cap  # no kernel of torch's has a cap
    if mask is not None:
        scores.view(rows, groups, heads // groups, tokens, keys).add_(mask.unsqueeze(1))
    weights = torch.softmax(scores, dim=-1)
    return (weights @ value.reshape(rows * groups, keys, width)).view(rows, heads, tokens, width)


def attention_masks(
    model: Model,
    segments: Tensor | None,
    tokens: int,
    seen: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    causal: bool = True,
) -> tuple[Tensor | None, Tensor | None]:
    """What is added to the scores of `tokens` queries after `seen` tokens: 0 if visible, else −∞.

    A mask for global layers and one for local layers, which see the last `model.window` tokens,
    their own included. `segments` [B, T] (only with `seen` = 0) hide other documents:
    [B, 1, T, T]. Without them a mask is [1, 1, T, seen + T]. None where `attend` needs no mask: a
    single query, or queries that are all of the tokens, which it treats causally on its own.

    Without `causal` later tokens are visible too, within a window of half its tokens on each side
    (as in arXiv 2412.13663).
    """
    assert segments is None or seen == 0, "documents are packed in training, never behind a cache"
    if segments is not None and bool((segments == segments[:, :1]).all()):
        segments = None
    if tokens == 1:  # `Attention` leaves out the keys beyond a window
        return None, None
    local = 0 < model.window < seen + tokens
    plain = segments is None and seen == 0 and not (causal and model.attention_soft_cap)
    if plain and not local:
        return None, None
    keys = torch.arange(seen + tokens, device=device)
    queries = keys[seen:, None]
    visible = (keys <= queries if causal else keys.ge(0).expand(tokens, -1))[None, None]
    if segments is not None:
        visible = visible & (segments[:, None, :, None] == segments[:, None, None, :])

    def mask(visible: Tensor) -> Tensor:
        return torch.zeros((), dtype=dtype, device=device).masked_fill(~visible, -torch.inf)

    everywhere = None if plain else mask(visible)
    if not local:
        return everywhere, everywhere
    near = keys > queries - model.window if causal else (keys - queries).abs() <= model.window // 2
    return everywhere, mask(visible & near)


def source_mask(
    segments: Tensor | None, source_segments: Tensor | None, dtype: torch.dtype
) -> Tensor | None:
    """Documents of targets [B, T] and of sources [B, S] → what is added to the scores [B, 1, T, S].

    0 where both are of one document, else −∞; None where all is visible. A target of no document
    in the source is padding and sees everything, since a softmax over nothing is not a number.
    """
    if segments is None or source_segments is None:
        return None
    visible = segments[:, None, :, None] == source_segments[:, None, None, :]
    visible = visible | ~visible.any(dim=-1, keepdim=True)
    zero = torch.zeros((), dtype=dtype, device=segments.device)
    return zero.masked_fill(~visible, -torch.inf)
