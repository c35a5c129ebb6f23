"""Arithmetic and bytes of a step against what a machine can do → seconds, tokens, money.

Expected utilisation is a range with its origin. It is a share of the machine's published peak for
the model's own operations (arXiv 2204.02311, appendix B); recomputation is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from wellfit.plan.devices import Machine
from wellfit.plan.ledger import Peak
from wellfit.recipe.schema import Recipe, target_share
from wellfit.recipe.shapes import flops_per_token, parameter_count, shape_table

UTILISATION = (0.35, 0.50)
UTILISATION_ORIGIN = (
    "35–50 % of the published peak: what MosaicML's llm-foundry tables give for 0.76 to 30 billion "
    "parameters at contexts up to 4,096; this software is not measured on a GPU yet"
)


@dataclass(frozen=True, slots=True)
class Speed:
    """A step on a machine; the pairs are (low, high), None where its peak is unknown."""

    flops_per_token: int | None
    step_flops: int | None
    tokens_per_second: tuple[float, float] | None
    step_seconds: tuple[float, float] | None
    origin: str
    intensity: float | None
    """FLOPs for each byte that must come from memory, with every kernel reading its input once."""
    balance: float | None
    """FLOPs for each byte at which the machine is equally busy with both."""


def speed(
    recipe: Recipe,
    vocabulary_size: int,
    machine: Machine,
    precision: str,
    peak: Peak,
    measured: float | None = None,
) -> Speed:
    """A recipe on a machine → its speed; `measured` are the seconds of a real step there."""
    each = flops_per_token(recipe.model, vocabulary_size, target_share=target_share(recipe))
    tokens = recipe.train.batch_tokens
    step = each * tokens + update_flops(recipe, vocabulary_size)
    best = machine.peaks.get(precision)
    seconds: tuple[float, float] | None = None
    origin = "unknown: no published peak of this machine; --calibrate times real steps"
    if measured is not None:
        seconds, origin = (measured, measured), "measured: the median of real steps here"
    elif best:
        slow, quick = UTILISATION
        seconds = (step / (best * quick), step / (best * slow))
        origin = f"{UTILISATION_ORIGIN}; {best / 1e12:g} TFLOP/s in {precision}: {machine.source}"
    return Speed(
        flops_per_token=each,
        step_flops=step,
        tokens_per_second=seconds and (tokens / seconds[1], tokens / seconds[0]),
        step_seconds=seconds,
        origin=origin,
        intensity=step / moved_bytes(recipe, vocabulary_size, peak),
        balance=best / machine.bandwidth if best and machine.bandwidth else None,
    )


def update_flops(recipe: Recipe, vocabulary_size: int) -> int:
    """A recipe → operations of Muon's five Newton–Schulz iterations; AdamW's are not worth it.

    An iteration on an m × n matrix, m ≤ n, has products of 2·m²n, 2·m³ and 2·m²n.
    """
    if recipe.train.optimizer.kind != "muon":
        return 0
    matrices = [s.shape for s in shape_table(recipe.model, vocabulary_size) if s.role == "matrix"]
    return sum(5 * (4 * min(s) ** 2 * max(s) + 2 * min(s) ** 3) for s in matrices)


def moved_bytes(recipe: Recipe, vocabulary_size: int, peak: Peak) -> int:
    """A recipe and its fullest moment → bytes that a step moves between memory and cores.

    A pass reads the float32 weights, writes and twice reads their casts, and writes gradients and
    adds them up: about 20 bytes a parameter. Activations are written once and read about twice.
    The update reads gradients and reads and writes weights and moments.
    """
    parameters = parameter_count(recipe.model, vocabulary_size)
    rows = recipe.train.batch_tokens // recipe.model.context
    passes = -(-rows // (recipe.train.micro_batch or 1))
    kept = peak.by_kind["activations"] + peak.by_kind["logits"]
    update = 12 * parameters + 2 * peak.by_kind["optimizer"]
    return passes * (20 * parameters + 3 * kept) + update


def hours(steps: int, step_seconds: float) -> float:
    """Steps and seconds of each → hours.

    >>> hours(7200, 0.5)
    1.0
    """
    return steps * step_seconds / 3600
