"""Affine maps with master weights: stored in float32, used in the precision of the input."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wellfit.model import float8
from wellfit.model.products import linear


class Linear(nn.Module):
    """Features [..., fan_in] → features [..., fan_out]: x·Wᵀ + b, computed in the dtype of x.

    Weights are NaN until `init.initialise` or a checkpoint fills them, so that a forgotten
    initialisation is seen in the first loss. With `float8` training multiplies in 8 bits where
    the tokens allow it (see `float8.fits`); evaluation never does.
    """

    def __init__(self, fan_in: int, fan_out: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((fan_out, fan_in), torch.nan))
        self.bias = nn.Parameter(torch.full((fan_out,), torch.nan)) if bias else None
        self.float8 = False

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        if self.float8 and self.training and float8.fits(x):
            out = float8.float8_linear(x, self.weight)
            return out if bias is None else out + bias
        return linear(x, self.weight.to(x.dtype), bias)


class Embedding(nn.Module):
    """Ids [...] → rows of a table [..., width], in the dtype of the table."""

    def __init__(self, entries: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((entries, width), torch.nan))

    def forward(self, ids: Tensor) -> Tensor:
        return functional.embedding(ids, self.weight)
