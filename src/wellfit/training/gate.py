"""Loss and gradient norm of a step in; whether its update may be applied out, on the device.

Nothing here waits for the device: what is decided are tensors of 0 and 1, read a step later by
whoever tells about it. A value is compared with the last applied steps by the robust z of its
logarithm, 0.6745·(x − median)/MAD, which neither scale nor earlier outliers move.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WINDOW = 128
"""Applied steps that a step is compared with."""
LEAST = 32
"""Applied steps without which nothing is called a spike."""
LOSS_RATIO, NORM_RATIO = 1.25, 4.0
"""How many times the median a spike is at least: a steady curve has a MAD of almost nothing."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the gate found, as 0-dimensional float32 tensors of 0 and 1 on the device."""

    finite: Tensor
    spike: Tensor
    """1 where loss or gradient norm stand far above the last steps; 0 for what is not finite."""
    apply: Tensor
    """1 where the update may be applied."""


class Gate:
    """Remembers loss and gradient norm of the last applied steps and judges the next one."""

    def __init__(self, device: torch.device, *, deviation: float, holds_back: bool) -> None:
        """`deviation`: robust z from which a step is a spike; `holds_back`: spikes do not pass."""
        import torch

        self.deviation, self.holds_back = deviation, holds_back
        self._past = torch.full((2, WINDOW), math.nan, device=device)
        self._ratios = torch.tensor([LOSS_RATIO, NORM_RATIO], device=device).log()
        self._count = torch.zeros((), dtype=torch.int64, device=device)

    def judge(self, loss: Tensor, grad_norm: Tensor) -> Judged:
        """Loss and gradient norm (0-dimensional) in, the verdict out; applied values are kept."""
        import torch

        values = torch.stack([loss.float(), grad_norm.float()])
        finite = torch.isfinite(values).all()
        logs = values.clamp_min(1e-30).log()
        middle = self._past.nanmedian(dim=1).values
        spread = (self._past - middle[:, None]).abs().nanmedian(dim=1).values
        far = 0.6745 * (logs - middle) > self.deviation * spread
        spike = (far & (logs - middle > self._ratios)).any() & finite & (self._count >= LEAST)
        apply = finite & ~spike if self.holds_back else finite
        place = self._count % WINDOW
        column = torch.where(apply, logs, self._past.index_select(1, place[None])[:, 0])
        self._past.index_copy_(1, place[None], column[:, None])
        self._count += apply
        return Judged(finite.float(), spike.float(), apply.float())

    def state(self) -> dict[str, Any]:
        """Nothing in; what a checkpoint must hold so that the next step is judged alike, out."""
        count = int(self._count)
        kept = self._past[:, : min(count, WINDOW)].tolist()
        return {"count": count, "log_losses": kept[0], "log_norms": kept[1]}

    def load(self, state: dict[str, Any]) -> None:
        """What `state` gave in; the gate judges as it did."""
        import torch

        self._past.fill_(math.nan)
        kept = torch.tensor([state["log_losses"], state["log_norms"]], device=self._past.device)
        self._past[:, : kept.shape[1]] = kept
        self._count.fill_(state["count"])
