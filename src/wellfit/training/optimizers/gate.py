"""Tensors and `apply` in; tensors changed where it is 1 and untouched where it is 0.

`apply` is a 0-dim tensor whose value only the device knows (or None for "always"). Every choice
is therefore made by arithmetic on the device: asking for the value would make the host wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def write(targets: Sequence[Tensor], values: Sequence[Tensor], apply: Tensor | None) -> None:
    """Targets take the values where `apply` is 1.

    >>> import torch
    >>> a, b = torch.zeros(2), torch.tensor([float("nan"), 1.0])
    >>> write([a], [b], torch.tensor(0.0)); a
    tensor([0., 0.])
    """
    import torch

    if apply is None:
        for target, value in zip(targets, values, strict=True):
            target.copy_(value)
        return
    applied = apply != 0
    for target, value in zip(targets, values, strict=True):
        torch.where(applied, value, target, out=target)


def shrink(weights: Sequence[Tensor], by: float, apply: Tensor | None) -> None:
    """Weights times `1 - by` where `apply` is 1.

    The factor is rounded to float32 in both ways, so that they give the same bits.
    """
    import torch

    if not by:
        return
    if apply is None:
        torch._foreach_mul_(list(weights), 1 - by)
    else:
        torch._foreach_mul_(list(weights), torch.where(apply != 0, 1 - by, 1.0).float())


def silence(updates: Sequence[Tensor], apply: Tensor | None) -> None:
    """Updates become zeros where `apply` is 0, NaN among them too."""
    if apply is None:
        return
    refused = apply == 0
    for update in updates:
        update.masked_fill_(refused, 0.0)
