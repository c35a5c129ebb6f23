"""A model section in; the family that computes exactly the same, and its `config.json`, out.

Whether a family can say everything is not listed but tried: the configuration that is written is
read back (`recipe.hub_config`), and what it then says must be what the section said.
"""

from __future__ import annotations

from typing import Any

from wellfit.errors import RunError
from wellfit.recipe.hub_config import FAMILIES, UnlikeError, model_facts
from wellfit.recipe.schema import Model

CLASSES = {
    "gpt2": "GPT2", "llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3",
    "qwen3_moe": "Qwen3Moe", "mixtral": "Mixtral", "gemma": "Gemma", "gemma2": "Gemma2",
    "gemma3_text": "Gemma3",
}  # fmt: skip
ACTIVATIONS = {"swiglu": "silu", "geglu": "gelu_pytorch_tanh", "gelu_tanh": "gelu_new",
               "gelu": "gelu", "relu2": "relu2"}  # fmt: skip
# Settings that change nothing in what is computed, or that a family without them need not say.
_FREE = ("context", "vocabulary_size")
_SCALINGS = {
    "factor": ("linear", "llama3", "yarn"),
    "original_context": ("llama3", "yarn"),
    "low_factor": ("llama3",),
    "high_factor": ("llama3",),
    "beta_fast": ("yarn",),
    "beta_slow": ("yarn",),
    "attention_factor": ("yarn",),
}


def family_for(model: Model, wanted: str = "") -> str:
    """A model section → the first family that computes exactly the same; `wanted` is tried first.

    Raises RunError naming the settings that stand in the way of the nearest one.

    >>> family_for(Model(context=8, layers=1, width=8, heads=1, kv_heads=1, hidden=8,
    ...                  qk_norm=False))
    'llama'
    """
    order = ("llama", *(name for name in FAMILIES if name != "llama"))
    order = (wanted, *(name for name in order if name != wanted)) if wanted else order
    ways = {family: differences(model, family) for family in order}
    for family, different in ways.items():
        if not different:
            return family
    nearest = min(ways, key=lambda family: len(ways[family]))
    raise RunError(
        f"no architecture of the Hugging Face layout computes what this model does; the nearest, "
        f"{nearest}, would need {', '.join(ways[nearest])}",
        where="export",
        way_out="Its weights stay usable here, in its run folder. For an export train with a "
        "published shape, such as model.preset=llama3.2-1b, or these settings.",
    )


def differences(model: Model, family: str) -> list[str]:
    """A model section and a family → the settings that the family would have otherwise."""
    known = ("gelu", "gelu_tanh") if family == "gpt2" else ("swiglu", "geglu")
    # Read back with an activation that the family has, so that all other differences are seen too.
    usual = model.activation if model.activation in known else known[-1 if family == "gpt2" else 0]
    spoken = model.model_copy(update={"activation": usual})
    try:
        facts = model_facts(hub_config(spoken, family, vocabulary_size=model.vocabulary_size or 2))
    except UnlikeError as unlike:
        return [str(unlike)]
    dumped = model.model_dump()
    found = []
    for path, fact in facts.items():
        section, _, key = path.rpartition(".")
        ours = dumped[section][key] if section else dumped[key]
        if path in _FREE or _unsaid(path, model):
            continue
        if path == "head_width":
            ours = model.features_per_head
        if path == "experts.hidden" and model.experts.count:
            ours, fact = model.expert_hidden, fact or facts["hidden"]
        if path == "hidden" and model.experts.count:
            ours = model.expert_hidden
        if path == "tie_embeddings" and model.head != "tokens":
            continue
        if ours != fact:
            told = str(fact).lower() if isinstance(fact, bool) else fact
            found.append(f"model.{path} {told} (not {str(ours).lower()})")
    if model.head == "span":
        found.append(f"model.head tokens (not {model.head})")
    return found


def _unsaid(path: str, model: Model) -> bool:
    """Whether a setting does nothing in this model, so that nobody need say it."""
    if path.startswith("rope_scaling.") and path != "rope_scaling.kind":
        return model.rope_scaling.kind not in _SCALINGS[path.rpartition(".")[2]]
    if path.startswith("experts.") and path != "experts.count":
        return not model.experts.count
    if path in ("rope_base", "rotary_share", "rope_scaling.kind"):
        return model.position == "learned"
    return path == "base_head_width" and not model.base_width


