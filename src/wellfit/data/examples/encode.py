"""Examples → tokens, and what is asked at each of them. ␞ is the separator of the tokenizer.

answer           ␞ source ⏎ target            next tokens of the target, and ␞ at its end
answer, chat     as the template has it       next tokens of what the assistant says
answer, apart    source ␞ source; ␞ target    the same, read beside the source
classification   ␞ text (␞ pair) ␞            the class, at the last place
span             ␞ question ␞ context ␞       where the answer begins, and the place behind it;
                                              the middle ␞ where there is none
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from wellfit.data.examples.chat import Chat, Speaker
from wellfit.data.examples.conversation import pair
from wellfit.data.examples.files import BadRowError
from wellfit.data.examples.shapes import Answer, Example, Labelled, Question
from wellfit.data.examples.template import TemplateFaultError
from wellfit.data.tokens.tokenizer import Tokenizer
from wellfit.errors import DataError
from wellfit.recipe.schema import Examples
from wellfit.records import CANDIDATE, IGNORED

START, END = 0, 1
"""Labels of a span: the place it begins at, and the one behind it."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Tokens that go in, a label for each (IGNORED where nothing is asked), and a source apart."""

    tokens: list[int]
    labels: list[int]
    source: list[int]
    cut: tuple[str, ...] = ()
    """The parts that lost their end: source, target."""

    @property
    def places(self) -> int:
        """Places that it takes in a row."""
        return max(len(self.tokens), len(self.source))


def encode(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    section: Examples,
    speaker: Speaker | None = None,
) -> list[Encoded | BadRowError]:
    """Examples of one task, their tokenizer and `data.examples` → what a model is given of each.

    With a `speaker` answers are conversations in its template. An example that cannot be given so
    is an error, in its place.
    """
    if speaker is not None:
        return [_spoken(example, speaker, section) for example in examples]
    if any(isinstance(example, Chat) for example in examples):
        raise DataError(
            "rows hold conversations, and no template says how these become text",
            where="data.examples.template",
            way_out="Name one, such as chatml, or give a data.tokenizer.file that has one.",
        )
    texts = [text for example in examples for text in _texts(example)]
    ids = iter(tokenizer.encode_batch(texts))
    found: list[Encoded | BadRowError] = []
    for example in examples:
        parts = [next(ids) for _ in _texts(example)]
        found.append(_one(example, parts, tokenizer, section))
    return found


def read_before(source: str) -> str:
    """What is asked → the text that stands before the target, in training and in generation."""
    return f"{source}\n"


def source_ids(source: Sequence[int], separator: int, section: Examples) -> list[int]:
    """Tokens of a source → what is read of it, behind a separator."""
    kept = list(source[: section.source_max_len or None])
    return [separator, *kept]


def _texts(example: Example) -> tuple[str, ...]:
    match example:
        case Answer():
            return (read_before(example.source), example.target)
        case Labelled():
            return (example.text,) if example.pair is None else (example.text, example.pair)
        case Question():
            return (example.question, example.context)
        case Chat():
            raise AssertionError("conversations are encoded by a speaker")


def _spoken(example: Example, speaker: Speaker, section: Examples) -> Encoded | BadRowError:
    if isinstance(example, Answer):
        example = pair(example.source, example.target, example.system)
    assert isinstance(example, Chat)
    try:
        said = speaker.spoken(example.turns, turns=section.turns, tools=example.tools)
    except TemplateFaultError as fault:
        return BadRowError(str(fault))
    except BadRowError as fault:
        return fault
    last = max(number for number, learnt in enumerate(said.learnt) if learnt)
    labels = said.tokens[1:] if section.train_on_source else said.labels()
    return Encoded(said.tokens[:last], labels[:last], [])


def _one(
    example: Example, parts: list[list[int]], tokenizer: Tokenizer, section: Examples
) -> Encoded:
    match example:
        case Answer():
            return _answer(parts[0], parts[1], tokenizer.separator, section)
        case Labelled():
            return _labelled(example.label, parts, tokenizer.separator, section)
        case Question():
            return _question(example, parts, tokenizer)
        case Chat():
            raise AssertionError("conversations are encoded by a speaker")


def _answer(source: list[int], target: list[int], separator: int, section: Examples) -> Encoded:
    read = source_ids(source, separator, section)
    limit = section.target_max_len or len(target)
    cut = ("source",) * (len(read) <= len(source)) + ("target",) * (len(target) > limit)
    # A target that was cut has no end: to learn one there would be to learn to stop too early.
    said = target[:limit] if len(target) > limit else [*target, separator]
    if section.apart:
        return Encoded([separator, *said[:-1]], said, read, cut)
    whole = [*read, *said]
    first = 1 if section.train_on_source else len(read)
    labels = [IGNORED] * (first - 1) + whole[first:]
    return Encoded(whole[:-1], labels, [], cut)


def _labelled(label: int, parts: list[list[int]], separator: int, section: Examples) -> Encoded:
    tokens: list[int] = []
    limit = section.source_max_len
    for part in parts:
        tokens += [separator, *part[: limit or None]]
    tokens.append(separator)
    cut = any(limit and len(part) > limit for part in parts)
    return Encoded(tokens, [IGNORED] * (len(tokens) - 1) + [label], [], ("source",) * cut)


def _question(example: Question, parts: list[list[int]], tokenizer: Tokenizer) -> Encoded:
    question, context = parts
    tokens = [tokenizer.separator, *question, tokenizer.separator, *context, tokenizer.separator]
    first = len(question) + 1  # the separator before the context
    labels = [IGNORED] * first + [CANDIDATE] * (len(tokens) - first)
    start, end = first, first + 1
    if example.span is not None:
        offsets = tokenizer.offsets(example.context)
        start += 1 + next(n for n, (_, high) in enumerate(offsets) if high > example.span[0])
        behind = (n for n, (low, _) in enumerate(offsets) if low >= example.span[1])
        end = max(start + 1, first + 1 + next(behind, len(context)))
    labels[start], labels[end] = START, END
    return Encoded(tokens, labels, [])
