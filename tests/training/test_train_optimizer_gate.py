"""`step(apply)`: nothing moves where it is 0, all as usual where it is 1, and nobody waits."""

from __future__ import annotations

import math

import pytest
import torch
from optimizer_parts import KINDS, built, copies, differing, steep, weights
from torch.utils._python_dispatch import TorchDispatchMode

from wellfit.training.optimizers import muon

VARIANTS = {
    **{kind: (kind, {}) for kind in KINDS},
    "sgd without momentum": ("sgd", {"momentum": 0.0}),
    "sgd with nesterov": ("sgd", {"nesterov": True}),
    "adafactor by size": ("adafactor", {"scale_by_size": True}),
    "lion paged": ("lion", {"states": "paged"}),
}


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=["nan", "inf"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_refused_step_leaves_every_bit(variant, bad):
    """Break: masking the update but not the moments, or counting the step all the same."""
    kind, changes = VARIANTS[variant]
    parameters = weights()
    made = built(kind, parameters, **changes)
    for step in range(1, 4):
        steep(parameters, step)
        made.step()
    before = copies(made, parameters)
    for step in (4, 5):
        steep(parameters, step, bad)
        made.step(torch.tensor(0.0))
    assert differing(before, copies(made, parameters)) == []


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_refused_first_step_is_as_if_it_had_not_been(variant):
    """Break: AdamW's counter at 1 after a refused first step."""
    kind, changes = VARIANTS[variant]
    after: list[dict[str, torch.Tensor]] = []
    for refused_first in (True, False):
        parameters = weights()
        made = built(kind, parameters, **changes)
        if refused_first:
            steep(parameters, 9, math.nan)
            made.step(torch.tensor(0.0))
        steep(parameters, 1)
        made.step()
        after.append(copies(made, parameters))
    assert differing(*after) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_applied_step_has_the_bits_of_an_unconditional_one(variant, dtype, monkeypatch):
    """Break: a decay factor that is rounded otherwise on one of the two ways."""
    if dtype is torch.bfloat16 and variant != "muon":
        pytest.skip("only Muon has a choice of arithmetic")
    monkeypatch.setattr(muon, "arithmetic", lambda device: dtype)
    kind, changes = VARIANTS[variant]
    after = []
    for apply in (torch.tensor(1.0), None):
        parameters = weights()
        made = built(kind, parameters, **changes)
        for step in range(1, 5):
            made.set_share(1 / step)
            steep(parameters, step)
            made.step(apply)
        after.append(copies(made, parameters))
    assert differing(*after) == []


class NobodyWaits(TorchDispatchMode):
    """Refuses what makes the host wait for a value that only the device knows."""

    WAITING = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self.WAITING, f"{name} waits"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("apply", [0.0, 1.0])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_step_never_asks_the_device_for_a_value(variant, apply):
    """Break: `if bool(apply)` anywhere in an update."""
    kind, changes = VARIANTS[variant]
    parameters = weights()
    made = built(kind, parameters, **changes)
    gate = torch.tensor(apply)
    with NobodyWaits():
        for step in (1, 2):
            steep(parameters, step)
            made.set_share(1 / step)
            made.step(gate)


def test_the_watchman_wakes():
    with NobodyWaits(), pytest.raises(AssertionError, match="_local_scalar_dense waits"):
        torch.tensor(1.0).item()
