"""A gradient noise scale and a recipe's batch in, what to do about the batch out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from wellfit.training.noise_scale import NoiseScale

LARGE = 4.0
"""A batch within this factor of the scale is left alone: the scale itself is no better known."""
LATE = 0.5
"""Share of a run after which the scale is near its end, so that a smaller batch can be advised."""


@dataclass(frozen=True, slots=True)
class BatchAdvice:
    """What the noise scale means for a recipe's batch."""

    text: str
    patch: dict[str, Any] = field(default_factory=dict)
    """Recipe patch; empty where the batch may stay."""


def batch_advice(
    scale: NoiseScale, *, batch_tokens: int, context: int, progress: float
) -> BatchAdvice:
    """A noise scale, a recipe's batch and row length in tokens, and the share of the run done in.

    What it means and, where the whole interval lies more than four times off, a batch to take
    out. To reach a loss with batches of T tokens takes 1 + T/B times the fewest tokens and
    1 + B/T times the fewest steps that any batch can (arXiv 1812.06162, equation 2.11). The scale
    B rises during a training, so a smaller batch is only advised from half of the run on.

    >>> scale = NoiseScale(40_000.0, 30_000.0, 60_000.0, 1.0, 1.0, 8)
    >>> batch_advice(scale, batch_tokens=4_096, context=256, progress=0.1).patch
    {'train.batch_tokens': 16384}
    """
    known = f"Gradient noise scale: {words(scale)}; the recipe's batch is {batch_tokens:,}."
    if math.isinf(scale.high) and scale.low * LARGE <= batch_tokens:
        return BatchAdvice(f"{known} That is too uncertain to advise on the batch: no patch.")
    if math.isfinite(scale.tokens) and scale.tokens > 0:
        known += (
            f" Reaching a loss at this batch takes about {1 + batch_tokens / scale.tokens:.2g} "
            f"times the fewest tokens and {1 + scale.tokens / batch_tokens:.2g} times the fewest "
            "steps that any batch could."
        )
    if scale.low > LARGE * batch_tokens:
        larger = batch_tokens * 2 ** int(math.log2(scale.low / batch_tokens))
        return BatchAdvice(
            f"{known} A larger batch would need fewer steps for nearly the same tokens; it is "
            "quicker where the device has room for more tokens at once. With a budget in steps it "
            "also means more tokens. Find the rate again after the change.",
            {"train.batch_tokens": larger},
        )
    if scale.high * LARGE < batch_tokens:
        if progress < LATE:
            return BatchAdvice(
                f"{known} A smaller batch would waste fewer tokens now, but the scale rises while "
                f"the loss falls and was measured at {progress:.0%} of the run: no patch. Measure "
                "again from a later checkpoint with --run."
            )
        halvings = int(math.log2(batch_tokens / max(scale.high, context)))
        smaller = max(1, batch_tokens // context // 2**halvings) * context
        if smaller < batch_tokens:
            return BatchAdvice(
                f"{known} A smaller batch would reach the same loss with fewer tokens. Find the "
                "rate again after the change.",
                {"train.batch_tokens": smaller},
            )
    return BatchAdvice(
        f"{known} The interval comes within a factor of {LARGE:g} of the batch, or the batch is "
        "one of few rows: it may stay."
    )


def words(scale: NoiseScale) -> str:
    """A scale in; its estimate and interval for a person out.

    >>> words(NoiseScale(40_211.0, 30_049.0, math.inf, 1.0, 1.0, 8))
    'about 40,000 tokens (95 % interval 30,000 to no upper end)'
    """
    high = f"{_rounded(scale.high):,}" if math.isfinite(scale.high) else "no upper end"
    interval = f"95 % interval {_rounded(scale.low):,} to {high}"
    if not math.isfinite(scale.tokens):
        return f"at least {_rounded(scale.low):,} tokens, no upper end can be told"
    return f"about {_rounded(scale.tokens):,} tokens ({interval})"


def _rounded(value: float) -> int:
    return round(float(f"{value:.2g}"))
