"""A recipe file → a resolved recipe whose function names are known to exist.

The recipe room cannot look into other rooms; this file hands it what they offer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wellfit.recipe.load import load_recipe
from wellfit.recipe.schema import Recipe


def load(path: Path, changes: tuple[str, ...] = ()) -> Recipe:
    """`path` and `key=value` changes → the recipe; raises RecipeError with every fault."""
    return load_recipe(path, changes, known=known_functions())


def known_functions() -> Mapping[str, Mapping[str, Callable[..., Any]]]:
    """Kind of extension → short name → function; no model and no loss has one."""
    from wellfit.data.clean.unicode import CLEANERS
    from wellfit.data.filter.quality import FILTERS

    return {"clean": CLEANERS, "filters": FILTERS, "module": {}, "loss": {}}
