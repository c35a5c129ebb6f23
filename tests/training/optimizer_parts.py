"""Parameters of every role, seeded gradients, and short settings of every optimizer."""

from __future__ import annotations

import torch
from pydantic import TypeAdapter
from train_parts import filled

from wellfit.recipe import schema
from wellfit.training import optimizers

# Two shapes of matrices, one of them in both directions; above and below 4,096 numbers.
SHAPES = {
    "matrix": {"square": (66, 66), "other": (66, 66), "wide": (48, 96), "tall": (96, 48)},
    "embedding": {"words": (70, 66)},
    "position": {"places": (9, 66)},
    "norm": {"gain": (66,)},
    "bias": {"shift": (96,)},
    "head": {"out": (70, 66)},
}
ROLES = {name: role for role, shapes in SHAPES.items() for name in shapes}
KINDS = {
    "adamw": {"learning_rate": 0.01},
    "muon": {"learning_rate": 0.01, "matrix_learning_rate": 0.02},
    "adafactor": {"learning_rate": 0.01},
    "lion": {"learning_rate": 0.003},
    "sgd": {"learning_rate": 0.1},
    "adamw_8bit": {"learning_rate": 0.01},
}


def settings(kind: str, **changes):
    """The section of that kind, with decay."""
    values = {"kind": kind, "weight_decay": 0.1, **KINDS[kind], **changes}
    return TypeAdapter(schema.Optimizer).validate_python(values)


def weights() -> dict[str, torch.nn.Parameter]:
    """The same weights each time."""
    shapes = {name: shape for one in SHAPES.values() for name, shape in one.items()}
    return {
        name: torch.nn.Parameter(filled(*shape, seed=number))
        for number, (name, shape) in enumerate(shapes.items())
    }


def steep(parameters, step: int, value: float | None = None) -> None:
    """Gives every parameter the gradient of that step, or one that holds a bad value."""
    for number, parameter in enumerate(parameters.values()):
        parameter.grad = filled(*parameter.shape, seed=1_000 * step + number)
        if value is not None:
            parameter.grad.view(-1)[::3] = value


def built(kind: str, parameters, **changes):
    return optimizers.build(settings(kind, **changes), parameters, ROLES)


def copies(made, parameters) -> dict[str, torch.Tensor]:
    """All weights and moments, copied."""
    whole = {name: one.detach() for name, one in parameters.items()} | made.state()
    return {name: one.clone() for name, one in whole.items()}


def differing(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> list[str]:
    """Names whose bits differ, or that only one of the two has."""
    return sorted(one.keys() ^ other.keys()) + [
        name
        for name in one.keys() & other.keys()
        if not torch.equal(bits(one[name]), bits(other[name]))
    ]


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().reshape(-1).view(torch.uint8)
