"""The name of a held-out score in; what it names, and which way is better, out."""

from __future__ import annotations

import re
from dataclasses import dataclass

LOWER_IS_BETTER = {
    "loss": True,
    "perplexity": True,
    "bits_per_byte": True,
    "accuracy": False,
    "exact": False,
}
"""Every score of an evaluation; a domain has all of them but the two of OF_THE_WHOLE."""
OF_THE_WHOLE = ("perplexity", "exact")


@dataclass(frozen=True, slots=True)
class ScoreName:
    """One number of an evaluation."""

    split: str
    domain: str
    """Empty for the whole split."""
    score: str

    @property
    def lower_is_better(self) -> bool:
        """True for losses, False for shares of what was right."""
        return LOWER_IS_BETTER[self.score]


def parse(text: str) -> ScoreName:
    """`validation.loss` or `validation.by_domain.DOMAIN.loss` in, its parts out.

    A domain may hold dots. Raises ValueError that says what can be given; the test split cannot,
    since it takes no part in any decision.

    >>> parse("validation.by_domain.code.accuracy")
    ScoreName(split='validation', domain='code', score='accuracy')
    >>> parse("validation.loss").lower_is_better
    True
    """
    split, _, rest = text.partition(".")
    domain, _, score = rest.rpartition(".")
    named = re.fullmatch(r"by_domain\.(.+)", domain)
    scores = [name for name in LOWER_IS_BETTER if not domain or name not in OF_THE_WHOLE]
    if split != "validation" or score not in scores or (domain and not named):
        listed = ", ".join(f"validation.{name}" for name in LOWER_IS_BETTER)
        raise ValueError(
            f"{text!r} is no score of an evaluation; give one of {listed}, or "
            "validation.by_domain.DOMAIN.loss (bits_per_byte, accuracy) for one domain"
        )
    return ScoreName(split, named[1] if named else "", score)
