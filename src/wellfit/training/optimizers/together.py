"""Groups of parameters, each with its method, that act as one optimizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wellfit.training.optimizers.method import Method, Moments
from wellfit.training.optimizers.places import Place

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that share method, peak rate and decay."""

    method: Method
    settings: Any
    """The optimizer's section of the recipe, as the method reads it."""
    peak: float
    weight_decay: float
    runs: tuple[Mapping[str, Parameter], ...]
    """The parameters by name, in portions that are updated at once."""


@dataclass(slots=True)
class Optimizers:
    """All groups and the moments of their parameters."""

    groups: tuple[Group, ...]
    place: Place
    share: float = 1.0
    """Share of the peak rate at which the next update is made."""
    moments: dict[str, Moments] = field(default_factory=dict)
    """Parameter → its moments; a parameter has none before its first gradient."""

    def set_share(self, share: float) -> float:
        """Share of the peak rate in; all groups go by it, and the largest rate comes out."""
        self.share = share
        return max(group.peak * share for group in self.groups)

    def step(self, apply: Tensor | None = None) -> None:
        """Makes one update from the gradients at the rates that are set.

        `apply` is a 0-dim float32 tensor on the parameters' device, 1 or 0: where it is 0, weights
        and moments stay bit for bit as they were, whatever the gradients hold, and the host does
        not wait to learn it. None always updates. Parameters without a gradient are left out.
        """
        import torch

        with torch.no_grad():
            for group in self.groups:
                for run in group.runs:
                    self._update(group, run, apply)

    def _update(self, group: Group, run: Mapping[str, Parameter], apply: Tensor | None) -> None:
        given = {name: one for name, one in run.items() if one.grad is not None}
        if not given:
            return
        for name, parameter in given.items():
            if name not in self.moments:
                fresh = group.method.fresh(parameter.detach(), group.settings)
                self.moments[name] = self.place.keep(name, fresh)
        held = [self.moments[name] for name in given]
        worked_on = held
        if self.place.away:
            worked_on = [
                {
                    key: tensor.to(parameter.device, non_blocking=True, copy=True)
                    for key, tensor in own.items()
                }
                for own, parameter in zip(held, given.values(), strict=True)
            ]
        group.method.update(
            [parameter.detach() for parameter in given.values()],
            [parameter.grad for parameter in given.values() if parameter.grad is not None],
            worked_on,
            settings=group.settings,
            rate=group.peak * self.share,
            weight_decay=group.weight_decay,
            apply=apply,
        )
        if self.place.away:
            for own, copies in zip(held, worked_on, strict=True):
                for key, tensor in own.items():
                    tensor.copy_(copies[key], non_blocking=True)

    def zero_grad(self) -> None:
        """Drops all gradients."""
        for group in self.groups:
            for run in group.runs:
                for parameter in run.values():
                    parameter.grad = None

    def clear(self) -> None:
        """Forgets all moments, as before the first step."""
        self.moments.clear()

    def state(self) -> dict[str, Tensor]:
        """Nothing in; `<parameter>/<moment>` → tensor out, empty before the first step."""
        self._arrived()
        return {
            f"{name}/{key}": tensor
            for name, own in self.moments.items()
            for key, tensor in own.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """What `state` gave in; every moment is as it was, bit for bit."""
        self._arrived()
        self.clear()
        read: dict[str, Moments] = {}
        for path, tensor in tensors.items():
            name, _, key = path.rpartition("/")
            read.setdefault(name, {})[key] = tensor
        for name, own in read.items():
            self.moments[name] = self.place.keep(name, own)

    def _arrived(self) -> None:
        """Waits until what was written back to the host stands there."""
        import torch

        if self.place.away and torch.cuda.is_available():
            torch.cuda.synchronize()
