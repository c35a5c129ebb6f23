"""A recipe and its corpus's counts → steps, passes, tokens and bytes on disk.

The arithmetic of steps is that of `training/budget.py`; a test holds the two equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from wellfit.plan.optimizers import state_bytes
from wellfit.recipe.schema import Budget, Recipe
from wellfit.recipe.shapes import Shape, parameter_count, shape_table


@dataclass(frozen=True, slots=True)
class Counts:
    """What is known of a built corpus."""

    train_tokens: int
    validation_tokens: int = 0
    test_tokens: int = 0
    train_documents: int = 0
    median_document_tokens: int = 0
    train_rows: int | None = None
    """Rows of an epoch where the recipe packs by best fit; None: those of the stream."""
    padding_share: float = 0.0
    """Places of these rows that hold no token."""


@dataclass(frozen=True, slots=True)
class Length:
    """How long a run is; None is unknown until the corpus is built or a step is timed."""

    steps: int | None
    tokens: int | None
    """Places of all rows, as `train.budget.tokens` counts them."""
    epochs: float | None
    steps_per_epoch: float | None
    tokens_per_parameter: float | None
    micro_batches: int
    """Passes forward and backward of one step."""
    rows: int
    """Of one step."""
    batch_tokens: int
    """Of one step: the effective batch."""
    padding_share: float = 0.0
    """Of those places, where no token stands."""


def planned_steps(
    budget: Budget, *, batch_tokens: int, rows: int, per_epoch: int | None
) -> int | None:
    """A budget and the sizes of a step → steps; None where it hangs on the clock or the corpus.

    >>> planned_steps(Budget(tokens=1000), batch_tokens=128, rows=2, per_epoch=None)
    8
    """
    if budget.steps is not None:
        return budget.steps
    if budget.tokens is not None:
        return -(-budget.tokens // batch_tokens)
    if budget.epochs is not None and per_epoch:
        return max(1, math.ceil(round(budget.epochs * per_epoch / rows, 6)))
    return None


def length(
    recipe: Recipe,
    vocabulary_size: int,
    counts: Counts | None,
    step_seconds: float | None = None,
    *,
    parameters: int | None = None,
) -> Length:
    """A recipe, what is known of its corpus, and the seconds of a step if known → its length.

    `parameters` are those of a module of one's own, 0 where they are not known.
    """
    train, context = recipe.train, recipe.model.context
    rows = train.batch_tokens // context
    per_epoch = _rows_per_epoch(counts, context) if counts else None
    steps = planned_steps(
        train.budget, batch_tokens=train.batch_tokens, rows=rows, per_epoch=per_epoch
    )
    if train.budget.minutes is not None and step_seconds:
        steps = max(1, int(train.budget.minutes * 60 / step_seconds))
    tokens = None if steps is None else steps * train.batch_tokens
    padding = counts.padding_share if counts else 0.0
    if parameters is None:
        parameters = parameter_count(recipe.model, vocabulary_size)
    return Length(
        steps=steps,
        tokens=tokens,
        epochs=steps * rows / per_epoch if steps is not None and per_epoch else None,
        steps_per_epoch=per_epoch / rows if per_epoch else None,
        tokens_per_parameter=(
            tokens * (1 - padding) / parameters if tokens is not None and parameters else None
        ),
        micro_batches=-(-rows // (train.micro_batch or 1)),
        rows=rows,
        batch_tokens=train.batch_tokens,
        padding_share=padding,
    )


def _rows_per_epoch(counts: Counts, context: int) -> int:
    if counts.train_rows is not None:
        return counts.train_rows
    return max(0, counts.train_tokens - 1) // context


def disk(
    recipe: Recipe,
    vocabulary_size: int,
    counts: Counts | None,
    *,
    table: tuple[Shape, ...] | None = None,
) -> dict[str, int | None]:
    """A recipe → bytes on disk: one checkpoint, all that stand at once, and the shards.

    A new checkpoint is whole before the oldest goes, so one more than `keep_last` stands. `table`
    are the tensors of a module of one's own.
    """
    if table is None:
        table = shape_table(recipe.model, vocabulary_size)
    one = 4 * sum(shape.parameters for shape in table)
    one += state_bytes(recipe.train.optimizer, table)
    tokens = counts and counts.train_tokens + counts.validation_tokens + counts.test_tokens
    return {
        "checkpoint": one,
        "checkpoints": one * (recipe.train.keep_last + 1),
        "shards": tokens * (2 if vocabulary_size < 65_536 else 4) if tokens else None,
    }
