"""Dropout as a pure function of a key, apart from torch's global random state."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(slots=True)
class Dropout:
    """Activations → activations, each 0 with probability `share`, the others divided by 1 − share.

    What a row drops follows from (seed, step, its place in the batch, layer, number of the call):
    however a batch is cut, and if a block is computed again, a row's masks are the same. A share
    of 0, as in evaluation, changes nothing and needs no key.
    """

    share: float
    key: tuple[int, int, int] | None
    """(seed, step, place of the first row in the batch)."""
    layer: int = -1
    calls: int = field(default=0, compare=False)

    def of(self, layer: int) -> Dropout:
        """A layer's number → the dropout of that layer, from its first mask on."""
        return replace(self, layer=layer, calls=0)

    def __call__(self, x: Tensor) -> Tensor:
        """Activations [B, ...] → the same shape."""
        if not self.share:
            return x
        assert self.key is not None
        self.calls += 1
        return dropped_by_row(x, self.share, self.key, f"{self.layer} {self.calls - 1}")


def dropped_by_row(x: Tensor, share: float, key: tuple[int, int, int], place: str) -> Tensor:
    """Activations [B, ...], a share, (seed, step, first row) and a place → the same shape.

    What a row drops follows from seed, step, its own number and the name of the place alone.
    """
    seed, step, first = key
    kept = torch.empty_like(x)
    generator = torch.Generator(x.device)
    for row in range(x.shape[0]):
        digest = hashlib.sha256(f"{seed} {step} {first + row} {place}".encode()).digest()
        generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        kept[row].bernoulli_(1 - share, generator=generator)
    return x * kept.div_(1 - share)
