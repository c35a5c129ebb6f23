"""Keys and values of tokens already seen, so that generation reads each token once.

Axes: L layers, G key and value heads, C capacity in tokens, W features of a head.
One row, or B rows that have seen equally many tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wellfit.recipe.schema import Model


class Cache:
    """Room for `model.context` tokens of one row; `length` of them are filled.

    Of a source that a decoder reads, it keeps the features and each layer's keys and values.
    """

    def __init__(self, model: Model, *, dtype: torch.dtype, device: torch.device | str) -> None:
        shape = (model.layers, 1, model.kv_heads, model.context, model.features_per_head)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.length = 0
        self.features: Tensor | None = None
        self.source: dict[int, tuple[Tensor, Tensor]] = {}

    @classmethod
    def over(cls, keys: Tensor, values: Tensor) -> Cache:
        """Keys and values [L, B, G, C, W] that stand elsewhere → an empty cache in their place."""
        cache = cls.__new__(cls)
        cache.keys, cache.values = keys, values
        cache.length, cache.features, cache.source = 0, None, {}
        return cache

    @property
    def capacity(self) -> int:
        """Most tokens it can hold."""
        return self.keys.shape[3]

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """New keys and values [1, G, T, W] of a layer → all so far [1, G, length + T, W]."""
        end = self.length + key.shape[2]
        assert end <= self.capacity, f"{end} tokens do not fit into a cache of {self.capacity}"
        self.keys[layer, :, :, self.length : end] = key
        self.values[layer, :, :, self.length : end] = value
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, tokens: int) -> None:
        """Count `tokens` new tokens as seen, once every layer has stored them."""
        self.length += tokens

    def clear(self) -> None:
        """Forget all tokens, though not the source; the room is used again."""
        self.length = 0

    def take_source(self, features: Tensor) -> None:
        """Features of a source [1, S, D] → it is the one that is read from now on."""
        self.features = features
        self.source.clear()
