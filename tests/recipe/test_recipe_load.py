"""Layers: base, file, command line, dial; and where each value came from."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wellfit.errors import RecipeError
from wellfit.recipe.load import load_recipe, parse_recipe
from wellfit.recipe.schema import Recipe

Load = Callable[..., Recipe]
Faults = Callable[..., list[str]]


def test_smallest_recipe_and_where_its_values_came_from(load: Load, smallest: str) -> None:
    """Breaks when the dial overwrites, or a default takes the line of its section."""
    recipe = load(smallest + "  optimizer: {learning_rate: 1e-3}\n", "model.layers=3")
    assert recipe.train.optimizer.learning_rate == 1e-3
    assert recipe.model.layers == 3
    provenance = recipe.provenance
    assert provenance["name"] == "recipe.yaml:1"
    assert provenance["data.sources.0.path"] == "recipe.yaml:4"
    assert provenance["data.sources.0.format"] == "default"
    assert provenance["train.budget.minutes"] == "recipe.yaml:6"
    assert provenance["train.optimizer.learning_rate"] == "recipe.yaml:7"
    assert provenance["train.optimizer.beta1"] == "size nano: Adam's own (arXiv 1412.6980)"
    assert provenance["train.optimizer.epsilon"] == "default"
    assert provenance["train.optimizer.matrix_learning_rate"].startswith("size nano: 0.02 at")
    assert provenance["model.layers"] == "command line"
    assert provenance["model.width"].startswith("size nano: ")
    assert provenance["data.filters.0"] == "default"
    assert "train.budget.steps" not in provenance


def test_base_lies_below_and_may_have_a_base(
    write: Callable[..., Path], load: Load, smallest: str
) -> None:
    write(
        "model: {layers: 2, width: 64}\nmonitor: {prompts: [a, b]}\nseed: 5\n", "deep/lowest.yaml"
    )
    write(f"base: deep/lowest.yaml\nmodel:\n  layers: 6\n{smallest}", "base.yaml")
    recipe = load("base: base.yaml\nname: other\nmonitor: {prompts: [c]}\n")
    assert (recipe.name, recipe.seed, recipe.model.layers, recipe.model.width) == (
        "other",
        5,
        6,
        64,
    )
    assert recipe.monitor.prompts == ("c",)
    assert recipe.provenance["seed"] == "deep/lowest.yaml:3"
    assert recipe.provenance["model.layers"] == "base.yaml:3"
    assert recipe.provenance["model.width"] == "deep/lowest.yaml:1"
    assert recipe.provenance["name"] == "recipe.yaml:2"
    assert recipe.provenance["monitor.prompts.0"] == "recipe.yaml:3"


def test_a_budget_replaces_a_budget_and_another_optimizer_starts_afresh(
    write: Callable[..., Path], load: Load, smallest: str
) -> None:
    write(smallest + "  optimizer: {kind: muon, momentum: 0.9, beta2: 0.9}\n", "base.yaml")
    recipe = load("base: base.yaml\ntrain:\n  budget: {steps: 7}\n  optimizer: {kind: adamw}\n")
    assert recipe.train.budget.steps == 7
    assert recipe.train.budget.minutes is None
    assert recipe.train.optimizer.kind == "adamw"
    assert recipe.train.optimizer.beta2 == 0.95
    assert recipe.provenance["train.optimizer.beta2"].startswith("size nano: GPT-3's")
    kept = load("base: base.yaml\ntrain: {optimizer: {beta1: 0.8}}\n")
    assert kept.train.optimizer.kind == "muon"
    assert kept.train.optimizer.momentum == 0.9  # type: ignore[union-attr]
    changed = load("base: base.yaml\n", "train.budget.tokens=1e6", "train.optimizer.kind=adamw")
    assert changed.train.budget.tokens == 1_000_000
    assert changed.train.budget.minutes is None
    assert changed.train.optimizer.kind == "adamw"
    whole = load("base: base.yaml\n", "train={budget: {epochs: 2}, optimizer: {kind: adamw}}")
    assert whole.train.budget.epochs == 2
    assert whole.train.optimizer.kind == "adamw"
    assert whole.provenance["train.budget.epochs"] == "command line"


def test_changes(load: Load, smallest: str) -> None:
    recipe = load(
        smallest + "monitor: {prompts: [a, b]}\n",
        "data.sources.0.path=other folder",
        "data.sources.0.domain=",
        "monitor.prompts.1='c: d e'",
        "train.optimizer={learning_rate: 2e-3}",
        "data.filters=[{too_short: {min_characters: 5}}, my.package:own]",
        "model.qk_norm=false",
    )
    assert recipe.data.sources[0].path == "other folder"
    assert recipe.data.sources[0].domain == ""
    assert recipe.train.optimizer.learning_rate == 2e-3
    assert [call.name for call in recipe.data.filters] == ["too_short", "my.package:own"]
    assert recipe.data.filters[0].arguments == {"min_characters": 5}
    assert recipe.model.qk_norm is False
    assert recipe.provenance["data.filters.1"] == "command line"
    assert recipe.provenance["data.sources.0.path"] == "command line"


def test_a_prompt_changed_by_position(load: Load, smallest: str) -> None:
    recipe = load(smallest + "monitor: {prompts: [a, b]}\n", "monitor.prompts.1=c d")
    assert recipe.monitor.prompts == ("a", "c d")
    assert recipe.provenance["monitor.prompts.0"] == "recipe.yaml:7"
    assert recipe.provenance["monitor.prompts.1"] == "command line"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("train.budget.steps", "a change is `key=value`"),
        ("=3", "a change is `key=value`"),
        ("model..width=3", "a change is `key=value`"),
        ("data.sources.1.path=x", "data.sources is a list with positions 0 to 0; give one, or"),
        ("data.sources.path=x", "data.sources is a list with positions 0 to 0"),
        ("data.filters.0=x", "data.filters has no list in the recipe; give the whole list"),
        ("0=x", "0 = x: unknown setting"),
        ("model.0=x", "model.0 = x: unknown setting"),
        ("name.first=x", "name is a value, not a section"),
        ("model.width={", "this is not YAML"),
        ("model.wdith=64", "unknown setting; did you mean width?"),
        ("nmae=x", "unknown setting; did you mean name?"),
        ("model.width=wide", "model.width = wide: text stands here; give a whole number"),
    ],
)
def test_changes_that_cannot_be(faults: Faults, smallest: str, change: str, words: str) -> None:
    (fault,) = faults(smallest, change)
    assert fault.startswith("command line: ")
    assert words in fault


def test_one_change_twice(faults: Faults, smallest: str) -> None:
    (fault,) = faults(smallest, "seed=1", "seed=2")
    assert fault == "command line: seed: given twice on the command line; keep one"


def test_two_budgets_on_the_command_line(faults: Faults, smallest: str) -> None:
    (fault,) = faults(smallest, "train.budget.steps=1", "train.budget.minutes=2")
    assert fault.startswith("command line: train.budget: give exactly one of steps")


# ── files that cannot be read ──


def refused(path: Path | str) -> str:
    with pytest.raises(RecipeError) as error:
        load_recipe(path)
    assert len(error.value.faults) == 1
    return error.value.faults[0]


def test_files_that_are_no_recipe(tmp_path: Path, write: Callable[..., Path]) -> None:
    assert "the file is empty" in refused(write("# nothing\n"))
    assert "a list stands at the top" in refused(write("- a\n- b\n"))
    assert "a single value stands at the top" in refused(write("hello"))
    assert "did you mean" in refused(tmp_path / "recipes.yaml")
    assert "there is no such file; the folder" in refused(tmp_path / "no" / "recipe.yaml")
    assert "a folder, not a recipe file; recipes there: recipe.yaml" in refused(tmp_path)
    binary = tmp_path / "model.bin"
    binary.write_bytes(b"name: x\n\xff\xfe\x00\x01")
    assert "line 2 is not UTF-8 text" in refused(binary)
    binary.write_bytes(b"\x00\x01\x02")
    assert "a binary file" in refused(binary)
    (tmp_path / "latin.yaml").write_bytes("name: x\ndata: caf\xe9".encode("latin-1"))
    assert "line 2 is not UTF-8 text" in refused(tmp_path / "latin.yaml")


def test_a_byte_order_mark_is_no_fault(tmp_path: Path, smallest: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + smallest.encode())
    assert load_recipe(path).name == "first"


def test_a_name_that_the_system_refuses(tmp_path: Path) -> None:
    assert "cannot be read (File name too long)" in refused(tmp_path / ("x" * 300))


def test_bases_that_cannot_be_used(write: Callable[..., Path], smallest: str) -> None:
    path = write(f"base: bse.yaml\n{smallest}")
    write(smallest, "base.yaml")
    told = refused(path)
    assert told.startswith(f"{path}:1: base = ")
    assert "there is no such file; did you mean" in told
    assert "base.yaml?" in told
    write("base: recipe.yaml\n", "base.yaml")
    assert "the bases run in a circle: recipe.yaml → base.yaml → recipe.yaml" in refused(
        write(f"base: base.yaml\n{smallest}")
    )
    assert "give the name of one recipe file" in refused(write(f"base: [a, b]\n{smallest}"))
    assert "give the name of one recipe file" in refused(write(f"base:\n{smallest}"))


def test_faults_name_the_file_they_stand_in(
    write: Callable[..., Path], faults: Faults, smallest: str
) -> None:
    write(f"seed: -1\nmodel: {{n_layer: 3}}\n{smallest}", "base.yaml")
    found = faults("base: base.yaml\nseed: 3\nmodel: {width: 0}\n", "model.heads=0")
    assert [fault.split(": ")[0] for fault in found] == [
        "base.yaml:2", "recipe.yaml:3", "command line"
    ]  # fmt: skip


# ── mappings ──


def test_a_mapping_is_checked_the_same_way_and_left_alone() -> None:
    mapping = {
        "name": "x",
        "data": {"sources": ({"path": "p"},), "filters": [{"f": {"words": ["a"]}}]},
        "train": {"budget": {"steps": 5.0}},
    }
    recipe = parse_recipe(mapping, "a test", ["seed=4"])
    assert recipe.train.budget.steps == 5
    assert recipe.data.filters[0].arguments == {"words": ["a"]}
    assert recipe.provenance["name"] == "a test"
    assert recipe.provenance["seed"] == "command line"
    assert set(mapping) == {"name", "data", "train"}
    with pytest.raises(RecipeError) as error:
        parse_recipe({"name": "x", "base": "y.yaml"}, "a test")
    assert any("a test: base = y.yaml: unknown setting" in fault for fault in error.value.faults)


def test_loading_is_light() -> None:
    """The command line prints a recipe in a blink: no torch, no NumPy, no pyarrow."""
    code = (
        "import sys, wellfit.recipe, wellfit.recipe.callables, wellfit.recipe.sizes\n"
        "heavy = {'torch', 'numpy', 'pyarrow', 'transformers', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
