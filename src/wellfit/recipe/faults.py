"""Values and where they came from in; a Recipe, or every fault in words of our own, out."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from wellfit.recipe import names
from wellfit.recipe.schema import OPTIMIZERS, Examples, Recipe
from wellfit.recipe.settings import Setting, setting_at, settings
from wellfit.recipe.sizes import fill
from wellfit.recipe.yaml_lines import Place, dotted


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written: a file and line, or words such as `command line`."""

    label: str
    """For the provenance of a value: `recipe.yaml:12`, `command line`, `size nano: …`."""
    where: str
    """For the beginning of a message: the file as the user can open it, and the line."""
    order: tuple[int, int] = (0, 0)
    """Layer and line, so that faults come in reading order."""


Origins = dict[Place, Origin]
CALLS: tuple[Place, ...] = (("model", "module"), ("train", "loss"))
"""Settings that name one function; lists of them are `data.clean` and `data.filters`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: where it stands, and the sentence."""

    origin: Origin
    text: str

    def __str__(self) -> str:
        return f"{self.origin.where}: {self.text}"


# A check over several settings is meaningless once one of them had to be replaced by a stand-in.
_CHECKED_TOGETHER: dict[Place, tuple[Place, ...]] = {
    ("model",): tuple(
        ("model", key)
        for key in (
            "width",
            "heads",
            "kv_heads",
            "position",
            "head_width",
            "rotary_share",
            "kind",
            "encoder_layers",
            "head",
            "classes",
            "tie_embeddings",
            "weights",
            "architecture",
        )
    ),
    ("model", "adapter"): tuple(
        ("model", "adapter", key)
        for key in ("targets", "modules_to_save", "layers_to_transform", "layers_pattern")
    ),
    ("model", "quantize"): tuple(
        ("model", "quantize", key) for key in ("kind", "block_size", "double_quantization")
    ),
    ("model", "experts"): (("model", "experts", "count"), ("model", "experts", "active")),
    ("model", "rope_scaling"): tuple(
        ("model", "rope_scaling", key)
        for key in (
            "kind",
            "original_context",
            "low_factor",
            "high_factor",
            "beta_fast",
            "beta_slow",
        )
    ),
    ("data",): tuple(("data", key) for key in ("sources", "tokens", "examples", "packing")),
    ("data", "examples"): tuple(
        ("data", "examples", key) for key in Examples.model_fields if key != "train"
    ),
    ("data", "tokenizer"): tuple(
        ("data", "tokenizer", key) for key in ("file", "separator", "new_tokens")
    ),
    ("data", "tokens"): tuple(
        ("data", "tokens", key)
        for key in (
            "tokenizer",
            "vocabulary_size",
            "separator",
            "validation",
            "validation_share",
            "test",
            "test_share",
        )
    ),
    ("data", "split"): (("data", "split", "validation"), ("data", "split", "test")),
    ("train",): tuple(
        ("train", key) for key in ("loss", "label_smoothing", "z_loss", "class_weights")
    ),
    ("train", "budget"): tuple(
        ("train", "budget", key) for key in ("steps", "tokens", "epochs", "minutes")
    ),
    ("train", "best_by"): (("train", "best_by"),),
    ("train", "optimizer"): (
        ("train", "optimizer", "nesterov"),
        ("train", "optimizer", "momentum"),
    ),
    ("train", "objective"): tuple(
        ("train", "objective", key) for key in ("mask_share", "random_share")
    ),
    (): (
        ("train", "batch_tokens"),
        ("model", "context"),
        ("model", "kind"),
        ("train", "document_mask"),
        ("train", "best_by"),
        ("train", "class_weights"),
        ("train", "loss"),
        ("train", "label_smoothing"),
        ("train", "z_loss"),
        ("model", "head"),
        ("model", "classes"),
        ("data", "packing"),
        *(("data", "examples", key) for key in ("task", "classes", "apart", "longest")),
        *(
            ("train", "objective", key)
            for key in ("kind", "share", "mask_share", "random_share", "span_length")
        ),
    ),
}


def validate(
    raw: Mapping[str, Any], origins: Mapping[Place, Origin], main: Origin
) -> tuple[Recipe | None, list[Fault]]:
    """Values as written → the recipe, or None and every fault, in reading order.

    A fault hides the checks that come after it. So each faulty value is replaced by a sound
    stand-in and the whole is checked again, until nothing new appears; a check over several
    settings counts only where none of them is a stand-in.
    """
    recipe: Recipe | None = None
    faults: dict[str, Fault] = {}
    mended: set[Place] = set()
    values: dict[str, Any] = copy.deepcopy(dict(raw))
    for _ in range(12):
        try:
            recipe = Recipe.model_validate(_fitted(values, ()), strict=True)
            break
        except ValidationError as refused:
            for error in refused.errors(include_url=False, include_input=False):
                place = _place(error["loc"])
                if error["type"].startswith("union_tag"):
                    place = (*place, "kind")
                if error["type"] == "value_error":
                    text = str(error["ctx"]["error"])
                    together = _CHECKED_TOGETHER[place]
                    # What the sentence names, where it names settings by their whole path.
                    together = tuple(p for p in together if dotted(p) in text) or together
                    if not any(_touches(other, mended) for other in together):
                        head = f"{dotted(place)}: " if place else ""
                        origin = nearest(_written(together, origins) or place, origins, main)
                        faults.setdefault(text, Fault(origin, head + text))
                    for other in together:
                        _mend(values, other)
                        mended.add(other)
                    continue
                if not _touches(place, mended):
                    fault = _fault(error["type"], place, values, origins, main)
                    faults.setdefault(str(fault), fault)
                _mend(values, place, drop=error["type"] == "extra_forbidden")
                if error["type"] != "extra_forbidden":
                    mended.add(place)
    assert faults or recipe is not None
    found = sorted(faults.values(), key=lambda fault: fault.origin.order)
    return (None if found else recipe), found


