"""A recipe and where it runs → bytes by kind at the fullest moment, and beside the tensors."""

from __future__ import annotations

from dataclasses import dataclass

from wellfit.plan import block as blocks
from wellfit.plan.layout import Layout
from wellfit.plan.ledger import Ledger, Peak
from wellfit.plan.step import loss_forward, play_step
from wellfit.recipe.schema import Recipe
from wellfit.recipe.shapes import parameter_count

PROCESS_BYTES = 500_000_000
"""An allowance for the interpreter, torch and our own code: on Linux with torch 2.13, 405 MB are
resident in the first steps of a small training and 506 MB at its end, charts and page included."""
CONTEXT_BYTES = 1_000_000_000
"""An allowance for a CUDA context, its libraries' workspaces and the allocator's rounding; not
measured here."""

# Tokens whose logits the evaluation makes at a time, as in `evaluation/loss.py`.
ACCURACY_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Memory:
    """What a run holds at its fullest."""

    step: Peak
    """The fullest moment of an optimizer step."""
    moments: tuple[Peak, ...]
    """The fullest of each stretch of a step, in order."""
    evaluation: int
    """Bytes at the fullest moment of an evaluation."""
    sampling: int
    """Bytes at the fullest moment of a sample, its cache included."""
    cache: int
    """Bytes of that cache."""
    beside: dict[str, int]
    """Beside the tensors of the model, on the device or, of a GPU, in main memory."""
    overhead: int
    """Of these, what the device itself must hold."""

    @property
    def bytes(self) -> int:
        """What the device must have."""
        return max(self.step.bytes, self.evaluation, self.sampling) + self.overhead


def memory(recipe: Recipe, at: Layout) -> Memory:
    """A recipe and its layout → its memory; nothing is run."""
    rows = recipe.train.batch_tokens // recipe.model.context
    ledger = play_step(at, recipe.train.optimizer, rows)
    held = ledger.held["weights"][1] + ledger.held["optimizer"][1]
    cache = 2 * at.model.layers * at.keys * at.context * at.bytes
    weights = 4 * parameter_count(at.model, at.vocabulary)
    if recipe.train.ema_decay:
        ledger.hold("average", "average", weights)
        held += ledger.held["average"][1]
    beside = beside_tensors(recipe, held=held, weights=weights)
    overhead = CONTEXT_BYTES if at.device == "cuda" else sum(beside.values())
    return Memory(
        step=ledger.peak(),
        moments=tuple(ledger.peaks.values()),
        evaluation=held + _evaluation(at),
        sampling=held + cache + _drawing(at),
        cache=cache,
        beside=beside,
        overhead=overhead,
    )


def beside_tensors(recipe: Recipe, *, held: int, weights: int) -> dict[str, int]:
    """A recipe, bytes of its state and of its weights → what stands beside the model's tensors."""
    beside = {
        "interpreter and libraries (allowance)": PROCESS_BYTES,
        # Five arrays of int64, of this step and the one that is fetched ahead.
        "batches": 2 * 5 * 8 * recipe.train.batch_tokens,
    }
    if recipe.train.save_in_background:
        beside["a checkpoint on its way to disk"] = held
    if recipe.train.budget.minutes is not None:
        beside["weights kept while calibrating"] = weights
    return beside


def _evaluation(at: Layout) -> int:
    """Bytes above weights and moments: one block, the loss, or the logits of the accuracy."""
    ledger = Ledger()
    features = at.tokens * at.width * at.bytes
    ledger.hold("mask", "mask", at.mask_bytes)
    ledger.hold("x", "temporaries", features)
    blocks.forward(ledger, at, "block", "x")
    loss = Ledger()
    loss.hold("hidden", "activations", features)
    loss_forward(loss, at, fresh=True, trains=False)
    rows = min(ACCURACY_CHUNK, at.tokens)
    scaled = at.width * at.bytes * rows if at.model.width_ratio != 1 else 0
    return max(ledger.peak().bytes, loss.peak().bytes, 2 * features + scaled + _logits(at, rows))


def _drawing(at: Layout) -> int:
    """Bytes above weights, moments and cache while a token is drawn.

    A matrix in the arithmetic, or the logits of one token and their shares, sorted and summed up
    in float64.
    """
    sides = (at.width * at.width, at.width * at.hidden)
    matrix = max(sides) * at.bytes if at.casts else 0
    # A layer's keys and values are laid out anew, also turned.
    read = 4 * at.keys * at.context * at.bytes
    return max(matrix + 8 * at.width * at.bytes + read, _logits(at, 1)) + 8 * 8 * at.vocabulary


def _logits(at: Layout, rows: int) -> int:
    """The head in the arithmetic, and logits of some rows there and in float32."""
    capped = 2 * 4 if at.model.logit_soft_cap else 0
    matrix = at.vocabulary * at.width * at.bytes if at.casts else 0
    return matrix + rows * at.vocabulary * (at.bytes + (4 if at.casts else 0) + capped)
