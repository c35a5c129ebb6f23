"""A recipe and its corpus → the parts of a training: model, batches, rows to score.

The one place where settings choose what is built, so that training, checks, plans and scores all
work with the same parts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wellfit.data.batches import Batches, Corrupt, Rows
from wellfit.data.corpus import Corpus
from wellfit.data.corrupt.denoised import denoising
from wellfit.data.corrupt.marks import Marks, marks
from wellfit.data.corrupt.masked import masking
from wellfit.data.plan import DataPlan
from wellfit.model.init import initialise
from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import Recipe, objective_kind

if TYPE_CHECKING:
    from wellfit.data.tokens.tokenizer import Tokenizer


def marks_of(recipe: Recipe, corpus: Corpus) -> Marks:
    """A recipe and its corpus → the ids of masks and sentinels, and the model's vocabulary."""
    if recipe.model.kind == "decoder":  # no need to read the tokenizer
        return marks("decoder", {}, corpus.vocabulary_size, corpus.separator)
    return marks_with(recipe, corpus.tokenizer())


def marks_with(recipe: Recipe, tokenizer: Tokenizer) -> Marks:
    """The same from a tokenizer, where no corpus is built yet."""
    known = tokenizer.backend.get_vocab(with_added_tokens=True)
    return marks(recipe.model.kind, known, tokenizer.vocabulary_size, tokenizer.separator)


def vocabulary_of(recipe: Recipe, corpus: Corpus) -> int:
    """A recipe and its corpus → the entries of the model's vocabulary, marks included."""
    return marks_of(recipe, corpus).vocabulary_size


def empty_model(recipe: Recipe, vocabulary_size: int) -> Transformer:
    """A recipe and the entries of its vocabulary → the model, its weights not yet filled."""
    return Transformer(recipe.model, vocabulary_size)


def first_model(recipe: Recipe, vocabulary_size: int) -> Transformer:
    """A recipe and the entries of its vocabulary → the model as training begins with it."""
    model = empty_model(recipe, vocabulary_size)
    initialise(model, recipe.seed)
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


def training_batches(recipe: Recipe, corpus: Corpus, plan: DataPlan | None = None) -> Batches:
    """A recipe, its corpus and a data plan → the batches of its training.

    Raises DataError as `Batches` does.
    """
    rows = recipe.train.batch_tokens // recipe.model.context
    key = (recipe.seed, corpus.digest)
    corrupt = corruption(recipe, marks_of(recipe, corpus), key)
    return Batches(corpus, recipe.model.context, rows, recipe.seed, plan, corrupt)


def held_out_rows(recipe: Recipe, corpus: Corpus, split: str) -> Rows:
    """A recipe, its corpus and a split → the rows of it that are scored.

    What is hidden in them is the same at every evaluation, whatever the seed of the run.
    """
    key = ("held out", corpus.digest, split)
    corrupt = corruption(recipe, marks_of(recipe, corpus), key)
    return Rows(corpus, split, recipe.model.context, corrupt)
