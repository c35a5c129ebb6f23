"""Keeps the memory of big tensors between steps: the kernel need not hand it out anew."""

from __future__ import annotations

import ctypes
import sys

# Option numbers of glibc's <malloc.h>.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


def keep_freed_memory() -> bool:
    """Nothing in; True where the C library now keeps freed memory for the next tensor.

    glibc maps big blocks one by one and gives them back when they are freed, so each training
    step page-faults through all its activations again. With both thresholds raised, blocks stay
    with the process, until it ends. Elsewhere than on Linux with glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # another C library, such as musl
        return False
    # Both must be taken: mallopt gives 0 for a value it refuses.
    mapped = mallopt(M_MMAP_THRESHOLD, 1 << 30)
    trimmed = mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    return bool(mapped and trimmed)
