"""A scored document → the reason to drop it, or None. Every filter is named by the fault it finds.

The thresholds for prose follow Gopher (Rae et al. 2021, arXiv 2112.11446, table A1). Healthy code
repeats itself far more (tables, licence headers, argument lists), so code has limits of its own;
they drop no file of Python's standard library, where the largest share of repeated 10-grams is
0.40 and the smallest compressed share 0.21.
"""

from __future__ import annotations

from collections.abc import Callable

from wellfit.data.filter.scores import Scored

_LEAST_WORDS_TO_JUDGE = 50
"""Shares of repeated n-grams say nothing about fewer words."""


def too_short(document: Scored, min_characters: int = 64, min_words: int = 0) -> str | None:
    """Fewer characters or words than asked for.

    Words stand between blanks, so ask for them only where the language has blanks.
    """
    characters = int(document.scores["characters"])
    words = int(document.scores["words"])
    if characters < min_characters:
        return f"{characters} characters, fewer than {min_characters}"
    if words < min_words:
        return f"{words} words, fewer than {min_words}"
    return None


def repetitive(
    document: Scored,
    max_repeated_line_share: float = 0.3,
    max_top_2gram_share: float = 0.2,
    max_top_3gram_share: float = 0.18,
    max_top_4gram_share: float = 0.16,
    max_repeated_5gram_share: float = 0.15,
    max_repeated_10gram_share: float = 0.10,
    max_code_repeated_10gram_share: float = 0.6,
    min_code_compressed_share: float = 0.04,
) -> str | None:
    """Much of the text says again what it said before.

    Prose is judged by lines and n-grams, code by 10-grams and by how far it can be compressed.
    """
    scores = document.scores
    if document.content_type == "code":
        limits = {"repeated_10gram_share": max_code_repeated_10gram_share}
        if scores["words"] >= _LEAST_WORDS_TO_JUDGE:
            share = scores["compressed_share"]
            if share < min_code_compressed_share:
                return f"compressed_share {share:.3f} is below {min_code_compressed_share:g}"
    else:
        limits = {
            "repeated_line_share": max_repeated_line_share,
            "top_2gram_share": max_top_2gram_share,
            "top_3gram_share": max_top_3gram_share,
            "top_4gram_share": max_top_4gram_share,
            "repeated_5gram_share": max_repeated_5gram_share,
            "repeated_10gram_share": max_repeated_10gram_share,
        }
    if scores["words"] < _LEAST_WORDS_TO_JUDGE:
        return None
    for name, limit in limits.items():
        if scores[name] > limit:
            return f"{name} {scores[name]:.3f} is above {limit:g}"
    return None


def mostly_non_text(
    document: Scored,
    min_letter_share: float = 0.6,
    min_code_letter_share: float = 0.2,
    max_long_run_share: float = 0.5,
    max_replacement_share: float = 0.01,
) -> str | None:
    """Numbers, symbols, encoded data or broken characters make up most of it.

    Shares count characters other than blanks. A long run is 80 or more ASCII characters without
    a blank, as in base64.
    """
    scores = document.scores
    least = min_code_letter_share if document.content_type == "code" else min_letter_share
    if scores["characters"] and scores["letter_share"] < least:
        return f"letter_share {scores['letter_share']:.3f} is below {least:g}"
    for name, limit in (
        ("long_run_share", max_long_run_share),
        ("replacement_share", max_replacement_share),
    ):
        if scores[name] > limit:
            return f"{name} {scores[name]:.3f} is above {limit:g}"
    return None


FILTERS: dict[str, Callable[..., str | None]] = {
    "too_short": too_short,
    "repetitive": repetitive,
    "mostly_non_text": mostly_non_text,
}
