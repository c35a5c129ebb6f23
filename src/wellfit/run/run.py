"""One run, start to end: documents → shards → batches → model → records → findings → report."""

from __future__ import annotations

import queue
from pathlib import Path

from wellfit.data.build import build_corpus
from wellfit.data.plan import DataPlan
from wellfit.monitor.folder import RunFolder
from wellfit.monitor.listen import Listener
from wellfit.plan.plan import refuse_what_cannot_fit
from wellfit.plan.text import plan_lines
from wellfit.recipe.schema import Recipe
from wellfit.recipe.show import recipe_text
from wellfit.records import Event, Request
from wellfit.run.base import begun_with, keep_base
from wellfit.run.conclude import Outcome, conclude
from wellfit.run.parts import empty_model, first_model, training_batches
from wellfit.run.plan import plan_of_run, settled
from wellfit.run.probes import evaluator, sampler
from wellfit.run.setting import corpus_folder, refuse_another_model, settle
from wellfit.run.show import Quiet, Show
from wellfit.run.vocabulary import vocabulary_of
from wellfit.training import checkpoint
from wellfit.training.loop import train
from wellfit.training.signals import stop_requests


def run(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    at: int | None = None,
    show: Show | None = None,
) -> Outcome:
    """A recipe → a run folder; with `resume`, from its newest checkpoint (or the one `at`) on.

    Ctrl-C and SIGTERM end it at the next step boundary with a checkpoint and a report. Raises
    DataError, RunError or CheckpointError; the run folder then tells how far it came.
    """
    show = show or Quiet()
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
    text = recipe_text(recipe)
    with RunFolder.create(folder, text, resume=resume) as run_folder:
        refuse_another_model(recipe, folder)
        corpus = build_corpus(
            recipe.data, name=recipe.name, folder=corpus_folder(recipe), progress=show.stage
        )
        if not recipe.train.micro_batch:
            recipe = settled(recipe, corpus, run=folder if resume else None)
            text = recipe_text(recipe)
            run_folder.settle_recipe(text)
        needs = plan_of_run(recipe, corpus)
        warning = refuse_what_cannot_fit(needs, recipe.train.memory_check)
        show.line("\n".join([*plan_lines(needs), *filter(None, [warning])]))
        plan = DataPlan.open(folder / "data-plan.jsonl")
        batches = training_batches(recipe, corpus, plan)
        measures = settle(recipe, corpus, run_folder)
        keep_base(recipe, folder)
        resumed = resume and checkpoint.latest(folder / "checkpoints") is not None
        entries = vocabulary_of(recipe, corpus)
        # A checkpoint holds all weights, so those that the run began with may be gone by now; only
        # an adapter's base is read again.
        resumed = resumed and bool(recipe.model.weights)
        model = empty_model(recipe, entries, folder) if resumed else first_model(recipe, entries)
        with Listener(run_folder, measures) as listener, stop_requests(requests):
            for begun in begun_with(recipe, model, resumed=resumed):
                listener.hear(begun)
                show.line(begun.text)
            for record in train(
                recipe.train,
                model,
                batches,
                folder=folder,
                seed=recipe.seed,
                evaluate=evaluator(model, corpus, recipe),
                sample=sampler(model, corpus, recipe),
                evaluate_every=recipe.evaluate.every,
                sample_every=recipe.monitor.sample_every,
                requests=requests,
                resume=resume,
                at=at,
            ):
                if isinstance(record, Event) and record.kind == "resumed":
                    run_folder.write_recipe(text)  # only now is it certain that it fits
                listener.hear(record)
                show.record(record)
        return conclude(recipe, model, corpus, run_folder, show)
