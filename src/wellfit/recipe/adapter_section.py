"""The recipe's sections `model.adapter` and `model.quantize`: a frozen base, and what is trained.

Names are those of PEFT where it has one, so that its users find them again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from wellfit.recipe.section import Section

if TYPE_CHECKING:
    from wellfit.recipe.model_section import Model
    from wellfit.recipe.train_section import Train

ALL_LINEAR = "all-linear"
_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


class Adapter(Section):
    """Small matrices beside a frozen base; they alone are trained (LoRA, arXiv 2106.09685)."""

    kind: Literal["lora", "dora"] = Field(
        "lora",
        description="`lora`: W + scale·B·A; `dora`: its columns' lengths are trained apart from "
        "their directions (arXiv 2402.09353).",
    )
    rank: int = Field(8, ge=1, le=65_536, description="Rows of A and columns of B.")
    alpha: float = Field(16.0, gt=0, description="Scale of B·A: alpha / rank.")
    rslora: bool = Field(
        False, description="Scale alpha / √rank instead, for high ranks (arXiv 2312.03732)."
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of an adapter's inputs dropped in training."
    )
    targets: tuple[str, ...] = Field(
        (ALL_LINEAR,),
        min_length=1,
        description="Layers with an adapter: `all-linear` (all but the head), names or ends of "
        "names, or patterns that a whole name matches; linear layers and embeddings.",
    )
    layers_to_transform: tuple[int, ...] = Field(
        (), description="Only in these layers, counted from 0; none named: in all."
    )
    layers_pattern: str = Field(
        "", description="Name of the list of layers; empty takes the first number in a name."
    )
    modules_to_save: tuple[str, ...] = Field(
        (), description="Modules trained in full beside the adapters, by name or end of name."
    )
    bias: Literal["none", "adapter", "all"] = Field(
        "none", description="Biases that are trained: none, those of adapted layers, or all."
    )
    init: Literal["kaiming", "gaussian"] = Field(
        "kaiming",
        description="First values of A on linear layers: uniform up to 1/√inputs, or normal with "
        "deviation 1/rank. B is 0; on embeddings A is 0 and B normal.",
    )

    @property
    def scale(self) -> float:
        """What B·A is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)

    @model_validator(mode="after")
    def _targets_are_sound(self) -> Adapter:
        for target in (*self.targets, *self.modules_to_save):
            try:
                re.compile(target)
            except re.error as fault:
                raise ValueError(f"{target!r} is neither a name nor a pattern: {fault}") from fault
        if self.layers_pattern and not self.layers_to_transform:
            raise ValueError(
                f"layers_pattern {self.layers_pattern} would do nothing without "
                "layers_to_transform; leave it out"
            )
        if any(layer < 0 for layer in self.layers_to_transform):
            raise ValueError("layers_to_transform counts from 0; leave the negative numbers out")
        return self


class Quantize(Section):
    """How the frozen matrices of linear layers are kept; head, embeddings and norms stay whole."""

    kind: Literal["none", "bf16", "int8", "nf4"] = Field(
        "none",
        description="`bf16`: 16 bits; `int8`: 8 bits and a scale for each row; `nf4`: 4 bits and "
        "a scale for each block (QLoRA, arXiv 2305.14314).",
    )
    block_size: Literal[32, 64, 128, 256, 512] = Field(
        64, description="nf4: numbers that share a scale."
    )
    double_quantization: bool = Field(
        True, description="nf4: the scales are kept in 8 bits, in blocks of 256."
    )

    @model_validator(mode="after")
    def _block_settings_are_of_nf4(self) -> Quantize:
        for name, usual in (("block_size", 64), ("double_quantization", True)):
            if self.kind != "nf4" and getattr(self, name) != usual:
                raise ValueError(
                    f"{name} {str(getattr(self, name)).lower()} would do nothing with kind "
                    f"{self.kind}; leave it out, or try kind nf4"
                )
        return self


def refuse_idle(model: Model) -> None:
    """Raise ValueError where settings of adapters would do nothing."""
    if model.adapter is None and model.quantize.kind != "none":
        raise ValueError(
            f"quantize {model.quantize.kind} is for a frozen base, and without adapter all is "
            "trained; try adapter {rank: 16}, or leave quantize out"
        )


def refuse_beside(model: Model, train: Train) -> None:
    """Raise ValueError where adapters contradict what training is asked for."""
    if model.adapter is None:
        return
    if train.precision == "fp8":
        raise ValueError(
            "train.precision fp8 is for matrices that are trained, and with model.adapter those of "
            "the base are frozen; try train.precision bf16"
        )
    if train.optimizer.kind == "muon" and not model.adapter.modules_to_save:
        raise ValueError(
            "train.optimizer.kind muon is for whole matrices, and beside the frozen base of "
            "model.adapter none is trained; try train.optimizer.kind adamw"
        )
    if train.activation_offload:
        raise ValueError(
            "train.activation_offload true would take the frozen base of model.adapter to the host "
            "with the activations; try train.activation_checkpointing full"
        )


def named(module: str, wanted: str) -> bool:
    """A module's name and a name, an end of one or a pattern → whether that means it.

    >>> named("blocks.0.attention.query", "query"), named("blocks.0.bigquery", "query")
    (True, False)
    >>> named("blocks.0.attention.query", r".*(query|key)"), named("head", "query|key")
    (True, False)
    """
    if _NAME.fullmatch(wanted):
        return module == wanted or module.endswith(f".{wanted}")
    return re.fullmatch(wanted, module) is not None


def layer_of(module: str, pattern: str = "") -> int | None:
    """A module's name and the name of the list of layers → the number of its layer; None: none.

    >>> layer_of("blocks.3.attention.query"), layer_of("a.0.experts.7.up", "experts")
    (3, 7)
    >>> layer_of("embedding") is None
    True
    """
    before = re.escape(pattern) if pattern else r"[^.]*"
    found = re.match(rf"(?:^|.*?\.){before}\.(\d+)(?:\.|$)", module)
    return int(found[1]) if found else None


def chosen(
    adapter: Adapter, linear: Iterable[str], embeddings: Iterable[str], heads: Collection[str]
) -> tuple[str, ...]:
    """An adapter, and names of linear layers, embeddings and heads → names of those it goes on.

    `heads` are among the linear layers; `all-linear` leaves them out. What `modules_to_save` names
    is trained in full and has no adapter.

    >>> chosen(Adapter(targets=("all-linear", "embedding")), ["a.0.up", "head"], ["embedding"],
    ...        ["head"])
    ('embedding', 'a.0.up')
    """
    lines = tuple(linear)
    found = []
    for name in (*embeddings, *lines):
        meant = any(
            (name in lines and name not in heads) if target == ALL_LINEAR else named(name, target)
            for target in adapter.targets
        )
        layer = layer_of(name, adapter.layers_pattern)
        fits = not adapter.layers_to_transform or layer in adapter.layers_to_transform
        if meant and fits and not saved(adapter, name):
            found.append(name)
    return tuple(found)


def saved(adapter: Adapter, module: str) -> bool:
    """An adapter and a module's name → whether it, or what it is in, is trained in full."""
    parts = module.split(".")
    owners = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
    return any(named(owner, wanted) for owner in owners for wanted in adapter.modules_to_save)
