"""Texts in, near duplicates out: MinHash finds candidates, exact Jaccard decides, order keeps.

    texts ─▶ signatures ─▶ band keys ─▶ candidate pairs ─▶ verified pairs ─▶ what is dropped

The similarity of two texts is the Jaccard similarity of their sets of word shingles. MinHash
(Broder, "On the resemblance and containment of documents", 1997) with locality-sensitive banding
(Leskovec, Rajaraman and Ullman, *Mining of Massive Datasets*, chapter 3): 64 bands of 3 values
miss a pair of similarity s with probability (1 - s^3)^64, which is 2e-4 at 0.5 and 1e-20 at 0.8.
No decision rests on the estimate: every candidate is verified on the texts themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wellfit.data.dedup.shingles import Hashes, mix, shingle_hashes, shingles

BANDS = 64
ROWS = 3
BUCKET_WINDOW = 100
"""In a band's bucket larger than this, a member meets only its first and this many next ones."""

_SHINGLES_AT_ONCE = 1 << 14  # 64 KiB of 32-bit values: stays in the first caches
_NOTHING = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


@dataclass(frozen=True, slots=True)
class Near:
    """What near duplicates decide, by document id: the kept document it repeats, and how nearly."""

    dropped: dict[str, tuple[str, float]]
    spared: dict[str, tuple[str, float]]
    """Would have been dropped, but their source had lost its largest share already."""


