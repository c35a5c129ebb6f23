"""What a recipe can name, each with its signature and first sentence."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from wellfit.errors import WellfitError


def _readers() -> Mapping[str, Callable[..., Any]]:
    from wellfit.data.read.formats import READERS

    return {name: reader.read for name, reader in READERS.items()}


def _cleaners() -> Mapping[str, Callable[..., Any]]:
    from wellfit.data.clean.unicode import CLEANERS

    return CLEANERS


def _filters() -> Mapping[str, Callable[..., Any]]:
    from wellfit.data.filter.quality import FILTERS

    return FILTERS


def _optimizers() -> Mapping[str, Callable[..., Any]]:
    from wellfit.recipe.schema import OPTIMIZERS

    return OPTIMIZERS


def _schedules() -> Mapping[str, Callable[..., Any]]:
    from wellfit.training.schedules import SHAPES

    return SHAPES


def _sizes() -> str:
    from wellfit.recipe.sizes import sizes_table

    return sizes_table()


def _presets() -> str:
    from wellfit.recipe.families import presets_table

    return presets_table()


def _rules() -> Mapping[str, Callable[..., Any]]:
    from wellfit.diagnosis.rules import RULES

    return RULES


def listing(kind: str) -> str:
    """A kind, such as `filters` → one block of lines per entry. Raises WellfitError if unknown."""
    if kind == "kinds":
        return "\n".join(sorted([*KINDS, *TABLES]))
    if kind in TABLES:
        return TABLES[kind]()
    if kind not in KINDS:
        import difflib

        near = difflib.get_close_matches(kind, [*KINDS, *TABLES], n=1)
        raise WellfitError(
            f"nothing is listed under {kind!r}",
            way_out=(f"Did you mean {near[0]}? " if near else "")
            + "Kinds: "
            + ", ".join(sorted([*KINDS, *TABLES])),
        )
    lines = []
    for name, function in sorted(KINDS[kind]().items()):
        sentence = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
        lines.append(f"{name}{_signature(function)}\n    {sentence}")
    return "\n".join(lines)


def _signature(function: Callable[..., Any]) -> str:
    if inspect.isclass(function):
        fields = [name for name in function.model_fields if name != "kind"]  # type: ignore[attr-defined]
        return "(" + ", ".join(fields) + ")"
    return str(inspect.signature(function))


KINDS: dict[str, Callable[[], Mapping[str, Callable[..., Any]]]] = {
    "clean": _cleaners,
    "filters": _filters,
    "optimizers": _optimizers,
    "readers": _readers,
    "rules": _rules,
    "schedules": _schedules,
}
TABLES: dict[str, Callable[[], str]] = {"presets": _presets, "sizes": _sizes}
"""Listed as a table of their own, since they are not functions."""
