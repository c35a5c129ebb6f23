"""What a step measured in; what to tell about it and what to do next out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from wellfit.records import Event

if TYPE_CHECKING:
    from wellfit.recipe.schema import Safety
    from wellfit.training.step import Outcome

Action = Literal["go on", "rewind", "stop"]


def action(outcome: Outcome, safety: Safety) -> Action:
    """A step's outcome and the recipe's policies in, what to do after it out.

    A batch without labels, and float16 gradients that overflowed, are no faults of the weights:
    the training goes on.
    """
    if outcome.overflow or not outcome.supervised_tokens:
        return "go on"
    policy = "skip"
    if outcome.spike:
        policy = safety.spike
    elif not outcome.applied:
        policy = safety.non_finite
    if policy == "rewind":
        return "rewind"
    return "stop" if policy == "stop" else "go on"


def events(step: int, outcome: Outcome, in_a_row: int) -> Iterator[Event]:
    """A step's outcome, and how many in a row were not applied, in; what to tell out."""
    data = {"loss": outcome.loss, "grad_norm": outcome.grad_norm, "applied": outcome.applied}
    if outcome.overflow:
        text = "float16 gradients overflowed: the update was not applied, their scale is halved"
        yield Event(step, "loss_scale", text, data)
    elif outcome.spike:
        what = "the update was applied" if outcome.applied else "the update was not applied"
        text = (
            f"loss {outcome.loss:.4g} and gradient norm {outcome.grad_norm:.4g} stand far above "
            f"those of the last steps: {what}"
        )
        yield Event(step, "spike", text, {**data, "in_a_row": in_a_row})
    elif not outcome.applied:
        text = "loss or gradient is not finite: the update was not applied"
        if not outcome.supervised_tokens:
            text = "no token of the batch has a label: no update was made"
        yield Event(step, "non_finite", text, {"in_a_row": in_a_row})
