"""Our weights and sections as `transformers` has them, and how far the two are apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BLOCK = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.key.weight": "self_attn.k_proj.weight",
    "attention.value.weight": "self_attn.v_proj.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "attention.query_norm.weight": "self_attn.q_norm.weight",
    "attention.key_norm.weight": "self_attn.k_norm.weight",
    "feedforward_norm.weight": "post_attention_layernorm.weight",
    "feedforward.gate.weight": "mlp.gate_proj.weight",
    "feedforward.up.weight": "mlp.up_proj.weight",
    "feedforward.down.weight": "mlp.down_proj.weight",
    "attention.query.bias": "self_attn.q_proj.bias",
    "attention.key.bias": "self_attn.k_proj.bias",
    "attention.value.bias": "self_attn.v_proj.bias",
}
# Gemma 2 and 3 have norms on both sides, so that the names of the inner ones differ.
POST_NORM = BLOCK | {
    "attention_post_norm.weight": "post_attention_layernorm.weight",
    "feedforward_norm.weight": "pre_feedforward_layernorm.weight",
    "feedforward_post_norm.weight": "post_feedforward_layernorm.weight",
}
OUTSIDE = {
    "embedding.weight": "model.embed_tokens.weight",
    "final_norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}


def as_llama(name: str, block: dict[str, str] = BLOCK) -> str:
    if name in OUTSIDE:
        return OUTSIDE[name]
    _, layer, rest = name.split(".", 2)
    return f"model.layers.{layer}.{block[rest]}"


def llama_weights(model: Any) -> dict[str, Tensor]:
    weights = {as_llama(name): weight.detach() for name, weight in model.named_parameters()}
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    return weights


def gemma_weights(model: Any) -> dict[str, Tensor]:
    """Gemma's norms multiply by 1 + w."""
    block = POST_NORM if model.model.post_norm else BLOCK
    weights = {
        as_llama(name, block): weight.detach() - (1 if model.roles()[name] == "norm" else 0)
        for name, weight in model.named_parameters()
    }
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    return weights


def mixtral_weights(model: Any) -> dict[str, Tensor]:
    """`transformers` keeps gate and up of all experts in one tensor."""
    ours = {name: weight.detach() for name, weight in model.named_parameters()}
    weights = {
        as_llama(name): weight for name, weight in ours.items() if ".feedforward." not in name
    }
    for layer in range(len(model.blocks)):
        old, new = f"blocks.{layer}.feedforward.", f"model.layers.{layer}.mlp."
        both = (ours[f"{old}gate.weight"], ours[f"{old}up.weight"])
        weights |= {
            f"{new}gate.weight": ours[f"{old}router.weight"],
            f"{new}experts.gate_up_proj": torch.cat(both, dim=1),
            f"{new}experts.down_proj": ours[f"{old}down.weight"],
        }
    return weights


def llama_config(kind: Any, section: Any, vocabulary_size: int, **more: Any) -> Any:
    values = {
        "vocab_size": vocabulary_size,
        "hidden_size": section.width,
        "intermediate_size": section.hidden,
        "num_hidden_layers": section.layers,
        "num_attention_heads": section.heads,
        "num_key_value_heads": section.kv_heads,
        "head_dim": section.features_per_head,
        "max_position_embeddings": section.context,
        "rms_norm_eps": section.norm_epsilon,
        "rope_theta": section.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": section.rope_base},
        "tie_word_embeddings": section.tie_embeddings,
        "attn_implementation": "eager",
    }
    return kind(**values | more)


def difference(model: Any, reference: Any, context: int) -> float:
    """Largest distance of logits and of losses; also that the logits are far from constant."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, model.vocabulary_size, (3, context), generator=generator)
    with torch.no_grad():
        expected = reference.eval()(tokens).logits
        hidden = model.hidden(tokens)
        actual = model.logits(hidden)
        labels = tokens.roll(-1, 1)
        losses = model.token_loss(hidden, labels)
    assert expected.std() > 0.3
    wanted = torch.nn.functional.cross_entropy(expected.transpose(1, 2), labels, reduction="none")
    return max(float((actual - expected).abs().max()), float((losses - wanted).abs().max()))
