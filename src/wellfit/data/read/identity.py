"""Source, file and place → the id of a document, whatever the order in which it was read."""

from __future__ import annotations

import hashlib

from wellfit.records import Document, Origin


def document(
    text: str, source: str, domain: str, content_type: str, language: str, origin: Origin
) -> Document:
    """Text and provenance → a Document, its id taken from source, path and place."""
    return Document(
        document_id(source, origin), text, source, domain, content_type, language, origin
    )


def document_id(source: str, origin: Origin) -> str:
    """Source and place → 16 hex digits; a place is a row or line, else the first byte.

    >>> document_id("texts", Origin("a.txt", 0, 5))
    '1f479c03c03c9e59'
    """
    place = f"byte {origin.start}" if origin.row is None else f"row {origin.row}"
    what = "\0".join((source, origin.path, origin.member, place))
    return hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()[:16]
