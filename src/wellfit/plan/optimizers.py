"""Optimizers by their bytes: what stays between steps, and what an update makes for a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from wellfit.plan.ledger import Ledger
from wellfit.recipe.schema import AdamW, Muon
from wellfit.recipe.shapes import Shape

STATE_BYTES: dict[str, tuple[float, str]] = {
    "adamw": (8, "two float32 moments"),
    "muon": (4, "one float32 momentum (matrices; the rest is AdamW)"),
    "adamw_8bit": (2 + 8 / 256, "two 8-bit moments, a float32 scale each 256 (arXiv 2110.02861)"),
    "lion": (4, "one float32 momentum (arXiv 2302.06675)"),
    "sgd": (0, "none"),
    "sgd with momentum": (4, "one float32 momentum"),
    "adafactor": (0, "a row and a column sum a matrix (arXiv 1804.04235)"),
}
"""Optimizer → bytes of state a parameter, and what they are. The table that `plan` prints."""


def state_bytes(settings: AdamW | Muon, table: Iterable[Shape]) -> int:
    """An optimizer and every tensor of the model → bytes of its state.

    >>> settings = Muon(matrix_learning_rate=1.0, learning_rate=1.0)
    >>> state_bytes(settings, [Shape("a", (2, 3), "matrix"), Shape("b", (5,), "norm")])
    68
    """
    return sum(STATES[settings.kind](shape) for shape in table)


def adamw_state(shape: Shape) -> int:
    """A tensor → its two float32 moments and a step count."""
    return 8 * shape.parameters + 4


def muon_state(shape: Shape) -> int:
    """A tensor → a float32 momentum for a matrix, AdamW's state for all else."""
    return 4 * shape.parameters if shape.role == "matrix" else adamw_state(shape)


def play_adamw(ledger: Ledger, shape: Shape, *, promotes: bool) -> None:
    """The fused update makes nothing."""


def play_muon(ledger: Ledger, shape: Shape, *, promotes: bool) -> None:
    """A matrix's update on the ledger: five Newton–Schulz iterations in bf16.

    The momentum's look-ahead (float32), the matrix and its next iterate, the Gram matrix of its
    shorter side and a polynomial of it; then the update, which a CPU copies to float32.
    """
    if shape.role != "matrix":
        return
    short = min(shape.shape)
    ledger.hold("ahead", "temporaries", 4 * shape.parameters)
    ledger.hold("iterate", "temporaries", 2 * shape.parameters)
    ledger.hold("gram", "temporaries", 2 * short * short)
    ledger.hold("polynomial", "temporaries", 2 * short * short)
    ledger.touch("temporaries", 2 * shape.parameters)
    ledger.drop("gram", "polynomial", "ahead")
    if promotes:
        ledger.touch("temporaries", 4 * shape.parameters)
    ledger.drop("iterate")


STATES: dict[str, Callable[[Shape], int]] = {"adamw": adamw_state, "muon": muon_state}
PLAYS: dict[str, Callable[..., None]] = {"adamw": play_adamw, "muon": play_muon}
