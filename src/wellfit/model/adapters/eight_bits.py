"""Numbers in, a byte each and scales out; and back. Of scales (dynamic) and of matrices (rows).

Dynamic: arXiv 2110.02861, section 2.1: a block of 256 is divided by its largest absolute value,
and each quotient becomes the nearest of 256 numbers that lie denser towards zero. QLoRA keeps the
scales of its blocks so, less their mean (arXiv 2305.14314, section 3).

Rows: each row of a matrix is divided by its largest absolute value over 127 and rounded. This is
the vector-wise half of LLM.int8() (arXiv 2208.07339) for weights alone; features are not rounded,
and so no outliers have to be treated apart.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 256


def in_blocks(numbers: Tensor, block: int) -> Tensor:
    """Numbers [N] → [⌈N/block⌉, block], zeros behind the last."""
    missing = -len(numbers) % block
    return (functional.pad(numbers, (0, missing)) if missing else numbers).reshape(-1, block)


@cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """The 256 numbers from −1 to 1, ascending, and the middles between neighbours [255].

    For each power of ten from 1e-6 to 1 the interval from a tenth of it up to it is cut into 1, 2,
    4, … 64 equal parts, whose middles are taken with both signs; zero and one complete them.
    """
    numbers = [0.0, 1.0]
    for exponent in range(7):
        for part in range(2**exponent):
            middle = 10.0 ** (exponent - 6) * (0.1 + 0.9 * (part + 0.5) / 2**exponent)
            numbers += [middle, -middle]
    exact = torch.tensor(sorted(numbers), dtype=torch.float64)
    return exact.float().to(device), ((exact[:-1] + exact[1:]) / 2).float().to(device)


def quantise_scales(scales: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scales [N] → their codes [N], the scales of those [⌈N/256⌉], and the mean that was taken off.

    >>> codes, outer, mean = quantise_scales(torch.tensor([1.0, 2.0, 3.0]))
    >>> codes.tolist(), outer.tolist(), mean.item()
    ([0, 127, 255], [1.0], 2.0)
    """
    _, middles = _tables(scales.device)
    mean = scales.mean()
    blocks = in_blocks(scales - mean, BLOCK)
    outer = blocks.abs().amax(1)
    quotients = blocks / torch.where(outer > 0, outer, 1.0)[:, None]
    codes = torch.bucketize(quotients.reshape(-1)[: len(scales)], middles, out_int32=True)
    return codes.to(torch.uint8), outer, mean


def restore_scales(codes: Tensor, outer: Tensor, mean: Tensor) -> Tensor:
    """What `quantise_scales` gave → the scales that they stand for [N], float32."""
    table, _ = _tables(codes.device)
    blocks = in_blocks(functional.embedding(codes.int(), table[:, None])[:, 0], BLOCK)
    return (blocks * outer[:, None]).view(-1)[: len(codes)] + mean


def quantise_rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """A matrix [R, C] → whole numbers from −127 to 127 [R, C], and the scale of each row [R].

    >>> quantise_rows(torch.tensor([[254.0, -2.0, 1.2]]))
    (tensor([[127,  -1,   1]], dtype=torch.int8), tensor([2.]))
    """
    scales = matrix.float().abs().amax(1) / 127
    quotients = matrix.float() / torch.where(scales > 0, scales, 1.0)[:, None]
    return quotients.round_().clamp_(-127, 127).to(torch.int8), scales


def restore_rows(codes: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """What `quantise_rows` gave, and a type → the matrix in it."""
    return (codes.float() * scales[:, None]).to(dtype)
