"""First values of an adapter: a pure function of the seed and each tensor's name."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from wellfit.recipe.schema import Adapter


def fresh_values(
    name: str, section: Adapter, fan_in: int, fan_out: int, *, table: bool, seed: int
) -> tuple[Tensor, Tensor]:
    """A layer's name and sides → first A [r, fan_in] and B [fan_out, r], float32 on the CPU."""
    rank = section.rank
    a, b = torch.zeros(rank, fan_in, device="cpu"), torch.zeros(fan_out, rank, device="cpu")
    if table:
        b.normal_(generator=_generator(seed, f"{name}.lora_B"))
    elif section.init == "gaussian":
        a.normal_(std=1 / rank, generator=_generator(seed, f"{name}.lora_A"))
    else:  # Kaiming's uniform with a = √5, as torch.nn.Linear begins
        bound = fan_in**-0.5
        a.uniform_(-bound, bound, generator=_generator(seed, f"{name}.lora_A"))
    return a, b


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
