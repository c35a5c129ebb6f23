"""A recipe and its corpus → the entries of the model's vocabulary: the corpus's, and marks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wellfit.data.corpus import Corpus
from wellfit.data.corrupt.marks import Marks, marks
from wellfit.recipe.schema import Recipe

if TYPE_CHECKING:
    from wellfit.data.tokens.tokenizer import Tokenizer


def marks_of(recipe: Recipe, corpus: Corpus) -> Marks:
    """A recipe and its corpus → the ids of masks and sentinels, and the model's vocabulary."""
    kind = recipe.model.kind
    if kind == "decoder" or not corpus.has_tokenizer:  # nothing to look up
        return marks(kind, {}, corpus.vocabulary_size, corpus.separator)
    return marks_with(recipe, corpus.tokenizer())


def marks_with(recipe: Recipe, tokenizer: Tokenizer) -> Marks:
    """The same from a tokenizer, where no corpus is built yet."""
    known = tokenizer.backend.get_vocab(with_added_tokens=True)
    return marks(recipe.model.kind, known, tokenizer.vocabulary_size, tokenizer.separator)


def vocabulary_of(recipe: Recipe, corpus: Corpus) -> int:
    """A recipe and its corpus → the entries of the model's vocabulary, marks included."""
    return marks_of(recipe, corpus).vocabulary_size
