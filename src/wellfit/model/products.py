"""Float32 matrix products on CPUs: through oneDNN where torch would take a slower library.

torch gives float32 products to the BLAS that it was built with, mostly MKL, which chooses its
kernels by the maker of the processor: on AMD's with AVX-512 it leaves half of the vector width
unused. oneDNN, which torch ships as well and takes for bf16, looks at what the processor can do.
Measured: docs/log.md.

Axes: N rows, K features of a row, M features of the result.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

# The kernel, where this torch has it.
ONEDNN: tuple[Any, ...] = (
    (torch.ops.mkldnn._linear_pointwise.default,)
    if hasattr(torch.ops.mkldnn, "_linear_pointwise")
    else ()
)
# With fewer rows, as in generation, preparing the kernel takes longer than it saves.
LEAST_ROWS = 128


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
@cache
def onednn_is_quicker(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """The kernel's description of the processor → whether oneDNN multiplies float32 quicker.

    True on AMD processors with AVX-512, where it was measured; a torch without oneDNN says False.
    """
    if not ONEDNN or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "AuthenticAMD" in text and "avx512f" in text


def _takes(x: Tensor) -> bool:
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return False
    return x.numel() >= LEAST_ROWS * x.shape[-1] and onednn_is_quicker()


def product(x: Tensor, matrix: Tensor) -> Tensor:
    """x [..., K], matrix [M, K] of one dtype → x·matrixᵀ [..., M]; nothing for autograd."""
    if not _takes(x):
        return x @ matrix.T
    if torch.compiler.is_compiling():
        return cast(Tensor, torch.ops.wellfit.product(x, matrix))
    return _onednn(x, matrix)


def _onednn(x: Tensor, matrix: Tensor) -> Tensor:
    return cast(Tensor, ONEDNN[0](x, matrix, None, "none", [], ""))


# torch.compile's own way with the kernel wants weights that never change; as an operation that it
# does not look into, it calls the kernel as it is.
_OPERATIONS: Any = torch.library.Library("wellfit", "DEF")  # type: ignore[no-untyped-call]
_OPERATIONS.define("product(Tensor x, Tensor matrix) -> Tensor")
_OPERATIONS.impl("product", _onednn, "CPU")
_OPERATIONS.impl("product", lambda x, matrix: x.new_empty((*x.shape[:-1], matrix.shape[0])), "Meta")


class _Linear(torch.autograd.Function):
    """By hand because the kernel is none that autograd knows the gradient of."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        x_grad = weight_grad = None
        if ctx.needs_input_grad[0]:
            x_grad = product(grad, weight.T)
        if ctx.needs_input_grad[1]:
            # Summing over rows MKL is as quick.
            weight_grad = grad.flatten(0, -2).T @ x.flatten(0, -2)
        return x_grad, weight_grad


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., K], weight [M, K], bias [M], all of one dtype → x·weightᵀ + bias [..., M]."""
    if not _takes(x):
        return functional.linear(x, weight, bias)
    out = cast(Tensor, _Linear.apply(x, weight))  # type: ignore[no-untyped-call]
    return out if bias is None else out + bias
