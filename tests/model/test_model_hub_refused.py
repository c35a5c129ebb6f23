"""Folders of weights that are damaged, incomplete, of another kind or dangerous: each told."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_families import change_config, far, ours_of, reference_of, saved, section_of

from wellfit.errors import CheckpointError, RunError
from wellfit.model.hub.config import family_for
from wellfit.model.hub.load import load_hub
from wellfit.model.hub.save import own_tensors, save_tensors
from wellfit.model.transformer import Transformer
from wellfit.recipe.base_weights import FaultyWeightsError, hub_base
from wellfit.recipe.hub_config import UnlikeError, model_facts
from wellfit.recipe.schema import Model

pytest.importorskip("transformers")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(reference_of("llama"), tmp_path / "weights")


def rewritten(folder: Path, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, str(folder / "model.safetensors"))


def refused(folder: Path, *parts: str) -> None:
    with pytest.raises(CheckpointError) as error:
        ours_of(folder)
    for part in parts:
        assert part in str(error.value)


def test_a_file_that_is_cut(folder: Path) -> None:
    """At its end, and within its head. Break: leave the library's own error as it is."""
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    refused(folder, "model.safetensors", "cut short or damaged", "Copy or download the file again")
    file.write_bytes(whole[:50])
    refused(folder, "cut short or damaged")


def test_missing_left_over_and_of_another_shape_are_named_together(folder: Path) -> None:
    """Before a weight changes. Breaks: stop at the first fault; copy while looking."""

    def change(weights: dict[str, torch.Tensor]) -> None:
        del weights["model.norm.weight"]
        weights["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 32)
        weights["model.layers.7.mlp.up_proj.weight"] = torch.zeros(48, 32)

    rewritten(folder, change)
    refused(
        folder,
        "1 tensor is missing: model.norm.weight",
        "1 tensor is of another shape: model.layers.0.mlp.up_proj.weight is (3, 32), not (48, 32)",
        "1 tensor is left over: model.layers.7.mlp.up_proj.weight",
    )
    config = json.loads((folder / "config.json").read_text())
    model = Transformer(*section_of(model_facts(config)))
    with pytest.raises(CheckpointError):
        load_hub(model, folder, "llama")
    assert all(bool(weight.isnan().all()) for weight in model.parameters())


def test_pickled_weights_are_not_opened(folder: Path, tmp_path: Path) -> None:
    """The file would write another one if it were. Break: load it with torch.load."""
    witness = tmp_path / "witness"

    class Harm:
        def __reduce__(self) -> Any:
            return Path.write_text, (witness, "opened")

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Harm()))
    refused(folder, "pytorch_model.bin", "can run code", "save_pretrained")
    assert not witness.exists()


def test_a_folder_without_weights_and_an_index_without_its_files(folder: Path) -> None:
    """Break: open whatever path an index names."""
    (folder / "model.safetensors").unlink()
    refused(folder, "neither model.safetensors nor model.safetensors.index.json")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}}))
    refused(folder, "model-00001-of-00002.safetensors is missing")
    index.write_text(json.dumps({"weight_map": {"a": "../../elsewhere.safetensors"}}))
    refused(folder, "'../../elsewhere.safetensors', which is no file of this folder")
    index.write_text("{")
    refused(folder, "does not say which file holds which tensor")


def test_quantized_numbers_are_not_taken_for_weights(folder: Path) -> None:
    """Break: cast whatever stands there to float32."""
    rewritten(folder, lambda w: w.update({"model.norm.weight": torch.ones(32, dtype=torch.uint8)}))
    refused(folder, "model.norm.weight holds uint8", "quantized")
    change_config(folder, lambda c: c.update(quantization_config={"bits": 4}))
    with pytest.raises(UnlikeError, match="its weights are quantized"):
        model_facts(json.loads((folder / "config.json").read_text()))


