"""A run as numbers: what every reader of logs produces and every rule and chart consumes.

Torch-free and frozen. Whoever fills a History also corrects its logger's known lies and says so
in `notes`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from wellfit.records import Event, Proof, Sampled, Saved

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Series:
    """Values over steps, steps strictly increasing; values may be NaN or infinite."""

    steps: tuple[int, ...] = ()
    values: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.steps)

    @classmethod
    def of(cls, steps: NDArray[np.int64], values: NDArray[np.float64]) -> Series:
        """Arrays → a Series, which keeps them as its `finite` instead of making them again."""
        import numpy as np

        series = cls(tuple(steps.tolist()), tuple(values.tolist()))
        keep = np.isfinite(values)
        series.__dict__["finite"] = _frozen(steps[keep].astype(np.float64), values[keep])
        return series

    @cached_property
    def finite(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Steps and values where the value is a finite number, as arrays that cannot be changed.

        Made once: a score of rules asks for them, and a log may hold a million points.
        """
        import numpy as np  # here: whoever only reads a run does not need it

        steps = np.asarray(self.steps, dtype=np.float64)
        values = np.asarray(self.values, dtype=np.float64)
        keep = np.isfinite(values)
        return _frozen(steps[keep], values[keep])


def _frozen(
    steps: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two arrays → the same, no more to be changed."""
    steps.flags.writeable = values.flags.writeable = False
    return steps, values


@dataclass(frozen=True, slots=True)
class Context:
    """What is known about the run beside its curves; None where it is not known."""

    vocabulary_size: int | None = None
    planned_steps: int | None = None
    planned_epochs: float | None = None
    steps_per_epoch: float | None = None
    clip_norm: float | None = None
    warmup_steps: int | None = None
    optimizer: str | None = None
    from_scratch: bool | None = None
    accumulation: int | None = None
    """Micro-batches an optimizer step is made from."""
    task: str | None = None
    """`language`, `classification`, `preference` or `reinforcement`, where it is known."""
    train_losses_are_per_step: bool = True
    """False where the logger averaged the training loss over its logging interval."""


@dataclass(frozen=True, slots=True)
class History:
    """The curves of one run and what is known around them."""

    name: str
    format: str
    """For a person: `run folder`, `trainer_state.json`, `TensorBoard events`, `CSV`."""
    train_loss: Series = Series()
    validation_loss: dict[str, Series] = field(default_factory=dict)
    """Name of the evaluation set → losses; the main one is called `validation`."""
    validation_se: Series = Series()
    """Standard errors of the main validation loss, where known."""
    learning_rate: Series = Series()
    grad_norm: Series = Series()
    epoch: Series = Series()
    seconds: Series = Series()
    tokens_per_second: Series = Series()
    memory_bytes: Series = Series()
    mfu: Series = Series()
    tokens: Series = Series()
    context: Context = Context()
    samples: tuple[Sampled, ...] = ()
    saved: tuple[Saved, ...] = ()
    events: tuple[Event, ...] = ()
    proofs: tuple[Proof, ...] = ()
    """What was proved before the first step and after a resume; empty in runs without."""
    status: str = "unknown"
    """`running`, `finished`, `stopped`, `failed`, `crashed` or `unknown`."""
    axis: str = "step"
    """What `steps` count: `step`, or `epoch` or `row` where the log holds no steps."""
    jumps: tuple[int, ...] = ()
    """Steps to which the log jumped back: there a training was resumed."""
    attempts: int = 1
    superseded: int = 0
    """Records of earlier attempts that a later attempt replaced."""
    notes: tuple[str, ...] = ()
    """Corrections made while reading, one sentence each."""
    recipe: dict[str, Any] | None = None
