"""Our weights and sections as `transformers` has them, and how far the two are apart.

Names and changes are those that the product loads and saves by.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wellfit.model.hub.names import fused_names, joined


def hub_weights(model: Any, family: str) -> dict[str, Tensor]:
    """Our weights by the names of a module of `transformers`; a tied head stands there too."""
    weights = joined(fused_names(model.model, family), dict(model.named_parameters()))
    table = "transformer.wte.weight" if family == "gpt2" else "model.embed_tokens.weight"
    weights.setdefault("lm_head.weight", weights[table])
    return weights


def hub_name(model: Any, family: str, name: str) -> str:
    """A parameter of ours → its name there."""
    return fused_names(model.model, family)[name].names[0]


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
