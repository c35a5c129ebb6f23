"""A key and a device in; within, every global generator draws from that key; afterwards as before.

Modules of somebody's own draw weights and dropout from the global state of torch, and some from
Python's or NumPy's.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(key: str, device: torch.device) -> Iterator[None]:
    """A key, the same for the same draws, and the device they are made on; see above."""
    digest = hashlib.sha256(key.encode()).digest()
    seed = int.from_bytes(digest[:8], "little") >> 1
    python, numpy, here = random.getstate(), np.random.get_state(), torch.get_rng_state()
    there = _device_state(device)
    try:
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        elif device.type == "mps":
            torch.mps.manual_seed(seed)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(here)
        if there is not None and device.type == "cuda":
            torch.cuda.set_rng_state(there, device)
        elif there is not None:
            torch.mps.set_rng_state(there)


def _device_state(device: torch.device) -> torch.Tensor | None:
    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    return torch.mps.get_rng_state() if device.type == "mps" else None
