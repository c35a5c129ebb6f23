"""A model and its recipe in; the same model out, its base frozen, with what is trained beside it.

What is frozen is no parameter any more but a buffer of the same name, so that `named_parameters`
lists exactly what is trained: optimizers, checkpoints and averages follow of themselves. Names:
`<layer>.lora_A`, `.lora_B`, `.magnitude`, `.base.bias`; of modules trained in full their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from wellfit.errors import RunError
from wellfit.model.adapters.digest import digest_of
from wellfit.model.adapters.frozen import (
    FrozenLinear,
    frozen_linear,
    is_linear,
    is_table,
    is_turned,
)
from wellfit.model.adapters.layers import Adapted, LoraEmbedding, LoraLinear, lengths
from wellfit.model.guest import Guest
from wellfit.model.transformer import Transformer
from wellfit.recipe.adapter_section import chosen, named, saved
from wellfit.recipe.schema import Adapter, Quantize

WHERE = "model.adapter"
# They read the weights of layers inside them without calling these layers.
BYPASS = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


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
    for module in list(root.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            held.setdefault(id(parameter), parameter.requires_grad_(False).detach())
            del module._parameters[name]
            module.register_buffer(name, held[id(parameter)])
            module.frozen_names = {*getattr(module, "frozen_names", ()), name}  # type: ignore[assignment]
    if quantize.kind != "none":
        for name, layer in list(root.named_modules()):
            # A subclass may multiply in a way of its own.
            plain = is_linear(layer) and (type(layer) is nn.Linear or not _is_torch_linear(layer))
            whole = name in heads or name.endswith(".router")
            whole = whole or (section is not None and saved(section, name))
            if plain and not whole:
                put_layer(root, name, frozen_linear(layer, quantize))
    model.base_digest = digest
    model.attached = None


def attach(model: Any, section: Adapter, *, seed: int = 0) -> None:
    """A frozen model → with a fresh adapter on it; nothing may be attached yet."""
    attached = Attached(section, {})
    layers = dict(root_of(model).named_modules())
    for name in targets_of(model, section):
        _refuse_unfit(model, layers, name)
        fan_out, fan_in = sides(layers[name])
        table = is_table(layers[name])
        a, b = fresh_values(name, section, fan_in, fan_out, table=table, seed=seed)
        layer = _with_adapter(model, name, layers[name], section, a, b)
        if section.kind == "dora":
            layer.magnitude = nn.Parameter(_refuse_no_direction(lengths(layer), name))
        attached.layers[name] = layer
    _place(model, attached)
    for name in (*_in_full(model, section), *_biases(model, attached)):
        train_own(model, name)
    _refuse_idle(section, attached)


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
        _refuse_unfit(model, layers, name)
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
            there = None if module is None or last not in _frozen_in(module) else module
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
    return heads if output is None else [n for n in heads if _at(model.module, n) is output]


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
                way_out=f"Name some of: {', '.join(_ends(linear))}; {', '.join(_ends(tables))}.",
            )
        if target != "all-linear" and not set(meant) & set(names):
            why = "no layer is called so"
            if set(meant) & {*linear, *tables}:
                why = "layers_to_transform or modules_to_save leave out all that it means"
            raise RunError(
                why,
                where=f"{WHERE}.targets={target}",
                way_out=f"Name some of: {', '.join(_ends(linear))}; {', '.join(_ends(tables))}.",
            )
    if not names:
        raise RunError(
            "no linear layer is left for an adapter", where=WHERE,
            way_out="Name other targets or layers_to_transform.",
        )  # fmt: skip
    return names


def fresh_values(
    name: str, section: Adapter, fan_in: int, fan_out: int, *, table: bool, seed: int
) -> tuple[Tensor, Tensor]:
    """A layer's name and sides → first A [r, fan_in] and B [fan_out, r], float32 on the CPU."""
    rank = section.rank
    a, b = torch.zeros(rank, fan_in, device="cpu"), torch.zeros(fan_out, rank, device="cpu")
    if table:
        b.normal_(generator=_generator(seed, f"{name}.lora_B"))
    elif section.init == "gaussian":
        a.normal_(std=1 / rank, generator=_generator(seed, f"{name}.lora_A"))
    else:  # Kaiming's uniform with a = √5, as torch.nn.Linear begins
        bound = fan_in**-0.5
        a.uniform_(-bound, bound, generator=_generator(seed, f"{name}.lora_A"))
    return a, b


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


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


