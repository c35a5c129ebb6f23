"""Is the calibrated plan right? Seconds of a step as `wellfit plan --calibrate` finds them, and
as a following real training takes them.

    python benchmarks/plan.py [--out FILE]

Each recipe is calibrated and then trained for as many steps as `--steps` says, in turn, on this
machine; the median of the training's steps counts. Wanted: within 15 %. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from wellfit.data.batches import Batch
from wellfit.model.init import initialise
from wellfit.model.transformer import Transformer
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.schema import Recipe
from wellfit.records import Step
from wellfit.run.calibrate import calibrate, random_batch
from wellfit.training.loop import train

BASE: dict[str, Any] = {
    "name": "planned",
    "data": {"sources": [{"path": "texts"}]},
    "model": {"size": "nano"},
    "train": {"budget": {"steps": 20}, "checkpoint_every": 100_000},
}
CHANGES = {
    "the quickstart's model": (),
    "AdamW, SwiGLU, float32": (
        "train.optimizer.kind=adamw",
        "model.activation=swiglu",
        "train.precision=fp32",
        "train.batch_tokens=2048",
    ),
    "long rows": ("model.context=1024", "train.batch_tokens=4096"),
}


class RandomBatches:
    """Batches of random tokens, for a training that needs no corpus."""

    rows_per_epoch = 10_000

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def batch(self, step: int) -> Batch:
        return random_batch(self.recipe, self.recipe.data.tokenizer.vocabulary_size, step)

    def epoch(self, step: int) -> float:
        return step / self.rows_per_epoch


def real_seconds(recipe: Recipe) -> float:
    """A recipe → the median seconds of its steps, the first two left out."""
    model = Transformer(recipe.model, recipe.data.tokenizer.vocabulary_size)
    initialise(model, recipe.seed)
    with tempfile.TemporaryDirectory() as folder:
        records = train(
            recipe.train,
            model,
            RandomBatches(recipe),  # type: ignore[arg-type]
            folder=Path(folder),
            seed=recipe.seed,
            evaluate_every=100_000,
            sample_every=100_000,
        )
        return statistics.median([r.seconds for r in records if isinstance(r, Step)][2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=0)
    given = parser.parse_args()
    rows = []
    for name, changes in CHANGES.items():
        recipe = parse_recipe(
            BASE,
            changes=[
                *changes,
                f"train.budget.steps={given.steps}",
                f"train.threads={given.threads}",
            ],
        )
        planned = calibrate(recipe, recipe.data.tokenizer.vocabulary_size, None)
        real = real_seconds(recipe)
        rows.append({"recipe": name, "planned": planned, "real": real})
        print(f"{name:26} planned {planned:.3f} s  real {real:.3f} s  {planned / real - 1:+.1%}")
    if given.out:
        given.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
