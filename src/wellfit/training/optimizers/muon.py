"""Muon: step along the orthogonalised momentum of a matrix (kellerjordan.github.io/posts/muon).

Matrices of one shape, and those that are it when turned, are orthogonalised together: small
matrices one by one leave a device idle. Axes: K matrices, m rows, n ≥ m columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import sqrt
from typing import TYPE_CHECKING

from wellfit.recipe import schema
from wellfit.training.optimizers import gate
from wellfit.training.optimizers.method import Method, Moments

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# The post's quintic: singular values from nearly 0 to 1 come to lie between about 0.7 and 1.2.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def fresh(parameter: Tensor, settings: schema.Muon) -> Moments:
    """A matrix in; its momentum, zero, out."""
    import torch

    return {"momentum_buffer": torch.zeros_like(parameter)}


def update(
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    moments: Sequence[Moments],
    *,
    settings: schema.Muon,
    rate: float,
    weight_decay: float,
    apply: Tensor | None,
) -> None:
    """One step, as `Update` says: Nesterov momentum, orthogonalised, times √max(1, rows/columns).

    The momentum is beta * momentum + (1 - beta) * gradient, as in torch.optim.Muon.
    """
    import torch

    buffers, steep = [own["momentum_buffer"] for own in moments], list(gradients)
    if apply is None:
        torch._foreach_lerp_(buffers, steep, 1 - settings.momentum)
        grown = buffers
    else:
        grown = list(torch._foreach_lerp(buffers, steep, 1 - settings.momentum))
        gate.write(buffers, grown, apply)
    ahead = torch._foreach_lerp(steep, grown, settings.momentum)
    gate.shrink(weights, rate * weight_decay, apply)
    weights, ahead = _matrices(weights), tuple(_matrices(ahead))
    for places in alike([tuple(weight.shape) for weight in weights]):
        directions = orthogonal_all([ahead[place] for place in places])
        gate.silence(directions, apply)
        for place, direction in zip(places, directions, strict=True):
            rows, columns = weights[place].shape
            weights[place].add_(direction, alpha=-rate * sqrt(max(1.0, rows / columns)))


def _matrices(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Matrices, and stacks of them (one for each expert), in; views of the matrices out."""
    return [
        one for tensor in tensors for one in (tensor.unbind() if tensor.ndim == 3 else (tensor,))
    ]


def alike(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Shapes in; the positions of those that are the same, turned or not, out.

    >>> alike([(2, 8), (4, 4), (8, 2)])
    [[0, 2], [1]]
    """
    found: dict[tuple[int, ...], list[int]] = {}
    for place, shape in enumerate(shapes):
        found.setdefault(tuple(sorted(shape)), []).append(place)
    return list(found.values())


def orthogonal_all(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Matrices [m, n] or [n, m] in; each one's nearly orthogonal direction, in its shape, out."""
    import torch

    rows, columns = sorted(matrices[0].shape)
    stack = torch.empty(
        (len(matrices), rows, columns),
        dtype=arithmetic(matrices[0].device),
        device=matrices[0].device,
    )
    for place, matrix in enumerate(matrices):
        stack[place].copy_(matrix if matrix.shape[0] == rows else matrix.T)
    stack = newton_schulz(stack)
    return [
        one if matrix.shape[0] == rows else one.T
        for one, matrix in zip(stack.unbind(), matrices, strict=True)
    ]


def newton_schulz(X: Tensor) -> Tensor:
    """Matrices [K, m, n], m ≤ n, in; five Newton–Schulz iterations of each out, in X's arithmetic.

    X ← aX + (bA + cA²)X with A = XXᵀ, begun at X divided by its Frobenius norm.
    """
    import torch

    a, b, c = COEFFICIENTS
    X = X / X.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        A = torch.bmm(X, X.mT)
        B = torch.baddbmm(A, A, A, beta=b, alpha=c)
        X = torch.baddbmm(X, B, X, beta=a)
    return X


@cache
def arithmetic(device: torch.device) -> torch.dtype:
    """A device in; bfloat16 where it multiplies it natively, as the post has it, else float32."""
    import torch

    from wellfit.training import precision

    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    native = precision.choose_precision(
        "auto", device.type, cpu_flags=precision.cpu_flags(), capability=capability
    )
    return precision.compute_dtype(native.name)


MUON = Method(fresh, update)
