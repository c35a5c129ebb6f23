"""A `config.json` of Hugging Face in; the settings of `model` that say the same, dotted, out.

Every setting that decides what a model computes is given, also where it is the usual one, so that
nothing else can stand beside the weights. What none of our parts does is refused and never left
out. Left-out keys mean what the classes of `transformers` 5 take for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Config = Mapping[str, Any]


class UnlikeError(ValueError):
    """What a configuration asks for and our parts do not do, as a sentence."""


PLAIN: dict[str, Any] = {
    "kind": "decoder", "encoder_layers": 0, "experts.count": 0, "experts.shared": 0,
    "position": "rotary", "rope_base": 10_000.0, "rope_scaling.kind": "none",
    "rope_local_base": 0.0, "rotary_share": 1.0, "window": 0, "global_every": 0,
    "attention_soft_cap": 0.0, "norm": "rmsnorm", "norm_epsilon": 1e-6, "post_norm": False,
    "activation": "swiglu", "bias": False, "qkv_bias": False, "qk_norm": False,
    "tie_embeddings": False, "scale_embeddings": False, "logit_soft_cap": 0.0, "base_width": 0,
    "base_head_width": 0,
}  # fmt: skip
"""A decoder as Llama is one: what a family changes stands in its own function."""
ACTIVATIONS = {"silu": "swiglu", "swish": "swiglu", "gelu_pytorch_tanh": "geglu",
               "gelu_new": "geglu", "gelu_fast": "geglu"}  # fmt: skip
UNGATED = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh",
           "gelu_fast": "gelu_tanh"}  # fmt: skip
ROPE_KINDS = {"default": "none", "linear": "linear", "llama3": "llama3", "yarn": "yarn"}


def family_of(config: Config) -> str:
    """A configuration → its family, one of FAMILIES, or nothing where it is another architecture.

    >>> family_of({"model_type": "qwen3"}), family_of({"model_type": "mamba"})
    ('qwen3', '')
    """
    kind = config.get("model_type")
    kind = "gemma3_text" if kind == "gemma3" else kind
    return kind if isinstance(kind, str) and kind in FAMILIES else ""


def text_config(config: Config) -> Config:
    """A configuration → that of its text model, where it also has one for images."""
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, Mapping) else config


def model_facts(config: Config) -> dict[str, Any]:
    """A configuration of one of FAMILIES → settings of `model`; `context` is the longest it has.

    Raises UnlikeError for what our parts do not do, and for a number that is missing or none.

    >>> facts = model_facts({"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2,
    ...                      "num_attention_heads": 4, "intermediate_size": 96, "vocab_size": 99})
    >>> facts["width"], facts["kv_heads"], facts["rope_base"], facts["vocabulary_size"]
    (64, 4, 10000.0, 99)
    """
    if config.get("quantization_config"):
        raise UnlikeError(
            "its weights are quantized, and training begins with whole numbers of bits"
        )
    facts = {**PLAIN, **FAMILIES[family_of(config)](text_config(config))}
    return {key: float(value) if key in FLOATS else value for key, value in facts.items()}


FLOATS = (
    "rope_base", "rope_local_base", "rotary_share", "norm_epsilon", "attention_soft_cap",
    "logit_soft_cap", "rope_scaling.factor", "rope_scaling.low_factor", "rope_scaling.high_factor",
    "rope_scaling.beta_fast", "rope_scaling.beta_slow", "rope_scaling.attention_factor",
)  # fmt: skip


def _gpt2(config: Config) -> dict[str, Any]:
    for key in ("scale_attn_by_inverse_layer_idx", "add_cross_attention"):
        _only(config, key, False, False)
    _only(config, "scale_attn_weights", True, True)
    width, heads = _whole(config, "n_embd", 768), _whole(config, "n_head", 12)
    return {
        "context": _whole(config, "n_positions", 1024),
        "layers": _whole(config, "n_layer", 12),
        "width": width,
        "heads": heads,
        "kv_heads": heads,
        "head_width": width // heads,
        "hidden": config.get("n_inner") or 4 * width,
        "vocabulary_size": _whole(config, "vocab_size", 50_257),
        "position": "learned",
        "norm": "layernorm",
        "norm_epsilon": config.get("layer_norm_epsilon", 1e-5),
        "activation": _activation(config, "activation_function", "gelu_new", UNGATED),
        "bias": True,
        "tie_embeddings": config.get("tie_word_embeddings", True),
    }


def _like_llama(
    config: Config, *, context: int, activation: str = "silu", tied: bool = False
) -> dict[str, Any]:
    """What all that came after Llama have in common."""
    width, heads = _whole(config, "hidden_size"), _whole(config, "num_attention_heads")
    acts = [key for key in ("hidden_activation", "hidden_act") if config.get(key)]
    return {
        "context": _whole(config, "max_position_embeddings", context),
        "layers": _whole(config, "num_hidden_layers"),
        "width": width,
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads") or heads,
        "head_width": config.get("head_dim") or width // heads,
        "hidden": _whole(config, "intermediate_size"),
        "vocabulary_size": _whole(config, "vocab_size"),
        "norm_epsilon": config.get("rms_norm_eps", 1e-6),
        "activation": _activation(config, (acts or ["hidden_act"])[0], activation, ACTIVATIONS),
        "tie_embeddings": config.get("tie_word_embeddings", tied),
    }


def _llama(config: Config) -> dict[str, Any]:
    of_attention, of_rest = config.get("attention_bias", False), config.get("mlp_bias", False)
    if bool(of_attention) != bool(of_rest):
        raise UnlikeError(
            f"attention_bias {of_attention} with mlp_bias {of_rest} gives biases to a part of the "
            "linear layers"
        )
    _only(config, "pretraining_tp", 1, 1)
    return {
        **_like_llama(config, context=2048),
        **_rotary(config, 10_000.0),
        "bias": bool(of_attention),
    }


def _mistral(config: Config) -> dict[str, Any]:
    window = config.get("sliding_window", 4096) or 0
    return {**_like_llama(config, context=131_072), **_rotary(config, 10_000.0), "window": window}


def _qwen2(config: Config) -> dict[str, Any]:
    return {
        **_like_llama(config, context=32_768),
        **_rotary(config, 10_000.0),
        **_qwen_window(config),
        "qkv_bias": True,
    }


def _qwen3(config: Config) -> dict[str, Any]:
    _only(config, "attention_bias", False, False)
    found = _like_llama(config, context=32_768)
    return {
        **found,
        **_rotary(config, 10_000.0),
        **_qwen_window(config),
        "head_width": config.get("head_dim") or 128,
        "qk_norm": True,
    }


def _qwen3_moe(config: Config) -> dict[str, Any]:
    _only(config, "decoder_sparse_step", 1, 1)
    _only(config, "mlp_only_layers", [], [])
    number = config.get("num_experts", config.get("num_local_experts", 128))
    hidden = _whole(config, "moe_intermediate_size", 768)
    found = _qwen3({**config, "intermediate_size": hidden})
    mixed = _mixture(config, number, bool(config.get("norm_topk_prob", False)), 8)
    return {
        **found,
        **mixed,
        "head_width": config.get("head_dim") or found["width"] // found["heads"],
    }


def _mixtral(config: Config) -> dict[str, Any]:
    number = config.get("num_local_experts", config.get("num_experts", 8))
    return {
        **_like_llama(config, context=131_072),
        **_rotary(config, 1_000_000.0),
        **_mixture(config, number, True, 2),
        "norm_epsilon": config.get("rms_norm_eps", 1e-5),
        "window": config.get("sliding_window") or 0,
    }


def _mixture(config: Config, count: int, normalise: bool, active: int) -> dict[str, Any]:
    return {
        "experts.count": count,
        "experts.active": _whole(config, "num_experts_per_tok", active),
        "experts.hidden": 0,
        "experts.normalise": normalise,
    }


def _gemma(config: Config) -> dict[str, Any]:
    _only(config, "attention_bias", False, False)
    both_sides = config.get("use_bidirectional_attention")
    if both_sides and not str(config.get("model_type")).startswith("gemma3"):
        raise UnlikeError("use_bidirectional_attention lets tokens read later ones")
    # The first Gemma files said `gelu` and meant its tanh form, which `transformers` takes.
    acts = {**ACTIVATIONS, "gelu": "geglu"} if config.get("model_type") == "gemma" else ACTIVATIONS
    found = _like_llama(
        {**config, "hidden_act": "gelu_pytorch_tanh", "hidden_activation": None},
        context=8192,
        tied=True,
    )
    named = config.get("hidden_activation") or config.get("hidden_act") or "gelu_pytorch_tanh"
    return {
        **found,
        **_rotary(config, 10_000.0),
        "activation": _activation({"hidden_activation": named}, "hidden_activation", named, acts),
        "head_width": config.get("head_dim") or 256,
        "scale_embeddings": True,
    }


def _gemma2(config: Config) -> dict[str, Any]:
    return {
        **_gemma_later(config),
        **_rotary(config, 10_000.0),
        **_windows(config, _whole(config, "sliding_window", 4096), every=2),
        "attention_soft_cap": config.get("attn_logit_softcapping", 50.0) or 0.0,
        "logit_soft_cap": config.get("final_logit_softcapping", 30.0) or 0.0,
    }


def _gemma3(config: Config) -> dict[str, Any]:
    every = config.get("sliding_window_pattern", config.get("_sliding_window_pattern", 6))
    ropes = config.get("rope_parameters")
    nested = isinstance(ropes, Mapping) and "full_attention" in ropes
    wide = {**config, "rope_parameters": ropes["full_attention"]} if nested else config  # type: ignore[index]
    local = config.get("rope_local_base_freq", 10_000.0)
    if nested and "sliding_attention" in ropes:  # type: ignore[operator]
        near = _rope(ropes["sliding_attention"])  # type: ignore[index]
        if near.get("rope_type", "default") != "default":
            raise UnlikeError(f"rope_type {near['rope_type']} in layers with a window")
        local = near.get("rope_theta", local)
    windows = _windows(config, _whole(config, "sliding_window", 4096), every=every)
    return {
        **_gemma_later(config),
        "context": _whole(config, "max_position_embeddings", 131_072),
        **_rotary(wide, 1_000_000.0),
        **windows,
        "rope_local_base": local if windows["window"] else 0.0,
        "attention_soft_cap": config.get("attn_logit_softcapping") or 0.0,
        "logit_soft_cap": config.get("final_logit_softcapping") or 0.0,
        "qk_norm": True,
        "kind": "encoder" if config.get("use_bidirectional_attention") else "decoder",
    }


def _gemma_later(config: Config) -> dict[str, Any]:
    found = {**_gemma({**config, "rope_parameters": None, "rope_scaling": None}), "post_norm": True}
    scale = config.get("query_pre_attn_scalar", 256)
    if scale != found["head_width"]:
        raise UnlikeError(
            f"query_pre_attn_scalar {scale} scales scores by another number than the "
            f"{found['head_width']} features of a head"
        )
    return found


def _qwen_window(config: Config) -> dict[str, Any]:
    if not config.get("use_sliding_window"):
        return {}
    layers = _whole(config, "num_hidden_layers")
    first = config.get("max_window_layers", 28)
    if not isinstance(first, int):
        raise UnlikeError(f"max_window_layers is {first!r}, not a whole number")
    kinds = ["full_attention"] * min(first, layers)
    kinds += ["sliding_attention"] * (layers - len(kinds))
    told = {"layer_types": kinds, **{k: v for k, v in config.items() if v is not None}}
    return _windows(told, config.get("sliding_window") or 4096, every=0)


def _windows(config: Config, window: int, *, every: int) -> dict[str, Any]:
    """Which layers have a window, as `window` and `global_every`; `every` where no list says it."""
    layers = _whole(config, "num_hidden_layers")
    kinds = config.get("layer_types") or [
        "sliding_attention" if not every or (layer + 1) % every else "full_attention"
        for layer in range(layers)
    ]
    known = {"sliding_attention": True, "full_attention": False}
    if not isinstance(kinds, Sequence) or len(kinds) != layers or set(kinds) - known.keys():
        raise UnlikeError(f"layer_types {kinds} are not one of {', '.join(known)} a layer")
    local = [known[kind] for kind in kinds]
    if not any(local):
        return {"window": 0, "global_every": 0}
    n = local.index(False) + 1 if not all(local) else 0
    if local != [not (n and (layer + 1) % n == 0) for layer in range(layers)]:
        raise UnlikeError("layer_types are no pattern in which every n-th layer sees everything")
    # Where the list is shorter than the pattern, the pattern is kept: it says no more of these.
    return {"window": window, "global_every": n}


def _rope(told: Any) -> dict[str, Any]:
    found = dict(told) if isinstance(told, Mapping) else {}
    if "type" in found:
        found.setdefault("rope_type", found.pop("type"))
    return found


def _rotary(config: Config, base: float) -> dict[str, Any]:
    """Base, share and scaling, from the keys of `transformers` 4 or 5."""
    rope = {**_rope(config.get("rope_scaling")), **_rope(config.get("rope_parameters"))}
    share = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    found: dict[str, Any] = {
        "rope_base": rope.get("rope_theta", config.get("rope_theta", base)),
        "rotary_share": share,
    }
    kind = rope.get("rope_type", "default")
    if kind not in ROPE_KINDS:
        raise UnlikeError(
            f"rope_type {kind} is none of {', '.join(ROPE_KINDS)}, the rotary positions there are"
        )
    found["rope_scaling.kind"] = ROPE_KINDS[kind]
    if kind == "default":
        return found
    original = rope.get("original_max_position_embeddings")
    original = original or config.get("original_max_position_embeddings")
    original = original or config.get("max_position_embeddings", 0)
    factor = rope.get("factor")
    if factor is None:
        raise UnlikeError(f"rope_type {kind} has no factor")
    found["rope_scaling.factor"] = factor
    if kind == "llama3":
        found |= {
            "rope_scaling.original_context": original,
            "rope_scaling.low_factor": rope.get("low_freq_factor", 1.0),
            "rope_scaling.high_factor": rope.get("high_freq_factor", 4.0),
        }
    if kind == "yarn":
        for key, plain in (("truncate", True), ("mscale", None), ("mscale_all_dim", None)):
            _only(rope, key, plain, plain)
        found |= {
            "rope_scaling.original_context": original,
            "rope_scaling.beta_fast": rope.get("beta_fast") or 32.0,
            "rope_scaling.beta_slow": rope.get("beta_slow") or 1.0,
            "rope_scaling.attention_factor": rope.get("attention_factor") or 0.0,
        }
    return found


def _activation(config: Config, key: str, default: str, known: Mapping[str, str]) -> str:
    named = config.get(key) or default
    if named not in known:
        raise UnlikeError(f"{key} {named} is none of {', '.join(known)}")
    return known[named]


def _whole(config: Config, key: str, default: int | None = None) -> int:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UnlikeError(f"{key} is {value!r}, not a whole number")
    return value


def _only(config: Config, key: str, default: Any, wanted: Any) -> None:
    found = config.get(key, default)
    if (found or None) != (wanted or None):
        raise UnlikeError(f"{key} {found} is not what our parts do ({wanted})")


FAMILIES: dict[str, Callable[[Config], dict[str, Any]]] = {
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "mixtral": _mixtral,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
}
"""`model_type` → the settings that a configuration of it stands for."""
