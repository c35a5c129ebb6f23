"""A recipe that does not fit → the smallest changes with which it does, ranked by lost speed.

A lever is a function from a recipe to its settings, mild to strong, each a tuple of `key=value`.
Every answer was planned as a whole recipe: what is printed fits, by the same plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from wellfit.plan.devices import Machine
from wellfit.plan.layout import Precision, layout, uncounted
from wellfit.plan.memory import memory
from wellfit.plan.speed import moved_bytes, update_flops
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.schema import Recipe
from wellfit.recipe.shapes import flops_per_token

Apply = Callable[[tuple[str, ...]], Recipe]
Patch = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a recipe would run, as far as the search needs it."""

    machine: Machine
    precision: Precision
    vocabulary_size: int
    room: int
    """Bytes to fit into."""


@dataclass(frozen=True, slots=True)
class Change:
    """A patch with which the recipe fits."""

    patch: Patch
    bytes: int
    """What it then needs of the device."""
    slowdown: float
    """Seconds a token relative to now, less 1; negative is quicker. An estimate."""
    same_result: bool
    """Whether the mathematics of the training stay as they are, up to rounding."""


def micro_batch(recipe: Recipe, setting: Setting) -> list[Patch]:
    """Fewer rows a pass: halved down to one."""
    rows = min(recipe.train.micro_batch, recipe.train.batch_tokens // recipe.model.context)
    found: list[Patch] = []
    while rows > 1:
        rows //= 2
        found.append((f"train.micro_batch={rows}",))
    return found


def arithmetic(recipe: Recipe, setting: Setting) -> list[Patch]:
    """bf16 where the machine multiplies it natively and the recipe computes in float32."""
    native = setting.precision == "fp32" and "bf16" in setting.machine.native
    return [("train.precision=bf16",)] if native else []


def recomputation(recipe: Recipe, setting: Setting) -> list[Patch]:
    """Blocks computed again in the backward pass."""
    full = recipe.train.activation_checkpointing == "full"
    return [] if full else [("train.activation_checkpointing=full",)]


def optimizer(recipe: Recipe, setting: Setting) -> list[Patch]:
    """Muon keeps one moment of a matrix where AdamW keeps two."""
    return [("train.optimizer.kind=muon",)] if recipe.train.optimizer.kind == "adamw" else []


def document_mask(recipe: Recipe, setting: Setting) -> list[Patch]:
    """Without a mask no B·T·T numbers exist, but documents in a row see each other."""
    return [("train.document_mask=false",)] if recipe.train.document_mask else []


def context(recipe: Recipe, setting: Setting) -> list[Patch]:
    """Shorter rows: halved down to 128 tokens. The dial may then put more of them into a pass."""
    tokens, found = recipe.model.context, list[Patch]()
    while tokens % 2 == 0 and tokens >= 256:
        tokens //= 2
        found.append((f"model.context={tokens}",))
    return found


def layers(recipe: Recipe, setting: Setting) -> list[Patch]:
    """A shallower model: three quarters, a half, a quarter of the blocks."""
    whole = recipe.model.layers
    fewer = sorted({max(1, whole * part // 4) for part in (3, 2, 1)} - {whole}, reverse=True)
    return [(f"model.layers={count}",) for count in fewer]


LEVERS: dict[str, tuple[Callable[[Recipe, Setting], list[Patch]], bool]] = {
    "micro_batch": (micro_batch, True),
    "precision": (arithmetic, True),
    "activation_checkpointing": (recomputation, True),
    "optimizer": (optimizer, False),
    "document_mask": (document_mask, False),
    "context": (context, False),
    "layers": (layers, False),
}
"""Lever → its settings, and whether the result of the training stays the same up to rounding."""


def applied_to(recipe: Recipe) -> Apply:
    """A recipe → a function that gives it with a patch; every value it holds counts as given."""
    values = recipe.model_dump(mode="json", exclude_none=True)
    return lambda patch: parse_recipe(values, changes=patch)


def needed(recipe: Recipe, setting: Setting, rows: int = 0) -> int:
    """A recipe → bytes that the device must have; `rows` in place of its micro-batch."""
    precision: Precision = setting.precision
    if recipe.train.precision != "auto":
        precision = recipe.train.precision
    at = layout(
        recipe,
        setting.vocabulary_size,
        precision=precision,
        device=setting.machine.device,
        rows=rows,
    )
    return memory(recipe, at).bytes


def largest_micro_batch(recipe: Recipe, setting: Setting) -> int:
    """A recipe → the most rows of a pass that fit, up to the whole batch; 0 where not even one."""
    low, high = 0, recipe.train.batch_tokens // recipe.model.context
    while low < high:
        middle = (low + high + 1) // 2
        if needed(recipe, setting, middle) <= setting.room:
            low = middle
        else:
            high = middle - 1
    return low


# Beyond this many tokens a pass gains nothing on a CPU and only takes memory (docs/log.md).
CPU_TOKENS = 4_096
# What allocators hold beside the tensors that the plan counts.
SPARE_SHARE = 0.1


def rows_of_a_pass(recipe: Recipe, setting: Setting) -> int:
    """A recipe that leaves its micro-batch open → rows of a pass, at least one.

    As many as fit with a tenth to spare; on a CPU no more than gain speed. The rows of a step are
    then shared out evenly over its passes. Where the memory is not known, or not counted whole, it
    is as many as a CPU takes: a safe size rather than the largest.
    """
    whole = recipe.train.batch_tokens // recipe.model.context
    few = max(1, CPU_TOKENS // recipe.model.context)
    known = setting.room and not uncounted(recipe) and not recipe.model.foreign
    known = known and recipe.model.adapter is None
    most = whole
    if setting.machine.device == "cpu" or not known:
        most = min(most, few)
    if known:
        room = replace(setting, room=int(setting.room * (1 - SPARE_SHARE)))
        most = min(most, largest_micro_batch(recipe, room))
    passes = -(-whole // max(1, most))
    return -(-whole // passes)


def changes(recipe: Recipe, setting: Setting, apply: Apply, *, most: int = 6) -> list[Change]:
    """A recipe that does not fit → the smallest changes with which it fits, best first.

    A set of levers counts only where none of its subsets is enough; each lever stands at the
    mildest setting that fits beside the others. Those that keep the result come first, and among
    equals the quicker. At most three levers together.
    """
    levels = {name: found for name in LEVERS if (found := LEVERS[name][0](recipe, setting))}
    enough: list[tuple[str, ...]] = []
    found_changes: list[Change] = []
    for size in (1, 2, 3):
        for names in combinations(levels, size):
            if any(set(smaller) <= set(names) for smaller in enough):
                continue
            patch = _mildest([levels[name] for name in names], setting, apply)
            if patch is None:
                continue
            enough.append(names)
            found_changes.append(_change(recipe, patch, names, setting, apply))
        if len(found_changes) >= most:
            break
    ranked = sorted(found_changes, key=lambda one: (not one.same_result, one.slowdown))
    return ranked[:most]


def _mildest(levels: list[list[Patch]], setting: Setting, apply: Apply) -> Patch | None:
    """Levers' settings → the patch with each as mild as the others allow; None where none fits."""
    at = [len(settings) - 1 for settings in levels]

    def fits() -> bool:
        patch = _joined(levels[i][level] for i, level in enumerate(at))
        return needed(apply(patch), setting) <= setting.room

    if not fits():
        return None
    # The last lever first: those that change the training most stand last in the table.
    for i in reversed(range(len(levels))):
        low, high = 0, at[i]
        while low < high:
            at[i] = (low + high) // 2
            low, high = (low, at[i]) if fits() else (at[i] + 1, high)
        at[i] = low
    return _joined(levels[i][level] for i, level in enumerate(at))


def _joined(patches: Iterator[Patch]) -> Patch:
    return tuple(change for patch in patches for change in patch)


def _change(
    recipe: Recipe, patch: Patch, names: tuple[str, ...], setting: Setting, apply: Apply
) -> Change:
    changed = apply(patch)
    before = _seconds_per_token(recipe, setting)
    return Change(
        patch=patch,
        bytes=needed(changed, setting),
        slowdown=_seconds_per_token(changed, setting) / before - 1,
        same_result=all(LEVERS[name][1] for name in names),
    )


def _seconds_per_token(recipe: Recipe, setting: Setting) -> float:
    """Arithmetic and traffic one after the other, in units that cancel where a peak is unknown."""
    precision: Precision = setting.precision
    if recipe.train.precision != "auto":
        precision = recipe.train.precision
    peak = setting.machine.peaks.get(precision) or 1e12
    bandwidth = setting.machine.bandwidth or 1e10
    V, tokens = setting.vocabulary_size, recipe.train.batch_tokens
    at = layout(recipe, V, precision=precision, device=setting.machine.device)
    passes = flops_per_token(recipe.model, V)
    if recipe.train.activation_checkpointing == "full":  # one more forward pass
        passes = passes * 4 // 3
    flops = passes * tokens + update_flops(recipe, V)
    fullest = memory(recipe, at).step
    return (2.5 * flops / peak + moved_bytes(recipe, V, fullest) / bandwidth) / tokens
