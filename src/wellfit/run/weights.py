"""A run folder → its newest weights in use: scored on held-out text, or writing text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wellfit.data.batches import Rows
from wellfit.data.corpus import Corpus
from wellfit.errors import CheckpointError, DataError, RunError
from wellfit.model.transformer import Transformer
from wellfit.recipe.load import load_recipe
from wellfit.recipe.schema import Recipe, Sampling
from wellfit.records import Evaluated


@dataclass(frozen=True, slots=True)
class Trained:
    """A run's newest checkpoint, loaded, with what belongs to it."""

    recipe: Recipe
    corpus: Corpus
    model: Transformer
    step: int


def open_run(run: Path) -> Trained:
    """A run folder → model, corpus and recipe, on the recipe's device and arithmetic.

    Raises RunError where `run` is no run or its corpus is not the one it was trained on, and
    CheckpointError where no checkpoint can be read.
    """
    import torch
    from safetensors.torch import load_file

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
    newest = checkpoint.latest(run / "checkpoints")
    if newest is None:
        raise CheckpointError(
            "the run has no checkpoint yet",
            where=str(run),
            way_out="Wait for its first one, or go on with `wellfit train … --resume`.",
        )
    state = checkpoint.verify(newest)
    corpus = open_corpus(run)
    model = Transformer(recipe.model, corpus.vocabulary_size)
    try:
        model.load_state_dict(load_file(newest / checkpoint.MODEL))
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights do not fit the model of {recipe_file.name} and the corpus beside it",
            where=str(newest / checkpoint.MODEL),
            way_out="Put back the recipe.yaml and corpus.json that the run wrote.",
        ) from error
    where, how = choose(recipe.train.device, recipe.train.precision)
    model.to(torch.device(where.name))
    model.compute_dtype = compute_dtype(how.name)
    model.eval()
    return Trained(recipe, corpus, model, state.step)


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


def evaluate_run(run: Path, split: str) -> Evaluated:
    """A run folder and a held-out split → scores over the whole split."""
    from wellfit.evaluation.loss import evaluate
    from wellfit.training.threads import threads

    trained = open_run(run)
    with threads(trained.recipe.train.threads):
        return evaluate(
            trained.model,
            Rows(trained.corpus, split, trained.recipe.model.context),
            trained.corpus.documents(split),
            step=trained.step,
            split=split,
            micro_batch=trained.recipe.train.micro_batch,
        )


def generate_from_run(
    run: Path,
    prompt: str,
    *,
    tokens: int = 100,
    seed: int = 0,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 0.95,
) -> Iterator[str]:
    """A run folder and a prompt → pieces of the continuation as they are drawn."""
    from wellfit.errors import WellfitError
    from wellfit.generation.generate import generate
    from wellfit.generation.text import stream_text

    limits = {
        "tokens": (tokens >= 1, "at least 1"),
        "seed": (seed >= 0, "at least 0"),
        "temperature": (temperature >= 0, "at least 0"),
        "top_k": (top_k >= 0, "at least 0"),
        "top_p": (0 < top_p <= 1, "above 0 and at most 1"),
    }
    wrong = [f"{name} must be {limit}" for name, (fine, limit) in limits.items() if not fine]
    if wrong:
        raise WellfitError("; ".join(wrong), where="generate")
    sampling = Sampling(tokens=tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    trained = open_run(run)
    tokenizer = trained.corpus.tokenizer()
    ids = [tokenizer.separator, *tokenizer.encode(prompt)]
    new = generate(trained.model, ids, sampling, stop_ids=(tokenizer.separator,))
    return stream_text(new, tokenizer.decode, ids)
