"""Small random models of every family as `transformers` makes them, and folders of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wellfit.model.hub.load import Loaded, load_hub
from wellfit.model.transformer import Transformer
from wellfit.recipe.hub_config import family_of, model_facts
from wellfit.recipe.schema import Model

VOCABULARY = 61
SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 64, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LLAMA_3 = {
    "rope_type": "llama3", "rope_theta": 50.0, "factor": 8.0,
    "original_max_position_embeddings": 40, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
}  # fmt: skip
YARN = {
    "rope_type": "yarn", "rope_theta": 500.0, "factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
GEMMA_3 = {
    "full_attention": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
}
# A name → the class of its configuration, and what it has otherwise than SMALL.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64}),
    "gpt2 exact gelu": (
        "GPT2Config",
        {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "activation_function": "gelu"},
    ),
    "llama": ("LlamaConfig", {}),
    "llama tied": ("LlamaConfig", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    "llama 3": ("LlamaConfig", {"rope_parameters": LLAMA_3}),
    "llama biased": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("MistralConfig", {"sliding_window": 5}),
    "mistral wide": ("MistralConfig", {"sliding_window": None, "rope_parameters": YARN}),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}),
    "qwen2 window": (
        "Qwen2Config",
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 0},
    ),
    "qwen3": ("Qwen3Config", {"head_dim": 16}),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
    ),
    "qwen3_moe normalised": (
        "Qwen3MoeConfig",
        {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
         "norm_topk_prob": True},
    ),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4}),
    "gemma": ("GemmaConfig", {"head_dim": 16}),
    "gemma2": (
        "Gemma2Config",
        {"query_pre_attn_scalar": 8, "sliding_window": 7, "num_hidden_layers": 4,
         "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    ),
    "gemma3_text encoder": (
        "Gemma3TextConfig",
        {"query_pre_attn_scalar": 8, "sliding_window": 7, "num_hidden_layers": 4,
         "layer_types": ["sliding_attention", "full_attention"] * 2,
         "use_bidirectional_attention": True},
    ),
    "gemma3_text": (
        "Gemma3TextConfig",
        {"query_pre_attn_scalar": 8, "sliding_window": 7, "num_hidden_layers": 7,
         "rope_parameters": GEMMA_3},
    ),
}  # fmt: skip


def reference_of(kind: str, **changes: Any) -> Any:
    """A kind of KINDS → a model of `transformers` whose every weight is random."""
    import transformers

    name, own = KINDS[kind]
    values = {**SMALL, **own, **changes}
    if name == "GPT2Config":
        keys = ("vocab_size", "bos_token_id", "eos_token_id")
        values = {key: SMALL[key] for key in keys} | {**own, **changes}
    torch.manual_seed(len(kind))
    model = transformers.AutoModelForCausalLM.from_config(
        getattr(transformers, name)(**values), attn_implementation="eager"
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return model.eval()


def saved(model: Any, folder: Path, **how: Any) -> Path:
    """A model and a folder → the folder with the model, without the library's bars."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder, **how)
    return folder


def change_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """A folder and what to do with its `config.json`."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))


def section_of(facts: dict[str, Any]) -> tuple[Model, int]:
    """Settings as `model_facts` gives them → the section, and its vocabulary."""
    nested: dict[str, Any] = {}
    for path, value in facts.items():
        holder = nested
        *sections, key = path.split(".")
        for part in sections:
            holder = holder.setdefault(part, {})
        holder[key] = value
    section = Model.model_validate(nested)
    return section, section.vocabulary_size


def ours_of(folder: Path) -> tuple[Transformer, Loaded]:
    """A folder → our model with its weights, and what came of loading."""
    config = json.loads((folder / "config.json").read_text())
    model = Transformer(*section_of(model_facts(config)))
    return model, load_hub(model, folder, family_of(config))


def tokens(rows: int = 3, length: int = 24, seed: int = 1) -> torch.Tensor:
    return torch.randint(
        0, VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed)
    )


def far(ours: Any, reference: Any, ids: torch.Tensor | None = None) -> float:
    """The largest distance of logits; also that they are far from constant."""
    ids = tokens() if ids is None else ids
    with torch.no_grad():
        expected = reference(ids).logits
        found = ours.logits(ours.hidden(ids))
    assert expected.std() > 0.3
    return float((found - expected).abs().max())
