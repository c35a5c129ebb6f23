"""A run folder → a conversation with a checkpoint of it: a line in, the pieces of an answer out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from wellfit.errors import RunError
from wellfit.generation.write import Piece
from wellfit.recipe.schema import Sampling
from wellfit.run.prompting import Turn
from wellfit.run.writing import Pen

if TYPE_CHECKING:
    from wellfit.generation.prompts import Prompt


class Chat:
    """A conversation: its turns, and what is left out of them where the context is full."""

    def __init__(self, pen: Pen, sampling: Sampling) -> None:
        """Raises RunError where the run has no tokenizer."""
        if pen.tokenizer is None:
            raise RunError(
                "the run's tokens came without a tokenizer, so there is nothing to talk in",
                where="chat",
                way_out="Name data.tokens.tokenizer before training, or give ids to "
                "`wellfit generate`.",
            )
        self.pen, self.sampling, self.tokenizer = pen, sampling, pen.tokenizer
        self.turns: list[Turn] = []
        self.forgotten = 0
        """Turns that the model is no longer shown."""

    def answer(self, line: str) -> Iterator[str]:
        """What a person says → the answer, piece by piece.

        However it ends, what has been given out is the answer that the conversation keeps.
        """
        self.turns.append(Turn("user", line))
        said = ""
        try:
            for piece in self.pen.write([self._prompt()], self.sampling):
                if isinstance(piece, Piece):
                    said += piece.text
                    yield piece.text
        finally:
            self.turns.append(Turn("assistant", said))

    def reset(self) -> None:
        """Forget the conversation."""
        self.turns, self.forgotten = [], 0

    def _prompt(self) -> Prompt:
        """The prompt of the newest turns that leave room for an answer; the last always stands.

        Oldest turns go first, and each answer with what it answered.
        """
        room = self.pen.context

        def prompt() -> Prompt:
            return self.pen.talk(self.turns[self.forgotten :])

        found = prompt()
        while self.forgotten < len(self.turns) - 1 and not _fits(found, self.sampling.tokens, room):
            self.forgotten += 2
            found = prompt()
        return found


def _fits(prompt: Prompt, tokens: int, context: int) -> bool:
    """Whether prompt and answer fit into the context; half of it is enough for any answer."""
    answer = min(tokens, context // 2)
    return len(prompt.ids) + answer <= context and len(prompt.source or ()) <= context
