"""An adapter in, the folder that PEFT reads out; and back: adapter_config.json and safetensors.

Keys of PEFT: `base_model.model.<layer>.lora_A.weight`, `.lora_B.weight`, `.lora_magnitude_vector`;
of tables `.lora_embedding_A`, `.lora_embedding_B`; trained tensors of the base by their own names,
behind `.base_layer` in a layer that has an adapter. Nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from wellfit.errors import WellfitError
from wellfit.model.adapters.adapt import Kept, put_on
from wellfit.model.adapters.frozen import is_table, is_turned
from wellfit.model.adapters.places import root_of
from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import Adapter

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
BIAS = {"none": "none", "adapter": "lora_only", "all": "all"}
# (our end, PEFT's end of a linear layer, PEFT's end of a table)
ENDS = (
    (".lora_A", ".lora_A.weight", ".lora_embedding_A"),
    (".lora_B", ".lora_B.weight", ".lora_embedding_B"),
    (".magnitude", ".lora_magnitude_vector", ".lora_magnitude_vector"),
)
READ = frozenset({
    "peft_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "bias",
    "init_lora_weights", "target_modules", "modules_to_save", "layers_to_transform",
    "layers_pattern", "exclude_modules", "fan_in_fan_out",
})  # fmt: skip
"""Settings of PEFT's that are read, or that only say which layers were meant: the files tell."""
IDLE = frozenset({
    "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision",
    "inference_mode", "megatron_core", "qalora_group_size",
})  # fmt: skip
"""Settings of PEFT's that change nothing in what an adapter computes."""


