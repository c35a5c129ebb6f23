"""A conversation and a template in, tokens and labels out: what an assistant says is learnt.

    text       <|im_start|>user⏎Hello<|im_end|>⏎<|im_start|>assistant⏎Hi<|im_end|>⏎
    learnt                                                            Hi<|im_end|>

Where an answer begins and ends is found by rendering what stands before it, as generation will do,
and what stands up to its end: no marks in the template are needed. Five mistakes that nobody sees
in a loss are refused: nothing to learn, two beginnings of a text, an end that is never learnt, the
head of an answer in the loss, and marks that the tokenizer takes to pieces.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from wellfit.data.examples.files import BadRowError
from wellfit.data.examples.template import Messages, Template, TemplateFaultError
from wellfit.data.tokens.tokenizer import Tokenizer
from wellfit.errors import DataError
from wellfit.records import IGNORED

MARK = re.compile(r"<\|[^|<>\s]{1,40}\|>|<(?:start|end)_of_turn>")
"""What looks like a token of a template."""
PROBE = (
    {"role": "user", "content": "One question."},
    {"role": "assistant", "content": "One answer."},
)


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation, as JSON: examples are compared, and dictionaries cannot be."""

    messages: str
    tools: str = ""

    @property
    def turns(self) -> list[dict[str, Any]]:
        """Its messages."""
        found: list[dict[str, Any]] = json.loads(self.messages)
        return found


@dataclass(frozen=True, slots=True)
class Spoken:
    """Tokens of a conversation, and for each whether it is learnt."""

    tokens: list[int]
    learnt: list[bool]

    def labels(self) -> list[int]:
        """What is asked at each token but the last: the next one where that is learnt."""
        pairs = zip(self.tokens[1:], self.learnt[1:], strict=True)
        return [token if learnt else IGNORED for token, learnt in pairs]


class Speaker:
    """A template and a tokenizer that fit each other; made once for a corpus."""

    def __init__(self, template: Template, tokenizer: Tokenizer) -> None:
        """Raises DataError where a short conversation already shows one of the five mistakes."""
        from tokenizers import Tokenizer as Backend

        self.template = template
        self._backend = Backend.from_str(tokenizer.backend.to_str())
        # In a template's text its marks are tokens; within a message they must not stand.
        self._backend.encode_special_tokens = False
        added = tokenizer.backend.get_added_tokens_decoder()
        self.special = {number: one.content for number, one in added.items() if one.special}
        self.special.setdefault(tokenizer.separator, tokenizer.separator_text)
        try:
            self._refuse_pieces()
            probe = self.spoken(PROBE, turns="all")
        except (BadRowError, TemplateFaultError) as fault:
            raise DataError(
                str(fault),
                where=f"data.examples.template = {template.name}",
                way_out="Name another template, or the tokenizer it was made for.",
            ) from fault
        last = max(n for n, learnt in enumerate(probe.learnt) if learnt)
        self.end: int = probe.tokens[last]
        """The token that ends an answer: generation stops there."""

    def prompt(self, messages: Messages) -> list[int]:
        """Messages → the tokens behind which the model answers."""
        return self._encoded(self.template.render(messages, answers=True))[0]

    def spoken(self, messages: Messages, *, turns: str, tools: str = "") -> Spoken:
        """Messages → their tokens, and which of them are learnt: those of all answers or the last.

        What follows the last answer is left out. Raises BadRowError and TemplateFaultError.
        """
        self._refuse_marks(messages)
        given = json.loads(tools) if tools else None
        places = [n for n, one in enumerate(messages) if one.get("role") == "assistant"]
        if not places:
            raise BadRowError("no message is the assistant's: there would be nothing to learn")
        messages = messages[: places[-1] + 1]
        whole = self.template.render(messages, tools=given)
        tokens, offsets = self._encoded(whole)
        learnt = [False] * len(tokens)
        for place in places if turns == "all" else places[-1:]:
            before = self.template.render(messages[:place], answers=True, tools=given)
            through = self.template.render(messages[: place + 1], tools=given)
            if not whole.startswith(through):
                raise BadRowError(
                    "the template shows an answer otherwise once more follows it; learn the last "
                    "one alone with data.examples.turns: last"
                )
            self._refuse_head(before, through, messages[:place])
            self._learn(learnt, tokens, offsets, len(before), len(through))
        self._refuse_two_beginnings(tokens)
        return Spoken(tokens, learnt)

    def _learn(
        self,
        learnt: list[bool],
        tokens: list[int],
        offsets: list[tuple[int, int]],
        begin: int,
        end: int,
    ) -> None:
        """Mark the tokens between two characters, up to the mark that ends the answer."""
        inside = [n for n, (low, high) in enumerate(offsets) if low >= begin and high <= end]
        border = [n for n, (low, high) in enumerate(offsets) if low < begin < high]
        if border:
            raise BadRowError(
                "a token reaches from the prompt into the answer, which generation could never "
                "write; end the template's prompt where a token ends"
            )
        ends = [n for n in inside if tokens[n] in self.special]
        if not ends:
            raise BadRowError(
                "no mark ends the answer, so its end would never be learnt and generation never "
                "stop"
            )
        if ends[-1] == inside[0]:
            raise BadRowError("the answer is empty: there would be nothing to learn")
        for number in range(inside[0], ends[-1] + 1):
            learnt[number] = True

    def _refuse_head(self, before: str, through: str, messages: Messages) -> None:
        """An answer begins where generation begins, and not at the name of its speaker."""
        plain = self.template.render(messages)
        head = through[len(plain) :] if through.startswith(plain) else ""
        if not through.startswith(before):
            raise BadRowError(
                "the template's prompt for generation is not how an answer begins in training: "
                f"{_short(before[-30:])} stands there, and in training {_short(head[:30])}"
            )
        if before == plain and MARK.match(head.lstrip()):
            mark = MARK.match(head.lstrip())
            assert mark is not None
            raise BadRowError(
                f"the template has no prompt for generation, so {mark[0]} and the speaker's name "
                "would be learnt as part of every answer; it must heed add_generation_prompt"
            )

    def _refuse_two_beginnings(self, tokens: list[int]) -> None:
        if len(tokens) > 1 and tokens[0] == tokens[1] and tokens[0] in self.special:
            raise BadRowError(
                f"the text begins with {self.special[tokens[0]]} twice; take it out of the "
                "template or of the messages"
            )

    def _refuse_marks(self, messages: Messages) -> None:
        for one in messages:
            content = one.get("content") or ""
            found = next((m for m in self.special.values() if m and m in str(content)), None)
            if found is not None:
                raise BadRowError(
                    f"a message holds {found}, which is a mark of the template and no text"
                )

    def _refuse_pieces(self) -> None:
        """Every mark that the template writes is one token."""
        text = self.template.render(PROBE) + self.template.render(PROBE[:1], answers=True)
        for mark in sorted(set(MARK.findall(text))):
            ids = self._backend.encode(mark, add_special_tokens=False).ids
            if len(ids) != 1:
                raise BadRowError(
                    f"the tokenizer does not know {mark} and takes it to {len(ids)} pieces; add it "
                    "with data.tokenizer.new_tokens"
                )

    def _encoded(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        found = self._backend.encode(text, add_special_tokens=False)
        return list(found.ids), list(found.offsets)


def _short(text: str) -> str:
    return repr(text)
