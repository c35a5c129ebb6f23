"""A recipe in; YAML that a person reads and that loads again to the same recipe out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from wellfit.recipe.instead import shown_fields
from wellfit.recipe.schema import OPTIMIZERS, Call, Recipe, Section
from wellfit.recipe.settings import settings
from wellfit.recipe.yaml_lines import Place, dotted

# Words that no YAML reader takes for anything else; all other text goes into quotes.
_BARE = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*(?::[A-Za-z_][A-Za-z0-9_.]*)?")
_NOT_BARE = ("true", "false", "null", "yes", "no", "on", "off", "y", "n")
_COLUMN = 44


def recipe_text(recipe: Recipe, drawing: Iterable[str] = ()) -> str:
    """The resolved recipe as YAML: every value, with where it came from as a comment behind it.

    The lines of a `drawing` of the learning rate stand as comments below `train.schedule`.
    """
    head = (
        "# Every setting of this recipe, resolved; behind each value stands where it came from.\n"
    )
    drawings: dict[Place, tuple[str, ...]] = {("train", "schedule"): tuple(drawing)}
    lines = _section(recipe, (), recipe.provenance, drawings)
    return head + "".join(f"{line}\n" for line in lines)


def _section(
    section: Section,
    place: Place,
    provenance: Mapping[str, str],
    drawings: Mapping[Place, tuple[str, ...]],
) -> Iterator[str]:
    indent = "  " * len([part for part in place if isinstance(part, str)])
    indent += "  " * len([part for part in place if isinstance(part, int)])
    for name in shown_fields(section, place):
        value = getattr(section, name)
        here = (*place, name)
        if value is None:
            continue
        if isinstance(value, Section) and not isinstance(value, Call):
            inside = list(_section(value, here, provenance, drawings))
            yield f"{indent}{name}:" if inside else f"{indent}{name}: {{}}"
            yield from inside
            yield from (f"{indent}  # {line}".rstrip() for line in drawings.get(here, ()))
        elif isinstance(value, tuple) and value:
            yield f"{indent}{name}:"
            yield from _items(value, here, indent + "  ", provenance, drawings)
        else:
            yield _commented(f"{indent}{name}: {scalar(value)}", here, provenance)


def _items(
    values: tuple[Any, ...],
    place: Place,
    indent: str,
    provenance: Mapping[str, str],
    drawings: Mapping[Place, tuple[str, ...]],
) -> Iterator[str]:
    for index, value in enumerate(values):
        here = (*place, index)
        if isinstance(value, Section) and not isinstance(value, Call):
            first, *others = _section(value, here, provenance, drawings)
            yield f"{indent}- {first.lstrip()}"
            yield from others
        else:
            yield _commented(f"{indent}- {scalar(value)}", here, provenance)


def _commented(line: str, place: Place, provenance: Mapping[str, str]) -> str:
    told = provenance.get(dotted(place), "default")
    told = "".join(sign if sign.isprintable() else "?" for sign in told)
    return f"{line:<{_COLUMN}}  # {told}"


def scalar(value: Any) -> str:
    """A value → YAML on one line that reads back as the same value.

    >>> scalar("yes"), scalar(3e-4), scalar(True), scalar(["a b", 1])
    ('"yes"', '0.0003', 'true', '["a b", 1]')
    """
    if isinstance(value, Call):
        name = scalar(value.name)
        return f"{{{name}: {scalar(value.arguments)}}}" if value.arguments else name
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        bare = _BARE.fullmatch(value) and value.lower() not in _NOT_BARE
        return value if bare else quoted(value)
    if isinstance(value, float):
        return {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}.get(repr(value), repr(value))
    if isinstance(value, Mapping):
        pairs = (f"{quoted(str(key))}: {scalar(item)}" for key, item in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(scalar(item) for item in value)}]"
    return str(value)


def quoted(text: str) -> str:
    """Text → a double-quoted YAML scalar on one line.

    >>> quoted('a "b"' + chr(10))
    '"a \\\\"b\\\\"\\\\n"'
    """
    signs = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(signs.get(sign) or _sign(sign) for sign in text) + '"'


def _sign(sign: str) -> str:
    code = ord(sign)
    if sign.isprintable():
        return sign
    return (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65_536 else f"\\U{code:08x}"
    )


def settings_table() -> str:
    """The schema → a Markdown table of every setting: path, form, default, limits, sentence.

    What is the same for several kinds of optimizer stands once, with the kinds that have it.
    """
    rows = ["| setting | form | default | allowed | what it is |", "|---|---|---|---|---|"]
    kinds: dict[tuple[str, ...], list[str]] = {}
    for one in settings():
        if one.form == "section" or (one.path.endswith("[]")):
            continue
        allowed = ", ".join(one.choices) if one.choices else one.limits
        same = (one.path, one.form, one.default, allowed, one.sentence)
        kinds.setdefault(same, []).append(one.when)
    for (path, *others), when in kinds.items():
        some = "" if set(when) in ({""}, set(OPTIMIZERS)) else f" ({', '.join(when)})"
        cells = (f"`{path}`{some}", *others)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"
