"""A model with an adapter in; the plain model that computes the same out."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from wellfit.errors import RunError
from wellfit.model.adapters.adapt import Attached
from wellfit.model.adapters.frozen import FrozenLinear, is_turned, thawed
from wellfit.model.adapters.layers import LoraEmbedding, merged_matrix
from wellfit.model.adapters.places import put_layer, root_of
from wellfit.model.transformer import Transformer


def merged(model: Any) -> str:
    """A model with an adapter → a sentence on what was done; the model is plain from now on.

    Its parameters are those of the model without an adapter, under their names, in float32; the
    model is changed in place. A base that was kept in fewer bits is merged as it was trained
    against: with its rounding. Raises RunError where the plain model cannot say the same.
    """
    root, attached = root_of(model), model.attached
    _refuse_ties(model)
    count, kinds = len(attached.layers), set()
    for name, layer in attached.layers.items():
        matrix, base = merged_matrix(layer), layer.base
        if isinstance(base, FrozenLinear):
            kinds.add(base.section.kind)
            base = thawed(base)
        turned = not isinstance(layer, LoraEmbedding) and is_turned(base)
        base._buffers["weight"] = (matrix.T if turned else matrix).contiguous()
        put_layer(root, name, base)
    for name, layer in list(root.named_modules()):
        if isinstance(layer, FrozenLinear):
            kinds.add(layer.section.kind)
            put_layer(root, name, thawed(layer))
    thaw(root)
    model.attached = None
    told = f"Merged {count} adapter{'' if count == 1 else 's'} into the base"
    if kinds:
        told += (
            f", whose matrices had been kept as {', '.join(sorted(kinds))}: their rounding is part "
            "of the merged weights, as it was part of the training"
        )
    if _untied(model):
        told += "; embedding and head are two tensors from now on"
    return told + "."


def thaw(root: nn.Module) -> None:
    """A module whose parameters became buffers → they are parameters again, ties included."""
    made: dict[int, nn.Parameter] = {}
    for module in root.modules():
        for name in module.__dict__.pop("frozen_names", ()):
            tensor = module._buffers.get(name)
            if isinstance(tensor, Tensor):
                del module._buffers[name]
                parameter = made.setdefault(id(tensor), nn.Parameter(tensor))
                module.register_parameter(name, parameter)


def merged_weights(model: Any) -> dict[str, Tensor]:
    """A model that `merged` made plain → its tensors by name, as a plain checkpoint holds them."""
    return {name: one.detach() for name, one in root_of(model).named_parameters()}


def _refuse_ties(model: Any) -> None:
    """In our own model one table may be embedding and head; an adapter changes the one alone."""
    tied = isinstance(model, Transformer) and model.model.tie_embeddings
    attached: Attached = model.attached
    if tied and "embedding" in attached.layers:
        raise RunError(
            "the adapter on the embedding does not change the head, which is the same table",
            where="model.tie_embeddings=true",
            way_out="Keep the adapter apart, or train one without the embedding as a target.",
        )


def _untied(model: Any) -> bool:
    """Whether a module of transformers' has lost the tie that its configuration tells of."""
    module = root_of(model)
    config = getattr(module, "config", None)
    if not getattr(config, "tie_word_embeddings", False):
        return False
    first, last = (
        cast(Any, module).get_input_embeddings(),
        cast(Any, module).get_output_embeddings(),
    )
    if last is None or first.weight is last.weight:
        return False
    if torch.equal(first.weight, last.weight):
        last.weight = first.weight
        return False
    cast(Any, config).tie_word_embeddings = False
    return True
