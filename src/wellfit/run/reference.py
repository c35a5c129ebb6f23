"""What a compressor reaches on the same held-out text: a yardstick without a model.

`xz` knows nothing but the text it is given; a language model that has learned from the training
text should need fewer bits for each held-out byte.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Compressed:
    """Bits per byte of the same documents, packed one by one and packed as one."""

    one_by_one: float
    """`xz -9` on each document; the mean weighted by bytes."""
    together: float
    """`xz -9e` on all documents, one after the other."""


def compressed_bits_per_byte(texts: Iterable[str]) -> Compressed | None:
    """Texts → what xz needs for them; None without a byte.

    >>> compressed_bits_per_byte(["ab" * 5000]).together < 0.2
    True
    """
    blobs = [text.encode() for text in texts]
    size = sum(map(len, blobs))
    if not size:
        return None
    single = sum(len(lzma.compress(blob, preset=9)) for blob in blobs)
    whole = len(lzma.compress(b"".join(blobs), preset=9 | lzma.PRESET_EXTREME))
    return Compressed(one_by_one=8 * single / size, together=8 * whole / size)
