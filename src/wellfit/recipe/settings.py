"""The schema in; every setting with its form, limits, default and sentence out.

What is printed about a setting, in the documentation and in messages, comes from here, so that
it cannot drift from what is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from wellfit.recipe.schema import OPTIMIZERS, Call, Recipe, Section
from wellfit.recipe.sizes import fill
from wellfit.recipe.yaml_lines import Place

ANY_ITEM = "[]"
"""Stands for a position in a list within the path of a setting."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting or section, as a person should know it."""

    path: str
    """Dotted, with `[]` for list positions: `data.sources[].path`."""
    form: str
    """`whole number`, `number`, `true or false`, `text`, `choice`, `call`, `list`, `section`."""
    limits: str
    """What is allowed, in words; empty where any value of the form is."""
    default: str
    """As YAML; `required`, or `set by the dial`."""
    sentence: str
    when: str = ""
    """The `kind` of the section that has this setting; empty where all have it."""
    choices: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    """Names of the settings inside, for a section."""

    @property
    def allowed(self) -> str:
        """Form and limits in one phrase: `a whole number from 1 to 512`."""
        article = {
            "whole number": "a whole number",
            "number": "a number",
            "true or false": "true or false",
            "text": "text",
            "choice": "one of " + ", ".join(self.choices),
            "call": "a name, or {name: {argument: value}}",
            "list": "a list",
            "section": "a section with " + ", ".join(self.entries),
        }[self.form]
        return f"{article} {self.limits}".rstrip()


@cache
def settings() -> tuple[Setting, ...]:
    """Every setting and section, in the order of the schema."""
    return tuple(_walk(Recipe, "", ""))


@cache
def _by_path() -> dict[tuple[str, str], Setting]:
    return {(setting.path, setting.when): setting for setting in settings()}


def pattern(place: Place) -> str:
    """A place → the path of its setting.

    >>> pattern(("data", "sources", 0, "path"))
    'data.sources[].path'
    """
    path = ""
    for part in place:
        path += ANY_ITEM if isinstance(part, int) else f".{part}" if path else part
    return path


def setting_at(place: Place, kind: str = "") -> Setting | None:
    """A place (and the `kind` of its section) → what the schema says about it, or None."""
    table = _by_path()
    path = pattern(place)
    found = table.get((path, kind)) or table.get((path, ""))
    return found or next((setting for (own, _), setting in table.items() if own == path), None)


def leaves(recipe: Recipe) -> Iterator[tuple[Place, Any]]:
    """A recipe → (place, value) of every value; a call and an empty list count as one value.

    Values that are None (the budgets not chosen) are left out.
    """
    return _leaves(recipe, ())


def _leaves(value: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    if isinstance(value, Section) and not isinstance(value, Call):
        for name in type(value).model_fields:
            yield from _leaves(getattr(value, name), (*place, name))
    elif isinstance(value, tuple) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, (*place, index))
    elif value is not None:
        yield place, value


def _walk(section: type[Section], prefix: str, when: str) -> Iterator[Setting]:
    for name, field in section.model_fields.items():
        path = f"{prefix}.{name}" if prefix else name
        for annotation, kind in _variants(field.annotation):
            yield from _setting(path, name, annotation, field, when or kind)


def _variants(annotation: Any) -> list[tuple[Any, str]]:
    """The sections that a setting may be, each with its `kind`; one entry for all else."""
    if get_origin(annotation) not in (Union, UnionType):
        return [(annotation, "")]
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if len(parts) == 1:
        return [(parts[0], "")]
    return [(part, part.model_fields["kind"].default) for part in parts]


def _setting(
    path: str, name: str, annotation: Any, field: FieldInfo, when: str
) -> Iterator[Setting]:
    sentence, limits, default = field.description or "", _limits(field), _default(path, field, when)
    if isinstance(annotation, type) and issubclass(annotation, Section) and annotation is not Call:
        entries = tuple(annotation.model_fields)
        yield Setting(path, "section", "", default, sentence, when, entries=entries)
        yield from _walk(annotation, path, when)
    elif annotation is Call:
        yield Setting(path, "call", "", default, sentence, when)
    elif get_origin(annotation) is tuple:
        (item, _) = get_args(annotation)
        yield Setting(path, "list", limits, default, sentence, when)
        item_path = path + ANY_ITEM
        if item is Call:
            yield Setting(item_path, "call", "", "", sentence, when)
        elif item is str:
            yield Setting(item_path, "text", "", "", sentence, when)
        elif item is int:
            yield Setting(item_path, "whole number", "", "", sentence, when)
        else:
            entries = tuple(item.model_fields)
            yield Setting(item_path, "section", "", "", sentence, when, entries=entries)
            yield from _walk(item, item_path, when)
    elif get_origin(annotation) is Literal:
        choices = tuple(str(choice) for choice in get_args(annotation))
        if name == "kind" and len(choices) == 1:  # the discriminator: all its values are choices
            choices = tuple(kind for _, kind in _variants(_field_of(path).annotation))
        yield Setting(path, "choice", "", default, sentence, when, choices)
    else:
        form = {int: "whole number", float: "number", bool: "true or false", str: "text"}
        yield Setting(path, form[annotation], limits, default, sentence, when)


def _field_of(path: str) -> FieldInfo:
    """The field of the section that holds the setting at `path` (no lists on the way)."""
    section: Any = Recipe
    field: FieldInfo | None = None
    for part in path.split(".")[:-1]:
        field = section.model_fields[part]
        section = field.annotation
    assert field is not None
    return field


def _limits(field: FieldInfo) -> str:
    bounds: dict[str, Any] = {}
    for rule in field.metadata:
        for name in ("ge", "gt", "le", "lt", "min_length", "pattern"):
            if getattr(rule, name, None) is not None:
                bounds[name] = getattr(rule, name)
    if "pattern" in bounds:
        return "of letters, digits, dot, underscore and hyphen, beginning with a letter or digit"
    if "min_length" in bounds:
        return "that is not empty"
    words = {
        ("ge",): "of at least {ge}",
        ("gt",): "above {gt}",
        ("ge", "le"): "from {ge} to {le}",
        ("ge", "lt"): "from {ge} to below {lt}",
        ("gt", "le"): "above {gt} up to {le}",
        ("gt", "lt"): "above {gt} and below {lt}",
    }
    if not bounds:
        return ""
    return words[tuple(sorted(bounds))].format(**{n: _number(v) for n, v in bounds.items()})


def _number(value: float) -> str:
    if value == 2**63:
        return "2^63"
    return f"{value:,}" if isinstance(value, int) else str(value)


@cache
def _dialled() -> frozenset[tuple[str, str]]:
    """(path, kind) of every setting that the dial fills."""
    found = {("data.examples.longest", "")}
    for kind in OPTIMIZERS:
        for path in fill({"train": {"optimizer": {"kind": kind}}}):
            found.add((path, kind if path.startswith("train.optimizer.") else ""))
    return frozenset(found)


def _default(path: str, field: FieldInfo, when: str) -> str:
    if (path, when) in _dialled():
        return "set by the dial"
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Section):
        return ""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ", ".join(item.name if isinstance(item, Call) else f"“{item}”" for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    if value == "":
        return "empty"
    return str(value)
