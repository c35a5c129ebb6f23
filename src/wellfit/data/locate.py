"""A place in a shard in, the place in a file out: `train-00000:1234` → file, bytes, line, text.

    token ─▶ document (shards.json) ─▶ bytes of the cleaned text (tokenizer) ─▶ characters of the
    text as read (edits) ─▶ bytes of the file (the reader's `byte_span`)

Nothing is stored per token: the tokens of a document, put together, are its cleaned text.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wellfit.data.corpus import Corpus
from wellfit.data.edits import Edit, to_read
from wellfit.data.examples.place import origin_of as place_of_example
from wellfit.data.pretokenized.place import origin_of
from wellfit.data.tokens.tokenizer import Tokenizer
from wellfit.errors import DataError
from wellfit.records import Origin

_CONTEXT = 40  # characters of the cleaned text shown on either side
_ADDRESS = re.compile(r"^([a-z]+-\d+)(?:\.bin)?:(\d+)$")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a token comes from."""

    document: str
    """Id of its document."""
    source: str
    """The source as the recipe names it."""
    path: str
    """The file: absolute where it still exists, else relative to its source."""
    start_byte: int | None
    """First byte in the file (decompressed, for .gz and .zst); None where it is unknown."""
    end_byte: int | None
    line: int | None
    """Line of the file, from 1; None where lines mean nothing (Parquet) or the file is gone."""
    row: int | None
    """Row of a Parquet file, from 0."""
    token: int
    """The token's id."""
    text: bytes
    """The token's own bytes: UTF-8 of the cleaned text, perhaps part of a character; empty for
    the separator, which stands where its document begins."""
    read_text: str | None
    """The whole characters as read that the token covers; None where the file is gone."""
    clean_text: str
    """The same stretch of the cleaned text."""
    before: str
    after: str
    """What stands around it in the cleaned text."""
    exact: bool
    """True where the file's bytes at this place *are* `text`. Not so where cleaning changed
    something, where the file says it by an escape or in another encoding, for the separator, and
    for a tokenizer that does not tell bytes exactly; then the place is that of the whole
    characters. Of tokens made elsewhere: where the bytes are those of the token's id."""


def locate(folder: Path, address: str) -> Place:
    """A corpus folder (or a run folder) and `SHARD:OFFSET` → where that token comes from.

    OFFSET counts tokens of the shard from 0. Raises DataError for an address that does not exist,
    and for a file that has changed since the corpus was built.
    """
    return next(locate_many(folder, [address]))


def locate_many(folder: Path, addresses: Iterable[str]) -> Iterator[Place]:
    """As `locate`, for many addresses: files are read and digests compared once."""
    corpus = Corpus.open(_corpus_folder(Path(folder)))
    manifest = _manifest(corpus.folder)
    if manifest["parameters"].get("tokens") is not None or corpus.of_examples:
        tokenizer = corpus.tokenizer() if corpus.has_tokenizer else None
        for address in addresses:
            yield _place_of_tokens(corpus, tokenizer, manifest, *_parse(corpus, address))
        return
    opened = _Opened(corpus, corpus.tokenizer(), manifest)
    for address in addresses:
        shard, offset = _parse(corpus, address)
        yield _place(opened, shard, offset)


@dataclass(slots=True)
class _Opened:
    """A corpus and what has been read of it so far."""

    corpus: Corpus
    tokenizer: Tokenizer
    manifest: dict[str, Any]
    parts: dict[str, tuple[Path, int]] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    checked: dict[Path, bool] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)


def _place(opened: _Opened, shard: dict[str, Any], offset: int) -> Place:
    columns = shard["documents"]
    number = bisect.bisect_right(columns["first_token"], offset) - 1
    row = _row(opened, columns["id"][number])
    within = offset - columns["first_token"][number] - 1  # −1: the separator itself
    clean = row["text"]
    first, count = columns["first_token"][number], columns["tokens"][number]
    ids = _shard_tokens(opened.corpus, shard)[first : first + count]
    start, end, text, lead, trail = _characters(opened, clean, ids[1:], within, row["id"])

    origin = Origin(**{name: row[name] for name in Origin.__slots__})
    changes: list[Edit] = [tuple(edit) for edit in np.reshape(row["edits"] or [], (-1, 4)).tolist()]
    file = _file(opened, row["source"], origin.path)
    known: dict[str, Any] = dict.fromkeys(("start_byte", "end_byte", "line", "read_text"))
    exact = False
    if file is not None:
        known, same = _in_file(opened, file, row["source"], origin, changes, clean, (start, end))
        first, last = known["start_byte"], known["end_byte"]
        if same and first is not None:
            # Whole characters are named, but for a token that begins or ends inside one: that
            # is told to the byte where the file holds its bytes just so.
            exact = last - first > lead + trail and (
                _bytes_at(file, first + lead, last - trail) == text
            )
        if exact:
            known |= {"start_byte": first + lead, "end_byte": last - trail}
    return Place(
        document=row["id"],
        source=row["source"],
        path=str(file) if file is not None else origin.path,
        row=origin.row if known["start_byte"] is None else None,
        token=int(ids[within + 1]),
        text=text,
        clean_text=clean[start:end],
        before=clean[max(0, start - _CONTEXT) : start],
        after=clean[end : end + _CONTEXT],
        exact=exact and opened.tokenizer.byte_level,
        **known,
    )


