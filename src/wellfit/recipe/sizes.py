"""The dial: one word, `model.size`, in; every number that a recipe left out, with its reason, out.

Only what is absent is filled, and what is filled fits what is given: heads follow the width,
the feed-forward follows width and activation, the batch follows the context, the rates follow
width and optimizer. The rates of `nano` are the quickstart's; those above it are extrapolated by
the rules stated in their reasons and have not been measured yet.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from wellfit.recipe.base_weights import filled as filled_by_weights
from wellfit.recipe.base_weights import weights_folder
from wellfit.recipe.families import PRESETS, preset_facts
from wellfit.recipe.heads import of_examples
from wellfit.recipe.model_section import GATED, Activation
from wellfit.recipe.rates import (
    Filled,
    adapter_rates,
    optimizer_rates,
    schedule_shape,
    tuning_rates,
)


@dataclass(frozen=True, slots=True)
class Dial:
    """One position of the dial."""

    about: str
    context: int
    layers: int
    width: int
    group: int
    """Query heads that share one key and value head."""
    activation: str
    batch_tokens: int
    micro_batch: int
    decay_share: float


DIALS: dict[str, Dial] = {
    "nano": Dial("trains in minutes on a CPU", 256, 4, 256, 1, "relu2", 4_096, 16, 0.75),
    "micro": Dial("a small run on a CPU", 512, 6, 384, 1, "relu2", 8_192, 16, 0.75),
    "mini": Dial("a patient CPU or any GPU", 512, 8, 512, 1, "relu2", 32_768, 16, 0.75),
    "small": Dial("the GPT-2 shape, one GPU", 1_024, 12, 768, 1, "relu2", 262_144, 16, 0.5),
    "base": Dial("the GPT-2 medium shape, one GPU", 2_048, 24, 1_024, 1, "relu2", 524_288, 8, 0.5),
    "1b": Dial("a large GPU", 2_048, 22, 2_048, 4, "swiglu", 1_048_576, 8, 0.5),
    "3b": Dial("several GPUs", 4_096, 28, 3_072, 3, "swiglu", 2_097_152, 4, 0.5),
    "7b": Dial("the Llama-7B shape, many GPUs", 4_096, 32, 4_096, 1, "swiglu", 4_194_304, 2, 0.5),
}

TUNING_ROWS = 32
"""Sequences of a batch beside trained weights, where a recipe does not say."""
_HEAD_WIDTH = 128
_TABLE_VOCABULARY = 32_000
_LARGE = ("1b", "3b", "7b")


def fill(raw: Mapping[str, Any]) -> Filled:
    """A recipe as written (faults and all) → what the dial adds to `model` and `train`.

    An unknown or ill-typed value is passed over here, since the schema reports it; the dial then
    works as if it were absent, so that one fault does not cause others.

    >>> added = fill({"model": {"size": "nano", "width": 384}})
    >>> added["model.heads"][0], added["model.hidden"][0], "model.width" in added
    (3, 1536, False)
    """
    model, train = _section(raw, "model"), _section(raw, "train")
    filled = _preset(model) | _weights(raw)
    published = {path[6:]: value for path, (value, _) in filled.items() if path[:6] == "model."}
    model = {**model, **{path: value for path, value in published.items() if "." not in path}}
    size = model.get("size", "nano")
    if not isinstance(size, str) or size not in DIALS:
        size = "nano"
    dial = DIALS[size]
    filled |= _model(model, size, dial)
    width = _whole(model, "width") or dial.width
    context = _whole(model, "context") or dial.context
    filled |= of_examples(raw, context)
    tuned = bool(weights_folder(model))
    filled |= _batch(train, dial, context, TUNING_ROWS if tuned else 0)
    found_at = _whole(model, "base_width") or width
    optimizer = _section(train, "optimizer")
    if model.get("adapter") is not None or tuned:
        adapter = model.get("adapter") is not None
        gentler = adapter_rates(optimizer) if adapter else tuning_rates(optimizer)
        optimizer = {"kind": "adamw", **optimizer}
        filled |= optimizer_rates(optimizer, found_at, long=size in _LARGE) | gentler
    else:
        filled |= optimizer_rates(optimizer, found_at, long=size in _LARGE)
    filled |= schedule_shape(_section(train, "schedule"), dial.decay_share)
    return filled


def filled_by(model: Any, path: str, of_weights: Container[str] = ()) -> str:
    """A `model` section with everything filled, and a path → what filled it: `size nano`.

    `of_weights` are the paths that `paths_of_weights` gives for the section.

    >>> filled_by({"size": "small", "preset": "gpt2"}, "model.width")
    'preset gpt2'
    """
    model = model if isinstance(model, Mapping) else {}
    if path.startswith("data.tokenizer."):
        return "model.weights"
    if path.startswith("data.") or path in ("model.head", "model.classes"):
        return "data.examples"
    if path in of_weights:
        return "model.weights"
    preset, size = model.get("preset", "none"), model.get("size", "nano")
    if isinstance(preset, str) and preset in PRESETS and path.startswith("model."):
        own = path == "model.size" or path[6:] in PRESETS[preset].facts
        return f"preset {preset}" if own else f"size {size}"
    return f"size {size}"


def sizes_table() -> str:
    """The dial as plain text: one line a size, with its shape, rates and parameters."""
    from wellfit.recipe.schema import Model
    from wellfit.recipe.shapes import parameter_count

    rows = [
        f"{'size':6} {'layers':>6} {'width':>6} {'heads':>5} {'context':>7} {'hidden':>6} "
        f"{'batch':>9} {'matrix rate':>11} {'million':>8}  for"
    ]
    for size, dial in DIALS.items():
        value = {path: value for path, (value, _) in fill({"model": {"size": size}}).items()}
        section = {path[6:]: one for path, one in value.items() if path.startswith("model.")}
        model = Model.model_validate({"size": size, **section})
        rows.append(
            f"{size:6} {model.layers:6} {model.width:6} {model.heads:5} {model.context:7} "
            f"{model.hidden:6} {value['train.batch_tokens']:9} "
            f"{value['train.optimizer.matrix_learning_rate']:11} "
            f"{parameter_count(model, _TABLE_VOCABULARY) / 1e6:8.1f}  {dial.about}"
        )
    rows.append(f"million: parameters with a vocabulary of {_TABLE_VOCABULARY:,}")
    return "\n".join(rows)


def _preset(model: Mapping[str, Any]) -> Filled:
    facts = preset_facts(model)
    if not facts:
        return {}
    published = PRESETS[model["preset"]]
    added: Filled = {f"model.{path}": (fact, published.source) for path, fact in facts.items()}
    if "size" not in model:
        reason = "the dial's nearest: it sets the batch and the schedule"
        added["model.size"] = (published.size, reason)
    return added


def _weights(raw: Mapping[str, Any]) -> Filled:
    """What a folder of weights fills, and the position of the dial that is nearest to its width."""
    added: Filled = dict(filled_by_weights(raw))
    width = added.get("model.width", (0, ""))[0]
    if width and "size" not in _section(raw, "model"):
        nearest = min(DIALS, key=lambda size: abs(math.log(DIALS[size].width / width)))
        added["model.size"] = (nearest, "the dial's nearest: it sets the batch and the schedule")
    return added


def paths_of_weights(model: Any) -> frozenset[str]:
    """A `model` section with everything filled → the paths that its weights would fill."""
    if not isinstance(model, Mapping) or not weights_folder(model):
        return frozenset()
    bare = {key: model[key] for key in ("weights", "architecture") if key in model}
    # Its text is not asked for here: `file` is as good as written.
    text = {"data": {"tokenizer": {"file": ""}}}
    return frozenset({"model.architecture", *_weights({"model": bare, **text})})


def _model(model: Mapping[str, Any], size: str, dial: Dial) -> Filled:
    added: Filled = {}
    if "size" not in model:
        added["model.size"] = (size, f"the smallest: {dial.about}")
    width = _whole(model, "width") or dial.width
    written = model.get("activation")
    known = isinstance(written, str) and written in get_args(Activation)
    activation = str(written) if known else dial.activation
    kv_heads = _whole(model, "kv_heads")
    given = _whole(model, "head_width")
    heads = _whole(model, "heads") or _heads(width, kv_heads or 1, given)
    head_width = given or (width // heads if heads <= width else width)
    candidates = {
        "context": (dial.context, "tokens seen at once; attention grows with its square"),
        "layers": (dial.layers, dial.about),
        "width": (dial.width, dial.about),
        "heads": (
            heads,
            f"{head_width} features a head: few wide heads keep the matrix units busy",
        ),
        "kv_heads": _kv_heads(heads, dial.group),
        "hidden": _hidden(width, activation),
        "activation": (
            activation,
            "ReLU²: two matrices instead of three, cheap to compute (arXiv 2109.08668)"
            if activation == "relu2"
            else "SwiGLU, as the large open models have it",
        ),
    }
    return added | {f"model.{key}": value for key, value in candidates.items() if key not in model}


def _heads(width: int, kv_heads: int, head_width: int | None) -> int:
    """The number of heads that brings a head nearest to 128 features, an even number of them.

    With a `head_width` of its own: the number that comes nearest to the width together.
    """
    if head_width:
        return max(1, min(512 // kv_heads, round(width / head_width / kv_heads))) * kv_heads
    fitting = [
        heads
        for heads in range(kv_heads, min(width, 512) + 1, kv_heads)
        if width % heads == 0 and width // heads % 2 == 0
    ]
    return min(
        fitting, key=lambda heads: (abs(width / heads - _HEAD_WIDTH), heads), default=kv_heads
    )


def _kv_heads(heads: int, group: int) -> tuple[int, str]:
    share = max(step for step in range(1, group + 1) if heads % step == 0)
    if share == 1:
        return heads, "as many as heads: no grouping"
    return heads // share, f"{share} query heads share one: the KV cache is {share} times smaller"


def _hidden(width: int, activation: str) -> tuple[int, str]:
    if activation not in GATED:
        return 4 * width, "4 × width"
    multiple = 256 if width >= 1_024 else 32
    return (
        -(-8 * width // (3 * multiple)) * multiple,
        f"8/3 × width, up to a multiple of {multiple}: three matrices of the weight of two of 4 ×",
    )


def _batch(train: Mapping[str, Any], dial: Dial, context: int, tuning: int) -> Filled:
    """`tuning`: sequences of a batch where trained weights are gone on with, else 0."""
    added: Filled = {}
    rows = tuning or max(1, round(dial.batch_tokens / context))
    if "batch_tokens" not in train:
        why = "usual beside trained weights" if tuning else "larger models want larger batches"
        added["train.batch_tokens"] = (rows * context, f"{rows} sequences of {context}: {why}")
    rows = max(1, (_whole(train, "batch_tokens") or rows * context) // context)
    if "micro_batch" not in train:
        micro_batch = max(1, min(rows, dial.micro_batch * dial.context // context))
        added["train.micro_batch"] = (
            micro_batch,
            f"{micro_batch * context} tokens a pass; changes memory and speed, not the result",
        )
    return added


def _section(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = raw.get(key)
    return section if isinstance(section, Mapping) else {}


def _whole(section: Mapping[str, Any], key: str) -> int | None:
    value = section.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 1 <= value <= 1_048_576 * 1_048_576 and value == int(value) else None
