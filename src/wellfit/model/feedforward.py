"""The feed-forward part of a block: up, a non-linearity, down, for each token on its own.

Axes: D width, F hidden features.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from wellfit.model.kernels import squared_relu
from wellfit.model.linear import Linear
from wellfit.recipe.schema import Model


class FeedForward(nn.Module):
    """Features [..., D] → features [..., D].

    swiglu: down(silu(gate(x)) · up(x)) (arXiv 2002.05202); gelu and gelu_tanh: down(gelu(up(x)))
    with the exact Gaussian or its tanh form (arXiv 1606.08415); relu2: down(max(up(x), 0)²)
    (arXiv 2109.08668).
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.activation = model.activation
        if model.activation == "swiglu":
            self.gate = Linear(model.width, model.hidden, bias=model.bias)
        self.up = Linear(model.width, model.hidden, bias=model.bias)
        self.down = Linear(model.hidden, model.width, bias=model.bias)

    def forward(self, x: Tensor) -> Tensor:
        up = self.up(x)
        if self.activation == "swiglu":
            inner = functional.silu(self.gate(x)) * up
        elif self.activation == "relu2":
            inner = squared_relu(up)
        else:
            inner = functional.gelu(
                up, approximate="tanh" if self.activation == "gelu_tanh" else "none"
            )
        return self.down(inner)  # type: ignore[no-any-return]
