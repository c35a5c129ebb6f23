"""What the machine can do and what the training uses of it: measured, or unknown.

No table of devices: the peak is what a matrix product reaches here and now, so a share of it is
comparable between machines and never flatters an unknown one.
"""

from __future__ import annotations

import math
import time
from typing import Any, Literal

SHAPES = {"cpu": (512, 1024, 2048), "cuda": (2048, 4096, 8192)}
"""Sides of the square matrices that are tried; the fastest counts."""

_ENOUGH_SECONDS = 0.5


def matrix_peak(
    dtype: Literal["fp32", "bf16"], device: str = "cpu", threads: int = 0
) -> float | None:
    """The arithmetic and the device → FLOP/s of the fastest matrix product, in half a second.

    Squares of several sides (`SHAPES`) are multiplied in turn; a product of n×n matrices counts
    2·n³ operations. `threads` are CPU threads, 0 leaves PyTorch's number. Gives None, which means
    unknown, on devices other than CPUs and CUDA devices and where the product is not supported.
    On a busy machine the figure is lower: it tells what was to be had while it was measured.
    """
    import torch

    sides = SHAPES.get(torch.device(device).type)
    if sides is None:
        return None
    before = torch.get_num_threads()
    if threads:
        torch.set_num_threads(threads)
    try:
        return _fastest(torch.float32 if dtype == "fp32" else torch.bfloat16, device, sides)
    except (RuntimeError, AssertionError):  # PyTorch asserts that a CUDA build is there
        return None
    finally:
        torch.set_num_threads(before)


def mfu(
    tokens_per_second: float | None, flops_per_token: float | None, peak: float | None
) -> float | None:
    """Model FLOPs utilisation, a share of 1 (arXiv 2204.02311, appendix B); None where unknown.

    >>> mfu(10_000, 6e6, 1e12)
    0.06
    """
    if tokens_per_second is None or flops_per_token is None or not peak:
        return None
    return tokens_per_second * flops_per_token / peak


def process_memory() -> int:
    """Bytes of main memory that this process holds now (resident set)."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def device_memory(device: str) -> int | None:
    """Bytes that PyTorch has allocated on a CUDA device now; None on any other device."""
    if not device.startswith("cuda"):
        return None
    import torch

    return int(torch.cuda.memory_allocated(device)) if torch.cuda.is_available() else None


def _fastest(dtype: Any, device: str, sides: tuple[int, ...]) -> float:
    import torch

    best = 0.0
    started = time.perf_counter()
    for number, side in enumerate(sides, 1):
        left = torch.ones(side, side, dtype=dtype, device=device)
        out = torch.empty_like(left)
        torch.mm(left, left, out=out)  # the first product pays for set-up
        _wait(device)
        until = started + _ENOUGH_SECONDS * number / len(sides)
        quickest = math.inf
        while True:
            at = time.perf_counter()
            torch.mm(left, left, out=out)
            _wait(device)
            now = time.perf_counter()
            quickest = min(quickest, now - at)
            if now >= until:
                break
        best = max(best, 2.0 * side**3 / quickest)
    return best


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
