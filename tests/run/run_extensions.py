"""Functions that recipes of these tests name."""

from __future__ import annotations


def shout(text: str, content_type: str) -> str:
    """A cleaner: every letter a capital."""
    return text.upper()
