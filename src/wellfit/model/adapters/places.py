"""Where things stand in a model that may be frozen: names, owners, sides, heads."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from wellfit.model.adapters.frozen import FrozenLinear, is_linear, is_table, is_turned
from wellfit.model.guest import Guest
from wellfit.model.transformer import Transformer


def root_of(model: Any) -> nn.Module:
    """The module whose names count: a guest's own, or the model itself."""
    return model.module if isinstance(model, Guest) else cast(nn.Module, model)


def head_names(model: Any) -> list[str]:
    """A model → the names of linear layers that make its logits, which stay whole."""
    if isinstance(model, Transformer):
        return ["head"]
    size = model.vocabulary_size
    own = getattr(model.module, "get_output_embeddings", None)
    output = own() if callable(own) else None
    heads = [
        name
        for name, layer in model.module.named_modules()
        if layer is output or (is_linear(layer) and getattr(layer, "out_features", 0) == size)
    ]
    if output is None:
        return heads
    return [name for name in heads if model.module.get_submodule(name) is output]


def sides(layer: nn.Module) -> tuple[int, int]:
    """A linear layer → its outputs and inputs; a table → its width and entries."""
    if isinstance(layer, FrozenLinear):
        return layer.out_features, layer.in_features
    rows, columns = cast(Tensor, layer.weight).shape
    return (columns, rows) if is_turned(layer) or is_table(layer) else (rows, columns)


def frozen_in(module: nn.Module) -> set[str]:
    """A module → names of its own tensors that were parameters and are frozen."""
    names = cast("set[str]", module.__dict__.get("frozen_names", set()))
    return {name for name in names if isinstance(module._buffers.get(name), Tensor)}


def put_layer(root: nn.Module, name: str, layer: nn.Module) -> None:
    """The layer takes the place of the one of that name."""
    owner, _, last = name.rpartition(".")
    module = root.get_submodule(owner)
    layer.training = getattr(module, last).training if hasattr(module, last) else True
    if last.isdecimal() and isinstance(module, (nn.ModuleList, nn.Sequential)):
        module[int(last)] = layer
    else:
        setattr(module, last, layer)
