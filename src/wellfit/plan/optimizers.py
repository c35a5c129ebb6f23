"""Optimizers by their bytes: what stays between steps, and what an update makes for a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from wellfit.plan.ledger import Ledger
from wellfit.recipe.schema import Optimizer
from wellfit.recipe.shapes import Shape

RUN = 1 << 26
"""Numbers that an update takes at once, as in `training/optimizers/assemble.py`."""


def state_bytes(settings: Optimizer, table: Iterable[Shape]) -> int:
    """An optimizer and every tensor of the model → bytes of its state.

    >>> from wellfit.recipe.schema import Muon
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
    [('adamw', 8196), ('muon', 4096), ('lion', 4096), ('sgd', 4096),
     ('adamw_8bit', 2084), ('adafactor', 1044)]
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


def adafactor_state(shape: Shape) -> int:
    """A tensor → sums over the rows and the columns of a matrix, squares of a vector, a step."""
    return 4 * (sum(shape.shape) if len(shape.shape) > 1 else shape.parameters) + 4


def play_nothing(ledger: Ledger, table: Sequence[Shape], *, promotes: bool, native: bool) -> None:
    """The fused update makes nothing."""


def play_new_values(
    ledger: Ledger, table: Sequence[Shape], *, promotes: bool, native: bool
) -> None:
    """An update that makes a float32 tensor for each number of a portion; a bound, not a count."""
    ledger.touch("temporaries", 4 * min(RUN, sum(shape.parameters for shape in table)))


def play_muon(ledger: Ledger, table: Sequence[Shape], *, promotes: bool, native: bool) -> None:
    """Every portion of matrices on the ledger: Newton–Schulz iterations of like shapes at once.

    The momentum's look-ahead (float32), the stack of matrices, its iterate and the next one, the
    Gram matrices of the shorter sides and polynomials of them; then the update, which a CPU copies
    to float32 one matrix after the other.
    """
    matrices = [shape for shape in table if shape.role == "matrix"]
    for run in _runs(matrices):
        ledger.hold("ahead", "temporaries", 4 * sum(shape.parameters for shape in run))
        alike: dict[tuple[int, ...], list[Shape]] = {}
        for shape in run:
            alike.setdefault(tuple(sorted(shape.shape[-2:])), []).append(shape)
        old = ""
        for number, ((short, _), group) in enumerate(alike.items()):
            size = (2 if native else 4) * sum(shape.parameters for shape in group)
            gram = size // max(alike_side(group), 1) * short
            for part, held in (("stack", size), ("X", size), ("gram", gram), ("polynomial", gram)):
                ledger.hold(part, "temporaries", held)
            ledger.hold(f"directions{number}", "temporaries", size)
            ledger.drop("stack", "X", "gram", "polynomial")
            if old:
                ledger.drop(old)
            old = f"directions{number}"
            if promotes and native:
                ledger.touch("temporaries", 4 * max(shape.parameters for shape in group))
        ledger.drop("ahead", old)


def alike_side(group: Sequence[Shape]) -> int:
    """Shapes that are alike → their longer side."""
    return max(group[0].shape[-2:])


def _runs(matrices: Sequence[Shape]) -> list[list[Shape]]:
    """Matrices → portions of at most `RUN` numbers, like shapes together, as `assemble.py` does."""
    runs: list[list[Shape]] = []
    for shape in sorted(matrices, key=lambda one: sorted(one.shape)):
        last = runs[-1] if runs else []
        if not last or sum(one.parameters for one in last) + shape.parameters > RUN:
            runs.append([shape])
        else:
            last.append(shape)
    return runs


STATES: dict[str, tuple[Callable[[Shape], int], str]] = {
    "adamw": (adamw_state, "two float32 moments"),
    "muon": (muon_state, "one float32 moment of a matrix, AdamW's two of all else"),
    "adamw_8bit": (adamw_8bit_state, "two moments of a byte, arXiv 2110.02861"),
    "lion": (momentum_state, "one float32 moment, arXiv 2302.06675"),
    "sgd": (momentum_state, "one float32 moment, none without momentum"),
    "adafactor": (adafactor_state, "row and column sums, arXiv 1804.04235"),
}
"""Optimizer → its state of one tensor, and what that is; a recipe's kinds are among the names."""
PLAYS: dict[str, Callable[..., None]] = {
    "adamw": play_nothing,
    "muon": play_muon,
    "adamw_8bit": play_new_values,
    "lion": play_new_values,
    "sgd": play_new_values,
    "adafactor": play_new_values,
}
