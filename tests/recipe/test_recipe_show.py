"""What is printed: the resolved recipe, the table of settings, the recipes of the repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wellfit.recipe import names
from wellfit.recipe.load import load_recipe, parse_recipe
from wellfit.recipe.schema import OPTIMIZERS, Recipe, Role
from wellfit.recipe.settings import leaves, setting_at
from wellfit.recipe.settings import settings as every_setting
from wellfit.recipe.show import recipe_text, settings_table
from wellfit.recipe.sizes import sizes_table
from wellfit.recipe.yaml_lines import dotted, read_yaml

ROOT = Path(__file__).resolve().parents[2]
RECIPES = [*ROOT.glob("recipes/*.yaml"), *ROOT.glob("src/wellfit/run/recipes/*.yaml")]

TEXT = st.text(max_size=12)
GROUPS = st.none() | st.dictionaries(
    st.sampled_from(get_args(Role)),
    st.fixed_dictionaries({}, optional={"rate": st.floats(0, 9), "weight_decay": st.floats(0, 9)}),
)
NAME = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
SHARE = st.floats(0, 0.49)
POSITIVE = st.floats(min_value=1e-300, max_value=1e300)
ARGUMENT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
CALL = TEXT | st.tuples(TEXT, st.dictionaries(NAME, ARGUMENT, max_size=2)).map(
    lambda pair: {"name": pair[0], "arguments": pair[1]}
)
MAPPING = st.fixed_dictionaries(
    {
        "name": NAME,
        "data": st.fixed_dictionaries(
            {
                "sources": st.lists(
                    st.fixed_dictionaries(
                        {"path": st.text(min_size=1)}, optional={"domain": TEXT, "text_field": NAME}
                    ),
                    min_size=1,
                    max_size=3,
                )
            },
            optional={
                "folder": TEXT,
                "clean": st.lists(CALL, max_size=3),
                "filters": st.lists(CALL, max_size=2),
                "split": st.fixed_dictionaries({"validation": SHARE, "test": SHARE}),
                "duplicates": st.fixed_dictionaries(
                    {"near": st.booleans(), "threshold": st.floats(1e-9, 1)}
                ),
            },
        ),
        "train": st.fixed_dictionaries(
            {"budget": st.fixed_dictionaries({"epochs": POSITIVE})
             | st.fixed_dictionaries({"tokens": st.integers(1, 10**20)})},
            optional={
                "optimizer": st.fixed_dictionaries(
                    {"kind": st.sampled_from([kind for kind in OPTIMIZERS if kind != "muon"])},
                    optional={"learning_rate": POSITIVE, "groups": GROUPS},
                )
                | st.fixed_dictionaries({"matrix_learning_rate": POSITIVE}),
                "document_mask": st.booleans(),
            },
        ),
    },
    optional={
        "seed": st.integers(0, 2**63 - 1),
        "model": st.fixed_dictionaries({"size": st.sampled_from(["nano", "small", "7b"])}),
        "monitor": st.fixed_dictionaries({"prompts": st.lists(TEXT, max_size=3)}),
    },
)  # fmt: skip


def again(recipe: Recipe) -> Recipe:
    return parse_recipe(read_yaml(recipe_text(recipe)).value, "again")


@given(MAPPING)
@settings(deadline=None, max_examples=150)
def test_what_is_printed_loads_to_the_same_recipe(mapping: dict[str, Any]) -> None:
    """Breaks when text is written bare that reads as a number, or an argument is left out."""
    recipe = parse_recipe(mapping)
    second = again(recipe)
    assert second.model_dump() == recipe.model_dump()
    assert recipe_text(second).count("\n") == recipe_text(recipe).count("\n")
    assert not any(told.startswith("size ") for told in second.provenance.values())


def test_every_value_is_printed_with_where_it_came_from() -> None:
    """Breaks when a comment is taken from another path, or a value has none."""
    recipe = parse_recipe(
        {"name": "x", "data": {"sources": [{"path": "a b"}]}, "train": {"budget": {"steps": 3}}},
        "my recipe",
        ["model.layers=2"],
    )
    text = recipe_text(recipe)
    printed = dict(
        line.strip().removeprefix("- ").split("  # ")
        for line in text.splitlines()
        if "  # " in line
    )
    printed = {key.strip(): told for key, told in printed.items()}
    assert printed["name: x"] == "my recipe"
    assert printed['path: "a b"'] == "my recipe"
    assert printed["layers: 2"] == "command line"
    assert printed["width: 256"].startswith("size nano: ")
    assert printed["dropout: 0.0"] == "default"
    commented = [line for line in text.splitlines() if "  # " in line]
    assert len(commented) == len(list(leaves(recipe)))
    assert set(recipe.provenance) == {dotted(place) for place, _ in leaves(recipe)}


def test_a_drawing_stands_below_the_schedule_and_is_no_value() -> None:
    """Breaks when the drawing's lines are not comments, or stand under another section."""
    recipe = parse_recipe(
        {"name": "x", "data": {"sources": [{"path": "a"}]}, "train": {"budget": {"steps": 3}}}
    )
    lines = recipe_text(recipe, ["one", "  two: 2", ""]).splitlines()
    first = lines.index("    # one")
    assert lines[first - 1].startswith("    final_share: 0.0")
    assert lines[first + 1 : first + 3] == ["    #   two: 2", "    #"]
    assert lines[first + 3].startswith("  clip_norm: ")
    drawn = parse_recipe(read_yaml("\n".join(lines)).value)
    assert drawn.model_dump() == recipe.model_dump()


