"""A run whose model names classes or points at answers, and new rows → what it says to each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wellfit.data.examples.encode import Encoded, encode
from wellfit.data.examples.files import BadRowError, read_rows
from wellfit.data.examples.shapes import Labelled, Question, example_of
from wellfit.errors import DataError, RunError

if TYPE_CHECKING:
    from torch import Tensor

    from wellfit.recipe.schema import Examples
    from wellfit.run.weights import Trained


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says to one row."""

    answer: str | None
    """The name of a class, or the words of the context; None: nothing there answers."""
    probability: float
    """Of that class; of a span, that of its beginning times that of its end."""
    classes: dict[str, float] | None = None
    """Class → probability."""
    start: int | None = None
    """First character of the answer in the context."""
    end: int | None = None
    """One past the last."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; what the task does not have is left out."""
        told: dict[str, Any] = {"answer": self.answer, "probability": self.probability}
        if self.classes is not None:
            return told | {"classes": self.classes}
        return told | {"start": self.start, "end": self.end}


def predict_rows(
    run: Path, rows: Iterable[tuple[str, Mapping[str, Any]]], which: str = ""
) -> Iterator[Prediction]:
    """A run folder and rows with their positions → a prediction for each, in order.

    A row has what an example of the run has, without its answer. `which` is a checkpoint as for
    `weights.choose_checkpoint`. Raises RunError where the model gives text, and DataError for a
    row that is no example or has more tokens than the model reads.
    """
    from wellfit.run.weights import open_run
    from wellfit.training.threads import threads

    trained = open_run(run, which)
    section = trained.recipe.data.examples
    if section is None or section.task == "answer":
        raise RunError(
            "the model writes text; it names no classes and points at nothing",
            where=str(run),
            way_out="Let it write with `wellfit generate RUN --prompt TEXT`.",
        )
    tokenizer = trained.corpus.tokenizer()
    with threads(trained.recipe.train.threads):
        for position, row in rows:
            try:
                example = example_of({**row, **_unanswered(section)}, section)
            except BadRowError as fault:
                raise DataError(str(fault), where=position) from fault
            encoded = encode([example], tokenizer, section)[0]
            assert isinstance(encoded, Encoded)
            context = trained.recipe.model.context
            if encoded.places > context:
                raise DataError(
                    f"it has {encoded.places} tokens, and the model reads {context}",
                    where=position,
                    way_out="Shorten it.",
                )
            logits = _logits(trained, encoded)
            if isinstance(example, Labelled):
                yield _class(logits, section)
            else:
                assert isinstance(example, Question)
                yield _span(logits, encoded, example, tokenizer.offsets(example.context))


def rows_of_file(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A file of rows → (position, row) of each. Raises DataError at a row that cannot be read."""
    for position, row in read_rows(file):
        if isinstance(row, BadRowError):
            raise DataError(str(row), where=f"{file}, {position}")
        yield f"{file}, {position}", row


def _unanswered(section: Examples) -> dict[str, Any]:
    """An answer that every row may have, where it would have to have one."""
    columns = section.columns
    if section.task == "classification":
        return {columns.label or "label": section.classes[0]}
    return {columns.answers or "answers": []}


def _logits(trained: Trained, encoded: Encoded) -> Tensor:
    """An encoded row → its logits [T, outputs]."""
    import torch

    model = trained.model
    device = next(iter(model.named_parameters()))[1].device
    with torch.no_grad():
        hidden = model.hidden(torch.tensor([encoded.tokens], device=device))
        return model.logits(hidden)[0].float().cpu()


def _class(logits: Tensor, section: Examples) -> Prediction:
    shares = logits[-1].softmax(-1).tolist()
    best = max(range(len(shares)), key=shares.__getitem__)
    return Prediction(
        section.classes[best], shares[best], dict(zip(section.classes, shares, strict=True))
    )


def _span(
    logits: Tensor, encoded: Encoded, asked: Question, offsets: list[tuple[int, int]]
) -> Prediction:
    from wellfit.model.span import best_span
    from wellfit.records import IGNORED

    first = next(n for n, label in enumerate(encoded.labels) if label != IGNORED)
    scores = logits[first:]
    begin, end = best_span(scores)
    chances = scores.softmax(0)
    probability = float(chances[begin, 0] * chances[end, 1])
    if begin == 0:
        return Prediction(None, probability)
    start, stop = offsets[begin - 1][0], offsets[end - 2][1]
    words = asked.context[start:stop]
    start += len(words) - len(words.lstrip())  # a token may hold the blank before its word
    return Prediction(words.strip(), probability, None, start, start + len(words.strip()))
