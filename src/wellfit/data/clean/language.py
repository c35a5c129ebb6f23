"""Prose → the natural language it is written in."""

from __future__ import annotations

import functools
from typing import Any

CHARACTERS = 2_000
"""Only the beginning of a text is looked at."""

_LEAST_LETTERS = 20
_LEAST_PROBABILITY = 0.8


def natural_language(text: str) -> str:
    """Text → ISO 639-1 code by py3langid on its first 2,000 characters, or `und`.

    Unknown where there are fewer than 20 letters, or the best language has less than 0.8 of the
    probability.

    >>> natural_language("42"), natural_language("It is a truth universally acknowledged.")
    ('und', 'en')
    """
    beginning = text[:CHARACTERS]
    if sum(map(str.isalpha, beginning)) < _LEAST_LETTERS:
        return "und"
    language, probability = _identifier().classify(beginning)
    return str(language) if probability >= _LEAST_PROBABILITY else "und"


@functools.cache
def _identifier() -> Any:
    """The classifier, its model (5 MB, inside the package) read once a process: 0.5 s."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
