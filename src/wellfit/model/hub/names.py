"""A model section and a family in; where each of our tensors stands in a Hugging Face file, out.

This is the one place that knows these names. Loading, saving, adapter files and tests read it:

    for name, stored in hub_names(model, "llama").items():
        ours = stored.read([file[one] for one in stored.names])

Axes of our matrices are [out, in], of experts [experts, out, in].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from wellfit.recipe.schema import Model
from wellfit.recipe.shapes import shape_table

if TYPE_CHECKING:
    from torch import Tensor

FAMILIES = (
    "gpt2", "llama", "mistral", "qwen2", "qwen3", "qwen3_moe", "mixtral", "gemma", "gemma2",
    "gemma3_text",
)  # fmt: skip
HEAD = {"tokens": "lm_head.weight", "classes": "score.weight", "span": "qa_outputs.weight"}
BODY = {"gpt2": "transformer."}
"""What stands in front of all tensors but the head; `model.` in all other families."""

_AROUND = {
    "embedding.weight": "embed_tokens.weight",
    "final_norm.weight": "norm.weight",
    "final_norm.bias": "norm.bias",
}
_BLOCK = {
    "attention_norm": "input_layernorm",
    "attention.query": "self_attn.q_proj",
    "attention.key": "self_attn.k_proj",
    "attention.value": "self_attn.v_proj",
    "attention.output": "self_attn.o_proj",
    "attention.query_norm": "self_attn.q_norm",
    "attention.key_norm": "self_attn.k_norm",
    "feedforward_norm": "post_attention_layernorm",
    "feedforward.gate": "mlp.gate_proj",
    "feedforward.up": "mlp.up_proj",
    "feedforward.down": "mlp.down_proj",
}
# Gemma 2 and 3 have norms on both sides, so that the names of the inner ones differ.
BOTH_SIDES = _BLOCK | {
    "attention_post_norm": "post_attention_layernorm",
    "feedforward_norm": "pre_feedforward_layernorm",
    "feedforward_post_norm": "post_feedforward_layernorm",
}
_GPT2 = {
    "embedding.weight": "wte.weight",
    "positions.weight": "wpe.weight",
    "final_norm.weight": "ln_f.weight",
    "final_norm.bias": "ln_f.bias",
}
_GPT2_BLOCK = {
    "attention_norm": "ln_1",
    "attention.query": "attn.c_attn",
    "attention.key": "attn.c_attn",
    "attention.value": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "feedforward_norm": "ln_2",
    "feedforward.up": "mlp.c_fc",
    "feedforward.down": "mlp.c_proj",
}
_QKV = {"attention.query": 0, "attention.key": 1, "attention.value": 2}
# Inside `mlp` or `block_sparse_moe`: a file a matrix of each expert.
_EXPERTS = {
    "mixtral": ("block_sparse_moe", {"gate": "w1", "up": "w3", "down": "w2"}),
    "qwen3_moe": ("mlp", {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}),
}


@dataclass(frozen=True, slots=True)
class Stored:
    """Where one tensor of ours stands in a file, and how it is changed on the way."""

    names: tuple[str, ...]
    """One name; of experts that stand apart, one an expert, in their order."""
    change: Literal["", "turned", "less one"] = ""
    """`turned`: stored as [in, out]; `less one`: a norm that multiplies by 1 + what is stored."""
    part: int = 0
    """Which of `parts` equal pieces of the stored tensor, along its outputs, is ours."""
    parts: int = 1

    def read(self, found: Sequence[Tensor]) -> Tensor:
        """The tensors of `names` → ours.

        >>> import torch
        >>> Stored(("c_attn",), "turned", 1, 3).read([torch.arange(6.0)[None]]).tolist()
        [[2.0], [3.0]]
        """
        import torch  # here, so that names alone need none

        tensor = torch.stack(list(found)) if len(self.names) > 1 else found[0]
        if self.change == "turned" and tensor.ndim > 1:
            tensor = tensor.transpose(-1, -2)
        if self.change == "less one":
            tensor = tensor.float() + 1
        return tensor.chunk(self.parts, dim=max(0, tensor.ndim - 2))[self.part]

    def shape(self, ours: Sequence[int]) -> tuple[int, ...]:
        """The shape of our tensor → that of each stored one."""
        shape = list(ours[1:] if len(self.names) > 1 else ours)
        shape[max(0, len(shape) - 2)] *= self.parts
        if self.change == "turned" and len(shape) > 1:
            shape[-1], shape[-2] = shape[-2], shape[-1]
        return tuple(shape)


Names = Mapping[str, Stored]


def hub_names(model: Model, family: str) -> dict[str, Stored]:
    """A model section and a family → our parameter name → where it stands in a file.

    As `save_pretrained` of `transformers` writes it: experts a file name each. Of tied embeddings
    there is the embedding alone. Every parameter of our model is there, in its order. Raises
    KeyError where the family has no such tensor: ask `config.family_for` first.

    >>> tiny = Model(context=8, layers=1, width=8, heads=1, kv_heads=1, hidden=8, qk_norm=False)
    >>> hub_names(tiny, "llama")["blocks.0.attention.query.weight"].names
    ('model.layers.0.self_attn.q_proj.weight',)
    """
    return {
        shape.name: _stored(shape.name, model, family)
        for shape in shape_table(model, vocabulary_size=1)
    }


def fused_names(model: Model, family: str) -> dict[str, Stored]:
    """The same with all experts in one tensor, as modules of `transformers` 5 hold them."""
    return {
        name: _fused(name, model) if model.experts.count and ".feedforward." in name else stored
        for name, stored in hub_names(model, family).items()
    }


def joined(stored: Names, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names and our tensors → the tensors of a file, pieces put together again.

    The inverse of `Stored.read` over all of them; nothing is copied that need not be.
    """
    import torch

    pieces: dict[str, dict[int, Tensor]] = {}
    turned: dict[str, bool] = {}
    for name, place in stored.items():
        tensor = ours[name].detach()
        if place.change == "less one":
            tensor = tensor - 1
        parts = tensor.unbind() if len(place.names) > 1 else (tensor,)
        for one, part in zip(place.names, parts, strict=True):
            pieces.setdefault(one, {})[place.part] = part
            turned[one] = place.change == "turned"
    made = {}
    for one, found in pieces.items():
        parts = tuple(found[number] for number in sorted(found))
        tensor = parts[0] if len(parts) == 1 else torch.cat(parts, dim=max(0, parts[0].ndim - 2))
        made[one] = tensor.transpose(-1, -2) if turned[one] and tensor.ndim > 1 else tensor
    return made