def save_peft(
    model: Any,
    folder: Path,
    *,
    names: Mapping[str, str] | None = None,
    base: str = "",
    task: str = "CAUSAL_LM",
) -> Path:
    """A model with an adapter, a folder → the folder, as PEFT loads it onto the same base.

    `names` are the Hugging Face names of our modules, which our own transformer needs; `base` is
    where the base stands, and `task` PEFT's kind of task. Raises WellfitError where PEFT's format
    cannot say what was trained.
    """
    from safetensors.torch import save_file

    attached, root = model.attached, root_of(model)
    _refuse_what_peft_cannot(model, names)
    rename = _renamer(names)
    tensors: dict[str, Tensor] = {}
    for name, tensor in root.named_parameters():
        tensors[PREFIX + _to_peft(name, attached.layers, rename)] = tensor.detach()
    layers = [rename(name) for name in attached.layers]
    biases = (
        {n for n in attached.originals if n.endswith(".bias")}
        if attached.section.bias != "none"
        else ()
    )
    whole = sorted({rename(n.rpartition(".")[0]) for n in attached.originals if n not in biases})
    for name in whole:
        every = ((names or {}).get(other, other) for other, _ in root.named_modules())
        twins = [other for other in every if other.endswith(name)]
        if len(twins) > 1:
            raise WellfitError(
                f"PEFT would take {name} for {', '.join(twins)} alike",
                where="model.adapter.modules_to_save",
                way_out="Merge the adapter instead.",
            )
    section: Adapter = attached.section
    turned = [is_turned(one.base) for one in attached.layers.values() if not is_table(one.base)]
    config = {
        "peft_type": "LORA",
        "task_type": task,
        "base_model_name_or_path": base or None,
        "inference_mode": True,
        "r": section.rank,
        "lora_alpha": int(section.alpha) if section.alpha == int(section.alpha) else section.alpha,
        "lora_dropout": section.dropout,
        "use_rslora": section.rslora,
        "use_dora": section.kind == "dora",
        "bias": BIAS[section.bias],
        "target_modules": sorted(layers),
        "modules_to_save": whole or None,
        "fan_in_fan_out": bool(turned) and all(turned),
        "init_lora_weights": "gaussian" if section.init == "gaussian" else True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    return folder


def load_peft(model: Any, folder: Path, *, names: Mapping[str, str] | None = None) -> None:
    """A frozen model and a folder that PEFT wrote → the model with that adapter on.

    Raises WellfitError as `read_peft` does, and RunError where the base does not fit.
    """
    put_on(model, read_peft(model, folder, names=names))


def read_peft(model: Any, folder: Path, *, names: Mapping[str, str] | None = None) -> Kept:
    """A frozen model and a folder that PEFT wrote → the adapter, in our names.

    Raises WellfitError, by name, for every setting and every tensor that is not understood.
    """
    from safetensors.torch import load_file

    config = _read_config(folder)
    found: dict[str, Tensor] = load_file(folder / WEIGHTS)
    section = _section(config, folder)
    _refuse_missing_names(model, names)
    back = {theirs: ours for ours, theirs in (names or {}).items()}
    modules = dict(root_of(model).named_modules())
    tensors: dict[str, Tensor] = {}
    for key, tensor in found.items():
        if ".original_module." in key:  # what PEFT put aside; with bias "all" it saves this too
            continue
        plain = key.removeprefix(PREFIX).replace(".modules_to_save.", ".")
        name = _to_ours(plain, back)
        if name.endswith(".base.weight"):
            _refuse_other_table(model, name, tensor, folder)
            continue
        owner = name.rpartition(".")[0]
        if owner.removesuffix(".base") not in modules:
            raise WellfitError(
                f"{key} belongs to no layer of this base",
                where=str(folder / WEIGHTS),
                way_out="Load it onto the base that it was trained on"
                + (", or give names for its layers." if names is not None else "."),
            )
        tensors[name] = tensor.float()
    return Kept(section, tensors)


def _read_config(folder: Path) -> dict[str, Any]:
    where = str(folder / CONFIG)
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        raise WellfitError(
            "its weights are pickled, and loading them would run code"
            if pickled
            else f"there is no {WEIGHTS}",
            where=str(folder),
            way_out="Save it again with PEFT's save_pretrained, which writes safetensors."
            if pickled
            else "Give the folder that PEFT's save_pretrained wrote.",
        )
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        kind = config["peft_type"]
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise WellfitError(
            f"it is no configuration of PEFT ({fault})",
            where=where,
            way_out="Give the folder that PEFT's save_pretrained wrote.",
        ) from fault
    if kind != "LORA":
        raise WellfitError(
            f"peft_type {kind} is not known here, only LORA (with rsLoRA and DoRA)",
            where=where,
            way_out="Merge it with PEFT, and use the merged model.",
        )
    return cast("dict[str, Any]", config)


def _section(config: Mapping[str, Any], folder: Path) -> Adapter:
    odd = [name for name, value in config.items() if value and name not in READ | IDLE]
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower() not in ("gaussian", "true", "eva", "orthogonal"):
        odd.insert(0, f"init_lora_weights {start} (which changes the base)")
    if odd:
        raise WellfitError(
            f"{', '.join(odd)}: not understood here",
            where=str(folder / CONFIG),
            way_out="Merge the adapter with PEFT, and use the merged model.",
        )
    back = {theirs: ours for ours, theirs in BIAS.items()}
    return Adapter(
        kind="dora" if config.get("use_dora") else "lora",
        rank=config["r"],
        alpha=config["lora_alpha"],
        rslora=bool(config.get("use_rslora")),
        dropout=config.get("lora_dropout") or 0.0,
        bias=cast(Any, back[config.get("bias") or "none"]),
        init="gaussian" if start == "gaussian" else "kaiming",
    )


def _to_peft(name: str, layers: Mapping[str, Any], rename: Any) -> str:
    """A parameter's name → PEFT's key."""
    for ours, linear, table in ENDS:
        layer = name.removesuffix(ours)
        if layer != name and layer in layers:
            return f"{rename(layer)}{table if is_table(layers[layer].base) else linear}"
    owner, _, last = name.rpartition(".")
    within = owner.removesuffix(".base")
    if within != owner and within in layers:
        return f"{rename(within)}.base_layer.{last}"
    return f"{rename(owner)}.{last}"


def _to_ours(key: str, back: Mapping[str, str]) -> str:
    """PEFT's key without its prefix → the parameter's name."""
    for ours, linear, table in ENDS:
        for theirs in (linear, table):
            if key.endswith(theirs):
                layer = key.removesuffix(theirs)
                return back.get(layer, layer) + ours
    owner, _, last = key.rpartition(".")
    within = owner.removesuffix(".base_layer")
    return f"{back.get(within, within)}{'.base' if within != owner else ''}.{last}"


def _renamer(names: Mapping[str, str] | None) -> Any:
    def rename(module: str) -> str:
        if names is None:
            return module
        if module not in names:
            raise WellfitError(
                f"{module} has no name in a Hugging Face model of this shape",
                where="the adapter",
                way_out="Merge the adapter instead.",
            )
        return names[module]

    return rename


def _refuse_missing_names(model: Any, names: Mapping[str, str] | None) -> None:
    if isinstance(model, Transformer) and names is None:
        raise WellfitError(
            "PEFT knows the layers of our transformer by the names of a Hugging Face model, and "
            "none are given",
            where="names",
            way_out="Give {our module: its name there}.",
        )


def _refuse_what_peft_cannot(model: Any, names: Mapping[str, str] | None) -> None:
    _refuse_missing_names(model, names)
    own = isinstance(model, Transformer) and model.model.tie_embeddings
    if own and "embedding.weight" in model.attached.originals:
        raise WellfitError(
            "the table that is embedding and head at once was trained, and PEFT would train the "
            "embedding alone",
            where="model.adapter.modules_to_save=embedding",
            way_out="Merge the adapter instead.",
        )
    ranks = {one.lora_A.shape[0] for one in model.attached.layers.values()}
    assert ranks == {model.attached.section.rank}, "every layer has the rank of the section"


def _refuse_other_table(model: Any, name: str, tensor: Tensor, folder: Path) -> None:
    """PEFT may save the base's table beside its adapter; it must be the one that is here."""
    layer = name.removesuffix(".base.weight")
    here = dict(root_of(model).named_buffers()).get(f"{layer}.weight")
    if here is None or here.shape != tensor.shape or not torch.equal(here.cpu(), tensor.to(here)):
        raise WellfitError(
            f"the table {layer} that it was trained on is another one than this base's",
            where=str(folder / WEIGHTS),
            way_out="Load it onto the base that it was trained on.",
        )