def _refuse_no_direction(magnitude: Tensor, name: str) -> Tensor:
    if magnitude.device.type != "meta" and bool((magnitude == 0).any()):
        raise RunError(
            f"{int((magnitude == 0).sum())} features of {name} have weights that are all 0, and "
            "what has no direction cannot be turned",
            where=f"{WHERE}.kind=dora",
            way_out="Set model.adapter.kind=lora, or leave this layer out of the targets.",
        )
    return magnitude


def sides(layer: nn.Module) -> tuple[int, int]:
    """A linear layer → its outputs and inputs; a table → its width and entries."""
    if isinstance(layer, FrozenLinear):
        return layer.out_features, layer.in_features
    rows, columns = cast(Tensor, layer.weight).shape
    return (columns, rows) if is_turned(layer) or is_table(layer) else (rows, columns)


def _in_full(model: Any, section: Adapter) -> list[str]:
    """Names of the base's tensors that `modules_to_save` means."""
    root, found = root_of(model), []
    for wanted in section.modules_to_save:
        meant = [(name, one) for name, one in root.named_modules() if name and named(name, wanted)]
        if not meant:
            raise RunError(
                "no module is called so",
                where=f"{WHERE}.modules_to_save={wanted}",
                way_out=f"Name one of: {', '.join(_ends(n for n, _ in root.named_modules()))}.",
            )
        for name, module in meant:
            for inside, part in module.named_modules(prefix=name):
                if isinstance(part, FrozenLinear):
                    raise RunError(
                        f"{inside} is kept in fewer bits, and what is trained in full cannot be",
                        where=f"{WHERE}.modules_to_save={wanted}",
                        way_out="Leave it out, or set model.quantize.kind=none.",
                    )
                found += [f"{inside}.{last}" for last in sorted(_frozen_in(part))]
    return list(dict.fromkeys(found))


def _biases(model: Any, attached: Attached) -> list[str]:
    """Names of the base's tensors that `bias` means and nothing else does."""
    section, found = attached.section, []
    if section.bias == "none":
        return []
    for name, module in root_of(model).named_modules():
        of_adapter = name.endswith(".base") and name.removesuffix(".base") in attached.layers
        if (section.bias == "all" or of_adapter) and "bias" in _frozen_in(module):
            found.append(f"{name}.bias")
    if not found:
        raise RunError(
            "there is no such bias in the model, so nothing would be trained",
            where=f"{WHERE}.bias={section.bias}",
            way_out="Set model.adapter.bias=none.",
        )
    return [name for name in found if not saved(section, name.rpartition(".")[0])]


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


def _frozen_in(module: nn.Module) -> set[str]:
    """Names of a module's own tensors that were parameters and are frozen."""
    names = cast("set[str]", module.__dict__.get("frozen_names", set()))
    return {name for name in names if isinstance(module._buffers.get(name), Tensor)}


def _refuse_unfit(model: Any, layers: dict[str, nn.Module], name: str) -> None:
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


def _refuse_few_bits(name: str, wanted: str) -> None:
    raise RunError(
        f"{name} is kept in fewer bits, and what is trained in full cannot be",
        where=f"{WHERE}.modules_to_save={wanted}",
        way_out="Leave it out, or set model.quantize.kind=none.",
    )


def _refuse_idle(section: Adapter, attached: Attached) -> None:
    lines = any(isinstance(layer, LoraLinear) for layer in attached.layers.values())
    for name, value, usual in (
        ("dropout", section.dropout, 0.0), ("init", section.init, "kaiming"),
    ):  # fmt: skip
        if value != usual and not lines:
            raise RunError(
                f"{name} is for adapters on linear layers, and none has one",
                where=f"{WHERE}.{name}={value}",
                way_out=f"Leave {name} out, or name linear layers as targets.",
            )


def _is_torch_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear)


def _ends(names: Any) -> list[str]:
    """Names → their last parts, each once: what one would write as a target."""
    found = (name.rpartition(".")[2] for name in names if name)
    return list(dict.fromkeys(end for end in found if not end.isdecimal()))[:12]


def _at(root: nn.Module, name: str) -> nn.Module:
    return root.get_submodule(name)


def put_layer(root: nn.Module, name: str, layer: nn.Module) -> None:
    """The layer takes the place of the one of that name."""
    owner, _, last = name.rpartition(".")
    module = root.get_submodule(owner)
    layer.training = getattr(module, last).training if hasattr(module, last) else True
    if last.isdecimal() and isinstance(module, (nn.ModuleList, nn.Sequential)):
        module[int(last)] = layer
    else:
        setattr(module, last, layer)


