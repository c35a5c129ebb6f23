"""A run folder's recipe and events → what is known about the run beside its curves.

Every piece may be missing: what the files do not say stays None.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wellfit.monitor.history import Context
from wellfit.monitor.timeline import BEGINS
from wellfit.records import Event


def run_context(folder: Path, events: Sequence[Event]) -> tuple[dict[str, Any] | None, Context]:
    """The resolved recipe as plain values (None where it cannot be read), and the run's context.

    What the newest `started` or `resumed` event says of planned steps, warm-up and the length of
    an epoch comes first. The vocabulary's size comes from `corpus.json`, else from the recipe
    (where a tokenizer is learned, which is then the size it was asked for). `clip_norm` is None
    when clipping is off.
    """
    recipe = _recipe(folder / "recipe.yaml")
    train = _section(recipe, "train")
    budget = _section(train, "budget")
    told = next((event.data for event in reversed(events) if event.kind in BEGINS), {})
    return recipe, Context(
        vocabulary_size=_vocabulary_size(folder, recipe),
        planned_steps=_count(told.get("planned_steps")) or _count(budget.get("steps")),
        planned_epochs=_number(budget.get("epochs")),
        steps_per_epoch=_number(told.get("steps_per_epoch")),
        clip_norm=_number(train.get("clip_norm")) or None,
        warmup_steps=_whole(told.get("warmup_steps")),
        optimizer=_word(_section(train, "optimizer").get("kind")),
        # Only a module of one's own can come with trained weights, and says so.
        from_scratch=not told.get("pretrained", False) if recipe is not None else None,
    )


def _recipe(path: Path) -> dict[str, Any] | None:
    # Here, because a reader of other logs has no use for a YAML parser.
    from wellfit.recipe.yaml_lines import read_yaml

    try:
        value = read_yaml(path.read_text(encoding="utf-8", errors="replace")).value
    except FileNotFoundError:
        return None
    return value if isinstance(value, dict) else None


def _vocabulary_size(folder: Path, recipe: dict[str, Any] | None) -> int | None:
    if (size := _count(_mapping(folder / "corpus.json").get("vocabulary_size"))) is not None:
        return size
    tokens = _section(_section(recipe, "data"), "tokens")
    if tokens:
        return _count(tokens.get("vocabulary_size"))
    tokenizer = _section(_section(recipe, "data"), "tokenizer")
    return None if tokenizer.get("file") else _count(tokenizer.get("vocabulary_size"))


def _mapping(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _section(values: dict[str, Any] | None, name: str) -> dict[str, Any]:
    section = (values or {}).get(name)
    return section if isinstance(section, dict) else {}


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _count(value: Any) -> int | None:
    return value if _whole(value) is not None and value > 0 else None


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
