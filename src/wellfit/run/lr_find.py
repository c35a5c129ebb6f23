"""A recipe → a learning rate with its evidence, and advice on the batch; nothing is kept of it.

The corpus is built where the recipe says and stays, as with `check`; the trainings leave nothing.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wellfit.errors import CheckpointError, RunError
from wellfit.run.plain_json import plain_json
from wellfit.run.setting import corpus_folder, refuse_another_model
from wellfit.run.show import Quiet, Show

if TYPE_CHECKING:
    from wellfit.data.batches import Batches
    from wellfit.data.corpus import Corpus
    from wellfit.recipe.schema import Recipe
    from wellfit.training.batch_advice import BatchAdvice
    from wellfit.training.lr_finder import Found
    from wellfit.training.start import Setup

SHARE_OF_RUN = 0.2
LEAST, MOST = 150, 3_000


@dataclass(frozen=True, slots=True)
class RateAdvice:
    """What `wellfit lr-find` found: rates and batch, with what was measured."""

    name: str
    """The recipe's name."""
    found: Found
    rates: dict[str, float]
    """The recipe's own rates, by dotted path; shares are multiples of them."""
    batch: BatchAdvice | None
    planned_steps: int
    first_step: int
    batch_tokens: int
    seconds: float

    @property
    def patch(self) -> dict[str, float]:
        """Rates to put into the recipe, by dotted path; empty where none can be suggested."""
        share = self.found.choice.share
        if share is None:
            return {}
        return {path: float(f"{rate * share:.2g}") for path, rate in self.rates.items()}

    @property
    def axis(self) -> str:
        """The setting whose value is the rate in tables and pictures: the largest one."""
        return max(self.rates, key=lambda path: self.rates[path])

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data; a loss or interval end that is not finite is null."""
        measured = asdict(self.found)
        batch = None if self.batch is None else asdict(self.batch)
        plain = {
            "format_version": 1,
            "recipe": self.name,
            "patch": self.patch,
            "confidence": self.found.choice.confidence,
            "reasons": list(self.found.choice.reasons),
            "rates": self.rates,
            "batch_tokens": self.batch_tokens,
            "batch_advice": batch,
            "planned_steps": self.planned_steps,
            "first_step": self.first_step,
            "seconds": self.seconds,
            "measured": measured,
        }
        cleaned: dict[str, Any] = plain_json(plain)
        return cleaned


def lr_find(
    recipe: Recipe,
    *,
    steps: int | None = None,
    run: Path | None = None,
    show: Show | None = None,
) -> RateAdvice:
    """A recipe → a learning rate with reasons and confidence, and advice on the batch.

    `steps` is how many optimizer steps may be spent; without it a fifth of the run's, 150 to
    3,000. With `run` it begins at that run's newest checkpoint instead of fresh weights.

    Raises RecipeError, DataError, RunError or CheckpointError where it cannot be done.
    """
    from wellfit.data.build import build_corpus
    from wellfit.run.parts import first_model, training_batches
    from wellfit.run.plan import settled
    from wellfit.run.vocabulary import vocabulary_of
    from wellfit.training.batch_advice import batch_advice
    from wellfit.training.lr_finder import find
    from wellfit.training.start import prepare
    from wellfit.training.threads import threads

    show = show or Quiet()
    rates = rates_of(recipe)
    began = time.perf_counter()
    if run is not None:
        refuse_another_model(recipe, run)
    corpus = build_corpus(
        recipe.data, name=recipe.name, folder=corpus_folder(recipe), progress=show.stage
    )
    recipe = settled(recipe, corpus, run=run)
    rows = recipe.train.batch_tokens // recipe.model.context
    batches = training_batches(recipe, corpus)
    model = first_model(recipe, vocabulary_of(recipe, corpus))
    with threads(recipe.train.threads) as thread_count:
        # A gate that held spikes back would hide where training diverges.
        safety = recipe.train.safety.model_copy(update={"spike": "warn"})
        setup = prepare(
            recipe.train.model_copy(update={"safety": safety}),
            model,
            batches,
            folder=run or Path(),
            seed=recipe.seed,
            thread_count=thread_count,
        )
        first_step, planned = 1, 0
        if run is not None:
            first_step, planned = _take_up(setup, run, corpus)
        planned = planned or planned_steps(setup, batches, rows)
        spend = steps if steps is not None else max(LEAST, min(MOST, round(planned * SHARE_OF_RUN)))
        found = find(setup, steps=spend, planned=planned, first_step=first_step, told=show.stage)
    advice = None
    if found.noise is not None:
        advice = batch_advice(
            found.noise,
            batch_tokens=recipe.train.batch_tokens,
            context=recipe.model.context,
            progress=min(1.0, found.noise_after / planned),
        )
    return RateAdvice(
        name=recipe.name,
        found=found,
        rates=rates,
        batch=advice,
        planned_steps=planned,
        first_step=first_step,
        batch_tokens=recipe.train.batch_tokens,
        seconds=time.perf_counter() - began,
    )


def rates_of(recipe: Recipe) -> dict[str, float]:
    """A recipe → its optimizer's rates by dotted path. Raises RunError where it has none."""
    optimizer = recipe.train.optimizer.model_dump()
    rates = {
        f"train.optimizer.{name}": float(value)
        for name, value in optimizer.items()
        if name.endswith("learning_rate") and isinstance(value, int | float) and value > 0
    }
    if not rates:
        raise RunError(
            f"the optimizer {optimizer.get('kind')} has no learning rate to find",
            where="train.optimizer",
            way_out="Choose one that has, such as train.optimizer.kind=adamw.",
        )
    return rates


def planned_steps(setup: Setup, batches: Batches, rows: int) -> int:
    """How many steps the recipe's budget means; minutes are turned into steps by timing some."""
    from wellfit.training import budget
    from wellfit.training.start import calibrate

    return budget.plan(
        setup.section.budget,
        rows=rows,
        context=setup.section.batch_tokens // rows,
        rows_per_epoch=batches.rows_per_epoch,
        measure=lambda: calibrate(setup),
    ).steps


def _take_up(setup: Setup, run: Path, corpus: Corpus) -> tuple[int, int]:
    """Put a run's newest weights and moments into the setup → its next step, its planned steps."""
    from wellfit.run.weights import open_corpus
    from wellfit.training import checkpoint, optimizers
    from wellfit.training.start import restore

    newest = checkpoint.latest(run / "checkpoints")
    if newest is None:
        raise CheckpointError(
            "there is no checkpoint to begin from",
            where=str(run),
            way_out="Give the folder of a run that has one, or leave --run out.",
        )
    if open_corpus(run).digest != corpus.digest:
        raise RunError(
            "the recipe's corpus is not the one this run was trained on",
            where=str(run),
            way_out="Give the run's own recipe, RUN/recipe.yaml, or leave --run out.",
        )
    state, weights, moments = checkpoint.load(
        newest,
        {name: parameter.shape for name, parameter in setup.parameters.items()},
        optimizers.moments(setup.section.optimizer, setup.model.roles()),
    )
    restore(setup, weights, moments)
    return state.step + 1, state.planned_steps
