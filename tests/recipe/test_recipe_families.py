"""Published shapes: the numbers, what a recipe gets from them, and what it keeps of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest

from wellfit.errors import RecipeError
from wellfit.recipe.families import PRESETS, preset_facts, preset_model, presets_table
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.model_section import Preset
from wellfit.recipe.schema import Recipe
from wellfit.recipe.shapes import active_parameter_count, parameter_count
from wellfit.recipe.show import recipe_text

# From the models' own pages and papers, not from our table.
KNOWN = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "llama-7b": 6_738_415_616,
    "llama-65b": 65_285_660_672,
    "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3.2-1b": 1_235_814_400,
    "llama3.2-3b": 3_212_749_824,
    "mistral-7b": 7_241_732_096,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-7b": 7_615_616_512,
    "gemma-2b": 2_506_172_416,
    "gemma-7b": 8_537_680_896,
    "gemma2-2b": 2_614_341_888,
    "gemma2-9b": 9_241_705_984,
    "gemma3-1b": 999_885_952,
    "mixtral-8x7b": 46_702_792_704,
}


def recipe(model: dict[str, Any], *changes: str) -> Recipe:
    values = {"name": "x", "data": {"sources": [{"path": "p"}]}, "model": model}
    return parse_recipe({**values, "train": {"budget": {"steps": 1}}}, changes=changes)


def test_the_table_has_the_presets_of_the_schema() -> None:
    assert ("none", *PRESETS) == get_args(Preset)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_its_published_number_of_parameters(name: str) -> None:
    """Break: one layer more in a row of the table; Qwen 2.5 without biases; Gemma 2 without
    post-norms."""
    published = PRESETS[name]
    assert parameter_count(preset_model(name), published.vocabulary) == published.parameters
    assert KNOWN.get(name, published.parameters) == published.parameters
    assert len(published.source) > 10


def test_active_parameters_of_the_mixtures() -> None:
    """12.9 billion (arXiv 2401.04088), 39, and 3.35 (“A3B”, arXiv 2505.09388)."""
    for name, billions in (("mixtral-8x7b", 12.9), ("mixtral-8x22b", 39.2), ("qwen3-30b-a3b", 3.4)):
        count = active_parameter_count(preset_model(name), PRESETS[name].vocabulary)
        assert round(count / 1e9, 1) == billions


def test_a_preset_fills_what_is_absent_and_says_so() -> None:
    """Break: let the dial go first; or let the preset replace what is written."""
    whole = recipe({"preset": "gemma2-2b", "layers": 2, "context": 64})
    model = whole.model
    assert (model.layers, model.context, model.width, model.window) == (2, 64, 2304, 4096)
    assert (model.activation, model.post_norm, model.size) == ("geglu", True, "3b")
    told = whole.provenance
    assert told["model.width"].startswith("preset gemma2-2b: arXiv 2408.00118")
    assert told["model.size"].startswith("preset gemma2-2b: the dial's nearest")
    assert told["train.batch_tokens"].startswith("size 3b: ")
    assert told["model.layers"] == "recipe"
    assert recipe({"preset": "gpt2", "size": "nano"}).train.micro_batch < 16


def test_sections_inside_the_model_are_filled_too() -> None:
    """Break: fill dotted facts only where the whole section is absent."""
    model = recipe({"preset": "llama3.1-8b", "rope_scaling": {"factor": 2.0}}).model
    scaling = model.rope_scaling
    assert (scaling.kind, scaling.factor, scaling.original_context) == ("llama3", 2.0, 8192)
    experts = recipe({"preset": "mixtral-8x7b"}, "model.experts.count=4").model.experts
    assert (experts.count, experts.active, experts.balance_loss) == (4, 2, 0.01)


def test_what_follows_from_a_width_follows_another_width() -> None:
    """Break: keep the published heads beside another width."""
    model = recipe({"preset": "qwen3-0.6b", "width": 384}).model
    assert (model.width, model.heads, model.head_width, model.hidden) == (384, 3, 0, 1024)
    assert (model.layers, model.qk_norm, model.rope_base) == (28, True, 1e6)
    heads = recipe({"preset": "llama3-8b", "heads": 16}).model
    assert (heads.heads, heads.kv_heads, heads.hidden) == (16, 16, 14_336)


def test_the_resolved_recipe_loads_to_the_same(write: Callable[..., Any]) -> None:
    """Break: leave the preset's name out of what is shown."""
    from wellfit.recipe.load import load_recipe

    whole = recipe({"preset": "gemma3-4b"})
    text = recipe_text(whole)
    assert "preset: gemma3-4b" in text
    assert load_recipe(write(text)).model_dump() == whole.model_dump()


def test_no_preset_changes_nothing() -> None:
    assert preset_facts({}) == preset_facts({"preset": "none"}) == {}
    assert preset_facts({"preset": 3}) == preset_facts({"preset": ["gpt2"]}) == {}
    assert recipe({"preset": "none"}).model == recipe({}).model


def test_the_table_of_presets_names_each() -> None:
    lines = presets_table().splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(PRESETS)
    mixtral = next(line for line in lines if line.startswith("mixtral-8x7b"))
    assert "46702.8" in mixtral
    assert "12879.9" in mixtral


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("preset: gpt3", "did you mean gpt2?"),
        ("preset: llama-7", "did you mean llama-7b?"),
        ("experts: {count: 2, active: 3}", "active 3 is more than count 2; try active 2"),
        (
            "rope_scaling: {kind: yarn, factor: 2}",
            "kind yarn needs original_context, the context that the base was made for; "
            "try original_context 8192",
        ),
        (
            "rope_scaling: {kind: llama3, original_context: 64, low_factor: 2, high_factor: 1}",
            "high_factor 1 is not above low_factor 2; try high_factor 8",
        ),
        (
            "rope_scaling: {kind: yarn, original_context: 64, beta_fast: 1}",
            "beta_fast 1 is not above beta_slow 1; try beta_fast 32",
        ),
        (
            "{rotary_share: 0.3, width: 64, heads: 2}",
            "rotary_share 0.3 of 32 features are 9, and rotary positions turn pairs; "
            "try rotary_share 0.25",
        ),
        ("head_width: 7", "rotary positions need an even head width, not 7"),
        ("bias: qkv", "true or false"),
        ("num_local_experts: 8", "is model.experts.count here"),
        ("sliding_window: 8", "is model.window here"),
        ("head_dim: 8", "is model.head_width here"),
        ("attn_logit_softcapping: 8", "is model.attention_soft_cap here"),
        ("model_type: gpt2", "is model.preset here"),
    ],
)
def test_faults_say_what_to_do(
    faults: Callable[..., list[str]], smallest: str, line: str, told: str
) -> None:
    """One fault each. Break: leave the section out of what is checked together."""
    found = faults(
        f"{smallest}model:\n  {line}\n" if line[0] != "{" else f"{smallest}model: {line}"
    )
    assert len(found) == 1, found
    assert told in found[0]
    assert found[0].startswith("recipe.yaml:")


@pytest.mark.parametrize("setting", ["global_every=2", "rope_local_base=50"])
def test_settings_of_local_layers_want_a_window(setting: str) -> None:
    """Without one they would do nothing. Break: take the refusal away."""
    plain = {"name": "x", "data": {"sources": [{"path": "t"}]}, "train": {"budget": {"steps": 1}}}
    change = f"model.{setting}"
    with pytest.raises(RecipeError, match="window is 0; set window, or"):
        parse_recipe(plain, changes=[change])
    assert parse_recipe(plain, changes=[change, "model.window=8"]).model.window == 8
