"""An optimizer's settings and the model's parameters in; the optimizer out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from wellfit.recipe import schema
from wellfit.training.optimizers.adafactor import ADAFACTOR
from wellfit.training.optimizers.adamw import ADAMW
from wellfit.training.optimizers.adamw_8bit import ADAMW_8BIT
from wellfit.training.optimizers.lion import LION
from wellfit.training.optimizers.method import Method, Moments
from wellfit.training.optimizers.muon import MUON
from wellfit.training.optimizers.places import Place, beside, in_file, on_host
from wellfit.training.optimizers.sgd import SGD
from wellfit.training.optimizers.together import Group, Optimizers

if TYPE_CHECKING:
    import torch
    from torch.nn import Parameter

DECAYED = frozenset({"matrix", "head", "adapter"})
# Numbers updated at once: bounds what an update holds beside weights and moments. A matrix that is
# larger stands alone. The same wherever moments live, so that the bits are the same too.
RUN = 2**26


def build(
    settings: schema.Optimizer,
    parameters: Mapping[str, Parameter],
    roles: Mapping[str, str],
    *,
    factors: Mapping[str, float] | None = None,
) -> Optimizers:
    """Settings, `{name: parameter}` and `{name: role}` in, the optimizer out.

    Matrices, adapters and the head decay; embeddings, positions, norms and biases do not, unless
    `settings.groups` says so. `factors` multiply the peak rate of single parameters; 1 where
    they are silent. What a step takes off a weight, rate · decay, stays as it is: rates that carry
    over to another width ask for it (arXiv 2405.13698, 2510.19093).

    Raises RunError where moments cannot live where the settings want them.
    """
    assert set(parameters) == set(roles), "every parameter has a role"
    alike: dict[tuple[bool, float, float], dict[str, Parameter]] = {}
    for name, parameter in parameters.items():
        by_muon = _by_muon(settings, roles[name])
        peak = settings.learning_rate
        if isinstance(settings, schema.Muon) and by_muon:
            peak = settings.matrix_learning_rate
        decay = settings.weight_decay if roles[name] in DECAYED else 0.0
        own = getattr(settings.groups, roles[name], None)
        if own is not None:
            peak *= own.rate
            decay = decay if own.weight_decay is None else own.weight_decay
        factor = (factors or {}).get(name, 1.0)
        peak, decay = peak * factor, decay / factor if factor else 0.0
        alike.setdefault((by_muon, peak, decay), {})[name] = parameter
    groups = tuple(
        Group(MUON if by_muon else METHODS[settings.kind], settings, peak, decay, tuple(_runs(own)))
        for (by_muon, peak, decay), own in alike.items()
    )
    device = next(iter(parameters.values())).device
    return Optimizers(groups, PLACES[settings.states](settings, parameters, roles, device))


def moments(
    settings: schema.Optimizer,
    roles: Mapping[str, str],
    shapes: Mapping[str, torch.Size] | None = None,
) -> dict[str, str]:
    """Settings, roles and shapes by parameter in; every key that `state` holds → its parameter.

    Only AdamW, Lion, SGD and Muon can do without the shapes.

    >>> sorted(moments(schema.AdamW(learning_rate=1.0), {"head": "head"}))
    ['head/exp_avg', 'head/exp_avg_sq', 'head/step']
    """
    import torch

    expected = {}
    needed = settings.kind in ("adamw_8bit", "adafactor")
    for name, role in roles.items():
        assert shapes or not needed, f"the moments of {settings.kind} depend on shapes"
        shape = shapes[name] if shapes else torch.Size([])
        for key in _fresh(settings, role, torch.empty(shape, device="meta")):
            expected[f"{name}/{key}"] = name
    return expected


def _fresh(settings: schema.Optimizer, role: str, parameter: torch.Tensor) -> Moments:
    method = MUON if _by_muon(settings, role) else METHODS[settings.kind]
    return method.fresh(parameter, settings)


def _by_muon(settings: schema.Optimizer, role: str) -> bool:
    # Not the role `adapter`: what should move alike in all directions is the product B·A. Its
    # factors are thin, and A's first gradients all but zero: their noise would be a full step.
    return settings.kind == "muon" and role == "matrix"


def _runs(parameters: Mapping[str, Parameter]) -> Iterator[dict[str, Parameter]]:
    """Parameters of a group in; portions of at most `RUN` numbers, like shapes together, out."""
    run: dict[str, Parameter] = {}
    for name in sorted(parameters, key=lambda name: sorted(parameters[name].shape)):
        if run and sum(one.numel() for one in run.values()) + parameters[name].numel() > RUN:
            yield run
            run = {}
        run[name] = parameters[name]
    yield run


def _paged(
    settings: schema.Optimizer,
    parameters: Mapping[str, Parameter],
    roles: Mapping[str, str],
    device: torch.device,
) -> Place:
    import torch

    beginning = {
        name: _fresh(settings, roles[name], torch.empty_like(parameter, device="meta"))
        for name, parameter in parameters.items()
    }
    return in_file(device, beginning)


# Muon is for matrices only; `adamw` does the rest of it.
METHODS: dict[str, Method] = {
    "adamw": ADAMW,
    "muon": ADAMW,
    "adafactor": ADAFACTOR,
    "lion": LION,
    "sgd": SGD,
    "adamw_8bit": ADAMW_8BIT,
}
PLACES: dict[str, Callable[..., Place]] = {
    "device": lambda settings, parameters, roles, device: beside(device),
    "offload": lambda settings, parameters, roles, device: on_host(device),
    "paged": _paged,
}
