"""An example's id in; the file and the place in it out."""

from __future__ import annotations

from typing import Any


def origin_of(manifest: dict[str, Any], document: str) -> dict[str, Any]:
    """A manifest and an example's id → its split, file, and line, or its row or entry.

    Bytes are not known: an example is put together from several columns.
    """
    number, _, position = document.partition(":")
    entry = manifest["inputs"][int(number)]
    word, _, at = position.rpartition(" ")
    place = int(at)
    return {
        "source": entry["source"],
        "path": str(manifest["roots"].get(entry["path"], entry["path"])),
        "line": place if word == "line" else None,
        "row": place if word != "line" else None,
        "start_byte": None,
        "end_byte": None,
    }
