"""How many CPU threads a training uses, for as long as it lasts."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(quota: Path = QUOTA) -> int:
    """Nothing in, cores this process may use out: those it may run on, and a container's quota.

    A container with a quota of 2 processors on a machine of 64 is stopped by the kernel for most
    of the time if it runs 64 threads; the quota is rounded up to whole cores.
    """
    allowed = getattr(os, "sched_getaffinity", None)
    cores = len(allowed(0)) if allowed else os.cpu_count() or 1
    try:
        budget, _, period = quota.read_text(encoding="ascii").partition(" ")
        cores = min(cores, max(1, math.ceil(int(budget) / int(period))))
    except (OSError, ValueError):  # no such file, or "max": no quota
        pass
    return cores


@contextmanager
def threads(wanted: int) -> Iterator[int]:
    """A recipe's `train.threads` in, the number in force out; the old number afterwards.

    Sums are split among threads, so the last bits of a result depend on their number.
    """
    import torch

    before = torch.get_num_threads()
    count = wanted or usable_cores()
    # Setting the number starts a pool of threads, so it is left alone where it is right already.
    if count != before:
        torch.set_num_threads(count)
    try:
        yield count
    finally:
        if count != before:
            torch.set_num_threads(before)