def _place_of_tokens(
    corpus: Corpus,
    tokenizer: Tokenizer | None,
    manifest: dict[str, Any],
    shard: dict[str, Any],
    offset: int,
) -> Place:
    """The place of a token of an example, or of one that was made elsewhere.

    What it says is told where there is a tokenizer.
    """
    columns = shard["documents"]
    number = bisect.bisect_right(columns["first_token"], offset) - 1
    first, count = columns["first_token"][number], columns["tokens"][number]
    ids = _shard_tokens(corpus, shard)[first : first + count].tolist()
    within = offset - first - 1
    if corpus.of_examples:
        known = place_of_example(manifest, columns["id"][number])
    else:
        known = origin_of(manifest, corpus.vocabulary_size, columns["id"][number], within)
        known["line"] = None
    text, before, after = b"", "", ""
    if tokenizer is not None and within >= 0:
        at = within + 1
        text = tokenizer.decode(ids[at : at + 1]).encode()
        before = tokenizer.decode(ids[max(1, at - _CONTEXT) : at])[-_CONTEXT:]
        after = tokenizer.decode(ids[at + 1 : at + 1 + _CONTEXT])[:_CONTEXT]
    return Place(
        document=columns["id"][number],
        token=ids[within + 1],
        text=text,
        read_text=None,
        clean_text=text.decode(errors="replace"),
        before=before,
        after=after,
        exact=known["start_byte"] is not None,
        **known,
    )


def _characters(
    opened: _Opened, clean: str, ids: NDArray[np.integer[Any]], within: int, name: str
) -> tuple[int, int, bytes, int, int]:
    """A token of a text → characters it covers, its bytes, and bytes of those outside of it.

    `ids` are all tokens of the text, `within` is the place among them, -1 for the separator.
    """
    if within < 0:
        return 0, 0, b"", 0, 0
    if not opened.tokenizer.byte_level:
        start, end = opened.tokenizer.offsets(clean)[within]
        return start, end, clean[start:end].encode(), 0, 0
    opened.pieces = opened.pieces or opened.tokenizer.token_bytes()
    pieces = [opened.pieces[i] for i in ids.tolist()]
    raw = clean.encode()
    if b"".join(pieces) != raw:
        raise DataError(
            f"document {name} and its tokens do not say the same: one of them is damaged",
            where=str(opened.corpus.folder),
            way_out="Build the corpus again with `wellfit data build RECIPE`.",
        )
    first = sum(map(len, pieces[:within]))
    last = first + len(pieces[within])
    # Whole characters around: back from `first` to a byte that begins one, on from `last`.
    low, high = first, last
    while low and raw[low] & 0xC0 == 0x80:
        low -= 1
    while high < len(raw) and raw[high] & 0xC0 == 0x80:
        high += 1
    start = len(raw[:low].decode())
    return start, start + len(raw[low:high].decode()), raw[first:last], first - low, high - last


def _in_file(
    opened: _Opened,
    file: Path,
    source: str,
    origin: Origin,
    changes: list[Edit],
    clean: str,
    stretch: tuple[int, int],
) -> tuple[dict[str, Any], bool]:
    """A stretch of the cleaned text → what is known of it in its file, and whether cleaning left
    it as it was read."""
    from wellfit.data.read.formats import READERS

    reader = READERS[_input(opened, source, origin.path)["format"]]
    read = reader.text_at(file, origin)
    start, end, same = to_read(changes, *stretch)
    span = reader.byte_span(file, origin, start, end)
    first, last = span if span is not None else (None, None)
    line = None
    if first is not None:
        line = origin.row + 1 if origin.row is not None else _line(file, first, origin.encoding)
    same = same and read[start:end] == clean[slice(*stretch)]
    return {
        "start_byte": first,
        "end_byte": last,
        "line": line,
        "read_text": read[start:end],
    }, same


def _bytes_at(file: Path, start: int, end: int) -> bytes:
    """Bytes of a file, of its decompressed stream where it is packed."""
    from wellfit.data.read.decompress import forward, opened

    with opened(file) as stream:
        forward(stream, start)
        return stream.read(end - start)


