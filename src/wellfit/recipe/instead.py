"""Settings that another one takes the place of: refused where written, left out where shown.

A model of one's own has its own layers, and tokens made elsewhere need no cleaning: a setting that
would do nothing is a fault, not a decoration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wellfit.recipe.yaml_lines import Place

if TYPE_CHECKING:
    from wellfit.recipe.section import Section

INSTEAD: dict[Place, tuple[tuple[str, ...], str]] = {
    ("model", "module"): (
        ("size", "context", "adapter", "quantize"),
        "a module of your own has its own shape; give it as an argument of model.module",
    ),
    ("model", "architecture"): (
        ("size", "context", "weights", "vocabulary_size", "adapter"),
        "the folder's config.json says how transformers computes its weights",
    ),
    ("data", "tokens"): (
        ("folder", "packing", "sources", "examples"),
        "tokens are taken as they are: they were cleaned, chosen and encoded elsewhere",
    ),
    ("data", "examples"): (
        ("folder", "packing", "tokenizer", "max_rejected_share", "sources", "tokens"),
        "examples are taken as they are, neither cleaned nor filtered",
    ),
}
"""Setting → the others of its section that still mean something, and why the rest does not.

Two origins of data beside each other have a sentence of their own in the schema."""
ORIGINS = ("sources", "tokens", "examples")
USUAL: dict[Place, str] = {("model", "architecture"): "own"}
"""The value of a setting with which it takes the place of nothing, where that is not None."""


def idle_faults(recipe: Mapping[str, Any]) -> list[tuple[Place, str]]:
    """A recipe as written, before the dial → (place, sentence) for each setting without effect.

    >>> idle_faults({"model": {"module": "my:net", "context": 64, "layers": 2}})[0][0]
    ('model', 'layers')
    """
    faults: list[tuple[Place, str]] = []
    for (section, chief), (kept, why) in INSTEAD.items():
        holder = recipe.get(str(section))
        usual = (None, USUAL.get((section, chief)))
        if not isinstance(holder, Mapping) or holder.get(chief) in usual:
            continue
        for name in holder:
            if name != chief and name not in kept:
                told = f"{section}.{name} does nothing beside {section}.{chief}: {why}"
                faults.append(((section, str(name)), told))
    return faults


def shown_fields(section: Section, place: Place) -> list[str]:
    """A section and its place → its settings that mean something, in the schema's order."""
    fields = list(type(section).model_fields)
    for (owner, chief), (kept, _) in INSTEAD.items():
        usual = (None, USUAL.get((owner, chief)))
        if place == (owner,) and getattr(section, str(chief)) not in usual:
            kept = tuple(name for name in kept if name not in ORIGINS)
            return [name for name in fields if name == chief or name in kept]
    return fields
