"""A matrix in the form in which a processor multiplies few rows by it quickest.

Generation multiplies a row or a few by every matrix for every token, so that a token costs the
time in which the weights pass through memory, once they are laid out right. Measured: docs/log.md.

Axes: B rows, K features of a row, M features of the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from wellfit.model.products import ONEDNN

Product = Callable[[Tensor], Tensor]
"""Features [B, K] → features [B, M]."""

# The reordering that oneDNN's kernel likes best, where this torch has it.
REORDER: tuple[Any, ...] = (
    (torch.ops.mkldnn._reorder_linear_weight.default,)
    if ONEDNN and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    else ()
)


def ready_product(matrix: Tensor, bias: Tensor | None, rows: int) -> Product:
    """A matrix [M, K], a bias [M] and the rows that will come at once → x ↦ x·matrixᵀ + bias.

    Both are of the dtype of x, and any number of rows is multiplied rightly. On a CPU the product
    holds a copy of the matrix: packed by oneDNN for several rows or for bf16, transposed for a
    single one in float32 where it widens (a transposed matrix is read along its rows). Elsewhere
    it is `linear` with the matrix itself.
    """
    if matrix.device.type == "cpu" and _packs(matrix.dtype, rows):
        packed = REORDER[0](matrix.contiguous(), rows)

        def by_packed(x: Tensor) -> Tensor:
            return cast(Tensor, ONEDNN[0](x, packed, bias, "none", [], ""))

        return by_packed
    if matrix.device.type == "cpu" and rows == 1 and matrix.shape[0] >= matrix.shape[1]:
        turned = matrix.t().contiguous()
        if bias is None:
            return lambda x: torch.mm(x, turned)
        return lambda x: torch.addmm(bias, x, turned)
    return lambda x: functional.linear(x, matrix, bias)


def _packs(dtype: torch.dtype, rows: int) -> bool:
    if not REORDER or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32 and rows > 1
