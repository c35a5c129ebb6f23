"""PEFT itself on the other side: its files and ours, its logits and gradients; refusals."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_models import gpt2, guest, ids, llama, loss_of, ours, shake
from safetensors.torch import load_file, save_file

from wellfit.errors import WellfitError
from wellfit.model.adapters.adapt import adapted, freeze
from wellfit.model.adapters.peft_files import CONFIG, WEIGHTS, load_peft, save_peft
from wellfit.recipe.schema import Adapter, Quantize

# PEFT warns that Conv1D is turned and that it saves a targeted table; both are as they should be.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
peft = pytest.importorskip("peft")

LLAMA = (llama, ["q_proj", "down_proj"], "embed_tokens", ["lm_head", "model.norm"])
GPT2 = (gpt2, ["c_attn", "c_proj"], "wte", ["ln_f"])
# Name → (model, kind, rslora, with the table, with modules_to_save, bias).
CASES: dict[str, tuple[Any, Any, bool, bool, bool, Any]] = {
    "lora": (LLAMA, "lora", False, False, False, "none"),
    "rslora": (LLAMA, "lora", True, False, False, "none"),
    "dora": (LLAMA, "dora", False, False, False, "none"),
    "a table": (LLAMA, "lora", False, True, False, "none"),
    "a table by dora": (LLAMA, "dora", True, True, False, "none"),
    "modules in full": (LLAMA, "lora", False, False, True, "none"),
    "biases of adapters": (LLAMA, "dora", False, False, False, "adapter"),
    "all biases": (LLAMA, "lora", False, True, True, "all"),
    "conv1d": (GPT2, "lora", False, False, False, "none"),
    "conv1d by dora, all of it": (GPT2, "dora", True, True, True, "all"),
    "a tied table": (GPT2, "lora", False, True, False, "adapter"),
}


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def theirs_of(case: str) -> Any:
    """The same adapter by PEFT, with noise in it."""
    (make, targets, table, whole), kind, rslora, tabled, full, bias = CASES[case]
    config = peft.LoraConfig(
        r=4, lora_alpha=12, use_rslora=rslora, use_dora=kind == "dora",
        target_modules=[*targets, *([table] if tabled else [])],
        modules_to_save=whole if full else None,
        bias={"none": "none", "adapter": "lora_only", "all": "all"}[bias],
    )  # fmt: skip
    model = peft.get_peft_model(make(), config)
    shake(model)
    return model.eval()


def ours_of(case: str) -> Any:
    (make, targets, table, whole), kind, rslora, tabled, full, bias = CASES[case]
    section = Adapter(
        rank=4, alpha=12, rslora=rslora, kind=kind, bias=bias,
        targets=(*targets, *([table] if tabled else [])),
        modules_to_save=tuple(whole) if full else (),
    )  # fmt: skip
    model = adapted(guest(make()), section)
    shake(model)
    return model


@pytest.mark.parametrize("case", CASES)
def test_peft_computes_what_we_saved(case: str, tmp_path: Path) -> None:
    """Breaks when a key, the scale, or the kind is written wrongly."""
    model = ours_of(case)
    save_peft(model, tmp_path)
    again = peft.PeftModel.from_pretrained(CASES[case][0][0](), tmp_path).eval()
    with torch.no_grad():
        assert (again(ids()).logits - model.hidden(ids())).abs().max() <= 1e-5


@pytest.mark.parametrize("case", CASES)
def test_we_compute_what_peft_saved(case: str, tmp_path: Path) -> None:
    """Logits, and the gradients of A, B, magnitudes and all else that is trained. Breaks when
    DoRA's length gets a gradient, or alpha is taken for the scale."""
    theirs = theirs_of(case)
    theirs.save_pretrained(tmp_path)
    model = guest(CASES[case][0][0]())
    freeze(model, Quantize())
    load_peft(model, tmp_path)
    model.train(False)
    logits = theirs(ids()).logits
    found = model.hidden(ids())
    assert (found - logits).abs().max() <= 1e-5
    labels = ids().roll(-1, 1)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
    loss_of(model, ids()).backward()
    wanted = {name: p.grad for name, p in theirs.named_parameters() if p.requires_grad}
    own = {name: p.grad for name, p in model.named_parameters()}
    assert len(own) == len(wanted)
    for name, gradient in wanted.items():
        plain = name.removeprefix("base_model.model.")
        for old, new in (
            (".default", ""), (".weight", ""), ("lora_embedding_", "lora_"), ("base_layer", "base"),
            ("lora_magnitude_vector", "magnitude"), (".modules_to_save", ""),
        ):  # fmt: skip
            plain = plain.replace(old, new)
        mine = own.get(plain, own.get(f"{plain}.weight"))
        assert mine is not None, plain
        assert (mine - gradient).abs().max() <= 1e-5, plain


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    model = ours_of("conv1d by dora, all of it")
    save_peft(model, tmp_path)
    again = guest(gpt2())
    freeze(again, Quantize())
    load_peft(again, tmp_path)
    tensors = dict(again.named_parameters())
    assert tensors.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(p, tensors[name]) for name, p in model.named_parameters())
    assert again.attached.section.model_copy(update={"targets": ()}) == (
        model.attached.section.model_copy(update={"targets": (), "modules_to_save": ()})
    )


