"""A recipe and its corpus → the parts of a training: model, batches, rows to score.

The one place where settings choose what is built, so that training, checks, plans and scores all
work with the same parts.
"""

from __future__ import annotations

from wellfit.data.batches import Batches, Rows
from wellfit.data.corpus import Corpus
from wellfit.data.plan import DataPlan
from wellfit.model.init import initialise
from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import Recipe


def empty_model(recipe: Recipe, vocabulary_size: int) -> Transformer:
    """A recipe and the entries of its vocabulary → the model, its weights not yet filled."""
    return Transformer(recipe.model, vocabulary_size)


def first_model(recipe: Recipe, vocabulary_size: int) -> Transformer:
    """A recipe and the entries of its vocabulary → the model as training begins with it."""
    model = empty_model(recipe, vocabulary_size)
    initialise(model, recipe.seed)
    return model


def training_batches(recipe: Recipe, corpus: Corpus, plan: DataPlan | None = None) -> Batches:
    """A recipe, its corpus and a data plan → the batches of its training.

    Raises DataError as `Batches` does.
    """
    rows = recipe.train.batch_tokens // recipe.model.context
    return Batches(corpus, recipe.model.context, rows, recipe.seed, plan)


def held_out_rows(recipe: Recipe, corpus: Corpus, split: str) -> Rows:
    """A recipe, its corpus and a split → the rows of it that are scored."""
    return Rows(corpus, split, recipe.model.context)
