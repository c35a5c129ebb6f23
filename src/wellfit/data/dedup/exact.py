"""Digests of cleaned texts in, exact duplicates out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence


def digest(text: str) -> str:
    """A text → the SHA-256 of its UTF-8 bytes, hexadecimal.

    >>> digest("")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def drop_exact(ids: Sequence[str], digests: Sequence[str]) -> dict[str, str]:
    """Ids in stable order and their digests → id of each repeated document and of the kept one.

    >>> drop_exact(["a", "b", "c"], ["1", "2", "1"])
    {'c': 'a'}
    """
    first: dict[str, str] = {}
    repeated = {}
    for document, value in zip(ids, digests, strict=True):
        kept = first.setdefault(value, document)
        if kept != document:
            repeated[document] = kept
    return repeated
