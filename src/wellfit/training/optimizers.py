"""Gradients in, updated weights out: AdamW, and Muon beside AdamW, with groups by role."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from wellfit.recipe import schema

if TYPE_CHECKING:
    import torch
    from torch.nn import Parameter

DECAYED = frozenset({"matrix", "head"})


@dataclass(frozen=True, slots=True)
class Optimizers:
    """One or two torch optimizers that act as one; every group knows its `peak` rate."""

    parts: tuple[torch.optim.Optimizer, ...]
    names: Mapping[torch.Tensor, str]

    def set_share(self, share: float) -> float:
        """Share of the peak rate in; sets every group's rate, and the largest rate out."""
        groups = [group for part in self.parts for group in part.param_groups]
        for group in groups:
            group["lr"] = group["peak"] * share
        return max(float(group["lr"]) for group in groups)

    def step(self) -> None:
        """Applies one update from the gradients at the rates that are set."""
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        """Drops all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def clear(self) -> None:
        """Forgets all moments, as before the first step."""
        for part in self.parts:
            part.state.clear()

    def state(self) -> dict[str, torch.Tensor]:
        """Nothing in; `<parameter>/<moment>` → tensor out, empty before the first step."""
        return {
            f"{self.names[parameter]}/{key}": value
            for part in self.parts
            for parameter, moments in part.state.items()
            for key, value in moments.items()
        }

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """What `state` gave in; every moment is as it was, bit for bit."""
        by_name = {name: parameter for parameter, name in self.names.items()}
        owner = {
            parameter: part
            for part in self.parts
            for group in part.param_groups
            for parameter in group["params"]
        }
        self.clear()
        for key, value in tensors.items():
            name, _, moment = key.rpartition("/")
            parameter = by_name[name]
            # The fused update wants its step counter on the parameter's device too.
            owner[parameter].state[parameter][moment] = value.to(parameter.device)


def moments(settings: schema.AdamW | schema.Muon, roles: Mapping[str, str]) -> dict[str, str]:
    """Settings and `{parameter: role}` in; every key that `Optimizers.state` holds → its parameter.

    >>> sorted(moments(schema.AdamW(learning_rate=1.0), {"head": "head"}))
    ['head/exp_avg', 'head/exp_avg_sq', 'head/step']
    """
    expected = {}
    for name, role in roles.items():
        muon = settings.kind == "muon" and role == "matrix"
        for moment in ("momentum_buffer",) if muon else ("step", "exp_avg", "exp_avg_sq"):
            expected[f"{name}/{moment}"] = name
    return expected


def build(
    settings: schema.AdamW | schema.Muon,
    parameters: Mapping[str, Parameter],
    roles: Mapping[str, str],
) -> Optimizers:
    """Settings, `{name: parameter}` and `{name: role}` in, the optimizer out.

    Matrices and the head decay; embeddings, positions, norms and biases never do.
    """
    assert set(parameters) == set(roles), "every parameter has a role"
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in parameters.items()}
    return Optimizers(BUILDERS[settings.kind](settings, parameters, roles), names)


def adamw(
    settings: schema.AdamW | schema.Muon,
    parameters: Mapping[str, Parameter],
    roles: Mapping[str, str],
) -> tuple[torch.optim.Optimizer, ...]:
    """AdamW (arXiv 1711.05101) over all parameters given, fused into one pass."""
    import torch

    groups = [
        {
            "params": [p for name, p in parameters.items() if (roles[name] in DECAYED) is decayed],
            "weight_decay": settings.weight_decay if decayed else 0.0,
            "peak": settings.learning_rate,
        }
        for decayed in (True, False)
    ]
    optimizer = torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.epsilon,
        fused=True,
    )
    return (optimizer,)


def muon(
    settings: schema.AdamW | schema.Muon,
    parameters: Mapping[str, Parameter],
    roles: Mapping[str, str],
) -> tuple[torch.optim.Optimizer, ...]:
    """Muon (kellerjordan.github.io/posts/muon) over the matrices, AdamW over all else.

    torch's own: Nesterov momentum, five Newton–Schulz iterations in bf16, and each matrix's rate
    times √max(1, rows / columns).
    """
    import torch

    assert isinstance(settings, schema.Muon)
    matrices = {name: p for name, p in parameters.items() if roles[name] == "matrix"}
    others = {name: p for name, p in parameters.items() if roles[name] != "matrix"}
    parts: list[torch.optim.Optimizer] = []
    if matrices:
        group = {"params": list(matrices.values()), "peak": settings.matrix_learning_rate}
        parts.append(
            torch.optim.Muon(
                cast("Any", [group]),
                lr=settings.matrix_learning_rate,
                weight_decay=settings.weight_decay,
                momentum=settings.momentum,
                nesterov=True,
            )
        )
    if others:
        parts.extend(adamw(settings, others, roles))
    return tuple(parts)


BUILDERS: dict[str, Callable[..., tuple[Any, ...]]] = {"adamw": adamw, "muon": muon}