def _fault(
    kind: str,
    place: Place,
    values: Mapping[str, Any],
    origins: Mapping[Place, Origin],
    main: Origin,
) -> Fault:
    path = dotted(place)
    origin = nearest(place, origins, main)
    if kind == "extra_forbidden":
        return Fault(origin, f"{path}{_shown(values, place)}: {unknown(place, values)}")
    setting = setting_at(place, _kind_at(place, values))
    if setting is None:  # inside a call: {name: …, arguments: …} written out by hand
        return Fault(
            origin,
            f"{path}{_shown(values, place)}: not how a function is named; "
            "write `name` or `{name: {argument: value}}`",
        )
    if kind == "missing" and _value_at(values, place) is None:
        return Fault(
            origin, f"{path} is missing: {setting.sentence} Give {_article(setting, values)}"
        )
    value = _value_at(values, place)
    wrong = _wrong(kind, value, setting)
    parts = [f"{path}{_shown(values, place)}: {wrong}", f"give {_article(setting, values)}"]
    hint = _hint(value, setting)
    return Fault(origin, "; ".join([*parts, hint] if hint else parts))


def _article(setting: Setting, values: Mapping[str, Any]) -> str:
    if setting.path == "data":
        return "at least `data: {sources: [{path: FOLDER}]}`"
    if setting.path == "train.budget":
        return "one of steps, tokens, epochs, minutes"
    if setting.path == "data.sources":
        return "a list of at least one, such as `- path: FOLDER`"
    return setting.allowed


def _wrong(kind: str, value: Any, setting: Setting) -> str:
    if kind in ("greater_than", "greater_than_equal"):
        return "too small"
    if kind in ("less_than", "less_than_equal"):
        return "too large"
    if kind == "finite_number":
        return "not a finite number"
    if kind in ("too_short", "string_too_short"):
        return "empty"
    if kind == "string_pattern_mismatch":
        return "not a name"
    if setting.form == "choice" and isinstance(value, str):
        return "not one of the choices"
    given = {
        bool: "true or false", int: "a number", float: "a number", str: "text",
        dict: "a section", list: "a list", type(None): "nothing",
    }  # fmt: skip
    return f"{given.get(type(value), type(value).__name__)} stands here"


def _hint(value: Any, setting: Setting) -> str:
    if setting.form == "text" and isinstance(value, bool | int | float | dict):
        return "quotes make it text"
    if not isinstance(value, str):
        return ""
    word = value.strip().lower()
    if setting.form == "true or false" and word in ("yes", "on", "true", "1", "y"):
        return "write true"
    if setting.form == "true or false" and word in ("no", "off", "false", "0", "n"):
        return "write false"
    if setting.form == "choice":
        near = names.suggest_value(value, setting.choices)
        return f"did you mean {near}?" if near else ""
    if setting.form in ("number", "whole number") and _is_number(word):
        return "write it without quotes"
    if setting.path == "train.optimizer":
        kind = names.suggest_value(value, OPTIMIZERS) or "muon"
        return f"write `optimizer: {{kind: {kind}}}`"
    return ""


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def unknown(place: Place, values: Mapping[str, Any]) -> str:
    """The place of a setting that does not exist → what is wrong, and what was probably meant."""
    key = str(place[-1])
    section = setting_at(place[:-1], _kind_at(place, values))
    siblings = section.entries if section else tuple(Recipe.model_fields)
    head = dotted(place[:-1]) or "a recipe"
    has = f"{head} has {', '.join(siblings)}"
    known = names.elsewhere(key)
    if known is not None and known.setting != dotted(place):
        trainers = f" of {', '.join(known.trainers)}" if known.trainers else ""
        if not known.setting:
            return f"unknown setting; {key}{trainers} is no setting here: {known.note}"
        note = f", {known.note}" if known.note else ""
        return f"unknown setting; {key}{trainers} is {known.setting} here{note}"
    optimizers = _other_kinds(place, values)
    if optimizers:
        return f"a setting of {' and '.join(optimizers)} only; {has}"
    near = names.suggest(key, siblings)
    if near:
        return f"unknown setting; did you mean {near}? {has}"
    paths = [one.path for one in settings() if one.path.rpartition(".")[2] == key]
    if not paths:
        paths = [names.suggest(key, [one.path for one in settings()])]
    meant = f"did you mean {' or '.join(dict.fromkeys(paths))}? " if paths[0] else ""
    return f"unknown setting; {meant}{has}"