@pytest.mark.parametrize(
    ("kind", "change", "told"),
    [
        ("llama", {"rope_parameters": {"rope_type": "longrope", "factor": 2.0}}, "rope_type longr"),
        ("llama", {"hidden_act": "relu"}, "hidden_act relu is none of silu"),
        ("llama", {"attention_bias": True}, "gives biases to a part of the linear layers"),
        ("llama", {"hidden_size": None}, "hidden_size is None, not a whole number"),
        ("llama", {"rope_parameters": {"rope_type": "linear"}}, "rope_type linear has no factor"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True"),
        ("gemma2", {"query_pre_attn_scalar": 144}, "query_pre_attn_scalar 144"),
        ("gemma2", {"use_bidirectional_attention": True}, "tokens read later ones"),
        ("gemma2", {"layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 2}, "pattern"),
        ("gemma2", {"layer_types": ["chunked_attention"] * 4}, "layer_types"),
        ("qwen3_moe", {"mlp_only_layers": [1]}, "mlp_only_layers [1]"),
    ],
)
def test_what_our_parts_do_not_do_is_refused(
    kind: str, change: dict[str, Any], told: str, tmp_path: Path
) -> None:
    """With transformers itself as the way out. Break: take an unknown rope for the plain one."""
    folder = saved(reference_of(kind), tmp_path / "weights")
    change_config(folder, lambda config: config.update(change))
    with pytest.raises(FaultyWeightsError) as error:
        hub_base(folder)
    assert told in str(error.value)
    assert "set model.architecture to transformers" in str(error.value)


def test_a_wider_vocabulary_begins_as_the_mean(folder: Path) -> None:
    """And the old entries as they were. Break: the mean over the new rows too."""
    config = json.loads((folder / "config.json").read_text())
    facts = model_facts(config) | {"vocabulary_size": 64}
    wide = Transformer(*section_of(facts))
    told = load_hub(wide, folder, "llama").told
    assert told == (
        "the vocabulary grows from 61 to 64 entries, the new ones being the mean of the others",
    )
    ours, _ = ours_of(folder)
    for table, old in ((wide.embedding, ours.embedding), (wide.head, ours.head)):
        assert torch.equal(table.weight[:61], old.weight)
        torch.testing.assert_close(table.weight[61:], old.weight.mean(0).expand(3, -1))


def test_fewer_learned_positions_are_the_first(tmp_path: Path) -> None:
    """Break: take the last ones."""
    reference = reference_of("gpt2")
    folder = saved(reference, tmp_path / "weights")
    config = json.loads((folder / "config.json").read_text())
    short = Transformer(*section_of(model_facts(config) | {"context": 24}))
    told = load_hub(short, folder, "gpt2").told
    assert told == ("of 64 learned positions the first 24 are taken",)
    assert far(short, reference) <= 1e-4


def test_another_head_is_drawn_anew_on_the_same_backbone(folder: Path) -> None:
    """Break: refuse the head of tokens as left over."""
    config = json.loads((folder / "config.json").read_text())
    facts = model_facts(config) | {"head": "classes", "classes": 3}
    model = Transformer(*section_of(facts))
    found = load_hub(model, folder, "llama")
    assert found.told == ("the head for classes is drawn anew: the weights have none",)
    assert {name for name, _ in model.named_parameters()} - found.filled == {"head.weight"}
    ours, _ = ours_of(folder)
    assert torch.equal(
        model.blocks[2].feedforward.down.weight, ours.blocks[2].feedforward.down.weight
    )


def test_numbers_that_half_precision_does_not_hold(folder: Path, tmp_path: Path) -> None:
    """In fp16 they would be infinite; in bf16 they are not. Break: write them all the same."""
    ours, _ = ours_of(folder)
    with torch.no_grad():
        ours.final_norm.weight[3] = 70_000.0
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(CheckpointError) as error:
        save_tensors(out, own_tensors(ours, "llama"), dtype=torch.float16)
    assert "model.norm.weight has numbers above 65,504" in str(error.value)
    assert "Write bf16 or fp32" in str(error.value)
    save_tensors(out, own_tensors(ours, "llama"), dtype=torch.bfloat16)


def test_what_no_architecture_says_is_not_exported() -> None:
    """Each setting in the way is named. Break: take the family with the fewest differences."""
    shape = {"context": 8, "layers": 1, "width": 8, "heads": 1, "kv_heads": 1, "hidden": 8}
    with pytest.raises(RunError) as error:
        family_for(Model(**shape, activation="relu2", logit_soft_cap=3.0))
    assert "nearest, qwen3, would need" in str(error.value)
    assert "model.activation swiglu (not relu2)" in str(error.value)
    assert "model.logit_soft_cap 0.0 (not 3.0)" in str(error.value)
    with pytest.raises(RunError, match=r"model\.kind decoder"):
        family_for(Model(**shape, kind="encoder", qk_norm=False))
    assert family_for(Model(**shape)) == "qwen3"
    assert family_for(Model(**shape, qk_norm=False, window=4)) == "mistral"
