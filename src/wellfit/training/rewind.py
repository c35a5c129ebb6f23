"""Back to a checkpoint: as a policy after a harmful step, or as a wish, undoing what was done."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wellfit.errors import RunError
from wellfit.records import Event
from wellfit.training import checkpoint

if TYPE_CHECKING:
    from wellfit.training.start import Setup


def earlier(folder: Path, step: int) -> Path | None:
    """The folder of checkpoints and a step in; the newest checkpoint from before it out."""
    older = [path for path in checkpoint.all_of(folder) if checkpoint.step_of(path) < step]
    return older[-1] if older else None


def rewind(setup: Setup, state: checkpoint.State, step: int) -> tuple[checkpoint.State, Event]:
    """A setup, its state and a harmful step in; the state to go on from and what to tell out.

    Weights, moments and all else are those of the newest checkpoint before `step`, which must
    exist; the rows from there through `step` are passed over.
    """
    path = earlier(setup.checkpoints, step)
    assert path is not None, "asked before"
    _, back = setup.take_up(path, state)
    skipped = setup.batches.skip(after_step=back.step, through_step=step)
    text = (
        f"back to {path.name}, and on with the rows after step {step} "
        f"({skipped} rows are passed over); --resume --at {back.step} undoes it"
    )
    data = {"step": back.step, "bad_step": step, "skipped_rows": skipped}
    return back, Event(back.step, "rewound", text, data)


def set_aside(folder: Path, step: int) -> Path:
    """The folder of checkpoints and a step in; its checkpoint out, later ones renamed.

    A later checkpoint becomes `set-aside-step-000200`: it is no longer resumed from, and nothing
    is lost. Raises RunError where there is no checkpoint of that step.
    """
    standing = checkpoint.all_of(folder)
    wanted = next((path for path in standing if checkpoint.step_of(path) == step), None)
    if wanted is None:
        there = ", ".join(str(checkpoint.step_of(path)) for path in standing) or "none"
        raise RunError(
            f"there is no checkpoint of step {step}; those that stand: {there}",
            where=str(folder),
            way_out="Resume at one of these steps, or without --at from the newest.",
        )
    for path in standing:
        if checkpoint.step_of(path) > step:
            number = 0
            while (target := folder / f"set-aside-{number or ''}{path.name}").exists():
                number += 1
            path.rename(target)
    return wanted
