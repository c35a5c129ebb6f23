"""Weights in and out of the Hugging Face layout: logits equal those of `transformers` both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_families import (
    KINDS,
    change_config,
    far,
    ours_of,
    reference_of,
    saved,
    section_of,
    tokens,
)

from wellfit.model.hub.config import family_for, hub_config
from wellfit.model.hub.load import load_hub
from wellfit.model.hub.save import own_tensors, save_tensors, write_json
from wellfit.model.transformer import Transformer
from wellfit.recipe.hub_config import model_facts

transformers = pytest.importorskip("transformers")
STORIES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "model" / "stories260K"


def written(model: Any, folder: Path, **how: Any) -> Path:
    """Our model as a folder of the family that says it."""
    folder.mkdir()
    family = family_for(model.model)
    save_tensors(folder, own_tensors(model, family), **how)
    config = hub_config(model.model, family, vocabulary_size=model.vocabulary_size)
    write_json(folder / "config.json", config | {"bos_token_id": 1, "eos_token_id": 2})
    return folder


def loaded(folder: Path) -> Any:
    """The folder as `transformers` loads it, which must miss nothing and leave nothing over."""
    model, found = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    assert not any(found.values()), found
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers_loaded_and_saved(kind: str, tmp_path: Path) -> None:
    """Float32, ≤ 1e-5 times the largest logit; saved in several files and read by `transformers`.

    One is an encoder: the Gemma 3 of embedding models, which sees both sides.

    Breaks tried: leave `use_bidirectional_attention` out, read or written; swap w1 and w3 of
    Mixtral; leave the 1 off Gemma's norms; take GPT-2's keys from the first third of c_attn; leave
    a Conv1D unturned; count `global_every` from the wrong layer; write `rope_theta` alone where
    there is a scaling.
    """
    reference = reference_of(kind)
    with torch.no_grad():
        largest = float(reference(tokens()).logits.abs().max())
    ours, told = ours_of(saved(reference, tmp_path / "theirs"))
    assert told.told == ()
    assert told.filled == {name for name, _ in ours.named_parameters()}
    assert far(ours, reference) <= 1e-5 * max(1.0, largest)
    back = loaded(written(ours, tmp_path / "ours", shard_bytes=20_000))
    assert far(ours, back) <= 1e-5 * max(1.0, largest)
    assert back.config.model_type == reference.config.model_type or kind.startswith("mistral")


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_experts_that_stand_together_in_a_file_are_taken_apart(kind: str, tmp_path: Path) -> None:
    """As modules of `transformers` 5 hold them. Break: take `up` from the first half."""
    from safetensors.torch import save_file

    reference = reference_of(kind)
    folder = saved(reference, tmp_path / "theirs")
    save_file({name: one.clone() for name, one in reference.state_dict().items()},
              str(folder / "model.safetensors"))  # fmt: skip
    ours, _ = ours_of(folder)
    assert far(ours, reference) <= 1e-5 * 10


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_names_without_what_stands_in_front_are_found(kind: str, tmp_path: Path) -> None:
    """As OpenAI's GPT-2 files and bare base models have them, with old tables of masks beside.

    Break: look for the names of `save_pretrained` alone.
    """
    from safetensors.torch import load_file, save_file

    reference = reference_of(kind, tie_word_embeddings=True)
    folder = saved(reference, tmp_path / "theirs")
    weights = load_file(folder / "model.safetensors")
    bare = {name.split(".", 1)[1]: one for name, one in weights.items()}
    more = {"h.0.attn.bias": torch.ones(1, 1, 4, 4), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    save_file(bare | more if kind == "gpt2" else bare, str(folder / "model.safetensors"))
    ours, told = ours_of(folder)
    assert far(ours, reference) <= 1e-5 * 10
    assert told.told == ()


@pytest.mark.parametrize("before", ["language_model.model.", "model.language_model."])
def test_the_text_model_of_one_that_also_sees_is_taken(before: str, tmp_path: Path) -> None:
    """As files of Gemma 3 with images have it, and their configuration. Break: forget `text_config`
    or either prefix."""
    from safetensors.torch import load_file, save_file

    reference = reference_of("gemma3_text")
    folder = saved(reference, tmp_path / "theirs")
    weights = load_file(folder / "model.safetensors")
    moved = {before + name.removeprefix("model."): one for name, one in weights.items()}
    moved["vision_tower.patch.weight"] = torch.ones(2)
    save_file(moved, str(folder / "model.safetensors"))

    def nested(config: dict[str, Any]) -> None:
        inner = dict(config)
        config.clear()
        config.update(model_type="gemma3", text_config=inner, vision_config={"hidden_size": 2})

    change_config(folder, nested)
    ours, told = ours_of(folder)
    assert far(ours, reference) <= 1e-4
    assert told.told == ("1 tensor for images is left out",)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3", "gemma3_text"])
def test_a_head_of_classes_goes_out_and_in(kind: str, tmp_path: Path) -> None:
    """As …ForSequenceClassification, which reads the last token. Break: name the head as that of
    tokens is called."""
    folder = saved(reference_of(kind), tmp_path / "theirs")
    config = json.loads((folder / "config.json").read_text())
    facts = model_facts(config) | {"head": "classes", "classes": 3, "tie_embeddings": False}
    model = Transformer(*section_of(facts))
    assert load_hub(model, folder, kind).told
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(1))
    out = written(model, tmp_path / "ours")
    change_config(out, lambda told: told.update(pad_token_id=2))
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(out).eval()
    ids = tokens().clamp(min=3)
    with torch.no_grad():
        found = model.logits(model.hidden(ids))[:, -1]
        expected = theirs(ids).logits
    assert expected.std() > 0.3
    assert float((found - expected).abs().max()) <= 1e-4
    again = Transformer(*section_of(facts))
    assert load_hub(again, out, kind).told == ()


def test_configurations_of_transformers_4_mean_the_same(tmp_path: Path) -> None:
    """`rope_theta` and `rope_scaling` beside each other, and `type` for `rope_type`.

    Break: read `rope_parameters` alone.
    """
    reference = reference_of("llama 3")
    folder = saved(reference, tmp_path / "theirs")

    def older(config: dict[str, Any]) -> None:
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = {"type": rope.pop("rope_type"), **rope}

    change_config(folder, older)
    ours, _ = ours_of(folder)
    assert far(ours, reference) <= 1e-4
    gemma = reference_of("gemma3_text")
    folder = saved(gemma, tmp_path / "gemma")

    def older_gemma(config: dict[str, Any]) -> None:
        del config["rope_parameters"], config["layer_types"]
        config |= {"rope_theta": 1000.0, "rope_local_base_freq": 50.0, "sliding_window_pattern": 6}
        config["rope_scaling"] = {"rope_type": "linear", "factor": 4.0}

    change_config(folder, older_gemma)
    ours, _ = ours_of(folder)
    assert far(ours, gemma) <= 1e-4


def test_numbers_in_half_precision_are_read_and_written(tmp_path: Path) -> None:
    """bf16 in a file is float32 here, exactly; written in bf16 it is what it was.

    Break: write in float32 whatever was asked for.
    """
    folder = saved(reference_of("qwen3").to(torch.bfloat16), tmp_path / "theirs")
    ours, _ = ours_of(folder)
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert far(ours, reference.eval()) <= 1e-4
    back = written(ours, tmp_path / "ours", dtype=torch.bfloat16)
    size = (back / "model.safetensors").stat().st_size
    assert size < 0.6 * sum(one.numel() for one in ours.parameters()) * 4
    again, _ = ours_of(back)
    pairs = zip(again.parameters(), ours.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_steps_on_loaded_weights_are_those_of_transformers(tmp_path: Path) -> None:
    """Three of AdamW on both, from the same weights: all weights within 1e-5 afterwards.

    Break: detach the embedding where it is tied.
    """
    reference = reference_of("llama tied")
    ours, _ = ours_of(saved(reference, tmp_path / "theirs"))
    reference.train()
    pairs = [
        torch.optim.AdamW(one.parameters(), lr=1e-3, weight_decay=0.1) for one in (ours, reference)
    ]
    for step in range(3):
        ids = tokens(seed=step)
        labels = ids.roll(-1, 1)
        ours.token_loss(ours.hidden(ids), labels).mean().backward()
        logits = reference(ids).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
        for optimizer in pairs:
            optimizer.step()
            optimizer.zero_grad()
    expected = dict(reference.named_parameters())
    for name, weight in own_tensors(ours, "llama").items():
        torch.testing.assert_close(weight, expected[name].detach(), atol=1e-5, rtol=0)


def test_a_file_is_no_larger_than_was_asked(tmp_path: Path) -> None:
    """Shards, their index, and a tensor that is larger alone. Break: count numbers, not bytes."""
    ours, _ = ours_of(saved(reference_of("llama"), tmp_path / "theirs"))
    folder = written(ours, tmp_path / "ours", shard_bytes=12_000)
    files = sorted(folder.glob("model-*.safetensors"))
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(files) > 3
    assert set(index["weight_map"].values()) == {file.name for file in files}
    assert index["metadata"]["total_size"] == 4 * sum(one.numel() for one in ours.parameters())
    assert all(file.stat().st_size < 12_000 + 2_000 for file in files)


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs the shared data set")
def test_the_real_stories_go_on_as_they_did() -> None:
    """stories260K from its folder: logits, loss and 120 greedy tokens of an independent program.

    Break: leave out `num_key_value_heads`.
    """
    from wellfit.generation.generate import generate
    from wellfit.recipe.schema import Sampling

    ours, _ = ours_of(STORIES / "hf")
    told = json.loads((STORIES / "reference.json").read_text())
    prompt = told["prompt_ids"]
    with torch.no_grad():
        logits = ours.logits(ours.hidden(torch.tensor([prompt])))[0, -1]
    assert float((logits - torch.tensor(told["last_prompt_logits"])).abs().max()) <= 1e-4
    section = Sampling(tokens=len(told["greedy_ids"]) - len(prompt), temperature=0)
    assert [*prompt, *generate(ours, prompt, section)] == told["greedy_ids"]
