"""A model as it comes → the digest of its tensors, by which a frozen base is known again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor

PORTION = 1 << 22
"""Numbers that are copied to the host at a time."""


def digest_of(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Names and tensors → SHA-256 over names, types, shapes and bytes, in the order of the names.

    Empty where a tensor holds no numbers, as on torch's device `meta`.

    >>> digest_of([("a", torch.zeros(2))])[:12]
    'da53f451559f'
    """
    found = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        if tensor.device.type == "meta":
            return ""
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().reshape(-1)
        for first in range(0, len(flat), PORTION):
            part = flat[first : first + PORTION].cpu().contiguous()
            found.update(part.view(torch.uint8).numpy().data)
    return found.hexdigest()