def test_what_all_optimizers_have_stands_once_in_the_table() -> None:
    table = settings_table()
    assert table.count("`train.optimizer.states`") == 1
    assert table.count("`train.optimizer.groups.head.rate`") == 1
    assert "| `train.optimizer.momentum` (sgd) |" in table
    assert "| `train.optimizer.beta1` (adamw, adamw_8bit) |" in table


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_of_the_repository_loads_and_prints(path: Path) -> None:
    recipe = load_recipe(path)
    assert again(recipe).model_dump() == recipe.model_dump()
    listed = (ROOT / "recipes" / "README.md").read_text()
    assert f"`{path.name}`" in listed or path.relative_to(ROOT).as_posix() in listed


def test_there_are_recipes() -> None:
    assert {path.name for path in RECIPES} >= {"my-text.yaml", "base.yaml", "quickstart.yaml"}


# ── the documentation ──


def between(text: str, name: str) -> str:
    return text.partition(f"<!-- {name}: begin -->\n")[2].partition(f"<!-- {name}: end -->")[0]


def test_the_tables_of_the_documentation_are_the_schema_and_the_dial() -> None:
    page = (ROOT / "docs" / "recipe.md").read_text()
    assert between(page, "settings") == settings_table()
    assert between(page, "sizes") == f"```\n{sizes_table()}\n```\n"


def test_every_setting_has_a_sentence_and_a_place_in_the_table() -> None:
    table = settings_table()
    for setting in every_setting():
        assert setting.sentence.strip().endswith((".", "one.", "`")), setting.path
        if setting.form != "section" and not setting.path.endswith("[]"):
            assert f"| `{setting.path}`" in table


def test_the_example_of_the_documentation_loads() -> None:
    page = (ROOT / "docs" / "recipe.md").read_text()
    example = page.partition("```yaml\n")[2].partition("```")[0]
    recipe = parse_recipe(read_yaml(example).value, "docs/recipe.md")
    assert recipe.train.budget.minutes == 2


def test_limits_in_words() -> None:
    words = {setting.path: setting.limits for setting in every_setting()}
    assert words["model.layers"] == "from 1 to 512"
    assert words["model.dropout"] == "from 0 to below 1"
    assert words["data.duplicates.threshold"] == "above 0 up to 1"
    assert words["model.norm_epsilon"] == "above 0 and below 1"
    assert words["train.budget.steps"] == "of at least 1"
    assert words["train.budget.minutes"] == "above 0"
    assert words["data.split.test"] == "from 0 to 1"


def test_other_trainers_names_point_to_settings_that_exist() -> None:
    paths = {setting.path for setting in every_setting()}
    for key, known in names._ELSEWHERE.items():
        assert not known.setting or known.setting in paths, key
        assert known.setting or known.note, key
    for value, meant in names._VALUES.items():
        assert any(meant in setting.choices for setting in every_setting()), value


def test_names_of_other_trainers() -> None:
    paths = [setting.path for setting in every_setting()]
    expected = {
        "n_embd": "model.width", "lr": "train.optimizer.learning_rate", "n_head": "model.heads",
        "max_steps": "train.budget.steps", "block_size": "model.context",
        "seq_length": "model.context", "n_layer": "model.layers", "--grad-clip": "train.clip_norm",
        "per_device_train_batch_size": "train.micro_batch", "warmup_ratio": "train.schedule.warmup",
        "gradient_accumulation_steps": "train.batch_tokens", "num_train_epochs":
        "train.budget.epochs", "cutoff_len": "model.context", "sequence_len": "model.context",
        "val_set_size": "data.split.validation", "Rope_Theta": "model.rope_base",
        "num_key_value_heads": "model.kv_heads", "vocab_size": "data.tokenizer.vocabulary_size",
        "zzz": "", "kv_head": "model.kv_heads",
    }  # fmt: skip
    assert {key: names.suggest(key, paths) for key in expected} == expected
    assert names.suggest("n_embd", ["layers", "heads"]) == ""
    assert setting_at(("model", "width")) is not None