def signatures(texts: Sequence[str], shingle_words: int) -> Hashes:
    """Texts → MinHash signatures, uint64 [n, BANDS · ROWS] (32 bits used).

    Two signatures agree in each place with a probability equal to the Jaccard similarity of the
    texts. A text without words has the largest value everywhere.

    >>> one, two = signatures(["to be or not to be", "To be, or not to be."], 3)
    >>> bool((one == two).all())
    True
    """
    permutations = BANDS * ROWS
    result = np.full((len(texts), permutations), _NOTHING)
    hashes, bounds = shingle_hashes(texts, shingle_words)
    values = (hashes >> np.uint64(32)).astype(np.uint32)
    keys = mix(np.arange(1, 2 * permutations + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    # x → (x xor r) · a modulo 2^32 with odd a permutes the 32-bit values.
    xors = (keys[:permutations] >> np.uint64(32)).astype(np.uint32)
    factors = (keys[permutations:] >> np.uint64(32)).astype(np.uint32) | np.uint32(1)
    for text, start, end in _blocks(bounds):
        for begin in range(start, end, _SHINGLES_AT_ONCE):
            block = values[begin : min(end, begin + _SHINGLES_AT_ONCE)]
            lowest = np.array(
                [((block ^ x) * a).min() for x, a in zip(xors, factors, strict=True)], np.uint64
            )
            result[text] = np.minimum(result[text], lowest)
    return result


def _blocks(bounds: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Bounds of the texts → (text, start, end) of those that have shingles."""
    for text in np.flatnonzero(np.diff(bounds)).tolist():
        yield text, int(bounds[text]), int(bounds[text + 1])


def band_keys(signatures: Hashes) -> Hashes:
    """Signatures [n, BANDS · ROWS] → keys uint64 [n, BANDS]; texts that share one are candidates.

    The number of the band is mixed in, so a key of one band never equals one of another.
    """
    rows = signatures.reshape(len(signatures), BANDS, ROWS)
    keys = np.broadcast_to(mix(np.arange(1, BANDS + 1, dtype=np.uint64)), rows.shape[:2]).copy()
    for row in range(ROWS):
        keys = mix(keys * np.uint64(0x9E3779B97F4A7C15) + rows[:, :, row])
    return keys


def has_words(signatures: Hashes) -> NDArray[np.bool_]:
    """Signatures → which texts have words at all; the others are nobody's near duplicate."""
    found: NDArray[np.bool_] = signatures[:, 0] != _NOTHING
    return found


def bucket_pairs(members: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Members of one bucket, in stable order → pairs to verify, (earlier, later).

    All pairs of a small bucket. In one larger than BUCKET_WINDOW (boilerplate shared by thousands)
    each member meets the first one and its next BUCKET_WINDOW, so work stays linear.

    >>> list(bucket_pairs([3, 5, 9]))
    [(3, 5), (3, 9), (5, 9)]
    """
    for place, earlier in enumerate(members):
        reach = len(members) if place == 0 else place + 1 + BUCKET_WINDOW
        for later in members[place + 1 : reach]:
            yield earlier, later


def candidates(keys: Hashes) -> NDArray[np.int64]:
    """Band keys [n, BANDS] → distinct pairs (i, j), i < j, int64 [m, 2], sorted."""
    order = np.argsort(keys, axis=None, kind="stable")
    flat = keys.reshape(-1)[order]
    member = order // keys.shape[1]
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate(([0], edges)) if len(flat) else edges
    ends = np.concatenate((edges, [len(flat)])) if len(flat) else edges
    shared = ends - starts > 1
    # Copies of one text share all their buckets: each set of members is unfolded once.
    buckets = {
        tuple(sorted(member[start:end].tolist()))
        for start, end in zip(starts[shared].tolist(), ends[shared].tolist(), strict=True)
    }
    pairs = {pair for bucket in buckets for pair in bucket_pairs(bucket)}
    return np.array(sorted(pairs), np.int64).reshape(-1, 2)


def similarity(text_a: str, text_b: str, shingle_words: int) -> float:
    """Two texts → exact Jaccard similarity of their sets of word shingles, 0 to 1.

    >>> similarity("the cat sat on the mat", "The cat sat on the rug", 2)
    0.6666666666666666
    """
    return jaccard(shingles(text_a, shingle_words), shingles(text_b, shingle_words))


def jaccard(one: Hashes, two: Hashes) -> float:
    """Two sorted arrays of distinct hashes → size of the intersection over that of the union.

    Two empty sets say nothing about each other: 0.
    """
    both = len(np.intersect1d(one, two, assume_unique=True))
    either = len(one) + len(two) - both
    return both / either if either else 0.0


def verified_pairs(
    texts: Sequence[str], shingle_words: int, threshold: float
) -> list[tuple[int, int, float]]:
    """Texts → all found pairs (i, j, similarity), i < j, of at least the threshold, verified.

    In memory and on one core, for a corpus that fits; the build does the same through files.
    """
    prints = signatures(texts, shingle_words)
    wordy = np.flatnonzero(has_words(prints))
    pairs = wordy[candidates(band_keys(prints[wordy]))]
    sets: dict[int, Hashes] = {}
    found = []
    for i, j in pairs.tolist():
        for place in (i, j):
            if place not in sets:
                sets[place] = shingles(texts[place], shingle_words)
        value = jaccard(sets[i], sets[j])
        if value >= threshold:
            found.append((i, j, value))
    return found


def drop_near(
    pairs: Iterable[tuple[str, str, float]],
    order: Sequence[str],
    threshold: float,
    sources: Mapping[str, str],
    max_removed_share: float,
) -> Near:
    """Verified pairs (id, id, similarity) → which documents go.

    `order` lists all ids, first come first kept; `sources` gives the source of each. A document
    is dropped only when it is near a *kept* one, so a chain A~B~C loses B and keeps A and C. No
    source loses more than `max_removed_share` of its documents: its least similar ones are spared.

    >>> chain = [("a", "b", 0.9), ("b", "c", 0.9)]
    >>> drop_near(chain, "abc", 0.8, {"a": "s", "b": "s", "c": "s"}, 1).dropped
    {'b': ('a', 0.9)}
    """
    rank = {document: place for place, document in enumerate(order)}
    earlier: dict[str, list[tuple[float, int, str]]] = {}
    for one, two, value in pairs:
        if value >= threshold and one in rank and two in rank:
            first, second = (one, two) if rank[one] < rank[two] else (two, one)
            earlier.setdefault(second, []).append((-value, rank[first], first))

    dropped: dict[str, tuple[str, float]] = {}
    for document in order:
        kept = [match for match in earlier.get(document, ()) if match[2] not in dropped]
        if kept:
            negative, _, partner = min(kept)
            dropped[document] = (partner, -negative)

    spared: dict[str, tuple[str, float]] = {}
    by_source: dict[str, list[str]] = {}
    for document in order:
        by_source.setdefault(sources[document], []).append(document)
    for documents in by_source.values():
        allowed = int(max_removed_share * len(documents) + 1e-9)
        going = [document for document in documents if document in dropped]
        going.sort(key=lambda document: (-dropped[document][1], rank[document]))
        for document in going[allowed:]:
            spared[document] = dropped.pop(document)
    return Near(dropped, spared)
