"""A recipe and a machine → the plan: what it needs, how long it takes, and whether it fits."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, cast

from wellfit.errors import RunError
from wellfit.plan.advice import Advice, advise
from wellfit.plan.devices import Machine
from wellfit.plan.fit import Apply, Change, Setting, applied_to, changes
from wellfit.plan.known import adamw_bytes, serving_bytes
from wellfit.plan.layout import Precision, layout, uncounted
from wellfit.plan.length import Counts, Length, disk, length
from wellfit.plan.memory import Memory, memory
from wellfit.plan.optimizers import optimizer_table
from wellfit.plan.speed import Speed, hours, speed
from wellfit.recipe.schema import Recipe
from wellfit.recipe.shapes import parameter_count, shape_table


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """What limits the run first, and the figure that says so."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that is known before the first step; None is unknown."""

    name: str
    parameters: int | None
    vocabulary_size: int
    vocabulary_origin: str
    machine: Machine
    precision: Precision
    memory: Memory
    fits: bool | None
    uncounted: tuple[str, ...]
    """Settings whose memory is not counted, so that the bytes are a rough guide."""
    speed: Speed
    length: Length
    hours: tuple[float, float] | None
    """(quick, slow), training alone."""
    cost: tuple[float, float] | None
    disk: dict[str, int | None]
    bottleneck: Bottleneck
    changes: tuple[Change, ...]
    """With which it fits; empty where it does, or nothing helps."""
    advice: tuple[Advice, ...]
    thumb: dict[str, float]
    """Rules of thumb in bytes, to set beside."""
    optimizers: tuple[tuple[str, int, str], ...]
    """Optimizers with the bytes of their state, and what these are."""

    def to_json(self) -> dict[str, Any]:
        """The same numbers as plain values; bytes are bytes, seconds seconds."""
        values = asdict(self)
        values["memory"]["bytes"] = self.memory.bytes
        return values


def plan(
    recipe: Recipe,
    machine: Machine,
    precision: Precision,
    *,
    vocabulary_size: int,
    vocabulary_origin: str = "the recipe",
    counts: Counts | None = None,
    price: float | None = None,
    measured: float | None = None,
    apply: Apply | None = None,
) -> Plan:
    """A recipe, a machine and the precision there → the plan.

    `counts`: what is known of the corpus; `price`: money an hour; `measured`: seconds of a real
    step; `apply`: gives the recipe with a patch as the command line would (by default every value
    the recipe holds counts as given).
    """
    at = layout(
        recipe,
        vocabulary_size,
        precision=precision,
        device=machine.device,
        native="bf16" in machine.native,
    )
    held = memory(recipe, at)
    fast = speed(recipe, vocabulary_size, machine, precision, held.step, measured)
    slow_step = fast.step_seconds[1] if fast.step_seconds else None
    long = length(recipe, vocabulary_size, counts, slow_step)
    span: tuple[float, float] | None = None
    if recipe.train.budget.minutes is not None:
        span = (recipe.train.budget.minutes / 60, recipe.train.budget.minutes / 60)
    elif long.steps is not None and fast.step_seconds:
        span = (hours(long.steps, fast.step_seconds[0]), hours(long.steps, fast.step_seconds[1]))
    parameters = parameter_count(recipe.model, vocabulary_size)
    missing = uncounted(recipe)
    fits = None if machine.memory is None or missing else held.bytes <= machine.memory
    found: list[Change] = []
    if fits is False:
        setting = Setting(machine, precision, vocabulary_size, cast("int", machine.memory))
        found = changes(recipe, setting, apply or applied_to(recipe))
    return Plan(
        name=recipe.name,
        parameters=parameters,
        vocabulary_size=vocabulary_size,
        vocabulary_origin=vocabulary_origin,
        machine=machine,
        precision=precision,
        memory=held,
        fits=fits,
        uncounted=missing,
        speed=fast,
        length=long,
        hours=span,
        cost=(price * span[0], price * span[1]) if price is not None and span else None,
        disk=disk(recipe, vocabulary_size, counts),
        bottleneck=_bottleneck(recipe, machine, held, fast, disk(recipe, vocabulary_size, counts)),
        changes=tuple(found),
        advice=tuple(advise(recipe, vocabulary_size, counts)),
        thumb={
            "AdamW, 16 bytes a parameter": 16.0 * parameters,
            "AdamW, 20 bytes a parameter": float(sum(adamw_bytes(parameters).values())),
            "serving in 16 bits, × 1.2": serving_bytes(parameters),
        },
        optimizers=tuple(optimizer_table(shape_table(recipe.model, vocabulary_size))),
    )


# A disk that writes this much is common; below it checkpoints do not wait.
_DISK_BYTES_PER_SECOND = 200e6
# One thread reads packed rows at more than this; 8 bytes a token in five arrays.
_ROWS_TOKENS_PER_SECOND = 20e6


def _bottleneck(
    recipe: Recipe, machine: Machine, held: Memory, fast: Speed, on_disk: dict[str, int | None]
) -> Bottleneck:
    if machine.memory is not None and held.bytes > machine.memory and not uncounted(recipe):
        return Bottleneck(
            "memory",
            f"{held.bytes / 1e9:.2f} GB are needed, {machine.memory / 1e9:.2f} GB are there",
        )
    checkpoint = on_disk["checkpoint"] or 0
    if fast.step_seconds is not None:
        between = fast.step_seconds[0] * recipe.train.checkpoint_every
        rate = checkpoint / between
        if rate > _DISK_BYTES_PER_SECOND:
            return Bottleneck(
                "disk",
                f"{checkpoint / 1e9:.2f} GB of checkpoint every {between:.1f} s are "
                f"{rate / 1e6:,.0f} MB/s; a common disk writes {_DISK_BYTES_PER_SECOND / 1e6:,.0f}",
            )
        if fast.tokens_per_second and fast.tokens_per_second[1] > _ROWS_TOKENS_PER_SECOND:
            return Bottleneck(
                "data loading",
                f"{fast.tokens_per_second[1]:,.0f} tokens/s, one thread packs "
                f"about {_ROWS_TOKENS_PER_SECOND:,.0f}",
            )
    intensity = cast("float", fast.intensity)
    if fast.balance is None:
        share = (
            f" ({held.bytes / machine.memory:.0%} of the memory is used)" if machine.memory else ""
        )
        return Bottleneck(
            "unknown",
            f"{intensity:,.0f} FLOPs for each byte moved; what the machine can do is not "
            f"known{share}",
        )
    name = "compute" if intensity >= fast.balance else "memory bandwidth"
    return Bottleneck(
        name,
        f"{intensity:,.0f} FLOPs for each byte moved, the machine is balanced at "
        f"{fast.balance:,.0f}",
    )


def refuse_what_cannot_fit(made: Plan, check: str) -> str:
    """A plan and the recipe's `train.memory_check` → a warning, or nothing where it fits.

    `refuse` raises RunError with the changes that make it fit; `warn` gives the same as text; `off`
    says nothing.
    """
    if check == "off" or made.fits is not False:
        return ""
    assert made.machine.memory is not None
    peak = made.memory
    what = (
        f"the plan needs {peak.bytes / 1e9:.2f} GB ({peak.step.moment}), "
        f"{made.machine.name} has {made.machine.memory / 1e9:.2f} GB"
    )
    ways = [" ".join(change.patch) for change in made.changes[:3]]
    mend = f"It fits with {', or with '.join(ways)}. " if ways else ""
    way_out = f"{mend}train.memory_check=warn tries it all the same."
    if check == "refuse":
        raise RunError(what, where="plan", way_out=way_out)
    return f"{what}\n  {way_out}"
