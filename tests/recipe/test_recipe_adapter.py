"""Settings of adapters: what the dial fills, and what would do nothing is refused."""

from __future__ import annotations

from typing import Any

import pytest

from wellfit.errors import RecipeError
from wellfit.recipe.adapter_section import Adapter, chosen, saved
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.names import suggest
from wellfit.recipe.settings import settings

BASE: dict[str, Any] = {
    "name": "x",
    "data": {"sources": [{"path": "t"}]},
    "model": {"adapter": {"rank": 16}},
    "train": {"budget": {"steps": 1}},
}


def test_the_dial_takes_adamw_at_an_adapters_rate() -> None:
    """Breaks when the dial's Muon stays."""
    optimizer = parse_recipe(BASE).train.optimizer
    assert (optimizer.kind, optimizer.learning_rate) == ("adamw", 2e-4)
    other = parse_recipe(BASE, changes=("train.optimizer.kind=lion",)).train.optimizer
    assert other.kind == "lion"
    assert parse_recipe(BASE, changes=("model.adapter=null",)).train.optimizer.kind == "muon"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("model.adapter=null", "model.quantize.kind=nf4"), "without adapter all is trained"),
        (("model.quantize={kind: int8, block_size: 32}",), "block_size 32 would do nothing with"),
        (("model.quantize.double_quantization=false",), "double_quantization false would do"),
        (("model.adapter.targets=['(']",), r"'\(' is neither a name nor a pattern"),
        (("model.adapter.targets=[]",), "targets"),
        (("model.adapter.layers_pattern=h",), "would do nothing without layers_to_transform"),
        (("model.adapter.layers_to_transform=[-1]",), "counts from 0"),
        (("train.precision=fp8",), "those of the base are frozen"),
        (("train.optimizer.kind=muon",), "muon is for whole matrices"),
        (("train.activation_offload=true",), "would take the frozen base of model.adapter"),
        (("model.adapter.rank=0",), "rank"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(changes: tuple[str, ...], message: str) -> None:
    """Each breaks when its check is left out."""
    with pytest.raises(RecipeError, match=message):
        parse_recipe(BASE, changes=changes)


def test_muon_stands_where_whole_matrices_are_trained_too() -> None:
    changes = ("train.optimizer.kind=muon", "model.adapter.modules_to_save=[down]")
    assert parse_recipe(BASE, changes=changes).train.optimizer.kind == "muon"


def test_names_of_other_trainers_lead_here() -> None:
    paths = [one.path for one in settings()]
    found = {name: suggest(name, paths) for name in ("lora_r", "load_in_4bit", "target_modules")}
    assert found == {
        "lora_r": "model.adapter.rank",
        "load_in_4bit": "model.quantize.kind",
        "target_modules": "model.adapter.targets",
    }


def test_a_module_trained_in_full_has_no_adapter_inside() -> None:
    """Breaks when only the module itself is looked at, and not what it is in."""
    section = Adapter(modules_to_save=("mlp",))
    assert saved(section, "layers.0.mlp.up")
    assert not saved(section, "layers.0.mlps.up")
    assert chosen(section, ["layers.0.mlp.up", "layers.0.query"], [], []) == ("layers.0.query",)
