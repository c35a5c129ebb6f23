"""Layers with an adapter: what the frozen layer makes, and what A and B add to it.

Axes: I inputs and O outputs of a linear layer, r rank, V entries and D width of a table.
"""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from wellfit.model.adapters.frozen import matrix_of
from wellfit.model.dropout import dropped_by_row
from wellfit.model.products import linear


class LoraLinear(nn.Module):
    """x → base(x) + scale·B·A·dropout(x) (arXiv 2106.09685, equation 3).

    With `magnitude` m (DoRA): m/‖W + scale·B·A‖ · (W + scale·B·A)·x + b; dropped features meet
    both parts of the difference to the base, as in PEFT.
    """

    def __init__(self, base: nn.Module, a: Tensor, b: Tensor, scale: float, share: float) -> None:
        """A linear layer, A [r, I], B [O, r], their scale and the share that dropout takes."""
        super().__init__()
        self.base, self.scale, self.share = base, scale, share
        self.lora_A, self.lora_B = nn.Parameter(a), nn.Parameter(b)
        self.magnitude: nn.Parameter | None
        self.register_parameter("magnitude", None)
        self.drawn_for: tuple[Any, str] | None = None
        """Our own model, whose key decides what is dropped, and the name of this layer in it; None
        in other modules, where torch's generator decides, which is seeded around their passes."""

    def __getattr__(self, name: str) -> Any:
        return _own_or_of_base(self, name)

    def forward(self, x: Tensor) -> Tensor:
        out = cast(Tensor, self.base(x))
        inner = self._dropped(x)
        low = _times(inner, self.lora_A) * self.scale
        if self.magnitude is None:
            return _added(out, low, self.lora_B)
        added = _times(low, self.lora_B)
        bias = cast("Tensor | None", self.base.bias)
        plain = out if inner is x else cast(Tensor, self.base(inner))
        if bias is not None:
            plain = plain - bias.to(plain.dtype)
        factor = (self.magnitude / lengths(self)).to(plain.dtype)
        return out + (factor - 1) * plain + factor * added.to(plain.dtype)

    def _dropped(self, x: Tensor) -> Tensor:
        if not self.share or not self.training:
            return x
        if self.drawn_for is None:
            return functional.dropout(x, self.share)
        model, name = self.drawn_for
        assert model._dropout_key is not None, "call dropout_key(seed, step, first_row) first"
        return dropped_by_row(x, self.share, model._dropout_key, name)


class LoraEmbedding(nn.Module):
    """Ids → base(ids) + scale·Aᵀ[ids]·Bᵀ, with A [r, V] and B [D, r].

    With `magnitude` m [D] (DoRA) each feature is m/‖W + scale·(B·A)ᵀ‖ times the sum, the length
    being that of a column of the table, as in PEFT.
    """

    def __init__(self, base: nn.Module, a: Tensor, b: Tensor, scale: float) -> None:
        """A table, A [r, V], B [D, r] and their scale."""
        super().__init__()
        self.base, self.scale = base, scale
        self.lora_A, self.lora_B = nn.Parameter(a), nn.Parameter(b)
        self.magnitude: nn.Parameter | None
        self.register_parameter("magnitude", None)

    def __getattr__(self, name: str) -> Any:
        return _own_or_of_base(self, name)

    def forward(self, ids: Tensor) -> Tensor:
        out = cast(Tensor, self.base(ids))
        low = functional.embedding(ids, self.lora_A.T) * self.scale
        added = low @ self.lora_B.T
        scaled = getattr(self.base, "embed_scale", None)  # some tables of transformers scale
        if scaled is not None:
            added = added * scaled
        if self.magnitude is not None:
            return self.magnitude / lengths(self) * (out + added)
        return out + added.to(out.dtype)


@torch.no_grad()
def whole(layer: Adapted) -> Tensor:
    """A layer with an adapter → W + scale·B·A as the base's matrix lies, float32: [O, I] or [V, D].

    Constant to autograd.
    """
    product = layer.lora_B @ layer.lora_A
    if isinstance(layer, LoraEmbedding):
        product = product.T
    return matrix_of(layer.base).float() + layer.scale * product.float()


@torch.no_grad()
def lengths(layer: Adapted, matrix: Tensor | None = None) -> Tensor:
    """A layer (and its `whole`) → the length that DoRA takes out of each feature that it makes.

    Of a row of a linear layer's matrix [O], of a column of a table [D]. It is a constant to
    autograd (arXiv 2402.09353, section 4.3), and float32 whatever the arithmetic.
    """
    matrix = whole(layer) if matrix is None else matrix
    of_columns = isinstance(layer, LoraEmbedding)
    return cast(Tensor, torch.linalg.vector_norm(matrix, dim=0 if of_columns else 1))


@torch.no_grad()
def merged_matrix(layer: Adapted) -> Tensor:
    """A layer with an adapter → the one matrix that does what both do together, as `whole`."""
    matrix = whole(layer)
    if layer.magnitude is None:
        return matrix
    factor = layer.magnitude.float() / lengths(layer, matrix)
    return matrix * (factor if isinstance(layer, LoraEmbedding) else factor[:, None])


def _own_or_of_base(layer: nn.Module, name: str) -> Any:
    """An attribute that the layer does not have itself is the base's: `weight`, `in_features`."""
    try:
        return nn.Module.__getattr__(layer, name)
    except AttributeError:
        return getattr(nn.Module.__getattr__(layer, "base"), name)


def _times(x: Tensor, matrix: Tensor) -> Tensor:
    """Features [..., K], a float32 matrix [M, K] → x·matrixᵀ [..., M], in the arithmetic of x."""
    if torch.is_autocast_enabled(x.device.type):
        return functional.linear(x, matrix)
    return linear(x, matrix.to(x.dtype))


def _added(out: Tensor, low: Tensor, matrix: Tensor) -> Tensor:
    """Features [..., M], [..., r] and a matrix [M, r] → out + low·matrixᵀ, in one pass."""
    flat, thin = out.reshape(-1, out.shape[-1]), low.reshape(-1, low.shape[-1])
    return torch.addmm(flat, thin.to(out.dtype), matrix.to(out.dtype).T).view(out.shape)


Adapted: TypeAlias = LoraLinear | LoraEmbedding