NAMES = {
    "embedding": "model.embed_tokens", "head": "lm_head", "final_norm": "model.norm",
    **{
        f"blocks.{i}.{mine}": f"model.layers.{i}.{theirs}"
        for i in (0, 1)
        for mine, theirs in (
            ("attention.query", "self_attn.q_proj"), ("attention.key", "self_attn.k_proj"),
            ("attention.value", "self_attn.v_proj"), ("attention.output", "self_attn.o_proj"),
            ("feedforward.gate", "mlp.gate_proj"), ("feedforward.up", "mlp.up_proj"),
            ("feedforward.down", "mlp.down_proj"), ("attention_norm", "input_layernorm"),
            ("feedforward_norm", "post_attention_layernorm"),
        )
    },
}  # fmt: skip


def twin() -> tuple[Any, Any]:
    """Our transformer and transformers' Llama with the same weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    model = ours(qk_norm=False, norm_epsilon=1e-6)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        rms_norm_eps=1e-6,
    )  # fmt: skip
    theirs = LlamaForCausalLM(config).eval()
    state = {
        f"{NAMES[name.removesuffix('.weight')]}.weight": p for name, p in model.named_parameters()
    }
    theirs.load_state_dict(state)
    return model, theirs


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_an_adapter_of_our_transformer_works_by_peft_on_its_twin(kind: Any, tmp_path: Path) -> None:
    """Breaks when our names reach the file."""
    model, theirs = twin()
    section = Adapter(
        kind=kind, rank=4, targets=("all-linear", "embedding"), modules_to_save=("head",)
    )
    adapted(model, section)
    shake(model)
    model.train(False)
    save_peft(model, tmp_path, names=NAMES)
    again = peft.PeftModel.from_pretrained(theirs, tmp_path).eval()
    with torch.no_grad():
        wanted = model.logits(model.hidden(ids()))
        assert (again(ids()).logits - wanted).abs().max() <= 1e-5
        other, _ = twin()
        freeze(other, Quantize())
        load_peft(other, tmp_path, names=NAMES)
        other.train(False)
        assert torch.equal(other.logits(other.hidden(ids())), wanted)


def spoilt(folder: Path, **config: Any) -> Any:
    """Our files with some settings changed, and a base for them."""
    save_peft(ours_of("lora"), folder)
    told = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**told, **config}))
    model = guest(llama())
    freeze(model, Quantize())
    return model


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type IA3 is not known here"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices: not understood here"),
        ({"rank_pattern": {"q_proj": 2}, "lora_bias": True}, "rank_pattern, lora_bias: not"),
        ({"init_lora_weights": "pissa"}, r"init_lora_weights pissa \(which changes the base\)"),
    ],
)
def test_what_we_do_not_understand_is_refused_by_name(
    config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Breaks when unknown settings are passed over."""
    with pytest.raises(WellfitError, match=message):
        load_peft(spoilt(tmp_path, **config), tmp_path)


def test_damaged_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    model = spoilt(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    save_file({**tensors, "base_model.model.nowhere.lora_A.weight": torch.ones(4, 4)},
              tmp_path / WEIGHTS)  # fmt: skip
    with pytest.raises(WellfitError, match=r"nowhere\.lora_A\.weight belongs to no layer"):
        load_peft(model, tmp_path)
    table = "base_model.model.model.embed_tokens.base_layer.weight"
    save_file({**tensors, table: torch.ones(64, 32)}, tmp_path / WEIGHTS)
    with pytest.raises(WellfitError, match=r"the table model\.embed_tokens that it was trained on"):
        load_peft(model, tmp_path)
    (tmp_path / CONFIG).write_text("[]")
    with pytest.raises(WellfitError, match="it is no configuration of PEFT"):
        load_peft(model, tmp_path)
    (tmp_path / WEIGHTS).rename(tmp_path / "adapter_model.bin")
    with pytest.raises(WellfitError, match="its weights are pickled"):
        load_peft(model, tmp_path)
    with pytest.raises(WellfitError, match=r"there is no adapter_model\.safetensors"):
        load_peft(model, tmp_path / "nothing")


def test_what_pefts_format_cannot_say_is_refused(tmp_path: Path) -> None:
    """Breaks when a tied table of ours, or an unnamed layer, is written all the same."""
    model = adapted(ours(tie_embeddings=True), Adapter(modules_to_save=("embedding",)))
    with pytest.raises(WellfitError, match="and none are given"):
        save_peft(model, tmp_path)
    with pytest.raises(WellfitError, match="embedding and head at once was trained"):
        save_peft(model, tmp_path, names=NAMES)
    model = adapted(ours(), Adapter(modules_to_save=("blocks.0.attention.query_norm",)))
    with pytest.raises(WellfitError, match="query_norm has no name in a Hugging Face model"):
        save_peft(model, tmp_path, names=NAMES)
    model = adapted(guest(llama()), Adapter(modules_to_save=(r"model\.norm",)))
    model.module.inner_model = torch.nn.Module()
    model.module.inner_model.norm = torch.nn.Identity()
    with pytest.raises(WellfitError, match=r"PEFT would take model\.norm for"):
        save_peft(model, tmp_path)
    assert not list(tmp_path.iterdir())
