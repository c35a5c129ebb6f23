"""Cleaned text → its scores: numbers that filters compare, stored as columns for every document.

Shares are 0 to 1, but for the compressed share of a tiny text, which may be larger. An n-gram is
n words one behind the other, a word what stands between blanks.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wellfit.records import Document

Ids = npt.NDArray[np.uint64]

TOP_NGRAMS = (2, 3, 4)
REPEATED_NGRAMS = (5, 10)
NAMES = (
    "characters",
    "words",
    "mean_word_length",
    "lines",
    "letter_share",
    "long_run_share",
    "replacement_share",
    "repeated_line_share",
    *(f"top_{n}gram_share" for n in TOP_NGRAMS),
    *(f"repeated_{n}gram_share" for n in REPEATED_NGRAMS),
    "compressed_share",
)
"""The scores, in the order of their columns."""

_LONG_RUN = re.compile(r"[!-~]{80,}")
_NOT_LETTERS = bytes(sorted(set(range(128)) - set(range(65, 91)) - set(range(97, 123))))
_STEP = np.uint64(0x9E3779B97F4A7C15)  # odd, so that a polynomial hash modulo 2^64 loses nothing


@dataclass(frozen=True, slots=True)
class Scored(Document):
    """A document with its scores: what filters see. A filter may ask for a Document only."""

    scores: Mapping[str, float]


def score(text: str) -> dict[str, float]:
    """Cleaned text → its scores, by name, in the order of NAMES.

    >>> round(score("to be or not to be")["top_2gram_share"], 3)
    0.615
    """
    words = text.split()
    lengths = np.array([len(word) for word in words], np.int64)
    dense = int(lengths.sum())
    found: dict[str, float] = {
        "characters": len(text),
        "words": len(words),
        "mean_word_length": dense / len(words) if words else 0.0,
        "lines": text.count("\n") + (not text.endswith("\n") and bool(text)),
        "letter_share": _letters(text) / dense if dense else 0.0,
        "long_run_share": sum(map(len, _LONG_RUN.findall(text))) / dense if dense else 0.0,
        "replacement_share": text.count("\ufffd") / dense if dense else 0.0,
        "repeated_line_share": _repeated_lines(text),
    }
    numbers: dict[str, int] = {}
    ids = np.array([numbers.setdefault(word, len(numbers)) for word in words], np.uint64)
    for n in TOP_NGRAMS:
        found[f"top_{n}gram_share"] = _top(ids, lengths, n) / dense if dense else 0.0
    for n in REPEATED_NGRAMS:
        found[f"repeated_{n}gram_share"] = _repeated(ids, lengths, n) / dense if dense else 0.0
    raw = text.encode()
    found["compressed_share"] = len(zlib.compress(raw, 1)) / len(raw) if raw else 1.0
    assert tuple(found) == NAMES
    return found


def _letters(text: str) -> int:
    """Text → how many of its characters are letters of any script."""
    if text.isascii():
        return len(text.encode().translate(None, _NOT_LETTERS))
    return sum(map(str.isalpha, text))


def _repeated_lines(text: str) -> float:
    """Text → share of its characters in lines that stood before; blanks around do not count."""
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    total = sum(map(len, lines))
    return 1 - sum(map(len, set(lines))) / total if total else 0.0


def _ngrams(ids: Ids, n: int) -> Ids:
    """Words as numbers → a hash for each n-gram, by its first word."""
    hashes = ids[: len(ids) - n + 1] + np.uint64(1)
    for offset in range(1, n):
        hashes = hashes * _STEP + ids[offset : len(ids) - n + 1 + offset] + np.uint64(1)
    return hashes


def _top(ids: Ids, lengths: npt.NDArray[np.int64], n: int) -> int:
    """Characters in all occurrences of the most frequent n-gram; 0 where none stands twice.

    Occurrences that overlap count their shared words once.
    """
    if len(ids) <= n:
        return 0
    hashes = _ngrams(ids, n)
    values, first, counts = np.unique(hashes, return_index=True, return_counts=True)
    most = counts.max()
    if most < 2:
        return 0
    # Of several equally frequent ones the longest counts, as nothing else should decide.
    ends = np.concatenate(([0], np.cumsum(lengths)))
    tied = np.flatnonzero(counts == most)
    widths = ends[first[tied] + n] - ends[first[tied]]
    top = values[tied[np.lexsort((first[tied], -widths))[0]]]
    return _covered(np.flatnonzero(hashes == top), lengths, n)


def _repeated(ids: Ids, lengths: npt.NDArray[np.int64], n: int) -> int:
    """Characters in n-grams that stood in the text before."""
    if len(ids) <= n:
        return 0
    hashes = _ngrams(ids, n)
    _, first = np.unique(hashes, return_index=True)
    again = np.ones(len(hashes), bool)
    again[first] = False
    return _covered(np.flatnonzero(again), lengths, n)


def _covered(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], n: int) -> int:
    """Places of n-grams → characters of the words that they cover, each counted once."""
    inside = np.zeros(len(lengths) + 1, np.int64)
    np.add.at(inside, starts, 1)
    np.add.at(inside, starts + n, -1)
    return int(lengths[np.cumsum(inside)[:-1] > 0].sum())