def _stored(name: str, model: Model, family: str) -> Stored:
    body = BODY.get(family, "model.")
    less = "less one" if family.startswith("gemma") else ""
    around = _GPT2 if family == "gpt2" else _AROUND
    if name == "head.weight":
        return Stored((HEAD[model.head],))
    if name in around:
        return Stored((body + around[name],), less if "norm" in name else "")  # type: ignore[arg-type]
    _, layer, rest = name.split(".", 2)
    owner, _, kind = rest.rpartition(".")
    if family == "gpt2":
        turned = "turned" if _GPT2_BLOCK[owner][:2] != "ln" else ""
        place = f"{body}h.{layer}.{_GPT2_BLOCK[owner]}.{kind}"
        return Stored((place,), turned, _QKV.get(owner, 0), 3 if owner in _QKV else 1)  # type: ignore[arg-type]
    inside = f"{body}layers.{layer}."
    if owner == "feedforward.router":
        return Stored((f"{inside}{_EXPERTS[family][0]}.gate.{kind}",))
    if model.experts.count and owner.startswith("feedforward."):
        where, called = _EXPERTS[family]
        last = called[owner.rpartition(".")[2]]
        numbers = range(model.experts.count)
        return Stored(tuple(f"{inside}{where}.experts.{n}.{last}.{kind}" for n in numbers))
    block = BOTH_SIDES if model.post_norm else _BLOCK
    change = less if owner.endswith("norm") else ""
    return Stored((f"{inside}{block[owner]}.{kind}",), change)  # type: ignore[arg-type]


def _fused(name: str, model: Model) -> Stored:
    _, layer, rest = name.split(".", 2)
    inside = f"model.layers.{layer}.mlp."
    kind = rest.split(".")[1]
    if kind == "router":
        return Stored((f"{inside}gate.weight",))
    if kind == "down":
        return Stored((f"{inside}experts.down_proj",))
    return Stored((f"{inside}experts.gate_up_proj",), "", 0 if kind == "gate" else 1, 2)
