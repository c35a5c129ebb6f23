"""Several adapters on one frozen base: loaded, switched, weighed and unloaded, one at a time on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from wellfit.errors import WellfitError
from wellfit.model.adapters.adapt import Kept, put_on, taken_off
from wellfit.recipe.schema import Adapter


class Adapters:
    """A frozen model and the adapters that it may have on; the base is never copied.

    At most one is on; `on` is its name, or empty.
    """

    def __init__(self, model: Any, name: str = "default") -> None:
        """A model that `adapted` or `freeze` made; what is attached to it goes by the name."""
        self.model = model
        self.kept: dict[str, Kept] = {}
        self.on = name if model.attached is not None else ""

    @property
    def names(self) -> list[str]:
        """All of them, the one that is on included."""
        return sorted({*self.kept, *([self.on] if self.on else [])})

    def load(self, name: str, adapter: Kept) -> None:
        """An adapter, as `read_peft` gives one, is known by a name from now on, but not put on."""
        if name in self.names:
            raise WellfitError(
                f"there is an adapter {name} already",
                where="adapters",
                way_out="Unload it first, or give another name.",
            )
        self.kept[name] = adapter

    def switch(self, name: str) -> None:
        """The adapter of that name is put on, and the one that was on is kept; empty: none is."""
        if name == self.on:
            return
        if name:
            self._refuse_unknown(name)
        before = self.on
        if before:
            self.kept[before] = taken_off(self.model)
            self.on = ""
        if name:
            try:
                put_on(self.model, self.kept[name])
            except WellfitError:
                if before:
                    self.switch(before)
                raise
            del self.kept[name]
            self.on = name

    def unload(self, name: str) -> Kept:
        """The adapter of that name is forgotten here, and given back."""
        self._refuse_unknown(name)
        if name == self.on:
            self.switch("")
        return self.kept.pop(name)

    @contextmanager
    def with_adapter(self, name: str) -> Iterator[Any]:
        """Within, the model has that adapter on (empty: none); afterwards what it had before."""
        before = self.on
        self.switch(name)
        try:
            yield self.model
        finally:
            self.switch(before)

    def weigh(self, name: str, weights: Mapping[str, float]) -> None:
        """`{adapter: weight}` → an adapter of that name that adds the weighed sum of what they add.

        Exact: their matrices stand side by side, so its rank is the sum of theirs. Raises
        WellfitError for DoRA, whose sums are no such adapter, and where whole tensors are trained.
        """
        before = self.on
        self.switch("")
        try:
            for one in weights:
                self._refuse_unknown(one)
            self.load(name, combined({one: self.kept[one] for one in weights}, weights))
        finally:
            self.switch(before)

    def _refuse_unknown(self, name: str) -> None:
        if name not in self.names:
            raise WellfitError(
                f"no adapter is called {name}",
                where="adapters",
                way_out=f"There are: {', '.join(self.names) or 'none'}.",
            )


def combined(adapters: Mapping[str, Kept], weights: Mapping[str, float]) -> Kept:
    """Adapters and a weight for each → one that adds the weighed sum of what they add."""
    sides: dict[str, tuple[int, int]] = {}
    for name, kept in adapters.items():
        own = [key for key in kept.tensors if not key.endswith((".lora_A", ".lora_B"))]
        if own:
            raise WellfitError(
                f"{name} trains {own[0]} besides, and only sums of A and B can be weighed",
                where="adapters",
                way_out="Weigh adapters of kind lora without modules_to_save and biases.",
            )
        for key, tensor in kept.tensors.items():
            if key.endswith(".lora_A"):
                layer = key.removesuffix(".lora_A")
                sides[layer] = (kept.tensors[f"{layer}.lora_B"].shape[0], tensor.shape[1])
    tensors: dict[str, Tensor] = {}
    for layer, (fan_out, fan_in) in sides.items():
        firsts, seconds = [], []
        for name, kept in adapters.items():
            rank = kept.section.rank
            a = kept.tensors.get(f"{layer}.lora_A", torch.zeros(rank, fan_in))
            b = kept.tensors.get(f"{layer}.lora_B", torch.zeros(fan_out, rank))
            firsts.append(a)
            seconds.append(b.to(a.device) * (weights[name] * kept.section.scale))
        device = next(a.device for a in firsts)
        tensors[f"{layer}.lora_A"] = torch.cat([a.to(device) for a in firsts])
        tensors[f"{layer}.lora_B"] = torch.cat([b.to(device) for b in seconds], dim=1)
    rank = sum(kept.section.rank for kept in adapters.values())
    return Kept(Adapter(rank=rank, alpha=rank, targets=tuple(sides)), tensors)
