"""Rotary positions: angles that turn pairs of features of queries and keys (arXiv 2104.09864).

Axes: B rows, T tokens, H heads, W features of a head. Pair i consists of the features i and
i + W/2 (the layout of Llama checkpoints in `transformers`).
"""

from __future__ import annotations

import torch
from torch import Tensor


def rotary_angles(positions: Tensor, width: int, base: float) -> tuple[Tensor, Tensor]:
    """Positions [B, T] → cosines, sines [B, T, 1, width/2] of position · base^(−2i/width), float32.

    >>> cosine, sine = rotary_angles(torch.tensor([[0, 1]]), width=4, base=100.0)
    >>> [round(value, 6) for value in sine.squeeze().tolist()[1]]  # sin(1) and sin(1/10)
    [0.841471, 0.099833]
    """
    pairs = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32)
    angles = positions[..., None, None].float() * base ** (-pairs / width)
    return angles.cos(), angles.sin()
