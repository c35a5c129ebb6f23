"""A model and its recipe in; the same model out, its base frozen, with what is trained beside it.

What is frozen is no parameter any more but a buffer of the same name, so that `named_parameters`
lists exactly what is trained: optimizers, checkpoints and averages follow of themselves. Names:
`<layer>.lora_A`, `.lora_B`, `.magnitude`, `.base.bias`; of modules trained in full their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from wellfit.errors import RunError
from wellfit.model.adapters.digest import digest_of
from wellfit.model.adapters.first import fresh_values
from wellfit.model.adapters.frozen import frozen_linear, is_linear, is_table
from wellfit.model.adapters.layers import Adapted, LoraEmbedding, LoraLinear, lengths
from wellfit.model.adapters.places import frozen_in, head_names, put_layer, root_of, sides
from wellfit.model.adapters.targets import (
    WHERE,
    biases,
    in_full,
    refuse_idle,
    refuse_unfit,
    targets_of,
    with_direction,
)
from wellfit.model.guest import Guest
from wellfit.model.transformer import Transformer
from wellfit.recipe.adapter_section import saved
from wellfit.recipe.schema import Adapter, Quantize


@dataclass(frozen=True)
class Kept:
    """An adapter apart from its base: its settings and everything that was trained, by name."""

    section: Adapter
    tensors: dict[str, Tensor]


@dataclass
class Attached:
    """What stands on a frozen base at present."""

    section: Adapter
    layers: dict[str, Adapted]
    """Layers with an adapter, by name."""
    originals: dict[str, Tensor] = field(default_factory=dict)
    """The base's own of every tensor that is trained in its place, by the name it has there."""


def adapted(
    model: Any, section: Adapter, quantize: Quantize | None = None, *, seed: int = 0
) -> Any:
    """A model with its weights, its adapter's settings → the same model, frozen, with the adapter.

    What it computes is the same bit for bit until the first step, but for a base that is kept in
    fewer bits. First values follow from the seed and each tensor's name. `model.base_digest` is
    the digest of the base as it came. Raises RunError where no layer is meant, or one that cannot
    have an adapter.
    """
    freeze(model, quantize or Quantize(), section)
    attach(model, section, seed=seed)
    return model


