"""Tensors that come and go, played on paper: what is held at the fullest moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "weights",
    "frozen base",
    "gradients",
    "optimizer",
    "average",
    "activations",
    "casts",
    "logits",
    "mask",
    "cache",
    "batch",
    "temporaries",
]
KINDS: dict[Kind, str] = {
    "weights": "float32 masters",
    "frozen base": "weights that are not trained, as they are kept",
    "gradients": "float32, one a weight",
    "optimizer": "moments that stay between steps",
    "average": "running average of the weights, float32",
    "activations": "kept by the forward pass for the backward pass",
    "casts": "weights in the precision of the arithmetic",
    "logits": "one chunk of the loss",
    "mask": "what attention adds to its scores",
    "cache": "keys and values of generation",
    "batch": "token ids of the present and the next step",
    "temporaries": "within one operation",
}


@dataclass(frozen=True, slots=True)
class Peak:
    """The fullest moment of a stretch: its name, all bytes, and those of each kind."""

    moment: str
    bytes: int
    by_kind: dict[Kind, int]


class Ledger:
    """Bytes held now by name, and the fullest moment so far of each stretch.

    >>> ledger = Ledger()
    >>> ledger.hold("w", "weights", 8)
    >>> ledger.at("forward"); ledger.hold("x", "temporaries", 4); ledger.drop("x")
    >>> ledger.peak().moment, ledger.peak().bytes, ledger.bytes
    ('forward', 12, 8)
    """

    def __init__(self) -> None:
        self.held: dict[str, tuple[Kind, int]] = {}
        self.bytes = 0
        self.moment = "at rest"
        self.by_kind: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        self.peaks: dict[str, Peak] = {}

    def at(self, moment: str) -> None:
        """A stretch begins; what is held already counts in it."""
        self.moment = moment
        self._mark()

    def hold(self, name: str, kind: Kind, size: int) -> None:
        """A tensor of `size` bytes is made."""
        assert name not in self.held, f"{name} is held already"
        self.held[name] = (kind, size)
        self.bytes += size
        self.by_kind[kind] += size
        self._mark()

    def drop(self, *names: str) -> None:
        """Tensors are freed."""
        for name in names:
            kind, size = self.held.pop(name)
            self.bytes -= size
            self.by_kind[kind] -= size

    def touch(self, kind: Kind, size: int) -> None:
        """A tensor is made and freed at once, on top of what is held."""
        self.hold("touched", kind, size)
        self.drop("touched")

    def keep(self, name: str, new: str, kind: Kind) -> None:
        """A tensor takes another name and kind, such as a saved temporary; no byte moves."""
        _, size = self.held[name]
        self.drop(name)
        self.hold(new, kind, size)

    def peak(self) -> Peak:
        """The fullest of all stretches."""
        return max(self.peaks.values(), key=lambda peak: peak.bytes)

    def _mark(self) -> None:
        best = self.peaks.get(self.moment)
        if best is None or self.bytes > best.bytes:
            self.peaks[self.moment] = Peak(self.moment, self.bytes, dict(self.by_kind))
