"""Places in an epoch in, rows out: a keyed permutation that is computed, never stored.

A generalised Feistel network with cycle walking (Black and Rogaway, "Ciphers with Arbitrary
Finite Domains", CT-RSA 2002, sections 4 and 5): `n` items live in a rectangle of a · b ≥ n cells,
each round moves one coordinate by a hash of the other (so it can be undone), and a walk that
leaves the items goes on until it is back. Any place is found in O(1), in any order, by any reader.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from wellfit.data.dedup.shingles import mix

ROUNDS = 10


def permutation_key(*parts: object) -> NDArray[np.uint64]:
    """Anything that names a permutation (seed, digest, epoch) → the keys of its rounds, uint64."""
    name = "\x1f".join(map(str, parts)).encode()
    raw = hashlib.shake_128(name).digest(8 * ROUNDS)
    return np.frombuffer(raw, "<u8").astype(np.uint64)


def permute(places: NDArray[np.int64], size: int, key: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Places in 0 … size-1 → where the permutation named by `key` sends each, same shape.

    >>> key = permutation_key(0, "corpus", 3)
    >>> sorted(permute(np.arange(10), 10, key).tolist())
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    high = max(2, math.isqrt(max(size - 1, 0)) + 1)
    low = max(2, -(-size // high))
    result = _rounds(places.astype(np.uint64), high, low, key)
    while (outside := result >= size).any():
        result[outside] = _rounds(result[outside], high, low, key)
    return result.astype(np.int64)


def _rounds(
    values: NDArray[np.uint64], high: int, low: int, key: NDArray[np.uint64]
) -> NDArray[np.uint64]:
    """One pass over all rounds, a bijection of 0 … high · low - 1."""
    left, right = np.divmod(values, np.uint64(low))
    for number in range(ROUNDS):
        if number % 2:
            right = (right + mix(left ^ key[number]) % np.uint64(low)) % np.uint64(low)
        else:
            left = (left + mix(right ^ key[number]) % np.uint64(high)) % np.uint64(high)
    return left * np.uint64(low) + right
