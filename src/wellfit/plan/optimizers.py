"""Optimizers by their bytes: what stays between steps, and what an update makes for a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from wellfit.plan.ledger import Ledger
from wellfit.recipe.schema import AdamW, Muon
from wellfit.recipe.shapes import Shape


def state_bytes(settings: AdamW | Muon, table: Iterable[Shape]) -> int:
    """An optimizer and every tensor of the model → bytes of its state.

    >>> settings = Muon(matrix_learning_rate=1.0, learning_rate=1.0)
    >>> state_bytes(settings, [Shape("a", (2, 3), "matrix"), Shape("b", (5,), "norm")])
    68
    """
    state = STATES[settings.kind][0]
    return sum(state(shape) for shape in table)


def optimizer_table(table: Sequence[Shape]) -> list[tuple[str, int, str]]:
    """Every tensor of a model → (optimizer, bytes of its state, what they are), most bytes first.

    >>> [(name, count) for name, count, _ in optimizer_table([Shape("a", (4, 256), "matrix")])]
    ... # doctest: +NORMALIZE_WHITESPACE
    [('adamw', 8196), ('muon', 4096), ('lion', 4096), ('sgd with momentum', 4096),
     ('adamw in 8 bits', 2084), ('adafactor', 1044), ('sgd', 0)]
    """
    rows = [
        (name, sum(state(shape) for shape in table), what) for name, (state, what) in STATES.items()
    ]
    return sorted(rows, key=lambda row: -row[1])


def adamw_state(shape: Shape) -> int:
    """A tensor → its two float32 moments and a step count."""
    return 8 * shape.parameters + 4


def muon_state(shape: Shape) -> int:
    """A tensor → a float32 momentum for a matrix, AdamW's state for all else."""
    return 4 * shape.parameters if shape.role == "matrix" else adamw_state(shape)


def adamw_8bit_state(shape: Shape) -> int:
    """A tensor → two moments of a byte, with a float32 scale each 256 numbers, and a step count."""
    return 2 * (shape.parameters + 4 * -(-shape.parameters // 256)) + 4


def momentum_state(shape: Shape) -> int:
    """A tensor → one float32 momentum."""
    return 4 * shape.parameters


def no_state(shape: Shape) -> int:
    """A tensor → nothing."""
    return 0


def adafactor_state(shape: Shape) -> int:
    """A tensor → sums over the rows and the columns of a matrix, squares of a vector, a step."""
    return 4 * (sum(shape.shape) if len(shape.shape) > 1 else shape.parameters) + 4


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


STATES: dict[str, tuple[Callable[[Shape], int], str]] = {
    "adamw": (adamw_state, "two float32 moments"),
    "muon": (muon_state, "one float32 moment of a matrix, AdamW's two of all else"),
    "adamw in 8 bits": (adamw_8bit_state, "two moments of a byte, arXiv 2110.02861"),
    "lion": (momentum_state, "one float32 moment, arXiv 2302.06675"),
    "sgd with momentum": (momentum_state, "one float32 moment"),
    "adafactor": (adafactor_state, "row and column sums, arXiv 1804.04235"),
    "sgd": (no_state, "nothing"),
}
"""Optimizer → its state of one tensor, and what that is; a recipe's kinds are among the names."""
PLAYS: dict[str, Callable[..., None]] = {"adamw": play_adamw, "muon": play_muon}
