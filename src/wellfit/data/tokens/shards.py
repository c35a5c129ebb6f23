"""Documents as token ids in, shard files out; and the table that leads back to the documents.

`shards/SPLIT-00000.bin` holds little-endian uint16 (uint32 from 65,536 entries on); every document
stands behind one separator. `shards.json` tells what is where, with digests. A document is never
torn: one that would overflow a shard begins the next (and may alone be larger than the limit).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from wellfit.errors import DataError
from wellfit.records import Shard

FORMAT_VERSION = 1
SHARD_BYTES = 64 * 1024 * 1024
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class TokenDocument:
    """A document on its way into a shard."""

    id: str
    split: str
    domain: str
    bytes: int
    """UTF-8 bytes of its cleaned text."""
    tokens: Sequence[int]
    """Its ids, without separator."""
    labels: Sequence[int] | None = None
    """Of an example: what is asked at each of its tokens. It then stands as it is, without a
    separator in front."""
    source: Sequence[int] | None = None
    """Of an example: what is read beside its tokens."""


BESIDE = {"labels": "<i4", "source": ""}
"""What may stand beside the tokens of a shard, in `NAME.labels.bin` and `NAME.source.bin`, and the
type of its entries: empty is that of tokens."""


@dataclass(slots=True)
class _Stream:
    """A file of numbers as it grows."""

    path: Path
    kind: np.dtype[Any]
    file: BinaryIO
    digest: Any = field(default_factory=hashlib.sha256)
    count: int = 0

    def add(self, numbers: NDArray[Any]) -> None:
        raw = numbers.astype(self.kind, copy=False).tobytes()
        self.file.write(raw)
        self.digest.update(raw)
        self.count += len(numbers)

    def finish(self) -> dict[str, Any]:
        """It takes its name; what the index says of it."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self.path.with_name(f"{self.path.name}.writing").rename(self.path)
        return {"count": self.count, "sha256": self.digest.hexdigest()}


@dataclass(slots=True)
class _Open:
    """The shard that a split is being written to."""

    name: str
    split: str
    folder: Path
    kind: np.dtype[Any]
    streams: dict[str, _Stream] = field(default_factory=dict)
    columns: dict[str, list[Any]] = field(
        default_factory=lambda: {
            "id": [],
            "first_token": [],
            "tokens": [],
            "bytes": [],
            "domain": [],
        }
    )

    def stream(self, name: str) -> _Stream:
        """One of its files, `tokens` or what stands beside them, begun where it is not yet."""
        if name not in self.streams:
            path = self.folder / file_name(self.name, name)
            kind = np.dtype(BESIDE.get(name) or self.kind)
            file = path.with_name(f"{path.name}.writing").open("wb")
            self.streams[name] = _Stream(path, kind, file)
        return self.streams[name]

    def add(self, document: TokenDocument, ids: NDArray[Any]) -> None:
        tokens = self.stream("tokens")
        row = (document.id, tokens.count, len(ids), document.bytes, document.domain)
        for column, value in zip(self.columns.values(), row, strict=False):
            column.append(value)
        tokens.add(ids)
        if document.labels is not None:
            assert len(document.labels) == len(ids)
            self.stream("labels").add(np.asarray(document.labels, np.int64))
        if document.source is not None:
            source = self.stream("source")
            self.columns.setdefault("source_first", []).append(source.count)
            self.columns.setdefault("source_tokens", []).append(len(document.source))
            source.add(np.asarray(document.source, np.int64))

    @property
    def tokens(self) -> int:
        return self.streams["tokens"].count if self.streams else 0

    def close(self) -> None:
        for stream in self.streams.values():
            stream.file.close()


def file_name(shard: str, stream: str) -> str:
    """A shard and one of its streams → the file's name.

    >>> file_name("train-00000", "tokens"), file_name("train-00000", "labels")
    ('train-00000.bin', 'train-00000.labels.bin')
    """
    return f"{shard}.bin" if stream == "tokens" else f"{shard}.{stream}.bin"


def write(
    folder: Path,
    documents: Iterable[TokenDocument],
    *,
    vocabulary_size: int,
    separator: int,
    tokenizer_sha256: str,
    shard_bytes: int = SHARD_BYTES,
) -> tuple[Shard, ...]:
    """Documents in stable order → `folder/shards/*.bin` and `folder/shards.json`; what was written.

    The digest in `shards.json` covers tokens, documents and tokenizer: two corpora with the same
    digest give the same batches. Everything is written under temporary names; `shards.json`
    takes its name last, so a broken-off write leaves none. Raises DataError for a full disk.
    """
    kind = np.dtype("<u2") if vocabulary_size < 65_536 else np.dtype("<u4")
    target = folder / "shards"
    index = folder / "shards.json"
    finished: list[_Finished] = []
    opened: dict[str, _Open] = {}
    counts = dict.fromkeys(SPLITS, 0)
    try:
        index.unlink(missing_ok=True)
        target.mkdir(parents=True, exist_ok=True)
        for stale in target.iterdir():
            stale.unlink()
        for document in documents:
            if document.labels is None:
                ids = np.empty(len(document.tokens) + 1, kind)
                ids[0], ids[1:] = separator, document.tokens
            else:
                ids = np.asarray(document.tokens, kind)
            shard = opened.get(document.split)
            if shard and (shard.tokens + len(ids)) * kind.itemsize > shard_bytes:
                finished.append(_finish(shard))
                del opened[document.split]
                shard = None
            if shard is None:
                name = f"{document.split}-{counts[document.split]:05d}"
                counts[document.split] += 1
                shard = _Open(name, document.split, target, kind)
                opened[document.split] = shard
            shard.add(document, ids)
        finished += [_finish(opened[split]) for split in sorted(opened)]
        finished.sort(key=lambda one: (SPLITS.index(one.shard.split), one.shard.name))
        _write_index(index, finished, vocabulary_size, separator, tokenizer_sha256, kind)
    except OSError as fault:
        raise DataError(
            f"the shards cannot be written: {fault.strerror or fault}",
            where=str(fault.filename or folder),
            way_out="Make room on the disk or choose another folder, and build again; "
            "finished parts of the build are kept.",
        ) from fault
    finally:
        for shard in opened.values():
            shard.close()
    return tuple(one.shard for one in finished)


