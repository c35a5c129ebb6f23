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
from wellfit.model.adapters.frozen import FrozenLinear, frozen_linear, is_linear, is_table
from wellfit.model.adapters.layers import Adapted, LoraEmbedding, LoraLinear, lengths
from wellfit.model.guest import Guest
from wellfit.model.transformer import Transformer
from wellfit.recipe.adapter_section import chosen, named, saved
from wellfit.recipe.schema import Adapter, Quantize

WHERE = "model.adapter"
# They read the weights of layers inside them without calling these layers.
BYPASS = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


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
                _put(root, name, frozen_linear(layer, quantize))
    model.base_digest = digest
    model.attached = None


def attach(model: Any, section: Adapter, *, seed: int = 0) -> None:
    """A frozen model → with a fresh adapter on it; nothing may be attached yet."""
    assert model.attached is None, "detach what is attached first"
    root = root_of(model)
    layers = dict(root.named_modules())
    names = targets_of(model, section)
    attached = Attached(section, {})
    for name in names:
        _refuse_unfit(model, layers, name)
        attached.layers[name] = _with_adapter(model, name, layers[name], section, seed)
    for name, layer in attached.layers.items():
        _put(root, name, cast(nn.Module, layer))
    _train_in_full(root, section, attached)
    _train_biases(root, section, attached)
    model.attached = attached
    _refuse_idle(section, attached)


def detach(model: Any) -> None:
    """A model with an adapter → the frozen base alone, as it was before."""
    root, attached = root_of(model), model.attached
    for name, layer in attached.layers.items():
        _put(root, name, layer.base)
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
    model: Any, name: str, base: nn.Module, section: Adapter, seed: int
) -> Adapted:
    weight = cast(Tensor, next(iter(base.buffers())))
    if is_table(base):
        entries, width = cast(Tensor, base.weight).shape
        a, b = fresh_values(name, section, entries, width, table=True, seed=seed)
        layer: Adapted = LoraEmbedding(base, a.to(weight.device), b.to(weight.device), section.scale)
    else:
        fan_out, fan_in = sides(base)
        a, b = fresh_values(name, section, fan_in, fan_out, table=False, seed=seed)
        layer = LoraLinear(
            base, a.to(weight.device), b.to(weight.device), section.scale, section.dropout
        )
        if isinstance(model, Transformer):
            layer.drawn_for = (model, name)
    if section.kind == "dora":
        magnitude = lengths(layer)
        if magnitude.device.type != "meta" and bool((magnitude == 0).any()):
            raise RunError(
                f"{int((magnitude == 0).sum())} features of {name} have weights that are all 0, "
                "and what has no direction cannot be turned",
                where=f"{WHERE}.kind=dora",
                way_out="Set model.adapter.kind=lora, or leave this layer out of the targets.",
            )
        layer.magnitude = nn.Parameter(magnitude)
    return layer


def sides(layer: nn.Module) -> tuple[int, int]:
    """A linear layer → its outputs and inputs."""
    if isinstance(layer, FrozenLinear):
        return layer.out_features, layer.in_features
    shape = cast(Tensor, layer.weight).shape
    return (shape[1], shape[0]) if type(layer).__name__ == "Conv1D" else (shape[0], shape[1])


def _train_in_full(root: nn.Module, section: Adapter, attached: Attached) -> None:
    """Modules of `modules_to_save` get parameters of their own again; ties are thereby cut."""
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
                    _refuse_few_bits(inside, wanted)
                for last in sorted(_frozen_in(part)):
                    _train(part, inside, last, attached)


def _train_biases(root: nn.Module, section: Adapter, attached: Attached) -> None:
    if section.bias == "none":
        return
    found = False
    for name, module in list(root.named_modules()):
        of_adapter = name.removesuffix(".base") in attached.layers and name.endswith(".base")
        if section.bias == "adapter" and not of_adapter:
            continue
        if "bias" in _frozen_in(module):
            _train(module, name, "bias", attached)
            found = True
    if not found:
        raise RunError(
            "there is no such bias in the model, so nothing would be trained",
            where=f"{WHERE}.bias={section.bias}",
            way_out="Set model.adapter.bias=none.",
        )


def _train(module: nn.Module, owner: str, last: str, attached: Attached) -> None:
    """One frozen tensor → a parameter with the same numbers, and the tensor kept aside."""
    tensor = cast(Tensor, module._buffers.pop(last))
    module.register_parameter(last, nn.Parameter(tensor.clone()))
    # Layers with an adapter give their names back when it goes.
    within = owner.removesuffix(".base")
    attached.originals[f"{within if within in attached.layers else owner}.{last}"] = tensor


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


def _put(root: nn.Module, name: str, layer: nn.Module) -> None:
    """The layer takes the place of the one of that name."""
    owner, _, last = name.rpartition(".")
    module = root.get_submodule(owner)
    layer.training = getattr(module, last).training if hasattr(module, last) else True
    if last.isdecimal() and isinstance(module, (nn.ModuleList, nn.Sequential)):
        module[int(last)] = layer
    else:
        setattr(module, last, layer)


