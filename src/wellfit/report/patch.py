"""A recipe patch → what a person pastes: YAML, `key=value` arguments, the whole command."""

from __future__ import annotations

import json
import shlex
from typing import Any

from wellfit.monitor.history import History


def as_yaml(patch: dict[str, Any]) -> str:
    """A recipe patch with dotted paths → nested YAML to paste into a recipe.

    >>> print(as_yaml({"train.clip_norm": 1.0, "train.optimizer.learning_rate": 0.001}))
    train:
      clip_norm: 1.0
      optimizer:
        learning_rate: 0.001
    """
    tree: dict[str, Any] = {}
    for path, value in patch.items():
        *parents, leaf = str(path).split(".")
        branch = tree
        for parent in parents:
            below = branch.setdefault(parent, {})
            if not isinstance(below, dict):
                below = branch[parent] = {}
            branch = below
        branch[leaf] = value
    return "\n".join(_yaml_lines(tree, ""))


def _yaml_lines(tree: dict[str, Any], indent: str) -> list[str]:
    lines = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}:", *_yaml_lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{key}: {_yaml_value(value)}")
    return lines


def _yaml_value(value: object) -> str:
    """JSON is YAML too; a plain word needs no quotes."""
    if isinstance(value, str) and value.isidentifier() and value not in ("true", "false", "null"):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def as_arguments(patch: dict[str, Any]) -> str:
    """A recipe patch → `key=value` arguments for `wellfit train`, quoted for a shell.

    >>> as_arguments({"train.clip_norm": 1.0, "data.filters": ["too_short"]})
    'train.clip_norm=1.0 \\'data.filters=["too_short"]\\''
    """
    return " ".join(shlex.quote(f"{path}={_yaml_value(value)}") for path, value in patch.items())


def is_ours(history: History) -> bool:
    """Whether wellfit wrote the log: only then is a recipe there to be changed."""
    return history.format in ("run folder", "training_metrics.json")


def train_command(history: History, patch: dict[str, Any]) -> str:
    """The command that trains again with a patch; RUN and RECIPE stand for the person's own paths.

    A run folder holds the recipe it was made by; the new run goes beside it, since a finished one
    is never written over.

    >>> train_command(History("a", "run folder"), {"train.budget.steps": 700})
    'wellfit train RUN/recipe.yaml train.budget.steps=700 --out RUN-2'
    """
    if history.format == "run folder":
        return f"wellfit train RUN/recipe.yaml {as_arguments(patch)} --out RUN-2"
    return f"wellfit train RECIPE {as_arguments(patch)}"