@dataclass(frozen=True, slots=True)
class _Finished:
    """A shard that stands whole."""

    shard: Shard
    columns: dict[str, list[Any]]
    beside: dict[str, Any]


def _finish(opened: _Open) -> _Finished:
    told = {name: stream.finish() for name, stream in opened.streams.items()}
    tokens = told.pop("tokens")
    documents = len(opened.columns["id"])
    shard = Shard(opened.name, opened.split, tokens["count"], documents, tokens["sha256"])
    return _Finished(shard, opened.columns, told)


def _write_index(
    index: Path,
    finished: list[_Finished],
    vocabulary_size: int,
    separator: int,
    tokenizer_sha256: str,
    kind: np.dtype[Any],
) -> None:
    shards = [
        {
            "name": one.shard.name,
            "split": one.shard.split,
            "tokens": one.shard.tokens,
            "sha256": one.shard.sha256,
            "documents": one.columns,
            **({"beside": one.beside} if one.beside else {}),
        }
        for one in finished
    ]
    head = {
        "format_version": FORMAT_VERSION,
        "vocabulary_size": vocabulary_size,
        "separator": separator,
        "token_bytes": kind.itemsize,
        "tokenizer_sha256": tokenizer_sha256,
    }
    digest = hashlib.sha256(json.dumps([head, shards], sort_keys=True).encode()).hexdigest()
    writing = index.with_name("shards.json.writing")
    with writing.open("w", encoding="utf-8") as file:
        json.dump({**head, "digest": digest, "shards": shards}, file)
        file.flush()
        os.fsync(file.fileno())
    writing.rename(index)


def read_index(folder: Path) -> dict[str, Any]:
    """A corpus folder → `shards.json`, its version checked.

    Raises DataError where it is missing, damaged or of an unknown `format_version`.
    """
    index = folder / "shards.json"
    rebuild = "Build the corpus again with `wellfit data build RECIPE`."
    if not index.is_file():
        what = "there is no shards.json" if folder.is_dir() else "there is no such corpus folder"
        raise DataError(what, where=str(folder), way_out=rebuild)
    try:
        found = json.loads(index.read_text(encoding="utf-8"))
        version = found["format_version"]
    except (ValueError, KeyError, TypeError) as fault:
        raise DataError(f"damaged ({fault})", where=str(index), way_out=rebuild) from fault
    if version != FORMAT_VERSION:
        raise DataError(
            f"format_version {version} is unknown; this wellfit reads {FORMAT_VERSION}",
            where=str(index),
            way_out="Use the wellfit that built it, or build the corpus again.",
        )
    assert isinstance(found, dict)
    return found


def check_sizes(folder: Path, index: dict[str, Any]) -> None:
    """Corpus folder and its index → nothing; DataError names a shard that is missing or cut."""
    for path, expected, _ in _files(folder, index):
        found = path.stat().st_size if path.is_file() else None
        if found != expected:
            state = "is missing" if found is None else f"has {found} bytes instead of {expected}"
            raise DataError(
                f"shard {path.stem} {state}",
                where=str(path),
                way_out="Build the corpus again; finished parts of the build are kept.",
            )


def check_digests(folder: Path, index: dict[str, Any]) -> None:
    """Corpus folder and its index → nothing; DataError names a shard whose bytes have changed."""
    check_sizes(folder, index)
    for path, _, sha256 in _files(folder, index):
        digest = hashlib.sha256()
        for block in _blocks(path):
            digest.update(block)
        if digest.hexdigest() != sha256:
            raise DataError(
                f"shard {path.stem} is damaged: its SHA-256 is {digest.hexdigest()[:12]}…, "
                f"shards.json says {sha256[:12]}…",
                where=str(path),
                way_out="Build the corpus again; finished parts of the build are kept.",
            )


def _files(folder: Path, index: dict[str, Any]) -> Iterator[tuple[Path, int, str]]:
    """Every file of the shards: where it stands, its bytes, its digest."""
    for shard in index["shards"]:
        tokens = {"count": shard["tokens"], "sha256": shard["sha256"]}
        for name, told in {"tokens": tokens, **shard.get("beside", {})}.items():
            size = np.dtype(BESIDE[name]).itemsize if BESIDE.get(name) else index["token_bytes"]
            path = folder / "shards" / file_name(shard["name"], name)
            yield path, told["count"] * size, told["sha256"]


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block
