"""A recipe with a module of one's own, or an adapter → what its tensors need, and no more.

What a module keeps between forward and backward, and its arithmetic, are not known from its
shapes; beside a frozen base neither is counted. They are named, and whether it fits is not said.
"""

from __future__ import annotations

from wellfit.plan.advice import advise
from wellfit.plan.devices import Machine
from wellfit.plan.layout import Precision, uncounted
from wellfit.plan.ledger import Ledger, Peak
from wellfit.plan.length import Counts, disk, length
from wellfit.plan.memory import CONTEXT_BYTES, Memory, beside_tensors
from wellfit.plan.optimizers import PLAYS, optimizer_table, state_bytes
from wellfit.plan.plan import Bottleneck, Plan
from wellfit.plan.speed import Speed, hours
from wellfit.recipe.schema import Recipe
from wellfit.recipe.shapes import Shape

UNKNOWN_SPEED = "unknown: the arithmetic of a module of one's own is not counted"
UNKNOWN_BESIDE = "unknown: the arithmetic beside a frozen base is not counted"


def plan_guest(
    recipe: Recipe,
    machine: Machine,
    precision: Precision,
    shapes: tuple[Shape, ...] | None,
    *,
    frozen: int = 0,
    vocabulary_size: int,
    vocabulary_origin: str = "the recipe",
    counts: Counts | None = None,
    price: float | None = None,
    measured: float | None = None,
) -> Plan:
    """As `plan.plan`; `shapes` are what is trained, None where even that is not known.

    `frozen` are the bytes of the base that an adapter stands beside.
    """
    parameters = None if shapes is None else sum(shape.parameters for shape in shapes)
    adapter = recipe.model.adapter is not None
    setting = "model.module" if recipe.model.module is not None else "model.weights"
    setting = "model.adapter" if adapter else setting
    first = setting if shapes is None else f"activations of {setting}"
    unknown = UNKNOWN_BESIDE if adapter else UNKNOWN_SPEED
    missing = (first, *(name for name in uncounted(recipe) if name.startswith("train.")))
    # Tokens a parameter are told of what learns from scratch alone.
    known = 0 if adapter or parameters is None else parameters
    long = length(recipe, vocabulary_size, counts, measured, parameters=known)
    span: tuple[float, float] | None = None
    timed = None if measured is None else (measured, measured)
    if recipe.train.budget.minutes is not None:
        span = (recipe.train.budget.minutes / 60, recipe.train.budget.minutes / 60)
    elif long.steps is not None and measured is not None:
        span = (hours(long.steps, measured), hours(long.steps, measured))
    tokens = recipe.train.batch_tokens
    speed = Speed(
        flops_per_token=None,
        step_flops=None,
        tokens_per_second=timed and (tokens / timed[0], tokens / timed[1]),
        step_seconds=timed,
        origin=unknown if measured is None else "measured: the median of real steps here",
        intensity=None,
        balance=None,
    )
    on_disk = disk(recipe, vocabulary_size, counts, table=shapes or ())
    if shapes is None:
        on_disk |= {"checkpoint": None, "checkpoints": None}
    return Plan(
        name=recipe.name,
        parameters=parameters,
        vocabulary_size=vocabulary_size,
        vocabulary_origin=vocabulary_origin,
        machine=machine,
        precision=precision,
        memory=_memory(recipe, machine, shapes or (), frozen),
        fits=None,
        uncounted=missing,
        speed=speed,
        length=long,
        hours=span,
        cost=(price * span[0], price * span[1]) if price is not None and span else None,
        disk=on_disk,
        bottleneck=Bottleneck("unknown", unknown.partition(": ")[2]),
        changes=(),
        advice=tuple(advise(recipe, vocabulary_size, counts)) if adapter else (),
        thumb={},
        optimizers=tuple(optimizer_table(shapes)) if shapes else (),
    )


def _memory(recipe: Recipe, machine: Machine, shapes: tuple[Shape, ...], frozen: int = 0) -> Memory:
    """Weights, gradients, moments and averages, and what an update makes for a moment."""
    ledger = Ledger()
    weights = 4 * sum(shape.parameters for shape in shapes)
    ledger.hold("weights", "weights", weights)
    ledger.hold("base", "frozen base", frozen)
    ledger.hold("optimizer", "optimizer", state_bytes(recipe.train.optimizer, shapes))
    if recipe.train.ema_decay:
        ledger.hold("average", "average", weights)
    held = ledger.bytes
    moving = held - frozen  # a checkpoint leaves the base where it came from
    ledger.hold("gradients", "gradients", weights)
    ledger.at("update")
    play = PLAYS[recipe.train.optimizer.kind]
    play(ledger, shapes, promotes=machine.device == "cpu", native="bf16" in machine.native)
    beside = beside_tensors(recipe, held=moving, weights=weights)
    moments: tuple[Peak, ...] = tuple(ledger.peaks.values())
    return Memory(
        step=ledger.peak(),
        moments=moments,
        evaluation=held,
        sampling=held,
        cache=0,
        beside=beside,
        overhead=CONTEXT_BYTES if machine.device == "cuda" else sum(beside.values()),
    )
