from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wellfit.errors import RecipeError
from wellfit.recipe.load import load_recipe
from wellfit.recipe.schema import Recipe

SMALLEST = """\
name: first
data:
  sources:
    - path: my-text
train:
  budget: {minutes: 2}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Text → a recipe file in an empty folder."""

    def written(text: str, name: str = "recipe.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return written


@pytest.fixture
def load(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Recipe]:
    """Text and changes → the recipe, loaded as `recipe.yaml` of the current folder."""

    def loaded(text: str, *changes: str, **options: Any) -> Recipe:
        monkeypatch.chdir(write(text).parent)
        return load_recipe("recipe.yaml", changes, **options)

    return loaded


@pytest.fixture
def faults(load: Callable[..., Recipe]) -> Callable[..., list[str]]:
    """Text and changes → the lines of the RecipeError that they raise."""

    def found(text: str, *changes: str, **options: Any) -> list[str]:
        with pytest.raises(RecipeError) as refused:
            load(text, *changes, **options)
        assert all(fault in str(refused.value) for fault in refused.value.faults)
        return refused.value.faults

    return found


@pytest.fixture
def smallest() -> str:
    """The smallest recipe that loads; nothing stands in its last line but the budget."""
    return SMALLEST