def _line(file: Path, byte: int, encoding: str) -> int:
    """A place in a file → its line, from 1; lines end with LF, CRLF or a lone CR."""
    with file.open("rb") as stream:
        before = stream.read(byte).decode(encoding, "replace")
        following = stream.read(4).decode(encoding, "replace")[:1]
    lone = len(re.findall(r"\r(?!\n)", before + following)) - (following == "\r")
    return 1 + before.count("\n") + lone


def _shard_tokens(corpus: Corpus, shard: dict[str, Any]) -> NDArray[np.integer[Any]]:
    path = corpus.folder / "shards" / f"{shard['name']}.bin"
    kind = "<u2" if corpus.vocabulary_size < 65_536 else "<u4"
    return np.memmap(path, kind, mode="r")


def _row(opened: _Opened, name: str) -> dict[str, Any]:
    """The id of a document → its row in documents/, as a dict."""
    import pyarrow.parquet as parquet

    if name not in opened.rows:
        if not opened.parts:
            for part in sorted((opened.corpus.folder / "documents").glob("part-*.parquet")):
                ids = parquet.read_table(part, columns=["id"])["id"].to_pylist()
                opened.parts |= {one: (part, place) for place, one in enumerate(ids)}
        if name not in opened.parts:
            raise DataError(
                f"document {name} stands in shards.json but not in documents/",
                where=str(opened.corpus.folder),
                way_out="Build the corpus again with `wellfit data build RECIPE`.",
            )
        part, place = opened.parts[name]
        columns = ["id", "text", "source", "edits", *Origin.__slots__]
        opened.rows[name] = parquet.read_table(part, columns=columns).slice(place, 1).to_pylist()[0]
    return opened.rows[name]


def _file(opened: _Opened, source: str, path: str) -> Path | None:
    """Source and path → the file, None where it is gone; DataError where it has changed."""
    root = opened.manifest["roots"].get(source)
    file = Path(root, path) if root else None
    if file is None or not file.is_file():
        return None
    if file not in opened.checked:
        expected = _input(opened, source, path)
        digest = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        opened.checked[file] = digest.hexdigest() == expected["sha256"]
    if not opened.checked[file]:
        raise DataError(
            "the file has changed since the corpus was built, so its bytes are no longer those "
            "behind the tokens",
            where=str(file),
            way_out="Build the corpus again, or put the file back as it was.",
        )
    return file


def _input(opened: _Opened, source: str, path: str) -> dict[str, Any]:
    for found in opened.manifest["inputs"]:
        if found["source"] == source and found["path"] == path:
            assert isinstance(found, dict)
            return found
    raise DataError(
        f"the manifest does not name {path} of {source}",
        where=str(opened.corpus.folder / "manifest.json"),
        way_out="Build the corpus again with `wellfit data build RECIPE`.",
    )


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        raise DataError(
            "there is no such file, so tokens cannot be led back to their files",
            where=str(path),
            way_out="Build the corpus again with `wellfit data build RECIPE`.",
        )
    found = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def _corpus_folder(folder: Path) -> Path:
    """A corpus folder itself, or the one that a run folder's `corpus.json` names."""
    link = folder / "corpus.json"
    if (folder / "shards.json").is_file() or not link.is_file():
        return folder
    named = Path(json.loads(link.read_text(encoding="utf-8"))["folder"])
    return named if named.is_absolute() else folder / named


def _parse(corpus: Corpus, address: str) -> tuple[dict[str, Any], int]:
    """`SHARD:OFFSET` → the shard's entry and the offset."""
    shards = {shard["name"]: shard for shard in corpus.shards()}
    match = _ADDRESS.match(address.strip())
    if match is None:
        first = next(iter(shards.values()))
        raise DataError(
            f"{address!r} is no place in a shard",
            where=str(corpus.folder),
            way_out=f"Write SHARD:OFFSET, the offset in tokens from 0, such as {first['name']}:0.",
        )
    name, offset = match[1], int(match[2])
    if name not in shards:
        names = sorted(shards)
        listed = ", ".join(names[:6]) + (f" … {names[-1]}" if len(names) > 6 else "")
        raise DataError(
            f"there is no shard {name}", where=str(corpus.folder), way_out=f"There are: {listed}."
        )
    if offset >= shards[name]["tokens"]:
        raise DataError(
            f"shard {name} has {shards[name]['tokens']} tokens, none at {offset}",
            where=str(corpus.folder),
            way_out=f"Offsets go from 0 to {shards[name]['tokens'] - 1}.",
        )
    return shards[name], offset
