"""A user's own cleaners and filters, as a recipe would name them."""

from __future__ import annotations

from wellfit.records import Document


def lower(text: str) -> str:
    """Lower case."""
    return text.lower()


def broken(text: str) -> str:
    """Fails on one text."""
    if "Forbidden" in text:
        raise ZeroDivisionError("division by zero")
    return text


def has_number(document: Document, number: str = "7") -> str | None:
    """A digit stands in the text."""
    return f"the digit {number}" if number in document.text else None


def says_true(document: Document) -> bool:
    """No reason, but True."""
    return True
