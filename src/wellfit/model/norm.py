"""Normalisation over the last axis: the mean square (RMSNorm) or mean and variance (LayerNorm)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wellfit.model.kernels import rms_norm
from wellfit.recipe.schema import Model


class RMSNorm(nn.Module):
    """x → w · x / √(mean(x²) + ε), over the last axis (arXiv 1910.07467)."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.full((width,), torch.nan))

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.epsilon)


class LayerNorm(nn.Module):
    """x → w · (x − mean(x)) / √(variance(x) + ε) + b, over the last axis (arXiv 1607.06450)."""

    def __init__(self, width: int, epsilon: float, *, bias: bool) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.full((width,), torch.nan))
        self.bias = nn.Parameter(torch.full((width,), torch.nan)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return functional.layer_norm(
            x, self.weight.shape, self.weight.to(x.dtype), bias, self.epsilon
        )


def norm(model: Model) -> RMSNorm | LayerNorm:
    """The normalisation over `model.width` features that the recipe asks for."""
    if model.norm == "rmsnorm":
        return RMSNorm(model.width, model.norm_epsilon)
    return LayerNorm(model.width, model.norm_epsilon, bias=model.bias)
