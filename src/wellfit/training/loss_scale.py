"""The factor that lifts float16 gradients above their smallest number, and how it adapts.

Dynamic loss scaling (arXiv 1710.03740, section 3.2) with the constants of torch.amp.GradScaler:
begin at 2^16, halve after a step whose gradients overflowed, double after 2,000 without one.
The factor is a power of two, so scaling and unscaling change no bit that float32 can hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FIRST, LARGEST = 2.0**16, 2.0**24
GROWTH_STEPS = 2_000


class LossScale:
    """A factor on the device, adapted without waiting for the device."""

    def __init__(self, device: torch.device) -> None:
        """Begins at 2^16."""
        import torch

        self.factor = torch.full((), FIRST, device=device)
        self._good = torch.zeros((), device=device)

    def update(self, overflow: Tensor) -> None:
        """1 where the gradients of the step overflowed, else 0, in; the factor adapted."""
        import torch

        self._good += 1
        grown = torch.where(self._good >= GROWTH_STEPS, self.factor * 2, self.factor)
        self.factor.copy_(torch.where(overflow > 0, self.factor / 2, grown).clamp(1.0, LARGEST))
        self._good *= ((overflow == 0) & (self._good < GROWTH_STEPS)).float()

    def state(self) -> dict[str, Any]:
        """Nothing in; factor and good steps, for a checkpoint, out."""
        return {"factor": float(self.factor), "good_steps": int(self._good)}

    def load(self, state: dict[str, Any]) -> None:
        """What `state` gave in; the factor goes on from there."""
        self.factor.fill_(state["factor"])
        self._good.fill_(state["good_steps"])
