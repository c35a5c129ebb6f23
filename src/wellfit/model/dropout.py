"""Dropout as a pure function of a key, apart from torch's global random state."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


class Dropout:
    """Activations → activations, each 0 with probability `share`, the others divided by 1 − share.

    The masks follow one another from a generator seeded with the key: (seed, step, micro-batch),
    and the layer behind them (`of`), so that a block that is computed again draws its masks again.
    A share of 0, as in evaluation, changes nothing and needs no key.
    """

    def __init__(self, share: float, key: tuple[int, ...] | None) -> None:
        self.share = share
        self.key = key
        self.generator: torch.Generator | None = None

    def of(self, layer: int) -> Dropout:
        """A layer's number → the dropout of that layer, from its first mask on."""
        return Dropout(self.share, self.key and (*self.key, layer))

    def __call__(self, x: Tensor) -> Tensor:
        if not self.share:
            return x
        if self.generator is None:
            digest = hashlib.sha256(repr(self.key).encode()).digest()
            self.generator = torch.Generator(x.device)
            self.generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        kept = torch.empty_like(x).bernoulli_(1 - self.share, generator=self.generator)
        return x * kept.div_(1 - self.share)
