"""A place in a shard of tokens made elsewhere in; the file and the place in it out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wellfit.data.pretokenized.documents import open_flat
from wellfit.data.pretokenized.flat import Flat
from wellfit.data.pretokenized.inputs import Input
from wellfit.errors import DataError
from wellfit.recipe.schema import Tokens


def origin_of(
    manifest: dict[str, Any], vocabulary_size: int, document: str, within: int
) -> dict[str, Any]:
    """A manifest, a document's id and a place in it (−1: its separator) → what is known of it.

    `source` is the split, `path` the file, `row` its row in a table; `start_byte` and `end_byte`
    are those of the id in a flat file, None where a separator was added. Raises DataError for a
    file that has changed.
    """
    section = Tokens.model_validate(manifest["parameters"]["tokens"], strict=False)
    number, *at = (int(part) for part in document.split(":"))
    entries = manifest["inputs"]
    entry = entries[number]
    known = {"source": entry["source"], "row": None, "start_byte": None, "end_byte": None}
    if len(at) == 2:
        return known | {"path": _path(manifest, entry), "row": at[0]}
    place = at[0] + within
    flat = _flat(manifest, entry, section, vocabulary_size)
    # A stream goes on in the next file.
    while flat is not None and place >= flat.tokens:
        place -= flat.tokens
        number += 1
        entry = entries[number]
        flat = _flat(manifest, entry, section, vocabulary_size)
    known |= {"path": _path(manifest, entry)}
    if flat is None or place < 0:
        return known
    return known | {
        "start_byte": flat.byte(place),
        "end_byte": flat.byte(place + 1),
    }


def _path(manifest: dict[str, Any], entry: dict[str, Any]) -> str:
    return str(manifest["roots"].get(entry["path"], entry["path"]))


def _flat(
    manifest: dict[str, Any], entry: dict[str, Any], section: Tokens, vocabulary_size: int
) -> Flat | None:
    """The file as it was read; None where it is gone."""
    path = Path(_path(manifest, entry))
    if not path.is_file():
        return None
    if path.stat().st_size != entry["bytes"]:
        raise DataError(
            "the file has changed since the corpus was built, so its bytes are no longer those "
            "behind the tokens",
            where=str(path),
            way_out="Build the corpus again, or put the file back as it was.",
        )
    return open_flat(Input(entry["source"], path, entry["format"]), section, vocabulary_size)
