"""A recipe and its corpus → the parts of a training: model, batches, rows to score.

The one place where settings choose what is built, so that training, checks, plans and scores all
work with the same parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from wellfit.data.batches import Batches, Corrupt, Rows, ScoredRows
from wellfit.data.corpus import Corpus
from wellfit.data.corrupt.denoised import denoising
from wellfit.data.corrupt.marks import Marks
from wellfit.data.corrupt.masked import masking
from wellfit.data.examples.rows import ExampleRows
from wellfit.data.packing.rows import PackedRows
from wellfit.data.plan import DataPlan
from wellfit.evaluation.loss import Guess
from wellfit.model.adapters.adapt import adapted
from wellfit.model.guest import Guest, made, refuse_unfit
from wellfit.model.hub.foreign import empty_foreign
from wellfit.model.init import initialise
from wellfit.model.protocol import LanguageModel
from wellfit.model.seeded import seeded
from wellfit.model.span import span_guesses
from wellfit.model.transformer import Transformer
from wellfit.recipe.callables import resolve, version_of
from wellfit.recipe.schema import Recipe, objective_kind
from wellfit.recipe.shapes import Shape
from wellfit.run.base import config_folder, foreign_guest, take_base
from wellfit.run.vocabulary import marks_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def empty_model(recipe: Recipe, vocabulary_size: int, run: Path | None = None) -> LanguageModel:
    """A recipe and the entries of its vocabulary → the model, its weights not yet filled.

    A module of the user's own comes with the weights that it makes itself, and so does the frozen
    base of an adapter; one of transformers is built by the `config.json` that the run folder keeps,
    where there is a `run`.
    """
    if recipe.model.adapter is not None:
        return first_model(recipe, vocabulary_size)
    if recipe.model.architecture == "transformers":
        return foreign_guest(recipe, vocabulary_size, filled=False, run=run)[0]
    return _bare_model(recipe, vocabulary_size)


def first_model(recipe: Recipe, vocabulary_size: int) -> LanguageModel:
    """A recipe and the entries of its vocabulary → the model as training begins with it.

    With `model.weights` it begins with these, and `told` of the model says what was drawn anew.
    Raises RecipeError where `model.module` does not resolve, RunError where it gives nothing that
    can be trained or an adapter does not fit it, and CheckpointError where `model.weights` cannot
    be read or do not fit.
    """
    model = _base_model(recipe, vocabulary_size)
    section = recipe.model.adapter
    if section is None:
        return model
    return cast(LanguageModel, adapted(model, section, recipe.model.quantize, seed=recipe.seed))


def _base_model(recipe: Recipe, vocabulary_size: int) -> LanguageModel:
    """The model with its first weights, as it is without an adapter."""
    if recipe.model.architecture == "transformers":
        guest, taken = foreign_guest(recipe, vocabulary_size, filled=True)
        guest.told = taken.told if taken else ()
        return guest
    model = _bare_model(recipe, vocabulary_size)
    if isinstance(model, Transformer) and recipe.model.module is None:
        filled: frozenset[str] = frozenset()
        if recipe.model.weights:
            loaded = take_base(model, recipe)
            model.told, filled = loaded.told, loaded.filled
        initialise(model, recipe.seed, but=filled)
    return model


def _bare_model(recipe: Recipe, vocabulary_size: int) -> LanguageModel:
    if recipe.model.module is not None:
        return _own_model(recipe, vocabulary_size)
    model = Transformer(recipe.model, vocabulary_size)
    model.pretrained = bool(recipe.model.weights)
    return model


def corruption(recipe: Recipe, found: Marks, key: tuple[object, ...]) -> Corrupt | None:
    """A recipe, its marks and a key → what is hidden in rows; None where nothing is."""
    objective = recipe.train.objective
    match objective_kind(recipe.model.kind, objective):
        case "masked":
            return masking(objective, found, key)
        case "denoising":
            return denoising(objective, found, key)
        case _:
            return None


def model_shapes(
    recipe: Recipe, vocabulary_size: int, run: Path | None = None
) -> tuple[Shape, ...] | None:
    """A recipe → the tensors that it trains, without making them; None if that fails.

    For a module of one's own, and for adapters: the model is built on torch's device `meta`, which
    knows shapes and no numbers.
    """
    model = _unmade(recipe, vocabulary_size, run)
    if model is None:
        return None
    roles = model.roles()
    return tuple(
        Shape(name, tuple(parameter.shape), roles[name])
        for name, parameter in model.named_parameters()
    )


def frozen_bytes(recipe: Recipe, vocabulary_size: int) -> int:
    """A recipe → bytes of the frozen base of its adapter, as they are kept; 0 where none is."""
    if recipe.model.adapter is None:
        return 0
    model: Any = _unmade(recipe, vocabulary_size)
    held = {} if model is None else {id(one): one for one in model.buffers()}
    return sum(one.numel() * one.element_size() for one in held.values())


def _unmade(recipe: Recipe, vocabulary_size: int, run: Path | None = None) -> LanguageModel | None:
    try:
        with seeded("shapes", torch.device("cpu")), torch.device("meta"):
            if recipe.model.module is None:
                model: Any = Transformer(recipe.model, vocabulary_size)
                if recipe.model.architecture == "transformers":
                    model = empty_foreign(config_folder(recipe, run), vocabulary_size)
            else:
                model = made(_function(recipe), "", recipe.model, vocabulary_size)
        if not isinstance(model, LanguageModel):
            model = Guest(model, context=recipe.model.context, vocabulary_size=vocabulary_size)
        if recipe.model.adapter is not None:
            model = adapted(model, recipe.model.adapter, recipe.model.quantize)
    except Exception:  # the training itself will say what is wrong
        return None
    return cast(LanguageModel, model)


def training_batches(recipe: Recipe, corpus: Corpus, plan: DataPlan | None = None) -> Batches:
    """A recipe, its corpus and a data plan → the batches of its training.

    Raises DataError as `Batches` does.
    """
    context = recipe.model.context
    rows = recipe.train.batch_tokens // context
    if corpus.of_examples:
        examples = _example_rows(recipe, corpus, "train")
        return Batches(corpus, context, rows, recipe.seed, plan, rows=examples)
    key = (recipe.seed, corpus.digest)
    corrupt = corruption(recipe, marks_of(recipe, corpus), key)
    packed = PackedRows(corpus, "train", context) if recipe.data.packing == "best_fit" else None
    return Batches(corpus, context, rows, recipe.seed, plan, corrupt, packed)


def held_out_rows(recipe: Recipe, corpus: Corpus, split: str) -> ScoredRows:
    """A recipe, its corpus and a split → the rows of it that are scored.

    What is hidden in them is the same at every evaluation, whatever the seed of the run. They are
    cut from the stream whatever `data.packing` says: every token is scored once either way, and so
    the scores of trainings with different packings stay comparable. Examples stand whole, packed
    as in training, and with the scores of each alone.
    """
    if corpus.of_examples:
        return _example_rows(recipe, corpus, split)
    key = ("held out", corpus.digest, split)
    corrupt = corruption(recipe, marks_of(recipe, corpus), key)
    return Rows(corpus, split, recipe.model.context, corrupt)


def guessing(recipe: Recipe) -> Guess | None:
    """A recipe → how its model's answers are read from logits; None: the likeliest of a place."""
    return span_guesses if recipe.model.head == "span" else None


def _example_rows(recipe: Recipe, corpus: Corpus, split: str) -> ExampleRows:
    return ExampleRows(
        corpus,
        split,
        recipe.model.context,
        recipe.data.packing,
        balanced=split == "train" and recipe.train.class_weights == "balanced",
    )


def _function(recipe: Recipe) -> Callable[..., Any]:
    assert recipe.model.module is not None
    return resolve(recipe.model.module, {}, "module")


def _own_model(recipe: Recipe, vocabulary_size: int) -> LanguageModel:
    """The module of `model.module` with its own first weights, drawn from the recipe's seed.

    One that offers all of `LanguageModel` is taken as it is, any other one as a `Guest`.
    """
    assert recipe.model.module is not None
    function, name = _function(recipe), recipe.model.module.name
    with seeded(f"{recipe.seed} module", torch.device("cpu")):
        module = made(function, name, recipe.model, vocabulary_size)
    if isinstance(module, LanguageModel):
        return module
    guest = Guest(module, context=recipe.model.context, vocabulary_size=vocabulary_size)
    guest.code_version = version_of(function)
    refuse_unfit(guest, document_mask=recipe.train.document_mask)
    return guest
