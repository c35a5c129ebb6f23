"""A recipe that leaves its micro-batch open → the recipe with a number there.

The plan says how many rows of a pass fit. Rows are all equally long, so the first step tries the
longest batch there is: where even that runs out of memory, it is made again in smaller pieces, and
so are all later steps (`training/out_of_memory.py`).
"""

from __future__ import annotations

from pathlib import Path

from wellfit.errors import RecipeError
from wellfit.plan.devices import Machine
from wellfit.plan.fit import Setting, rows_of_a_pass
from wellfit.plan.layout import Precision
from wellfit.recipe.schema import Recipe

ORIGIN = "auto: as many rows as the plan says fit and gain speed"


def with_micro_batch(
    recipe: Recipe,
    machine: Machine,
    precision: Precision,
    vocabulary_size: int,
    *,
    run: Path | None = None,
) -> Recipe:
    """A recipe and where it runs → itself, or where `train.micro_batch` is auto, with a number.

    A run that goes on keeps the number that it began with, so that its bits are those it would
    have had.
    """
    if recipe.train.micro_batch:
        return recipe
    rows = _of_run(run) if run is not None else 0
    if not rows:
        setting = Setting(machine, precision, vocabulary_size, machine.memory or 0)
        rows = rows_of_a_pass(recipe, setting)
    train = recipe.train.model_copy(update={"micro_batch": rows})
    settled = recipe.model_copy(update={"train": train})
    settled._provenance = {**recipe.provenance, "train.micro_batch": ORIGIN}
    return settled


def _of_run(run: Path) -> int:
    """A run folder → the micro-batch of its recipe; 0 where it has none yet."""
    from wellfit.recipe.load import load_recipe

    try:
        return load_recipe(run / "recipe.yaml").train.micro_batch
    except RecipeError:
        return 0
