"""A model and an adapter's settings in; the layers and tensors that they mean out."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from torch import Tensor, nn

from wellfit.errors import RunError
from wellfit.model.adapters.frozen import FrozenLinear, is_linear, is_table
from wellfit.model.adapters.layers import LoraLinear
from wellfit.model.adapters.places import frozen_in, head_names, root_of
from wellfit.model.transformer import Transformer
from wellfit.recipe.adapter_section import chosen, named, saved
from wellfit.recipe.schema import Adapter

WHERE = "model.adapter"
# They read the weights of layers inside them without calling these layers.
BYPASS = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


def targets_of(model: Any, section: Adapter) -> tuple[str, ...]:
    """A frozen model and an adapter's settings → the layers that get one; RunError where none."""
    layers = dict(root_of(model).named_modules())
    tables = [name for name, layer in layers.items() if is_table(layer)]
    linear = [
        name
        for name, layer in layers.items()
        if is_linear(layer) and not (isinstance(model, Transformer) and name.endswith(".router"))
    ]
    names = chosen(section, linear, tables, head_names(model))
    for target in section.targets:
        meant = [name for name in layers if named(name, target)]
        odd = [n for n in meant if n not in linear and n not in tables and not saved(section, n)]
        if odd and not set(meant) & set(names):
            raise RunError(
                f"{odd[0]} is a {type(layers[odd[0]]).__name__}, and adapters go on linear layers "
                "and embeddings",
                where=f"{WHERE}.targets={target}",
                way_out=f"Name some of: {', '.join(ends(linear))}; {', '.join(ends(tables))}.",
            )
        if target != "all-linear" and not set(meant) & set(names):
            why = "no layer is called so"
            if set(meant) & {*linear, *tables}:
                why = "layers_to_transform or modules_to_save leave out all that it means"
            raise RunError(
                why,
                where=f"{WHERE}.targets={target}",
                way_out=f"Name some of: {', '.join(ends(linear))}; {', '.join(ends(tables))}.",
            )
    if not names:
        raise RunError(
            "no linear layer is left for an adapter", where=WHERE,
            way_out="Name other targets or layers_to_transform.",
        )  # fmt: skip
    return names


def in_full(model: Any, section: Adapter) -> list[str]:
    """Names of the base's tensors that `modules_to_save` means."""
    root, found = root_of(model), []
    for wanted in section.modules_to_save:
        meant = [(name, one) for name, one in root.named_modules() if name and named(name, wanted)]
        if not meant:
            raise RunError(
                "no module is called so",
                where=f"{WHERE}.modules_to_save={wanted}",
                way_out=f"Name one of: {', '.join(ends(n for n, _ in root.named_modules()))}.",
            )
        for name, module in meant:
            for inside, part in module.named_modules(prefix=name):
                if isinstance(part, FrozenLinear):
                    raise RunError(
                        f"{inside} is kept in fewer bits, and what is trained in full cannot be",
                        where=f"{WHERE}.modules_to_save={wanted}",
                        way_out="Leave it out, or set model.quantize.kind=none.",
                    )
                found += [f"{inside}.{last}" for last in sorted(frozen_in(part))]
    return list(dict.fromkeys(found))


def biases(model: Any, section: Adapter, layers: Collection[str]) -> list[str]:
    """Names of the base's tensors that `bias` means and nothing else does."""
    found = []
    if section.bias == "none":
        return []
    for name, module in root_of(model).named_modules():
        of_adapter = name.endswith(".base") and name.removesuffix(".base") in layers
        if (section.bias == "all" or of_adapter) and "bias" in frozen_in(module):
            found.append(f"{name}.bias")
    if not found:
        raise RunError(
            "there is no such bias in the model, so nothing would be trained",
            where=f"{WHERE}.bias={section.bias}",
            way_out="Set model.adapter.bias=none.",
        )
    return [name for name in found if not saved(section, name.rpartition(".")[0])]


def refuse_unfit(model: Any, layers: dict[str, nn.Module], name: str) -> None:
    """A model, its modules and one's name → nothing; RunError where an adapter would not act."""
    if isinstance(model, Transformer) and name == "head":
        raise RunError(
            "the head is part of the loss and cannot have an adapter",
            where=f"{WHERE}.targets=head",
            way_out="Train it in full: set model.adapter.modules_to_save=[head].",
        )
    owner, _, _ = name.rpartition(".")
    while owner:
        if isinstance(layers[owner], BYPASS):
            raise RunError(
                f"{name} is inside a torch.nn.{type(layers[owner]).__name__}, which reads its "
                "weights past an adapter",
                where=f"{WHERE}.targets",
                way_out="Name other targets, or write the module with plain linear layers.",
            )
        owner, _, _ = owner.rpartition(".")


def refuse_idle(section: Adapter, layers: Iterable[nn.Module]) -> None:
    """Settings, and the layers that got an adapter → nothing; RunError where one does nothing."""
    lines = any(isinstance(layer, LoraLinear) for layer in layers)
    for name, value, usual in (
        ("dropout", section.dropout, 0.0), ("init", section.init, "kaiming"),
    ):  # fmt: skip
        if value != usual and not lines:
            raise RunError(
                f"{name} is for adapters on linear layers, and none has one",
                where=f"{WHERE}.{name}={value}",
                way_out=f"Leave {name} out, or name linear layers as targets.",
            )


def with_direction(magnitude: Tensor, name: str) -> Tensor:
    """First lengths of a layer's features, and its name → the lengths; RunError where one is 0."""
    if magnitude.device.type != "meta" and bool((magnitude == 0).any()):
        raise RunError(
            f"{int((magnitude == 0).sum())} features of {name} have weights that are all 0, and "
            "what has no direction cannot be turned",
            where=f"{WHERE}.kind=dora",
            way_out="Set model.adapter.kind=lora, or leave this layer out of the targets.",
        )
    return magnitude


def ends(names: Iterable[str]) -> list[str]:
    """Names → their last parts, each once: what one would write as a target."""
    found = (name.rpartition(".")[2] for name in names if name)
    return list(dict.fromkeys(end for end in found if not end.isdecimal()))[:12]
