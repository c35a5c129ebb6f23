"""A run folder → the weights of one of its checkpoints, in use: scored; see also `writing`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wellfit.data.corpus import Corpus
from wellfit.errors import CheckpointError, DataError, RunError
from wellfit.recipe.load import load_recipe
from wellfit.recipe.schema import Recipe
from wellfit.records import Evaluated
from wellfit.run.parts import empty_model, guessing, held_out_rows
from wellfit.run.vocabulary import vocabulary_of

if TYPE_CHECKING:
    from wellfit.model.protocol import LanguageModel

BEST, LAST = "best", "last"


@dataclass(frozen=True, slots=True)
class Trained:
    """A run's checkpoint, loaded, with what belongs to it."""

    recipe: Recipe
    corpus: Corpus
    model: LanguageModel
    step: int


def choose_checkpoint(run: Path, recipe: Recipe, which: str = "") -> Path:
    """A run folder, its recipe, and `best`, `last`, a step or nothing → that checkpoint.

    Nothing means the best one where the recipe keeps and restores it and one has a score, else the
    newest. Which is best is read from the newest checkpoint. Raises CheckpointError where there
    is no such checkpoint, and WellfitError where `which` is none of these.
    """
    from wellfit.errors import WellfitError
    from wellfit.training import checkpoint, retention

    folder = run / "checkpoints"
    newest = checkpoint.latest(folder)
    if newest is None:
        raise CheckpointError(
            "the run has no checkpoint yet",
            where=str(run),
            way_out="Wait for its first one, or go on with `wellfit train … --resume`.",
        )
    steps = checkpoint.steps(folder)
    standing = ", ".join(str(step) for step in steps)
    settings = recipe.train
    if which == BEST or (not which and settings.keep_best and settings.restore_best):
        scores = checkpoint.read_state(newest).scores
        best = retention.best(steps, scores, settings.best_by)
        if best is not None:
            return checkpoint.at(folder, best.step)
        if which == BEST:
            raise CheckpointError(
                f"no checkpoint that stands (of steps {standing}) was scored by {settings.best_by}",
                where=str(folder),
                way_out="Give `last` or a step; `train.keep_best` keeps the best of a training.",
            )
    if which in ("", LAST):
        return newest
    if not (which.isascii() and which.isdecimal()):
        raise WellfitError(
            f"{which!r} is neither best, nor last, nor the number of a step", where="checkpoint"
        )
    if int(which) not in steps:
        raise CheckpointError(
            f"no checkpoint of step {int(which)} stands, only of {standing}",
            where=str(folder),
            way_out="Give one of these, `best` or `last`.",
        )
    return checkpoint.at(folder, int(which))


def take_weights(model: LanguageModel, path: Path) -> None:
    """A model and a checkpoint of it → the model holds the weights that evaluations score.

    These are the averages where the checkpoint has them. Raises CheckpointError where it is
    damaged or belongs to another model, or to another frozen base.
    """
    import torch
    from safetensors.torch import load_file

    from wellfit.training import checkpoint

    checkpoint.refuse_other_base(path, checkpoint.verify(path), model)
    file = checkpoint.evaluated_file(path)
    found = load_file(file)
    parameters = dict(model.named_parameters())
    if {name: tensor.shape for name, tensor in found.items()} != {
        name: parameter.shape for name, parameter in parameters.items()
    }:
        raise CheckpointError(
            "the weights do not fit the model of recipe.yaml and the corpus beside it",
            where=str(file),
            way_out="Put back the recipe.yaml and corpus.json that the run wrote.",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(found[name])


def open_run(run: Path, which: str = "") -> Trained:
    """A run folder and a checkpoint → model, corpus and recipe, on the recipe's device.

    `which` is as for `choose_checkpoint`; the averages of the weights are taken where they are
    kept. Raises RunError where `run` is no run or its corpus is not the one it was trained on, and
    CheckpointError where no checkpoint can be read.
    """
    import torch

    from wellfit.training import checkpoint
    from wellfit.training.precision import choose, compute_dtype

    recipe_file = run / "recipe.yaml"
    if not recipe_file.is_file():
        raise RunError(
            "there is no run here" if run.exists() else "there is no such folder",
            where=str(run),
            way_out="Give the folder that `wellfit train` wrote, such as runs/NAME.",
        )
    recipe = load_recipe(recipe_file)
    path = choose_checkpoint(run, recipe, which)
    corpus = open_corpus(run)
    model = empty_model(recipe, vocabulary_of(recipe, corpus), run)
    take_weights(model, path)
    # What was trained in fp8 is scored in bf16, as it was between its steps, on any device.
    wanted = "bf16" if recipe.train.precision == "fp8" else recipe.train.precision
    where, how = choose(recipe.train.device, wanted)
    if isinstance(model, torch.nn.Module):
        model.to(torch.device(where.name))
    model.compute_dtype = compute_dtype(how.name)
    model.train(False)
    return Trained(recipe, corpus, model, checkpoint.read_state(path).step)


def open_corpus(run: Path) -> Corpus:
    """A run folder → the corpus it was trained on; raises RunError where it changed or went."""
    pointer = run / "corpus.json"
    try:
        named = json.loads(pointer.read_text())
        folder, digest = Path(named["folder"]), named["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"it does not name a corpus ({error})",
            where=str(pointer),
            way_out="Go on with `wellfit train … --resume`, which writes it again.",
        ) from error
    try:
        corpus = Corpus.open(run / folder)
    except DataError as error:
        raise RunError(
            f"the run's corpus cannot be opened: {error.what}",
            where=error.where,
            way_out="Put the corpus back there, or build it with `wellfit data build`.",
        ) from error
    if corpus.digest != digest:
        raise RunError(
            "the corpus is not the one this run was trained on",
            where=str(corpus.folder),
            way_out="Build it from the same documents and settings, or train again.",
        )
    return corpus


def evaluate_run(run: Path, split: str, which: str = "") -> Evaluated:
    """A run folder, a held-out split and a checkpoint → scores over the whole split.

    `which` is as for `choose_checkpoint`.
    """
    from wellfit.evaluation.loss import evaluate
    from wellfit.training.threads import threads

    trained = open_run(run, which)
    with threads(trained.recipe.train.threads):
        return evaluate(
            trained.model,
            held_out_rows(trained.recipe, trained.corpus, split),
            trained.corpus.documents(split),
            step=trained.step,
            split=split,
            micro_batch=trained.recipe.train.micro_batch,
            guess=guessing(trained.recipe),
        )