def hub_config(
    model: Model,
    family: str,
    *,
    vocabulary_size: int,
    longest: int = 0,
    dtype: str = "float32",
) -> dict[str, Any]:
    """A model section and a family → its `config.json`, ids of special tokens left to the caller.

    `longest` is the most tokens that it is for, by default the section's context. What the family
    cannot say is left out: `family_for` looks at that.
    """
    classes = model.head == "classes"
    built = "GPT2LMHeadModel" if family == "gpt2" else f"{CLASSES[family]}ForCausalLM"
    if classes:
        named = "Gemma3Text" if family == "gemma3_text" else CLASSES[family]
        built = f"{named}ForSequenceClassification"
    common = {
        "architectures": [built],
        "model_type": family,
        "vocab_size": vocabulary_size,
        "tie_word_embeddings": model.tie_embeddings,
        "dtype": dtype,
        "use_cache": True,
    }
    if classes:
        common |= {"num_labels": model.classes, "id2label": {}, "label2id": {}}
    longest = longest or model.context
    if family == "gpt2":
        return common | {
            "n_positions": model.context,
            "n_embd": model.width,
            "n_layer": model.layers,
            "n_head": model.heads,
            "n_inner": model.hidden,
            "activation_function": ACTIVATIONS[model.activation],
            "layer_norm_epsilon": model.norm_epsilon,
            "attn_pdrop": model.dropout,
            "embd_pdrop": model.dropout,
            "resid_pdrop": model.dropout,
        }
    common |= {
        "hidden_size": model.width,
        "intermediate_size": model.expert_hidden if family == "mixtral" else model.hidden,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.features_per_head,
        "max_position_embeddings": longest,
        "rms_norm_eps": model.norm_epsilon,
        "hidden_act": ACTIVATIONS[model.activation],
        "rope_parameters": _rope(model),
        # As versions before 5 read them.
        "rope_theta": model.rope_base,
    }
    return common | _own(model, family)


def _own(model: Model, family: str) -> dict[str, Any]:
    """What a family says beside what all of them do."""
    experts = {
        "num_experts_per_tok": model.experts.active,
        "router_aux_loss_coef": model.experts.balance_loss,
    }
    kinds = [
        "sliding_attention" if model.is_local(layer) else "full_attention"
        for layer in range(model.layers)
    ]
    gemma = {
        "hidden_activation": ACTIVATIONS[model.activation],
        "query_pre_attn_scalar": model.features_per_head,
        "sliding_window": model.window or 4096,
        "layer_types": kinds,
        "attn_logit_softcapping": model.attention_soft_cap or None,
        "final_logit_softcapping": model.logit_soft_cap or None,
    }
    qwen = {
        "use_sliding_window": bool(model.window),
        "sliding_window": model.window or None,
        "layer_types": kinds,
    }
    match family:
        case "llama":
            return {"attention_bias": model.bias, "mlp_bias": model.bias}
        case "mistral":
            return {"sliding_window": model.window or None}
        case "qwen2":
            return {**qwen, "max_window_layers": 0 if model.window else model.layers}
        case "qwen3":
            told = {"max_window_layers": 0 if model.window else model.layers}
            return {**qwen, **told, "attention_bias": False}
        case "mixtral":
            number = {"num_local_experts": model.experts.count or 1}
            return {**experts, **number, "sliding_window": model.window or None}
        case "qwen3_moe":
            return {
                **experts,
                "num_experts": model.experts.count or 1,
                "moe_intermediate_size": model.expert_hidden,
                "norm_topk_prob": model.experts.normalise,
                "decoder_sparse_step": 1,
                "mlp_only_layers": [],
                "attention_bias": False,
            }
        case "gemma2":
            return gemma
        case "gemma3_text":
            local = model.rope_local_base or model.rope_base
            wide = _rope(model)
            near = {"rope_type": "default", "rope_theta": local}
            if not (model.window and model.rope_local_base):
                near = wide
            return {
                **gemma,
                "rope_parameters": {"full_attention": wide, "sliding_attention": near},
                "rope_local_base_freq": local,
                "use_bidirectional_attention": model.kind == "encoder",
            }
        case _:
            return {}


def _rope(model: Model) -> dict[str, Any]:
    scaling = model.rope_scaling
    kind = "default" if scaling.kind == "none" else scaling.kind
    told: dict[str, Any] = {"rope_type": kind, "rope_theta": model.rope_base}
    if model.rotary_share != 1:
        told["partial_rotary_factor"] = model.rotary_share
    if kind == "default":
        return told
    told["factor"] = scaling.factor
    if kind != "linear":
        told["original_max_position_embeddings"] = scaling.original_context
    if kind == "llama3":
        told |= {"low_freq_factor": scaling.low_factor, "high_freq_factor": scaling.high_factor}
    if kind == "yarn":
        told |= {"beta_fast": scaling.beta_fast, "beta_slow": scaling.beta_slow}
        if scaling.attention_factor:
            told["attention_factor"] = scaling.attention_factor
    return told
