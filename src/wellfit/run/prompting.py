"""A text as a person types it → what the run's model is given, so that it writes on, or answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from wellfit.data.corpus import Corpus
from wellfit.data.examples.build import speaker_of
from wellfit.data.examples.encode import read_before, source_ids
from wellfit.errors import RunError
from wellfit.generation.prompts import Prompt, continuing
from wellfit.recipe.schema import Recipe
from wellfit.run.vocabulary import marks_of

if TYPE_CHECKING:
    from wellfit.data.tokens.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side said."""

    role: Literal["user", "assistant"]
    text: str


def conversation_prompt(
    recipe: Recipe, corpus: Corpus, tokenizer: Tokenizer, turns: Sequence[Turn]
) -> Prompt:
    """A recipe, its corpus and tokenizer, and the turns of a conversation → the prompt.

    The one place that says how a conversation becomes what the model reads: by the template that
    it was trained with, else its turns, a line each, as one text of `prompt_of`. Raises RunError
    where the model writes no text.
    """
    speaker = speaker_of(corpus, tokenizer)
    if speaker is not None:
        ids = speaker.prompt([{"role": turn.role, "content": turn.text} for turn in turns])
        return Prompt(tuple(ids), (speaker.end, tokenizer.separator))
    return prompt_of(recipe, corpus, tokenizer, "\n".join(turn.text for turn in turns))


def prompt_of(recipe: Recipe, corpus: Corpus, tokenizer: Tokenizer, text: str) -> Prompt:
    """A recipe, its corpus and tokenizer, and a text → the prompt.

    A model of `data.examples` reads it as the source of an example, with nothing of the target,
    or as what a user says, in the template of its conversations;
    any other one as the beginning of a document. Raises RunError where the model writes no text.
    """
    refuse_without_text(recipe)
    examples = recipe.data.examples
    if examples is None:
        sentinels = marks_of(recipe, corpus).sentinels
        encoded = tokenizer.encode(text)
        return continuing(encoded, separator=tokenizer.separator, sentinels=sentinels)
    if speaker_of(corpus, tokenizer) is not None:
        return conversation_prompt(recipe, corpus, tokenizer, [Turn("user", text)])
    separator = tokenizer.separator
    source = source_ids(tokenizer.encode(read_before(text)), separator, examples)
    if examples.apart:
        return Prompt((separator,), (separator,), tuple(source))
    return Prompt(tuple(source), (separator,))


def refuse_without_text(recipe: Recipe) -> None:
    """Raise RunError where the model's head gives classes or a span."""
    if recipe.model.head != "tokens":
        raise RunError(
            f"the model's head gives {'a span' if recipe.model.head == 'span' else 'classes'}, "
            "and no text",
            way_out="Ask it with `wellfit predict RUN`.",
        )
