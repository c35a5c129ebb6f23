"""A recipe file in; a Recipe, or every fault at once, out.

    base file(s) ─▶ the file ─▶ key=value changes ─▶ the dial ─▶ the schema

A later layer wins, value by value; lists are replaced whole. Two sections start afresh instead
of being mixed: `train.budget`, since exactly one budget counts, and `train.optimizer` when its
`kind` changes, since one optimizer's rates mean nothing to another. A function that is named, such
as `model.module`, is one value with its arguments.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from wellfit.errors import RecipeError
from wellfit.recipe.base_weights import base_faults
from wellfit.recipe.callables import call_faults
from wellfit.recipe.faults import CALLS, Fault, Origin, Origins, fill_in, nearest, validate
from wellfit.recipe.instead import idle_faults
from wellfit.recipe.schema import Recipe
from wellfit.recipe.settings import leaves, setting_at
from wellfit.recipe.sizes import fill, filled_by, paths_of_weights
from wellfit.recipe.yaml_lines import Place, dotted, read_yaml

COMMAND_LINE = "command line"
Known = Mapping[str, Mapping[str, Callable[..., Any]]]


def load_recipe(
    path: str | Path, changes: Iterable[str] = (), *, known: Known | None = None
) -> Recipe:
    """A YAML file and `key=value` changes → the recipe, with `base:` and the dial applied.

    `known` holds the built-in functions by kind (`clean`, `filters`), which live in other rooms:
    where it is given, functions that the recipe names are looked up, and their arguments checked.

    Raises RecipeError with every fault, one line each: `file:line: path = value: what is wrong;
    what is allowed; what was probably meant`.
    """
    layers = _Layers()
    main = layers.add_file(str(path))
    return layers.recipe(changes, main, known)


def parse_recipe(
    mapping: Mapping[str, Any],
    origin: str = "recipe",
    changes: Iterable[str] = (),
    *,
    known: Known | None = None,
) -> Recipe:
    """Nested values → the recipe, as `load_recipe` does; `origin` says where they came from."""
    layers = _Layers()
    main = Origin(origin, origin, (1, 0))
    layers.add_values(_plain(mapping), main)
    return layers.recipe(changes, main, known)


class _Layers:
    """The values gathered so far, with the origin of each, and the faults."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: Origins = {}
        self.faults: list[Fault] = []

    def recipe(self, changes: Iterable[str], main: Origin, known: Known | None) -> Recipe:
        self.change(list(changes), order=10_000)
        idle = [*idle_faults(self.values), *base_faults(self.values)]
        added = fill(self.values)
        fill_in(self.values, {path: value for path, (value, _) in added.items()})
        of_weights = paths_of_weights(self.values["model"])
        for path, (_, reason) in added.items():
            label = f"{filled_by(self.values['model'], path, of_weights)}: {reason}"
            self.origins.setdefault(tuple(path.split(".")), Origin(label, ""))
        recipe, faults = validate(self.values, self.origins, main)
        for place, told in [*call_faults(self.values, known or {}), *idle]:
            faults.append(Fault(nearest(place, self.origins, main), told))
        faults = sorted([*self.faults, *faults], key=lambda fault: fault.origin.order)
        if faults or recipe is None:
            raise RecipeError([str(fault) for fault in faults])
        for place, _ in leaves(recipe):
            origin = self.origins.get(place)
            recipe._provenance[dotted(place)] = origin.label if origin else "default"
        return recipe

    # ── files ──

    def add_file(self, path: str) -> Origin:
        """Read a file and the bases below it; gives the origin of the file as a whole.

        Raises RecipeError where a file cannot be read at all, since then nothing else is known.
        """
        chain: list[tuple[str, str, Any]] = []
        where, label = path, Path(path).name
        seen: dict[str, str] = {}
        asked_by = ""
        while True:
            real = os.path.realpath(where)
            if real in seen:
                circle = " → ".join([*seen.values(), label])
                raise RecipeError(
                    [f"{asked_by}: base = {where}: the bases run in a circle: {circle}"]
                )
            seen[real] = label
            located = read_yaml(_text(where, asked_by))
            chain.append((where, label, located))
            values = located.value
            base = values.pop("base", None) if isinstance(values, dict) else None
            line = located.lines.get(("base",), 1)
            if (
                isinstance(values, dict)
                and ("base",) in located.lines
                and (not isinstance(base, str) or not base.strip())
            ):
                self.faults.append(
                    Fault(
                        Origin("", f"{where}:{line}", (1, line)),
                        f"base = {base}: give the name of one recipe file, relative to this one",
                    )
                )
            if not isinstance(base, str) or not base.strip():
                break
            asked_by = f"{where}:{line}"
            label = Path(os.path.normpath(Path(label).parent / base)).as_posix()
            where = os.path.normpath(Path(where).parent / base)
        for layer, (where, label, located) in enumerate(reversed(chain), start=1):
            for line, text in located.faults:
                self.faults.append(Fault(Origin("", f"{where}:{line}", (layer, line)), text))
            if isinstance(located.value, dict):
                self.merge(located.value, _file_origins(where, label, layer, located.lines))
            elif not located.faults:
                raise RecipeError([f"{where}: {_not_a_recipe(located.value)}"])
        if any(not isinstance(located.value, dict) for _, _, located in chain):
            raise RecipeError([str(fault) for fault in self.faults])
        return Origin(Path(path).name, path, (len(chain), 0))

    def add_values(self, values: dict[str, Any], origin: Origin) -> None:
        """Add a layer that has no lines."""
        self.merge(values, dict.fromkeys(_places(values, ()), origin))

    def merge(self, values: dict[str, Any], origins: Origins) -> None:
        """Put a layer over what is there."""
        self._merge(self.values, values, (), origins)

    def _merge(
        self, low: dict[str, Any], high: Mapping[str, Any], place: Place, origins: Origins
    ) -> None:
        for key, value in high.items():
            here = (*place, key)
            if here in origins:
                self.origins[here] = origins[here]
            if isinstance(value, dict) and isinstance(low.get(key), dict):
                if _starts_afresh(here, low[key], value):
                    low[key] = {}
                    self.forget(here)
                self._merge(low[key], value, here, origins)
            else:
                self.forget(here)
                low[key] = value
                self.origins |= {
                    other: origin for other, origin in origins.items() if other[: len(here)] == here
                }

    def forget(self, place: Place) -> None:
        """Drop the origins of everything inside `place`."""
        for other in [one for one in self.origins if one[: len(place)] == place and one != place]:
            del self.origins[other]

    # ── changes ──

    def change(self, changes: list[str], order: int) -> None:
        """Apply `key=value` changes, all of them as one layer."""
        given: dict[Place, Any] = {}
        for number, change in enumerate(changes):
            origin = Origin(COMMAND_LINE, COMMAND_LINE, (order, number))
            key, equals, text = change.partition("=")
            key = key.strip()
            if not equals or not key or not all(part.strip() for part in key.split(".")):
                self.faults.append(
                    Fault(
                        origin, f"{change}: a change is `key=value`, as in train.budget.steps=100"
                    )
                )
                continue
            located = read_yaml(text)
            if located.faults:
                self.faults += [Fault(origin, f"{change}: {told}") for _, told in located.faults]
                continue
            place: Place = tuple(
                int(part) if part.isdecimal() and len(part) < 10 else part
                for part in key.split(".")
            )
            if place in given:
                self.faults.append(
                    Fault(origin, f"{key}: given twice on the command line; keep one")
                )
                continue
            given[place] = located.value if text.strip() else ""
        self._start_afresh(given)
        for number, (place, value) in enumerate(given.items()):
            origin = Origin(COMMAND_LINE, COMMAND_LINE, (order, number))
            told = self._set(place, value, origin)
            if told:
                self.faults.append(Fault(origin, f"{dotted(place)}: {told}"))

    def _start_afresh(self, given: Mapping[Place, Any]) -> None:
        train = self.values.get("train")
        if not isinstance(train, dict):
            return
        if any(place[:2] == ("train", "budget") for place in given) and "budget" in train:
            train["budget"] = {}
            self.forget(("train", "budget"))
        kind = given.get(("train", "optimizer", "kind"))
        old = train.get("optimizer")
        if kind is not None and isinstance(old, dict) and old.get("kind", "muon") != kind:
            train["optimizer"] = {}
            self.forget(("train", "optimizer"))

    def _set(self, place: Place, value: Any, origin: Origin) -> str:
        """Set one value; gives what is wrong with the place, or nothing."""
        holder: Any = self.values
        here: Place = ()
        for depth, part in enumerate(place):
            path = dotted(here)
            if isinstance(holder, list):
                if not isinstance(part, int) or part >= len(holder):
                    has = f"positions 0 to {len(holder) - 1}" if holder else "no entries"
                    return f"{path} is a list with {has}; give one, or the whole list"
            elif not isinstance(holder, dict):
                return f"{path} is a value, not a section; give `{path}={{…}}` as a whole"
            elif isinstance(part, int):
                setting = setting_at(here)
                if setting is not None and setting.form == "list":
                    return f"{path} has no list in the recipe; give the whole list: `{path}=[…]`"
                part = str(part)
            here = (*here, part)
            if depth < len(place) - 1:
                below = holder[part] if isinstance(part, int) else holder.get(part)
                holder = {} if below is None else below
        self._put(here, value, origin)
        return ""

    def _put(self, place: Place, value: Any, origin: Origin) -> None:
        """Put a value at a place that is known to be sound, making the sections on the way."""
        holder: Any = self.values
        for part in place[:-1]:
            if isinstance(holder, dict) and holder.get(part) is None:
                holder[part] = {}
            holder = holder[part]
        key: Any = place[-1]
        present = holder[key] if isinstance(holder, list) else holder.get(key)
        written = {place: origin} | dict.fromkeys(_places(value, place), origin)
        if isinstance(value, dict) and isinstance(present, dict):
            if _starts_afresh(place, present, value):
                present.clear()
                self.forget(place)
            self._merge(present, value, place, written)
        else:
            self.forget(place)
            holder[key] = value
        self.origins |= written


