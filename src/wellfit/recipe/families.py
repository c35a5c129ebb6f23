"""Published shapes: a preset's name in; what its architecture is, and where that stands, out.

The numbers are those of each model's own configuration file or paper, named in `source`. A
preset fills what a recipe leaves out of `model`, before the dial does; `size` is the position of
the dial whose batch and schedule fit it. The vocabulary is a fact of the published model; a run's
own vocabulary is its corpus's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wellfit.recipe.schema import Model


@dataclass(frozen=True, slots=True)
class Published:
    """One published model."""

    size: str
    vocabulary: int
    parameters: int
    """Trainable numbers as published (tied embeddings once)."""
    source: str
    facts: Mapping[str, Any]
    """Settings of `model`, dotted where they stand in a section of it."""


_Row = tuple[str, str, int, int, int, int, int, int, int]
"""Name, size, context, layers, width, heads, kv_heads, hidden, parameters."""


def _family(
    source: str, vocabulary: int, common: Mapping[str, Any], *rows: _Row
) -> dict[str, Published]:
    """Models that share a source, a vocabulary, and the settings in `common`."""
    family = {}
    for name, size, context, layers, width, heads, kv_heads, hidden, parameters in rows:
        facts = {
            "context": context, "layers": layers, "width": width, "heads": heads,
            "kv_heads": kv_heads, "hidden": hidden, **common,
        }  # fmt: skip
        family[name] = Published(size, vocabulary, parameters, source, facts)
    return family


_GPT2 = {
    "position": "learned", "norm": "layernorm", "norm_epsilon": 1e-5, "activation": "gelu_tanh",
    "bias": True, "qk_norm": False, "tie_embeddings": True, "init": "scaled_normal",
}  # fmt: skip
_LLAMA = {
    "position": "rotary", "rope_base": 10_000.0, "norm": "rmsnorm", "norm_epsilon": 1e-5,
    "activation": "swiglu", "bias": False, "qk_norm": False, "tie_embeddings": False,
}  # fmt: skip
_LLAMA_3 = {**_LLAMA, "rope_base": 500_000.0}
_QWEN_2 = {**_LLAMA, "rope_base": 1_000_000.0, "norm_epsilon": 1e-6, "qkv_bias": True}
_QWEN_3 = {**_QWEN_2, "qkv_bias": False, "qk_norm": True, "head_width": 128}
_TIED = {"tie_embeddings": True}
_GEMMA = {
    **_LLAMA, **_TIED, "norm_epsilon": 1e-6, "activation": "geglu", "head_width": 256,
    "scale_embeddings": True,
}  # fmt: skip
_GEMMA_2 = {
    **_GEMMA, "post_norm": True, "window": 4096, "global_every": 2, "attention_soft_cap": 50.0,
    "logit_soft_cap": 30.0,
}  # fmt: skip
_GEMMA_3 = {
    **_GEMMA, "post_norm": True, "qk_norm": True, "rope_base": 1_000_000.0,
    "rope_local_base": 10_000.0, "window": 512, "global_every": 6,
}  # fmt: skip


def _llama_3_1(factor: float) -> dict[str, Any]:
    scaling = {"kind": "llama3", "factor": factor, "original_context": 8192}
    scaling |= {"low_factor": 1.0, "high_factor": 4.0}
    return {**_LLAMA_3} | {f"rope_scaling.{key}": value for key, value in scaling.items()}


def _mixture(common: Mapping[str, Any], count: int, active: int) -> dict[str, Any]:
    experts = {"count": count, "active": active, "hidden": 0, "shared": 0, "normalise": True}
    return {**common} | {f"experts.{key}": value for key, value in experts.items()}


_MISTRAL = {**_LLAMA, "rope_base": 1_000_000.0}

PRESETS: dict[str, Published] = {
    **_family(
        "config.json of openai-community/gpt2, -medium, -large, -xl", 50_257, _GPT2,
        ("gpt2", "small", 1024, 12, 768, 12, 12, 3072, 124_439_808),
        ("gpt2-medium", "base", 1024, 24, 1024, 16, 16, 4096, 354_823_168),
        ("gpt2-large", "base", 1024, 36, 1280, 20, 20, 5120, 774_030_080),
        ("gpt2-xl", "1b", 1024, 48, 1600, 25, 25, 6400, 1_557_611_200),
    ),
    **_family(
        "arXiv 2302.13971, table 2, and its params.json", 32_000, {**_LLAMA, "norm_epsilon": 1e-6},
        ("llama-7b", "7b", 2048, 32, 4096, 32, 32, 11_008, 6_738_415_616),
        ("llama-13b", "7b", 2048, 40, 5120, 40, 40, 13_824, 13_015_864_320),
        ("llama-30b", "7b", 2048, 60, 6656, 52, 52, 17_920, 32_528_943_616),
    ),
    **_family(
        "arXiv 2302.13971, table 2, and its params.json", 32_000, _LLAMA,
        ("llama-65b", "7b", 2048, 80, 8192, 64, 64, 22_016, 65_285_660_672),
    ),
    **_family(
        "arXiv 2307.09288, and config.json of meta-llama/Llama-2", 32_000, _LLAMA,
        ("llama2-7b", "7b", 4096, 32, 4096, 32, 32, 11_008, 6_738_415_616),
        ("llama2-13b", "7b", 4096, 40, 5120, 40, 40, 13_824, 13_015_864_320),
        ("llama2-70b", "7b", 4096, 80, 8192, 64, 8, 28_672, 68_976_648_192),
    ),
    **_family(
        "arXiv 2407.21783, table 3, and config.json of meta-llama/Meta-Llama-3", 128_256, _LLAMA_3,
        ("llama3-8b", "7b", 8192, 32, 4096, 32, 8, 14_336, 8_030_261_248),
        ("llama3-70b", "7b", 8192, 80, 8192, 64, 8, 28_672, 70_553_706_496),
    ),
    **_family(
        "arXiv 2407.21783, table 3, and config.json of meta-llama/Llama-3.1", 128_256,
        _llama_3_1(8.0),
        ("llama3.1-8b", "7b", 131_072, 32, 4096, 32, 8, 14_336, 8_030_261_248),
        ("llama3.1-70b", "7b", 131_072, 80, 8192, 64, 8, 28_672, 70_553_706_496),
    ),
    **_family(
        "config.json of meta-llama/Llama-3.2", 128_256, {**_llama_3_1(32.0), **_TIED},
        ("llama3.2-1b", "1b", 131_072, 16, 2048, 32, 8, 8192, 1_235_814_400),
        ("llama3.2-3b", "3b", 131_072, 28, 3072, 24, 8, 8192, 3_212_749_824),
    ),
    **_family(
        "arXiv 2310.06825, table 1", 32_000, {**_LLAMA, "window": 4096, "global_every": 0},
        ("mistral-7b", "7b", 8192, 32, 4096, 32, 8, 14_336, 7_241_732_096),
    ),
    **_family(
        "config.json of mistralai/Mistral-Nemo-Base-2407", 131_072, {**_MISTRAL, "head_width": 128},
        ("mistral-nemo", "7b", 131_072, 40, 5120, 32, 8, 14_336, 12_247_782_400),
    ),
    **_family(
        "arXiv 2412.15115, table 1, and config.json of Qwen/Qwen2.5", 151_936, {**_QWEN_2, **_TIED},
        ("qwen2.5-0.5b", "base", 32_768, 24, 896, 14, 2, 4864, 494_032_768),
        ("qwen2.5-1.5b", "1b", 32_768, 28, 1536, 12, 2, 8960, 1_543_714_304),
        ("qwen2.5-3b", "3b", 32_768, 36, 2048, 16, 2, 11_008, 3_085_938_688),
    ),
    **_family(
        "arXiv 2412.15115, table 1, and config.json of Qwen/Qwen2.5-7B", 152_064, _QWEN_2,
        ("qwen2.5-7b", "7b", 131_072, 28, 3584, 28, 4, 18_944, 7_615_616_512),
    ),
    **_family(
        "arXiv 2412.15115, table 1, and config.json of Qwen/Qwen2.5", 152_064,
        {**_QWEN_2, "norm_epsilon": 1e-5},
        ("qwen2.5-14b", "7b", 131_072, 48, 5120, 40, 8, 13_824, 14_770_033_664),
        ("qwen2.5-32b", "7b", 131_072, 64, 5120, 40, 8, 27_648, 32_763_876_352),
        ("qwen2.5-72b", "7b", 131_072, 80, 8192, 64, 8, 29_568, 72_706_203_648),
    ),
    **_family(
        "arXiv 2505.09388, table 1, and config.json of Qwen/Qwen3", 151_936, {**_QWEN_3, **_TIED},
        ("qwen3-0.6b", "base", 32_768, 28, 1024, 16, 8, 3072, 596_049_920),
        ("qwen3-1.7b", "1b", 32_768, 28, 2048, 16, 8, 6144, 1_720_574_976),
        ("qwen3-4b", "3b", 32_768, 36, 2560, 32, 8, 9728, 4_022_468_096),
    ),
    **_family(
        "arXiv 2505.09388, table 1, and config.json of Qwen/Qwen3-8B", 151_936, _QWEN_3,
        ("qwen3-8b", "7b", 32_768, 36, 4096, 32, 8, 12_288, 8_190_735_360),
    ),
    **_family(
        "arXiv 2505.09388, table 2, and config.json of Qwen/Qwen3-30B-A3B", 151_936,
        _mixture(_QWEN_3, 128, 8),
        ("qwen3-30b-a3b", "7b", 32_768, 48, 2048, 32, 4, 768, 30_532_122_624),
    ),
    **_family(
        "arXiv 2403.08295, table 1, and config.json of google/gemma", 256_000, _GEMMA,
        ("gemma-2b", "3b", 8192, 18, 2048, 8, 1, 16_384, 2_506_172_416),
        ("gemma-7b", "7b", 8192, 28, 3072, 16, 16, 24_576, 8_537_680_896),
    ),
    **_family(
        "arXiv 2408.00118, table 1, and config.json of google/gemma-2", 256_000, _GEMMA_2,
        ("gemma2-2b", "3b", 8192, 26, 2304, 8, 4, 9216, 2_614_341_888),
        ("gemma2-9b", "7b", 8192, 42, 3584, 16, 8, 14_336, 9_241_705_984),
    ),
    **_family(
        "config.json of google/gemma-3", 262_144, _GEMMA_3,
        ("gemma3-270m", "base", 32_768, 18, 640, 4, 1, 2048, 268_098_176),
        ("gemma3-1b", "1b", 32_768, 26, 1152, 4, 1, 6912, 999_885_952),
    ),
    **_family(
        "text_config of google/gemma-3-4b (images left out)", 262_208,
        {**_GEMMA_3, "window": 1024, "rope_scaling.kind": "linear", "rope_scaling.factor": 8.0},
        ("gemma3-4b", "3b", 131_072, 34, 2560, 8, 4, 10_240, 3_880_263_168),
    ),
    **_family(
        "arXiv 2401.04088, table 1", 32_000, _mixture(_MISTRAL, 8, 2),
        ("mixtral-8x7b", "7b", 32_768, 32, 4096, 32, 8, 14_336, 46_702_792_704),
    ),
    **_family(
        "config.json of mistralai/Mixtral-8x22B-v0.1", 32_768, _mixture(_MISTRAL, 8, 2),
        ("mixtral-8x22b", "7b", 65_536, 56, 6144, 48, 8, 16_384, 140_630_071_296),
    ),
}  # fmt: skip


def preset_facts(model: Mapping[str, Any]) -> dict[str, Any]:
    """A `model` section as written → the published settings that it leaves open, dotted.

    Empty without a preset. Where the recipe sets another width, what follows from a width (heads,
    their width, hidden) is left to the dial; where it sets other heads, `kv_heads` is.

    >>> facts = preset_facts({"preset": "gpt2", "layers": 2})
    >>> facts["width"], "layers" in facts
    (768, False)
    """
    name = model.get("preset", "none")
    if not isinstance(name, str) or name not in PRESETS:
        return {}
    facts = dict(PRESETS[name].facts)
    if model.get("width", facts["width"]) != facts["width"]:
        for key in ("heads", "kv_heads", "head_width", "hidden"):
            facts.pop(key, None)
    if "heads" in facts and model.get("heads", facts["heads"]) != facts["heads"]:
        facts.pop("kv_heads")
    return {path: value for path, value in facts.items() if not _written(model, path)}


def _written(model: Mapping[str, Any], path: str) -> bool:
    section, _, key = path.rpartition(".")
    holder = model.get(section, {}) if section else model
    # A section that is no section at all is a fault, which the schema reports.
    return key in holder if isinstance(holder, Mapping) else True


def preset_vocabulary(name: str) -> int:
    """A preset → the entries of its published vocabulary, for plans made without a corpus.

    >>> preset_vocabulary("gpt2")
    50257
    """
    return PRESETS[name].vocabulary


def preset_model(name: str) -> Model:
    """A preset → the `model` section that a recipe gets which names it and nothing else.

    >>> preset_model("mistral-7b").window
    4096
    """
    from wellfit.recipe.schema import Model
    from wellfit.recipe.sizes import fill

    section: dict[str, Any] = {"preset": name}
    for path, (value, _) in fill({"model": {"preset": name}}).items():
        if path.startswith("model."):
            holder = section
            *sections, key = path.split(".")[1:]
            for part in sections:
                holder = holder.setdefault(part, {})
            holder[key] = value
    return Model.model_validate(section)


def presets_table() -> str:
    """The presets as plain text: one line each, with shape, parameters and source."""
    from wellfit.recipe.shapes import active_parameter_count, parameter_count

    rows = [
        f"{'preset':13} {'million':>9} {'active':>8} {'layers':>6} {'width':>5} {'heads':>5} "
        f"{'kv':>3} {'hidden':>6} {'context':>7} {'vocabulary':>10}  source"
    ]
    for name, published in PRESETS.items():
        model = preset_model(name)
        count = parameter_count(model, published.vocabulary) / 1e6
        active = active_parameter_count(model, published.vocabulary) / 1e6
        rows.append(
            f"{name:13} {count:9.1f} {active:8.1f} {model.layers:6} {model.width:5} "
            f"{model.heads:5} {model.kv_heads:3} {model.hidden:6} {model.context:7} "
            f"{published.vocabulary:10}  {published.source}"
        )
    rows.append("million: parameters; active: those that one token meets")
    return "\n".join(rows)
