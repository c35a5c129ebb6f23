"""Numbers in, four bits each and a scale for every block of them out; and back.

NormalFloat of QLoRA (arXiv 2305.14314, section 3 and appendix E): a block is divided by its
largest absolute value, and each quotient becomes the nearest of 16 numbers that are the quantiles
of a normal distribution. Codes stand two in a byte, the first one in the upper half, as
bitsandbytes lays them out; double quantization keeps the scales themselves in eight bits
(`eight_bits`).
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from wellfit.model.adapters import eight_bits

CODE_BOOK = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""The sixteen numbers as appendix E prints them."""
ZERO = CODE_BOOK.index(0.0)


@cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """Middles between neighbours [15], and the two numbers that a byte stands for [256, 2]."""
    exact = torch.tensor(CODE_BOOK, dtype=torch.float64)
    middles = (exact[:-1] + exact[1:]) / 2
    both = torch.arange(256)
    pairs = torch.stack((exact[both >> 4], exact[both & 15]), dim=1)
    return middles.float().to(device), pairs.float().to(device)


def quantise(numbers: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """Numbers [N] and the size of a block → bytes [⌈N/2⌉], and scales [⌈N/block⌉] in float32.

    The last block may be shorter. A block of zeros has the scale 0.

    >>> quantise(torch.tensor([2.0, -2.0, 0.0, 0.9]), 4)
    (tensor([240, 124], dtype=torch.uint8), tensor([2.]))
    """
    middles, _ = _tables(numbers.device)
    blocks = eight_bits.in_blocks(numbers.float(), block)
    scales = blocks.abs().amax(1)
    # Times the reciprocal, as bitsandbytes has it: the same numbers fall to the same side.
    quotients = blocks * (1 / scales.clamp_min(1e-38))[:, None]
    codes = torch.bucketize(quotients.reshape(-1)[: len(numbers)], middles, out_int32=True)
    codes = functional.pad(codes.to(torch.uint8), (0, len(codes) % 2), value=ZERO)
    return (codes[::2] << 4) | codes[1::2], scales


def restore(packed: Tensor, scales: Tensor, block: int, count: int) -> Tensor:
    """Bytes and scales as `quantise` gave them, and N → the numbers that they stand for [N].

    >>> restore(*quantise(torch.tensor([2.0, -2.0, 0.0]), 4), block=4, count=3)
    tensor([ 2., -2.,  0.])
    """
    _, pairs = _tables(packed.device)
    numbers = functional.embedding(packed.int(), pairs).view(-1)[:count]
    if count % block:
        numbers = eight_bits.in_blocks(numbers, block)
    return numbers.view(-1, block).mul_(scales[:, None]).view(-1)[:count]
