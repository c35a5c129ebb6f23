"""Texts in, 64-bit hashes of their word shingles out: vectorised over many texts at once.

A word is a run of letters, digits and underscores (the regular expression `\\w+`), lowercased; a
shingle is `shingle_words` consecutive words. Layout and punctuation do not count. Hashes stand
for shingles: two different shingles share one with probability 2^-64.

    characters [N] ─▶ words [W] ─▶ shingles [S], each tier a few NumPy passes
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

# Odd multipliers: one step of a polynomial hash modulo 2^64 (Rabin–Karp), over characters and
# over words. The inverse turns a difference of prefix sums into a hash that ignores position.
_CHARACTER = 0x9E3779B97F4A7C15
_CHARACTER_INVERSE = pow(_CHARACTER, -1, 1 << 64)
_WORD = 0xD1B54A32D192ED03

_CHARACTERS_AT_ONCE = 1 << 17  # the 64-bit arrays over them stay in the caches: twice as fast


def shingle_hashes(texts: Sequence[str], shingle_words: int) -> tuple[Hashes, NDArray[np.int64]]:
    """Texts → (hashes of all shingles in order, bounds [n + 1]), text i at `bounds[i]:bounds[i+1]`.

    A text with fewer words than a shingle has one shingle, all its words; one without words has
    none. Repeated shingles are repeated here.

    >>> hashes, bounds = shingle_hashes(["a b c", "A, b; c!", ""], 2)
    >>> bounds.tolist(), bool((hashes[:2] == hashes[2:]).all())
    ([0, 2, 4, 4], True)
    """
    groups = [_hash_group(texts[low:high], shingle_words) for low, high in _groups(texts)]
    counts = [count for _, count in groups]
    bounds = np.concatenate(([0], np.cumsum(np.concatenate(counts)))) if counts else np.zeros(1)
    hashes = np.concatenate([found for found, _ in groups]) if groups else np.zeros(0)
    return hashes.astype(np.uint64, copy=False), bounds.astype(np.int64, copy=False)


def shingles(text: str, shingle_words: int) -> Hashes:
    """A text → its distinct shingle hashes, sorted.

    >>> len(shingles("to be or not to be", 2))
    4
    """
    return np.unique(shingle_hashes([text], shingle_words)[0])


def mix(values: Hashes) -> Hashes:
    """64-bit values → 64-bit values, a bijection that spreads every bit.

    The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _groups(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Texts → ranges of them whose characters together fit the processor's caches."""
    start = size = 0
    for place, text in enumerate(texts):
        size += len(text)
        if size >= _CHARACTERS_AT_ONCE:
            yield start, place + 1
            start, size = place + 1, 0
    if start < len(texts):
        yield start, len(texts)


def _hash_group(texts: Sequence[str], shingle_words: int) -> tuple[Hashes, NDArray[np.int64]]:
    """Texts → hashes of their shingles in order, and how many each text has."""
    words, document = _word_hashes(texts)
    counts = np.bincount(document, minlength=len(texts)).astype(np.int64)
    number = np.where(counts > 0, np.maximum(counts - shingle_words + 1, 1), 0)
    bounds = np.concatenate(([0], np.cumsum(number)))
    # Where in `words` each shingle begins, and how many words it has.
    word_bounds = np.concatenate(([0], np.cumsum(counts)))
    first = np.arange(bounds[-1]) + np.repeat(word_bounds[:-1] - bounds[:-1], number)
    padded = np.concatenate((words, np.zeros(shingle_words, np.uint64)))
    total = np.zeros(len(first), np.uint64)
    short = counts < shingle_words
    missing = np.repeat(np.where(short, shingle_words - counts, 0), number)
    for offset in range(shingle_words):
        term = padded[first + offset] * np.uint64(pow(_WORD, offset, 1 << 64))
        if offset and short.any():
            term[offset >= shingle_words - missing] = 0
        total += term
    return mix(total), number


def _word_hashes(texts: Sequence[str]) -> tuple[Hashes, NDArray[np.int64]]:
    """Texts → hash and text number of every word, in order."""
    lowered = [text.lower() for text in texts]
    # A space between texts, so that no word spans two of them. Lone surrogates may stand in a
    # text that was decoded with `surrogateescape`.
    joined = " ".join(lowered).encode("utf-32-le", "surrogatepass")
    codes = np.frombuffer(joined, np.uint32)
    in_word = _in_word(codes)
    edges = np.flatnonzero(np.diff(in_word.view(np.int8), prepend=0, append=0))
    starts, ends = edges[::2], edges[1::2]
    text_ends = np.cumsum([len(text) + 1 for text in lowered], dtype=np.int64)
    document = np.searchsorted(text_ends, starts, side="right")
    if not len(starts):
        return np.zeros(0, np.uint64), document

    letters = codes[in_word].astype(np.uint64)
    lengths = ends - starts
    first = np.concatenate(([0], np.cumsum(lengths)))
    # Prefix sums of letter · P^i; the difference over a word, times P^-first, is its polynomial.
    letters = mix(letters + np.uint64(1)) * _powers(_CHARACTER, len(letters))
    prefix = np.concatenate((np.zeros(1, np.uint64), np.cumsum(letters)))
    sums = prefix[first[1:]] - prefix[first[:-1]]
    inverse = _powers(_CHARACTER_INVERSE, int(first[-1]))
    return mix(sums * inverse[first[:-1]]), document


def _in_word(codes: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Code points → whether `\\w` matches them."""
    ascii_word = np.array([_is_word(chr(code)) for code in range(128)])
    in_word = ascii_word[np.minimum(codes, 127)]
    beyond = codes > 127
    if beyond.any():
        distinct, where = np.unique(codes[beyond], return_inverse=True)
        known = np.array([_is_word(chr(code)) for code in distinct.tolist()])
        in_word[beyond] = known[where]
    return in_word


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _powers(base: int, count: int) -> Hashes:
    """base^0 … base^(count-1) modulo 2^64."""
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.cumprod(factors)