def _other_kinds(place: Place, values: Mapping[str, Any]) -> list[str]:
    """Each other `kind` of this section that does have the setting."""
    path, mine = dotted(place), _kind_at(place, values)
    return [one.when for one in settings() if one.path == path and one.when not in ("", mine)]


# ── places and values ──────────────────────────────────────────────────────────────────────


def _place(loc: Iterable[int | str]) -> Place:
    """pydantic's location → a place of the recipe: without the names of union members."""
    parts = list(loc)
    if len(parts) > 2 and parts[:2] == ["train", "optimizer"] and parts[2] in OPTIMIZERS:
        del parts[2]
    # Within a call the short forms have no such keys; the whole call is at fault.
    if parts[:2] in (["data", "clean"], ["data", "filters"]):
        parts = parts[:3]
    elif tuple(parts[:2]) in CALLS:
        parts = parts[:2]
    return tuple(parts)


def _kind_at(place: Place, values: Mapping[str, Any]) -> str:
    if place[:2] != ("train", "optimizer"):
        return ""
    kind = _value_at(values, ("train", "optimizer", "kind"))
    return kind if isinstance(kind, str) and kind in OPTIMIZERS else "muon"


def _value_at(values: Any, place: Place) -> Any:
    for part in place:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def _touches(place: Place, mended: set[Place]) -> bool:
    return any(place[: len(one)] == one or one[: len(place)] == place for one in mended)


def _written(places: Iterable[Place], origins: Mapping[Place, Origin]) -> Place | None:
    """The one of several places that was written last, in a file or on the command line."""
    given = [place for place in places if place in origins and origins[place].order != (0, 0)]
    return max(given, key=lambda place: origins[place].order, default=None)


def nearest(place: Place, origins: Mapping[Place, Origin], main: Origin) -> Origin:
    """A place → the origin of the innermost thing around it that was written somewhere."""
    while place:
        # The dial's own values carry no line: a message points to the section instead.
        if place in origins and origins[place].where:
            return origins[place]
        place = place[:-1]
    return main


def _shown(values: Mapping[str, Any], place: Place) -> str:
    value = _value_at(values, place)
    if isinstance(value, dict | list) and len(str(value)) > 40:
        return ""
    if value is None or isinstance(value, bool):
        text = {"True": "true", "False": "false", "None": "null"}[str(value)]
    else:
        text = str(value)
    text = "".join(sign if sign.isprintable() else "?" for sign in text)
    if isinstance(value, str) and (not text or text != text.strip()):
        text = f'"{text}"'
    return f" = {text if len(text) <= 60 else text[:57] + '…'}"


def _mend(values: dict[str, Any], place: Place, *, drop: bool = False) -> None:
    """Replace the value at `place` by a sound one: the default, the dial's, or a stand-in."""
    if not place:
        return
    holder = _value_at(values, place[:-1])
    key = place[-1]
    stand_ins: dict[Place, Any] = {
        ("name",): "x",
        ("data",): {"sources": [{"path": "x"}]},
        ("data", "sources"): [{"path": "x"}],
        ("data", "tokens", "train"): ["x"],
        ("data", "tokens", "vocabulary_size"): 2,
        ("data", "tokens", "separator"): 0,
        ("train", "budget"): {"steps": 1},
        ("train", "budget", "steps"): 1,
    }
    if isinstance(holder, list) and isinstance(key, int):
        holder[key] = {"path": "x"} if place[:2] == ("data", "sources") else "x"
    elif isinstance(holder, dict):
        holder.pop(key, None)
        if drop:
            return
        if place in stand_ins:
            holder[key] = stand_ins[place]
        elif key == "path":
            holder[key] = "x"
        else:
            fill_in(values, {path: value for path, (value, _) in fill(values).items()})


def fill_in(values: dict[str, Any], added: Mapping[str, Any]) -> None:
    """Set dotted paths in nested values, making sections that are absent; never over a value."""
    for path, value in added.items():
        *sections, key = path.split(".")
        holder: Any = values
        for section in sections:
            if holder.get(section) is None:
                holder[section] = {}
            holder = holder[section]
            if not isinstance(holder, dict):
                break
        else:
            holder.setdefault(key, value)


def _fitted(value: Any, place: Place) -> Any:
    """Values as YAML writes them → as the strict schema wants them: tuples, whole floats as int."""
    if place[:2] in (("data", "clean"), ("data", "filters")) and len(place) > 2:
        return value
    if place in CALLS:
        return value
    if isinstance(value, dict):
        return {key: _fitted(item, (*place, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_fitted(item, (*place, index)) for index, item in enumerate(value))
    if isinstance(value, float) and value.is_integer():
        setting = setting_at(place)
        if setting is not None and setting.form == "whole number":
            return int(value)
    return value
