"""The running average of the weights (EMA): updated after each step, lent out for evaluation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Parameter


def decay_at(step: int, decay: float) -> float:
    """A step (from 1) and `train.ema_decay` in; the share of the average that stays at it, out.

    min(decay, (1 + step) / (10 + step)): a young average must not remember the initialisation.

    >>> decay_at(1, 0.999), decay_at(100_000, 0.999)
    (0.18181818181818182, 0.999)
    """
    return min(decay, (1 + step) / (10 + step))


class Average:
    """An exponential moving average of parameters, on their device and in their type.

    Takes as much memory as the parameters. `average ← d · average + (1 − d) · parameter`, with d
    from `decay_at`; steps are counted whether or not their update was applied.
    """

    def __init__(self, parameters: Mapping[str, Parameter], decay: float) -> None:
        """`{name: parameter}` and the decay in; the average begins at the parameters' values."""
        self._parameters = dict(parameters)
        self._decay = decay
        self._averages = {name: p.detach().clone() for name, p in self._parameters.items()}

    def update(self, step: int, applied: Tensor | bool = True) -> None:
        """A step (from 1) whose update was just made in; nothing waits for the device.

        `applied` may be a scalar tensor on the parameters' device, 1 or 0: where it is 0 the
        average stays as it is, as it does for False.
        """
        import torch

        if applied is False:
            return
        averages = list(self._averages.values())
        parameters: list[Tensor] = list(self._parameters.values())
        part = 1 - decay_at(step, self._decay)
        with torch.no_grad():
            if applied is True:
                torch._foreach_lerp_(averages, parameters, part)
            else:
                weight = applied.detach().to(averages[0].dtype) * part
                weights: Any = [weight] * len(averages)  # the stubs know numbers only
                torch._foreach_lerp_(averages, parameters, weights)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """While inside, the model holds the averages; afterwards its own weights, bit for bit.

        Values are exchanged in place, one tensor at a time, so whatever remembers an address
        stays right, and no more memory is taken than the largest tensor. Not to be nested, and no
        update or save belongs inside.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state(self) -> dict[str, torch.Tensor]:
        """Nothing in; `{parameter: average}` out, the live tensors."""
        return dict(self._averages)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """What `state` gave in; every average is as it was, bit for bit."""
        import torch

        with torch.no_grad():
            for name, average in self._averages.items():
                average.copy_(tensors[name])

    def _exchange(self) -> None:
        import torch

        with torch.no_grad():
            for name, average in self._averages.items():
                kept = average.clone()
                average.copy_(self._parameters[name])
                self._parameters[name].copy_(kept)
