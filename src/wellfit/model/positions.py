"""Rotary positions: angles that turn pairs of features of queries and keys (arXiv 2104.09864).

Axes: B rows, T tokens, H heads, W features of a head that turn. Pair i consists of the features i
and i + W/2 (the layout of Llama checkpoints in `transformers`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wellfit.recipe.model_section import RopeScaling
from wellfit.recipe.schema import Model

Angles = tuple[Tensor, Tensor]
"""Cosines and sines, each [B or 1, T, 1, W/2]."""


def rotary_angles(
    positions: Tensor, width: int, base: float, scaling: RopeScaling | None = None
) -> Angles:
    """Positions [B, T] → cosines, sines [B, T, 1, width/2] of position · base^(−2i/width), float32.

    With a `scaling`, the frequencies are slowed and both results multiplied as it says.

    >>> cosine, sine = rotary_angles(torch.tensor([[0, 1]]), width=4, base=100.0)
    >>> [round(value, 6) for value in sine.squeeze().tolist()[1]]  # sin(1) and sin(1/10)
    [0.841471, 0.099833]
    """
    pairs = torch.arange(0, width, 2, device=positions.device, dtype=torch.float32)
    frequencies, factor = base ** (-pairs / width), 1.0
    if scaling is not None and scaling.kind != "none":
        frequencies, factor = slowed(frequencies, base, scaling)
    angles = positions[..., None, None].float() * frequencies
    if factor != 1.0:
        return angles.cos() * factor, angles.sin() * factor
    return angles.cos(), angles.sin()


def model_angles(model: Model, positions: Tensor, dtype: torch.dtype) -> tuple[Angles, Angles]:
    """Positions [B, T] → the angles of a global and of a local layer, in `dtype`."""

    def angles(base: float, scaling: RopeScaling | None) -> Angles:
        cosine, sine = rotary_angles(positions, model.rotary_features, base, scaling)
        return cosine.to(dtype), sine.to(dtype)

    everywhere = angles(model.rope_base, model.rope_scaling)
    local = model.window and model.rope_local_base
    return everywhere, angles(model.rope_local_base, None) if local else everywhere


def slowed(frequencies: Tensor, base: float, scaling: RopeScaling) -> tuple[Tensor, float]:
    """Frequencies [W/2] → slower ones [W/2], and the factor on cosines and sines.

    linear divides all by the factor (arXiv 2306.15595). llama3 (arXiv 2407.21783, as in Meta's
    code) and yarn (arXiv 2309.00071, section 3.2) keep the pairs that turn often within the
    original context, divide those that turn seldom, and go from one to the other in between:
    llama3 along the number of turns, yarn along the index of the pair.

    >>> slower = RopeScaling(kind="linear", factor=4.0)
    >>> slowed(torch.tensor([1.0, 0.5]), 10_000.0, slower)[0].tolist()
    [0.25, 0.125]
    """
    if scaling.kind == "linear":
        return frequencies / scaling.factor, 1.0
    context = scaling.original_context
    if scaling.kind == "llama3":
        turns = context * frequencies / (2 * math.pi)
        low, high = scaling.low_factor, scaling.high_factor
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return frequencies * (kept + (1 - kept) / scaling.factor), 1.0
    pairs = len(frequencies)

    def pair_with(turns: float) -> float:
        """The index, as a fraction, of the pair that turns so often within the context."""
        return pairs * math.log(context / (2 * math.pi * turns)) / math.log(base)

    first = max(math.floor(pair_with(scaling.beta_fast)), 0)
    last = min(math.ceil(pair_with(scaling.beta_slow)), 2 * pairs - 1)
    index = torch.arange(pairs, dtype=torch.float32, device=frequencies.device)
    divided = ((index - first) / max(last - first, 0.001)).clamp(0, 1)
    factor = scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1.0
    return frequencies * (1 - divided + divided / scaling.factor), factor