def freeze(model: Any, quantize: Quantize, section: Adapter | None = None) -> None:
    """A model with its weights → all of it frozen, linear matrices kept as `quantize` says.

    What the section trains in full keeps all its bits.
    """
    if not isinstance(model, (Transformer, Guest)):
        raise RunError(
            f"{type(model).__name__} offers all of LanguageModel itself, and adapters go on the "
            "built-in transformer or on a plain module",
            where=WHERE,
            way_out="Let model.module give a plain torch.nn.Module, tokens → logits.",
        )
    root = root_of(model)
    digest = digest_of(root.named_parameters())
    heads = head_names(model)
    held: dict[int, Tensor] = {}
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in list(root.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            held.setdefault(id(parameter), parameter.requires_grad_(False).detach())
            del module._parameters[name]
            module.register_buffer(name, held[id(parameter)])
            owners.setdefault(id(parameter), []).append((module, name))
            module.frozen_names = {*getattr(module, "frozen_names", ()), name}  # type: ignore[assignment]
    if quantize.kind != "none":
        for name, layer in list(root.named_modules()):
            # A subclass of torch's may multiply in a way of its own.
            own_way = isinstance(layer, nn.Linear) and type(layer) is not nn.Linear
            plain = is_linear(layer) and not own_way
            whole = name in heads or name.endswith(".router")
            whole = whole or (section is not None and saved(section, name))
            if plain and not whole:
                put_layer(root, name, frozen_linear(layer, quantize))
    own = cast(Any, model)
    own.base_digest, own.attached = digest, None
    own.ties = [shared for shared in owners.values() if len(shared) > 1]


def attach(model: Any, section: Adapter, *, seed: int = 0) -> None:
    """A frozen model → with a fresh adapter on it; nothing may be attached yet."""
    attached = Attached(section, {})
    layers = dict(root_of(model).named_modules())
    for name in targets_of(model, section):
        refuse_unfit(model, layers, name)
        fan_out, fan_in = sides(layers[name])
        table = is_table(layers[name])
        a, b = fresh_values(name, section, fan_in, fan_out, table=table, seed=seed)
        layer = _with_adapter(model, name, layers[name], section, a, b)
        if section.kind == "dora":
            layer.magnitude = nn.Parameter(with_direction(lengths(layer), name))
        attached.layers[name] = layer
    _place(model, attached)
    for name in (*in_full(model, section), *biases(model, section, attached.layers)):
        train_own(model, name)
    refuse_idle(section, attached.layers.values())


def put_on(model: Any, kept: Kept) -> None:
    """A frozen model and an adapter that was kept → with it on; nothing may be attached yet.

    Raises RunError where the adapter is for other layers or sides.
    """
    attached = Attached(kept.section, {})
    layers = dict(root_of(model).named_modules())
    own = dict(kept.tensors)
    for name in [key.removesuffix(".lora_A") for key in kept.tensors if key.endswith(".lora_A")]:
        a, b = own.pop(f"{name}.lora_A"), own.pop(f"{name}.lora_B")
        there = layers.get(name)
        fits = there is not None and (is_linear(there) or is_table(there))
        if not fits or sides(layers[name]) != (b.shape[0], a.shape[1]):
            raise _not_for_this(name, f"an adapter of {b.shape[0]} × {a.shape[1]}")
        refuse_unfit(model, layers, name)
        layer = _with_adapter(model, name, layers[name], kept.section, a, b)
        magnitude = own.pop(f"{name}.magnitude", None)
        if magnitude is not None:
            layer.magnitude = nn.Parameter(magnitude.to(layer.lora_A.device, copy=True))
        attached.layers[name] = layer
    _place(model, attached)
    try:
        for name, tensor in own.items():
            owner, _, last = name.rpartition(".")
            module = dict(root_of(model).named_modules()).get(owner)
            there = None if module is None or last not in frozen_in(module) else module
            if there is None or cast(Tensor, getattr(there, last)).shape != tensor.shape:
                raise _not_for_this(name, f"values {tuple(tensor.shape)}")
            train_own(model, name)
            with torch.no_grad():
                cast(Tensor, getattr(there, last)).copy_(tensor)
    except RunError:
        detach(model)
        raise


def taken_off(model: Any) -> Kept:
    """A model with an adapter → the adapter, and the model is the frozen base alone again."""
    root = root_of(model)
    kept = Kept(model.attached.section, {n: p.detach() for n, p in root.named_parameters()})
    detach(model)
    return kept


def _not_for_this(name: str, what: str) -> RunError:
    return RunError(
        f"it has {what} for {name}, and this base has no such layer",
        where="the adapter",
        way_out="Put it on the base that it was trained on.",
    )


def _place(model: Any, attached: Attached) -> None:
    assert model.attached is None, "take off what is attached first"
    for name, layer in attached.layers.items():
        put_layer(root_of(model), name, layer)
    model.attached = attached


def detach(model: Any) -> None:
    """A model with an adapter → the frozen base alone, as it was before."""
    root, attached = root_of(model), model.attached
    for name, layer in attached.layers.items():
        put_layer(root, name, layer.base)
    for name, original in attached.originals.items():
        owner, _, last = name.rpartition(".")
        module = root.get_submodule(owner)
        del module._parameters[last]
        module.register_buffer(last, original)
    model.attached = None


def _with_adapter(
    model: Any, name: str, base: nn.Module, section: Adapter, a: Tensor, b: Tensor
) -> Adapted:
    device = next(iter(base.buffers())).device
    a, b = a.to(device, copy=True), b.to(device, copy=True)
    if is_table(base):
        return LoraEmbedding(base, a, b, section.scale)
    layer = LoraLinear(base, a, b, section.scale, section.dropout)
    if isinstance(model, Transformer):
        layer.drawn_for = (model, name)
    return layer


def train_own(model: Any, name: str) -> None:
    """A model and the name of a frozen tensor → it is trained; a tie with others is thereby cut.

    The tensor itself is kept aside under the name that it has without the adapter.
    """
    owner, _, last = name.rpartition(".")
    module = root_of(model).get_submodule(owner)
    tensor = cast(Tensor, module._buffers.pop(last))
    module.register_parameter(last, nn.Parameter(tensor.clone()))
    within = owner.removesuffix(".base")
    plain = within if within in model.attached.layers else owner
    model.attached.originals[f"{plain}.{last}"] = tensor
