"""The feed-forward part of a block: up, a non-linearity, down, for each token on its own.

Axes: D width, F hidden features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wellfit.model.inner import gated_down, squared_down
from wellfit.model.kernels import squared_relu
from wellfit.model.linear import Linear
from wellfit.recipe.model_section import GATED
from wellfit.recipe.schema import Model


class FeedForward(nn.Module):
    """Features [..., D] → features [..., D]; `hidden` features inside, those of the recipe if 0.

    swiglu: down(silu(gate(x)) · up(x)), geglu: down(gelu_tanh(gate(x)) · up(x))
    (arXiv 2002.05202); gelu and gelu_tanh: down(gelu(up(x))) with the exact Gaussian or its tanh
    form (arXiv 1606.08415); relu2: down(max(up(x), 0)²) (arXiv 2109.08668).
    """

    def __init__(self, model: Model, hidden: int = 0) -> None:
        super().__init__()
        hidden = hidden or model.hidden
        self.activation = model.activation
        if model.activation in GATED:
            self.gate = Linear(model.width, hidden, bias=model.bias)
        self.up = Linear(model.width, hidden, bias=model.bias)
        self.down = Linear(hidden, model.width, bias=model.bias)

    def forward(self, x: Tensor) -> Tensor:
        up = self.up(x)
        gate = self.gate(x) if self.activation in GATED else None
        down = self.down
        plain = type(down) is Linear and down.bias is None and not down.float8
        if plain and torch.is_grad_enabled():  # the same bits, and less is kept for the backward
            weight = down.weight.to(up.dtype)
            if self.activation == "swiglu" and gate is not None:
                return gated_down(up, gate, weight)
            if self.activation == "relu2":
                return squared_down(up, weight)
        return self.down(inner_features(self.activation, up, gate))  # type: ignore[no-any-return]


def inner_features(activation: str, up: Tensor, gate: Tensor | None) -> Tensor:
    """What `up` and, where the activation is gated, `gate` made of x [..., F] → [..., F]."""
    if gate is not None:
        if activation == "swiglu":
            return functional.silu(gate) * up
        return functional.gelu(gate, approximate="tanh") * up
    if activation == "relu2":
        return squared_relu(up)
    return functional.gelu(up, approximate="tanh" if activation == "gelu_tanh" else "none")
