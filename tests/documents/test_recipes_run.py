"""The recipes of the repository do what they say: `wellfit check` takes two real steps of each.

Small changes only: a narrow model, and texts of this machine where a recipe reads more than that.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
SMALL = ("model.context=64", "model.width=32", "model.layers=1", "train.batch_tokens=512")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipes_take_two_real_steps(path: Path, own_home: Path, wellfit_command: str) -> None:
    """Break tried: `size: nano` of base.yaml as `nanno`."""
    shutil.copytree(path.parent, own_home / "recipes")
    (own_home / "texts").rename(own_home / "my-text")
    changes = [*SMALL, "data.tokenizer.vocabulary_size=400"]
    if "my-text" not in path.read_text():
        changes.append("data.sources.0.path=my-text")
    done = subprocess.run(
        [wellfit_command, "check", f"recipes/{path.name}", *changes],
        cwd=own_home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The recipe runs." in done.stdout
