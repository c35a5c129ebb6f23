"""What a method of optimization is: a pair of functions over plain tensors.

A method keeps nothing itself. Moments are dicts of tensors, one dict a parameter, and belong to
`together.Optimizers`, which decides where they live.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

Moments = dict[str, "Tensor"]
"""One parameter's moments by name; empty where a method has none."""


class Update(Protocol):
    """Weights, gradients and moments in, equally long; weights and moments updated in place.

    Weights shrink by `rate * weight_decay` of themselves, decoupled from the gradient (arXiv
    1711.05101). `apply`, where given, is a 0-dim float32 tensor on the weights' device: where it
    is 0, weights and moments stay bit for bit as they were, whatever the gradients hold; where
    it is 1, the result is that without it. The host never waits for its value.
    """

    def __call__(
        self,
        weights: Sequence[Tensor],
        gradients: Sequence[Tensor],
        moments: Sequence[Moments],
        *,
        settings: Any,
        rate: float,
        weight_decay: float,
        apply: Tensor | None,
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Method:
    """How moments begin, and how one update is made of them."""

    fresh: Callable[[Tensor, Any], Moments]
    """A parameter and the optimizer's settings in; its moments before the first update out."""
    update: Update
