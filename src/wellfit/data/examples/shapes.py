"""A row of a file → the example in it: an answer, a class, or a span of a text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from wellfit.data.examples.chat import Chat
from wellfit.data.examples.conversation import HOLDERS, conversation_of
from wellfit.data.examples.files import BadRowError, Row
from wellfit.recipe.schema import Examples

USUAL: dict[str, tuple[str, ...]] = {
    "source": ("instruction", "prompt", "question", "source", "query", "input"),
    "context": ("context", "input"),
    "target": ("output", "response", "completion", "answer", "target", "translation", "summary"),
    "text": ("text", "sentence", "sentence1", "premise", "review", "content", "question1"),
    "pair": ("text_pair", "pair", "sentence2", "hypothesis", "question2"),
    "label": ("label", "class", "category", "sentiment"),
    "question": ("question",),
    "answers": ("answers", "answer"),
}
"""What files call the parts of an example, best first. A span's context has no other name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is asked, and what shall be written."""

    source: str
    target: str

    system: str = ""
    """What the system says before, in a conversation."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text, perhaps a second one, and the number of their class."""

    text: str
    pair: str | None
    label: int


@dataclass(frozen=True, slots=True)
class Question:
    """A question and a text; characters `start` … `end` − 1 answer it, or nothing there does."""

    question: str
    context: str
    span: tuple[int, int] | None


Example = Answer | Chat | Labelled | Question


def example_of(row: Row, section: Examples) -> Example:
    """A row and `data.examples` → its example. Raises BadRowError where it is none."""
    match section.task:
        case "answer":
            return _answer(row, section)
        case "classification":
            return _labelled(row, section)
        case "span":
            return _question(row, section)


def domain_of(example: Example, row: Row, section: Examples) -> str:
    """What its scores are told apart by: its class, or what `columns.domain` names."""
    if isinstance(example, Labelled):
        return section.classes[example.label]
    if not section.columns.domain:
        return "examples"
    value = _value(row, section.columns.domain)
    return str(value) if value is not None else "none"


def given(example: Example) -> str:
    """What the model is shown of an example: equal ones must not stand in two splits."""
    match example:
        case Answer():
            return f"{example.system}\x00{example.source}"
        case Chat():
            turns = example.turns
            last = max(n for n, one in enumerate(turns) if one["role"] == "assistant")
            return json.dumps([*turns[:last], example.tools], ensure_ascii=False)
        case Labelled():
            return f"{example.text}\x00{example.pair or ''}"
        case Question():
            return f"{example.question}\x00{example.context}"


def _answer(row: Row, section: Examples) -> Answer | Chat:
    columns = section.columns
    named = columns.source or columns.target
    holder = columns.messages or next((o for o in HOLDERS if o in row and not named), "")
    tools = columns.tools or ("tools" if "tools" in row else "")
    if holder:
        system = columns.system or ("system" if "system" in row else "")
        chat = conversation_of(row, holder, system, tools)
        if not any(one["role"] == "assistant" for one in chat.turns):
            raise BadRowError("no message is the assistant's: there would be nothing to learn")
        return chat
    source, name = _found(row, "source", columns.source)
    more = columns.context or next(
        (one for one in USUAL["context"] if one in row and one not in (name, columns.target)), ""
    )
    context = _text(row, more, empty=True) if more else ""
    target, _ = _found(row, "target", columns.target, besides=(name, more))
    if not target.strip():
        raise BadRowError("the target is empty: there would be nothing to learn")
    whole = f"{source}\n\n{context}" if context.strip() else source
    system = _text(row, columns.system, empty=True) if columns.system else ""
    return Answer(whole, target, system)


def _labelled(row: Row, section: Examples) -> Labelled:
    columns = section.columns
    text, name = _found(row, "text", columns.text)
    pair = columns.pair or next((o for o in USUAL["pair"] if o in row and o != name), "")
    label_at = columns.label or next((o for o in USUAL["label"] if o in row), "")
    if not label_at:
        raise BadRowError(_missing("label", row))
    label = _class_of(_value(row, label_at, needed=True), section.classes)
    if not text.strip():
        raise BadRowError("the text is empty")
    return Labelled(text, _text(row, pair, empty=True) if pair else None, label)


def _class_of(value: Any, classes: tuple[str, ...]) -> int:
    """A label as a file has it → the number of its class.

    >>> _class_of("pos", ("neg", "pos")), _class_of("1", ("neg", "pos")), _class_of(0.0, ("a", "b"))
    (1, 1, 0)
    """
    word = str(value).strip()
    if word in classes:
        return classes.index(word)
    whole = isinstance(value, int | float) and value == int(value)
    number = int(value) if whole else int(word) if word.isascii() and word.isdecimal() else -1
    if 0 <= number < len(classes):
        return number
    raise BadRowError(
        f"the label {value!r} is none of data.examples.classes ({', '.join(classes)}), nor a "
        f"number from 0 to {len(classes) - 1}"
    )


def _question(row: Row, section: Examples) -> Question:
    columns = section.columns
    question, _ = _found(row, "question", columns.question)
    context = _text(row, columns.context or "context")
    if not question.strip() or not context.strip():
        raise BadRowError("the question or its context is empty")
    if row.get("is_impossible") is True:
        return Question(question, context, None)
    name = columns.answers or next((one for one in USUAL["answers"] if one in row), "")
    if not name:
        raise BadRowError(_missing("answers", row))
    return Question(question, context, _span(_value(row, name, needed=True), context))


def _span(value: Any, context: str) -> tuple[int, int] | None:
    """An answer in any of its forms and its context → first and one past the last character."""
    if isinstance(value, list):
        if not value:
            return None
        value = value[0]  # the first of several is learnt
    start: Any = None
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        if texts in ([], None):
            return None
        value = texts[0] if isinstance(texts, list) else texts
        start = starts[0] if isinstance(starts, list) and starts else starts
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise BadRowError(f"the answer is a {type(value).__name__}, not a text")
    if not isinstance(start, int) or isinstance(start, bool):
        start = context.find(value)
        if start < 0:
            raise BadRowError(f"the answer {_short(value)} does not stand in its context")
    elif start < 0 or context[start : start + len(value)] != value:
        raise BadRowError(
            f"at answer_start {start} the context does not have the answer {_short(value)}, but "
            f"{_short(context[max(0, start) : max(0, start) + len(value)])}"
        )
    return start, start + len(value)


def _found(row: Row, part: str, named: str, besides: tuple[str, ...] = ()) -> tuple[str, str]:
    """A part of an example → its text, and the column where it stands."""
    name = named or next((o for o in USUAL[part] if o in row and o not in besides), "")
    if not name:
        raise BadRowError(_missing(part, row))
    return _text(row, name), name


def _text(row: Row, name: str, *, empty: bool = False) -> str:
    value = _value(row, name, needed=not empty)
    if value is None and empty:
        return ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise BadRowError(f"the column {name!r} holds a {type(value).__name__}, not a text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRowError(
            f"the column {name!r} holds half a surrogate pair, which is no text"
        ) from None
    return value


def _value(row: Row, name: str, *, needed: bool = False) -> Any:
    """What stands in a column; `a.b` is `b` of the object `a`, where no column has that name."""
    if name in row:
        return row[name]
    value: Any = row
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None and needed:
        raise BadRowError(f"no column {name!r}; there are {', '.join(list(row)[:8]) or 'none'}")
    return value


def _missing(part: str, row: Row) -> str:
    return (
        f"no column is known to hold the {part}; there are {', '.join(list(row)[:8]) or 'none'}; "
        f"name it as data.examples.columns.{part}"
    )


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:39] + "…")