def _starts_afresh(place: Place, low: Mapping[str, Any], high: Mapping[str, Any]) -> bool:
    # A call is one value: arguments of another function mean nothing to this one.
    if place == ("train", "budget") or place in CALLS:
        return True
    return (
        place == ("train", "optimizer")
        and "kind" in high
        and high["kind"] != low.get("kind", "muon")
    )


def _file_origins(where: str, label: str, layer: int, lines: Mapping[Place, int]) -> Origins:
    return {
        place: Origin(f"{label}:{line}", f"{where}:{line}", (layer, line))
        for place, line in lines.items()
    }


def _places(value: Any, place: Place) -> Iterable[Place]:
    if place:
        yield place
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, item in items:
        yield from _places(item, (*place, key))


def _plain(value: Any) -> Any:
    """A copy of nested values in dicts and lists, so that the caller's own stay as they are."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _text(path: str, asked_by: str) -> str:
    head = f"{asked_by}: base = {path}" if asked_by else path
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise RecipeError([f"{head}: there is no such file{_near_file(path)}"]) from None
    except IsADirectoryError:
        raise RecipeError([f"{head}: a folder, not a recipe file{_near_file(path)}"]) from None
    except OSError as fault:
        raise RecipeError([f"{head}: cannot be read ({fault.strerror})"]) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = data[: fault.start].count(b"\n") + 1
        raise RecipeError(
            [f"{head}: line {line} is not UTF-8 text; a recipe is a YAML file saved as UTF-8"]
        ) from None
    if "\x00" in text:
        raise RecipeError([f"{head}: a binary file; a recipe is a YAML file saved as UTF-8"])
    return text


def _near_file(path: str) -> str:
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    if not folder.is_dir():
        return f"; the folder {folder} does not exist either"
    present = sorted(one.name for one in folder.iterdir() if one.suffix in (".yaml", ".yml"))
    if not present:
        return "; no .yaml file stands there"
    near = get_close_matches(Path(path).name, present, n=1)
    if near:
        return f"; did you mean {folder / near[0]}?"
    return f"; recipes there: {', '.join(present[:8])}"


def _not_a_recipe(value: Any) -> str:
    wanted = "a recipe has name, data, model and train as keys; `wellfit init PATH` writes one"
    if value is None:
        return f"the file is empty; {wanted}"
    kind = "a list" if isinstance(value, list) else "a single value"
    return f"{kind} stands at the top; {wanted}"
