"""Numbers in, one byte each and a scale for every block of them out; and back.

Block-wise dynamic quantisation of arXiv 2110.02861 (sections 2.1 and 2.2): a block is divided by
its largest absolute value, and each quotient becomes the nearest of 256 numbers that lie denser
towards zero. The published library uses blocks of 256 for the paper's 2,048; so do we.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BLOCK = 256


def dynamic_map(*, signed: bool) -> tuple[float, ...]:
    """The 256 numbers, ascending, from -1 (or 0) to 1.

    For each power of ten from 1e-6 to 1 the interval from a tenth of it up to it is cut into
    1, 2, 4, … 64 equal parts, whose middles are taken with both signs; without signs, into twice
    as many. Zero and one complete them.

    >>> len(dynamic_map(signed=True)), dynamic_map(signed=True).index(0.0)
    (256, 127)
    >>> [round(value, 4) for value in dynamic_map(signed=False)[-3:]]
    [0.9895, 0.9965, 1.0]
    """
    numbers = [0.0, 1.0]
    for exponent in range(7):
        parts = 2**exponent if signed else 2 ** (exponent + 1)
        for part in range(parts):
            middle = 10.0 ** (exponent - 6) * (0.1 + 0.9 * (part + 0.5) / parts)
            numbers += [middle, -middle] if signed else [middle]
    return tuple(sorted(numbers))


@cache
def _tables(device: torch.device, *, signed: bool) -> tuple[Tensor, Tensor]:
    """The map [256] and the middles between neighbours [255], where the nearest one changes."""
    import torch

    exact = torch.tensor(dynamic_map(signed=signed), dtype=torch.float64)
    middles = (exact[:-1] + exact[1:]) / 2
    return exact.float().to(device), middles.float().to(device)


def zeros(count: int, device: torch.device, *, signed: bool) -> tuple[Tensor, Tensor]:
    """A count in; the codes [count] and scales of as many zeros out."""
    import torch

    code = dynamic_map(signed=signed).index(0.0)
    codes = torch.full((count,), code, dtype=torch.uint8, device=device)
    return codes, torch.zeros(-(-count // BLOCK), dtype=torch.float32, device=device)


def quantise(numbers: Tensor, *, signed: bool) -> tuple[Tensor, Tensor]:
    """Numbers [N], float32, in; codes [N], uint8, and scales [ceil(N / 256)], float32, out.

    The last block may be shorter. The same numbers give the same bytes on every run.

    >>> import torch
    >>> codes, scales = quantise(torch.tensor([0.0, -2.0, 0.5]), signed=True)
    >>> codes.tolist(), scales.tolist()
    ([127, 0, 201], [2.0])
    """
    import torch

    _, middles = _tables(numbers.device, signed=signed)
    blocks = _blocks(numbers)
    scales = blocks.abs().amax(1)
    divisor = torch.where(scales > 0, scales, 1.0)
    quotients = (blocks / divisor[:, None]).reshape(-1)[: len(numbers)]
    return torch.bucketize(quotients, middles, out_int32=True).to(torch.uint8), scales


def restore(codes: Tensor, scales: Tensor, *, signed: bool) -> Tensor:
    """Codes [N] and scales in; the numbers [N] that they stand for, float32, out."""
    table, _ = _tables(codes.device, signed=signed)
    blocks = _blocks(table[codes.int()])
    return blocks.mul_(scales[:, None]).reshape(-1)[: len(codes)]


def _blocks(numbers: Tensor) -> Tensor:
    import torch

    missing = -len(numbers) % BLOCK
    if missing:
        numbers = torch.nn.functional.pad(numbers, (0, missing))
    return numbers.view(-1, BLOCK)
