"""A recipe, a run or a folder of weights → its modules, shapes, parameters and adapter targets.

Of our own parts all of it is known without torch; what transformers computes is built on a device
that knows shapes and no numbers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wellfit.errors import RunError, WellfitError
from wellfit.recipe.base_weights import CONFIG, FaultyWeightsError, hub_base, read_json
from wellfit.recipe.load import load_recipe, parse_recipe
from wellfit.recipe.schema import Recipe
from wellfit.recipe.shapes import Shape, shape_table

TARGETS = ("matrix", "embedding", "head")
"""Roles of tensors that an adapter can stand beside."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """What a model is made of."""

    name: str
    vocabulary_size: int
    vocabulary_origin: str
    shapes: tuple[Shape, ...]
    dtype: str
    """How its numbers are kept in training."""
    stored: dict[str, tuple[str, ...]]
    """Our name → its names in the layout of Hugging Face; empty where no family is known."""
    family: str
    targets: tuple[str, ...]
    """Last parts of names by which adapters find all of a kind."""

    @property
    def parameters(self) -> int:
        """Numbers in all tensors; tied ones once."""
        return sum(shape.parameters for shape in self.shapes)

    def to_json(self) -> dict[str, Any]:
        """All of it as values of JSON."""
        told = asdict(self)
        told["shapes"] = [asdict(one) | {"parameters": one.parameters} for one in self.shapes]
        return told | {"parameters": self.parameters}


def inspect_model(path: Path, changes: tuple[str, ...] = ()) -> Inspected:
    """A recipe file, a run folder or a folder of weights → what the model is made of.

    Raises RecipeError, and RunError where there is none of these.
    """
    if (path / "recipe.yaml").is_file():
        return _of_recipe(load_recipe(path / "recipe.yaml", changes), run=path)
    if (path / CONFIG).is_file():
        return _of_recipe(recipe_of_folder(path, changes))
    if path.is_dir():
        raise RunError(
            f"it has neither a recipe.yaml nor a {CONFIG}",
            where=str(path),
            way_out="Give a recipe, a run folder, or a folder in the layout of Hugging Face.",
        )
    return _of_recipe(load_recipe(path, changes))


def recipe_of_folder(folder: Path, changes: tuple[str, ...] = ()) -> Recipe:
    """A folder in the layout of Hugging Face → a recipe whose model is that one; it has no data.

    Raises RunError where its `config.json` cannot be used.
    """
    try:
        hub_base(folder)
    except FaultyWeightsError as fault:
        raise RunError(str(fault)) from fault
    values: dict[str, Any] = {
        "name": "folder",
        "data": {"tokens": {"train": ["none"], "vocabulary_size": 2, "separator": 0}},
        "model": {"weights": str(folder)},
        "train": {"budget": {"steps": 1}},
    }
    return parse_recipe(values, str(folder), changes)


def inspect_text(found: Inspected, *, every: bool = False) -> str:
    """What a model is made of → lines for a person; of like blocks the first, or `every` one."""
    rows = [("tensor", "shape", "role", "parameters")]
    for shape in found.shapes:
        if every or not _later(shape.name):
            sides = " × ".join(f"{side:,}" for side in shape.shape)
            rows.append((shape.name, sides, shape.role, f"{shape.parameters:,}"))
    wide = [max(len(row[at]) for row in rows) for at in range(4)]
    lines = [
        f"{found.name}: {found.parameters:,} parameters in {len(found.shapes):,} tensors, kept as "
        f"{found.dtype}",
        f"Vocabulary {found.vocabulary_size:,} ({found.vocabulary_origin})",
        "",
        *(
            f"{a:<{wide[0]}}  {b:<{wide[1]}}  {c:<{wide[2]}}  {d:>{wide[3]}}".rstrip()
            for a, b, c, d in rows
        ),
    ]
    left = sum(_later(shape.name) for shape in found.shapes)
    if left and not every:
        lines.append(f"… and {left:,} more of later blocks, alike: --all prints them")
    lines += ["", f"Names for adapters: {', '.join(found.targets)}"]
    if found.family:
        lines.append(f"In the layout of Hugging Face: {found.family}")
        for name, stored in found.stored.items():
            if every or not _later(name):
                more = f" and {len(stored) - 1} more" if len(stored) > 1 else ""
                lines.append(f"  {name:<{wide[0]}}  {stored[0]}{more}")
    else:
        lines.append("In the layout of Hugging Face: no architecture computes the same")
    return "\n".join(lines)


def _of_recipe(recipe: Recipe, run: Path | None = None) -> Inspected:
    size, origin = _vocabulary(recipe, run)
    if recipe.model.foreign:
        from wellfit.run.parts import model_shapes

        shapes = model_shapes(recipe, size, run)
        if shapes is None:
            raise RunError(
                "its tensors are not known before it is built, and it cannot be built here",
                where="model.module" if recipe.model.module else "model.weights",
                way_out="`wellfit check` says what is wrong.",
            )
        names: dict[str, tuple[str, ...]] = {}
        if recipe.model.module is None:
            names = {shape.name: (shape.name,) for shape in shapes}
        family = "its own" if names else ""
        return _made(recipe, size, origin, shapes, names, family)
    shapes = shape_table(recipe.model, size)
    stored, family = _stored(recipe)
    return _made(recipe, size, origin, shapes, stored, family)


def _made(
    recipe: Recipe,
    size: int,
    origin: str,
    shapes: tuple[Shape, ...],
    stored: dict[str, tuple[str, ...]],
    family: str,
) -> Inspected:
    owners = (shape.name.split(".")[-2] for shape in shapes if shape.role in TARGETS)
    targets = tuple(dict.fromkeys(owners))
    name = recipe.name if recipe.name != "folder" else recipe.model.weights
    return Inspected(name, size, origin, shapes, "float32", stored, family, targets)


def _stored(recipe: Recipe) -> tuple[dict[str, tuple[str, ...]], str]:
    from wellfit.model.hub.config import family_for
    from wellfit.model.hub.names import hub_names

    try:
        family = family_for(recipe.model)
    except WellfitError:
        return {}, ""
    names = hub_names(recipe.model, family)
    return {name: place.names for name, place in names.items()}, family


def _vocabulary(recipe: Recipe, run: Path | None) -> tuple[int, str]:
    from wellfit.run.plan import built_corpus, vocabulary

    if run is not None:
        try:
            told = read_json(run / "corpus.json")["vocabulary_size"]
            return int(told), "its corpus"
        except (FaultyWeightsError, KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"it does not say how many entries the vocabulary has ({error})",
                where=str(run / "corpus.json"),
                way_out="Go on with `wellfit train … --resume`, which writes it again.",
            ) from error
    if recipe.model.vocabulary_size:
        return recipe.model.vocabulary_size, "model.vocabulary_size"
    return vocabulary(recipe, built_corpus(recipe))


def _later(name: str) -> bool:
    """Whether a tensor stands in a block other than the first of its kind.

    >>> _later("blocks.0.attention.query.weight"), _later("blocks.11.attention.query.weight")
    (False, True)
    """
    numbers = [part for part in name.split(".") if part.isdecimal()]
    return bool(numbers) and numbers[0] != "0"
