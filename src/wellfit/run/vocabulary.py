"""A recipe and its corpus → the entries of the model's vocabulary: the corpus's, and marks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from wellfit.data.corpus import Corpus
from wellfit.data.corrupt.marks import Marks, marks
from wellfit.errors import DataError
from wellfit.recipe.schema import Recipe

if TYPE_CHECKING:
    from wellfit.data.tokens.tokenizer import Tokenizer


def marks_of(recipe: Recipe, corpus: Corpus) -> Marks:
    """A recipe and its corpus → the ids of masks and sentinels, and the model's vocabulary.

    Raises DataError where `model.vocabulary_size` is too small for them.
    """
    kind = recipe.model.kind
    if kind == "decoder" or not corpus.has_tokenizer:  # nothing to look up
        return widened(recipe, marks(kind, {}, corpus.vocabulary_size, corpus.separator))
    return marks_with(recipe, corpus.tokenizer())


def marks_with(recipe: Recipe, tokenizer: Tokenizer) -> Marks:
    """The same from a tokenizer, where no corpus is built yet."""
    known = tokenizer.backend.get_vocab(with_added_tokens=True)
    kind = recipe.model.kind
    return widened(recipe, marks(kind, known, tokenizer.vocabulary_size, tokenizer.separator))


def vocabulary_of(recipe: Recipe, corpus: Corpus) -> int:
    """A recipe and its corpus → the entries of the model's vocabulary, marks included."""
    return marks_of(recipe, corpus).vocabulary_size


def widened(recipe: Recipe, found: Marks) -> Marks:
    """Marks → the same with the vocabulary of `model.vocabulary_size`, where it is given.

    Embeddings are often wider than their tokenizer, for the sake of round numbers.
    """
    wanted = recipe.model.vocabulary_size
    if wanted and wanted < found.vocabulary_size:
        raise DataError(
            f"the corpus has {found.vocabulary_size:,} entries (marks included), and the model "
            f"knows {wanted:,}",
            where="model.vocabulary_size",
            way_out="Build the corpus with the tokenizer of the weights, or set "
            f"model.vocabulary_size={found.vocabulary_size}: new entries then begin as the mean "
            "of the others.",
        )
    return replace(found, vocabulary_size=wanted) if wanted else found
