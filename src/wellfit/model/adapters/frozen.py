"""Linear layers whose matrix is frozen and kept in fewer bits.

Axes: N tokens, I inputs and O outputs of a layer.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from wellfit.model.adapters import eight_bits, nf4
from wellfit.model.linear import Embedding, Linear
from wellfit.model.products import product
from wellfit.recipe.schema import Quantize


class FrozenLinear(nn.Module):
    """Features [..., I] → features [..., O] through a matrix that is kept in fewer bits.

    The matrix is made anew in the arithmetic of the features for each product, forward and
    backward, and nothing of it stays in between. `turned` says that it came as [I, O].
    """

    def __init__(
        self, matrix: Tensor, bias: Tensor | None, section: Quantize, *, turned: bool = False
    ) -> None:
        """A matrix [O, I], a bias [O] or none, and how to keep it."""
        super().__init__()
        self.out_features, self.in_features = matrix.shape
        self.section, self.turned = section, turned
        # Found once, and here: torch.compile would look into the search.
        packed = section.kind == "nf4" and matrix.device.type != "meta"
        self.kernel = published_kernel() if packed else None
        self.shell: tuple[nn.Module, ...] = ()
        """The layer that it stands for, without its matrix; hidden from torch in a tuple."""
        for name, tensor in KEPT[section.kind](matrix, section).items():
            self.register_buffer(name, tensor)
        self.bias: Tensor | None
        self.register_buffer("bias", bias)
        self.frozen_names = {"bias"}

    @property
    def weight(self) -> Tensor:
        """The matrix as it is multiplied, [O, I], float32; or [I, O] where it came so."""
        matrix = self.dense(torch.float32)
        return matrix.T if self.turned else matrix

    def dense(self, dtype: torch.dtype) -> Tensor:
        """The matrix [O, I] in a type."""
        return MADE[self.section.kind](self, dtype)

    def forward(self, x: Tensor) -> Tensor:
        device = x.device.type
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        out = cast(Tensor, _Product.apply(x, self))  # type: ignore[no-untyped-call]
        return out if self.bias is None else out + self.bias.to(out.dtype)


class _Product(torch.autograd.Function):
    """By hand because autograd would keep the matrix that was made."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: FrozenLinear) -> Tensor:
        ctx.layer = layer
        return product(x, layer.dense(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None]:
        return product(grad, ctx.layer.dense(grad.dtype).T), None


def frozen_linear(layer: nn.Module, section: Quantize) -> FrozenLinear:
    """A frozen linear layer, whose matrix goes → the layer that keeps it as the section says."""
    bias = cast("Tensor | None", layer.bias)
    made = FrozenLinear(matrix_of(layer), bias, section, turned=is_turned(layer))
    layer._buffers["weight"] = None
    made.shell = (layer,)
    return made


def thawed(layer: FrozenLinear) -> nn.Module:
    """A layer whose matrix is kept in fewer bits → the one it stands for, with that very matrix."""
    (made,) = layer.shell
    made._buffers["weight"] = layer.weight.contiguous()
    made._buffers["bias"] = layer.bias
    made.training = layer.training
    return made


def is_linear(layer: nn.Module) -> bool:
    """Whether a module multiplies by a matrix: ours, torch's, or transformers' Conv1D."""
    return isinstance(layer, (Linear, nn.Linear, FrozenLinear)) or is_turned(layer)


def is_turned(layer: nn.Module) -> bool:
    """Whether a linear layer holds its matrix as [I, O], as transformers' Conv1D does."""
    kind = type(layer)
    own = kind.__name__ == "Conv1D" and kind.__module__.startswith("transformers.")
    return own or (isinstance(layer, FrozenLinear) and layer.turned)


def is_table(layer: nn.Module) -> bool:
    """Whether a module looks rows up."""
    return isinstance(layer, (Embedding, nn.Embedding))


def matrix_of(layer: nn.Module) -> Tensor:
    """A linear layer → its matrix [O, I]; a table's → [entries, width]."""
    if isinstance(layer, FrozenLinear):
        return layer.dense(torch.float32)
    weight = cast(Tensor, layer.weight)
    return weight.T if is_turned(layer) else weight


def kept_bytes(layer: nn.Module) -> int:
    """A module → bytes of its tensors, parameters or not; what two names share counts once."""
    held = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in (*layer.parameters(), *layer.buffers())
    }
    return sum(held.values())


# ── the ways to keep a matrix ──────────────────────────────────────────────────────────────


def _keep_bf16(matrix: Tensor, section: Quantize) -> dict[str, Tensor]:
    return {"matrix": matrix.to(torch.bfloat16).contiguous()}


def _make_bf16(layer: Any, dtype: torch.dtype) -> Tensor:
    return cast(Tensor, layer.matrix.to(dtype))


def _keep_int8(matrix: Tensor, section: Quantize) -> dict[str, Tensor]:
    codes, scales = eight_bits.quantise_rows(matrix)
    return {"codes": codes.contiguous(), "scales": scales}


def _make_int8(layer: Any, dtype: torch.dtype) -> Tensor:
    return eight_bits.restore_rows(layer.codes, layer.scales, dtype)


def _keep_nf4(matrix: Tensor, section: Quantize) -> dict[str, Tensor]:
    packed, scales = nf4.quantise(matrix.reshape(-1), section.block_size)
    if not section.double_quantization:
        return {"codes": packed, "scales": scales}
    codes, outer, mean = eight_bits.quantise_scales(scales)
    return {"codes": packed, "scales": codes, "outer_scales": outer, "mean_scale": mean}


def _make_nf4(layer: Any, dtype: torch.dtype) -> Tensor:
    scales, block = layer.scales, layer.section.block_size
    shape = (layer.out_features, layer.in_features)
    if layer.section.double_quantization:
        scales = eight_bits.restore_scales(scales, layer.outer_scales, layer.mean_scale)
    count = shape[0] * shape[1]
    if layer.kernel is not None:
        # Flat: given as a matrix, its rows must be whole blocks on a CPU (bitsandbytes 0.50).
        flat = layer.kernel(layer.codes[:, None], scales, block, "nf4", (count,), dtype)
        return cast(Tensor, flat.view(shape))
    return nf4.restore(layer.codes, scales, block, count).view(shape).to(dtype)


@cache
def published_kernel() -> Callable[..., Tensor] | None:
    """The kernel of bitsandbytes that unpacks NF4, where that package is installed; else None.

    Its bytes are ours and so are the bits of its result; it is five times quicker on a CPU.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        return None
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it tells of kernels that it would like to download
    try:
        importlib.import_module("bitsandbytes")
        found: Callable[..., Tensor] = torch.ops.bitsandbytes.dequantize_4bit.default
        probe, scales = torch.arange(99).to(torch.uint8) * 2, torch.tensor([2.0, 0.3, 1.0, 7.0])
        same = found(probe[:, None], scales, 64, "nf4", (198,), torch.float32)
        expected = nf4.restore(probe, scales, 64, 198)
    except Exception:  # built for another machine or torch: ours does the same
        return None
    finally:
        logging.disable(before)
    return found if torch.equal(same.view(-1), expected) else None


KEPT: dict[str, Callable[[Tensor, Quantize], dict[str, Tensor]]] = {
    "bf16": _keep_bf16,
    "int8": _keep_int8,
    "nf4": _keep_nf4,
}
MADE: dict[str, Callable[[Any, torch.dtype], Tensor]] = {
    "bf16": _make_bf16,
    "int8": _make_int8,
    "nf4": _make_nf4,
}
