"""No arguments, no download, no account: from this Python's own library to a trained model.

Reads the packaged recipe, runs it, and says where everything is and what the figures mean.
"""

from __future__ import annotations

from importlib import resources
from itertools import count
from pathlib import Path

from wellfit.errors import RecipeError
from wellfit.recipe.show import scalar
from wellfit.run.conclude import Outcome
from wellfit.run.load import load
from wellfit.run.reference import compressed_bits_per_byte
from wellfit.run.run import run
from wellfit.run.show import Show, closing_lines, next_lines, reference_lines


def quickstart(out: Path | None, minutes: float | None, show: Show) -> Outcome:
    """The run folder and the minutes of training → a finished run, reported through `show`.

    Without a folder the first free one is taken: `runs/quickstart`, `runs/quickstart-2`, …
    Raises RecipeError when `minutes` is not positive, RunError when `out` holds a run already.
    """
    out = out or free_folder(Path("runs"))
    if minutes is not None and not minutes > 0:
        raise RecipeError([f"--minutes = {minutes:g}: must be greater than 0; such as 1.5"])
    changes = [f"data.folder={scalar((out / 'corpus').as_posix())}"]
    if minutes is not None:
        changes.append(f"train.budget.minutes={minutes}")
    with resources.as_file(resources.files("wellfit.run") / "recipes" / "quickstart.yaml") as path:
        recipe = load(path, tuple(changes))
    outcome = run(recipe, out, show=show)
    show.line(closing_lines(outcome))
    if outcome.test is not None:
        compressed = compressed_bits_per_byte(outcome.corpus.texts("test"))
        if compressed is not None:
            show.line("\n" + reference_lines(outcome.test, compressed))
        show.line("\n" + next_lines(out))
    return outcome


def free_folder(runs: Path) -> Path:
    """The folder of runs → the first of `quickstart`, `quickstart-2`, … that is not there yet."""
    names = ("quickstart" if number == 1 else f"quickstart-{number}" for number in count(1))
    return next(runs / name for name in names if not (runs / name).exists())
