"""One run, start to end: documents → shards → batches → model → records → findings → report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from wellfit.data.batches import Batches
from wellfit.data.build import build_corpus
from wellfit.data.plan import DataPlan
from wellfit.diagnosis import Diagnosis, diagnose
from wellfit.model.init import initialise
from wellfit.model.transformer import Transformer
from wellfit.monitor.folder import RunFolder
from wellfit.monitor.history import History
from wellfit.monitor.listen import Listener
from wellfit.recipe.schema import Recipe
from wellfit.recipe.show import recipe_text
from wellfit.records import Evaluated
from wellfit.report.page import write_report
from wellfit.run.probes import evaluator, sampler
from wellfit.run.setting import Setting, settle
from wellfit.run.show import Quiet, Show
from wellfit.training.loop import train
from wellfit.training.signals import requests_from_signals


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left behind."""

    folder: Path
    corpus: Path
    history: History
    diagnosis: Diagnosis
    test: Evaluated | None
    """Scores on the whole test split; None where the recipe holds none out or the run stopped."""
    report: Path


def run(recipe: Recipe, folder: Path, *, resume: bool = False, show: Show | None = None) -> Outcome:
    """A recipe → a run folder; with `resume`, from its newest checkpoint on."""
    show = show or Quiet()
    with RunFolder.create(folder, recipe_text(recipe), resume=resume) as run_folder:
        corpus_folder = Path(recipe.data.folder or Path("corpora") / recipe.name)
        corpus = build_corpus(
            recipe.data, name=recipe.name, folder=corpus_folder, progress=show.stage
        )
        setting = settle(recipe, corpus, run_folder.path)
        model = Transformer(recipe.model, corpus.vocabulary_size)
        initialise(model, recipe.seed)
        batches = Batches(
            corpus,
            recipe.model.context,
            recipe.train.batch_tokens // recipe.model.context,
            recipe.seed,
            DataPlan.open(run_folder.path / "data-plan.jsonl"),
        )
        listener = Listener(run_folder, setting.measures)
        with requests_from_signals() as requests:
            records = train(
                recipe.train,
                model,
                batches,
                folder=run_folder.path,
                seed=recipe.seed,
                evaluate=evaluator(model, corpus, recipe, setting, "validation"),
                sample=sampler(model, corpus, recipe, setting),
                evaluate_every=recipe.evaluate.every,
                sample_every=recipe.monitor.sample_every,
                requests=requests,
                resume=resume,
            )
            for record in records:
                listener.hear(record)
                show.record(record)
        return conclude(recipe, run_folder, listener, setting, show)
