"""Rows as a person types them, and predictions as a person reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wellfit.errors import RunError

if TYPE_CHECKING:
    from wellfit.run.predict import Prediction


def row_given(pairs: list[str]) -> dict[str, str]:
    """`COLUMN=TEXT` for each column → the row. Raises RunError where one is none, or comes twice.

    >>> row_given(["question=who?", "context=a = b"])
    {'question': 'who?', 'context': 'a = b'}
    """
    row: dict[str, str] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name or name in row:
            raise RunError(
                f"{pair!r} is no COLUMN=TEXT" if name not in row else f"{name} is given twice",
                where="--given",
                way_out="Write it as `--given text=…`, once for each column.",
            )
        row[name] = text
    return row


def prediction_line(prediction: Prediction) -> str:
    """A prediction → a line: the answer, how probable it is, and the other classes."""
    if prediction.classes is None:
        answer = "no answer" if prediction.answer is None else prediction.answer
        return f"{answer} ({prediction.probability:.1%})"
    others = sorted(prediction.classes.items(), key=lambda one: -one[1])
    return ", ".join(f"{name} {share:.1%}" for name, share in others)
