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


@dataclass(slots=True)
class _Open:
    """The shard that a split is being written to."""

    name: str
    split: str
    file: BinaryIO
    digest: Any
    tokens: int = 0
    columns: dict[str, list[Any]] = field(
        default_factory=lambda: {
            "id": [],
            "first_token": [],
            "tokens": [],
            "bytes": [],
            "domain": [],
        }
    )


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
    finished: list[tuple[Shard, dict[str, list[Any]]]] = []
    opened: dict[str, _Open] = {}
    counts = dict.fromkeys(SPLITS, 0)
    try:
        index.unlink(missing_ok=True)
        target.mkdir(parents=True, exist_ok=True)
        for stale in target.iterdir():
            stale.unlink()
        for document in documents:
            ids = np.empty(len(document.tokens) + 1, kind)
            ids[0], ids[1:] = separator, document.tokens
            shard = opened.get(document.split)
            if shard and (shard.tokens + len(ids)) * kind.itemsize > shard_bytes:
                finished.append(_finish(target, shard))
                del opened[document.split]
                shard = None
            if shard is None:
                name = f"{document.split}-{counts[document.split]:05d}"
                counts[document.split] += 1
                file = (target / f"{name}.bin.writing").open("wb")
                shard = _Open(name, document.split, file, hashlib.sha256())
                opened[document.split] = shard
            raw = ids.tobytes()
            shard.file.write(raw)
            shard.digest.update(raw)
            row = (document.id, shard.tokens, len(ids), document.bytes, document.domain)
            for column, value in zip(shard.columns.values(), row, strict=True):
                column.append(value)
            shard.tokens += len(ids)
        finished += [_finish(target, opened[split]) for split in sorted(opened)]
        finished.sort(key=lambda pair: (SPLITS.index(pair[0].split), pair[0].name))
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
            shard.file.close()
    return tuple(shard for shard, _ in finished)


def _finish(target: Path, shard: _Open) -> tuple[Shard, dict[str, list[Any]]]:
    shard.file.flush()
    os.fsync(shard.file.fileno())
    shard.file.close()
    path = target / f"{shard.name}.bin"
    path.with_name(f"{shard.name}.bin.writing").rename(path)
    record = Shard(
        shard.name, shard.split, shard.tokens, len(shard.columns["id"]), shard.digest.hexdigest()
    )
    return record, shard.columns


def _write_index(
    index: Path,
    finished: list[tuple[Shard, dict[str, list[Any]]]],
    vocabulary_size: int,
    separator: int,
    tokenizer_sha256: str,
    kind: np.dtype[Any],
) -> None:
    shards = [
        {
            "name": shard.name,
            "split": shard.split,
            "tokens": shard.tokens,
            "sha256": shard.sha256,
            "documents": columns,
        }
        for shard, columns in finished
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
    for shard in index["shards"]:
        path = folder / "shards" / f"{shard['name']}.bin"
        expected = shard["tokens"] * index["token_bytes"]
        found = path.stat().st_size if path.is_file() else None
        if found != expected:
            state = "is missing" if found is None else f"has {found} bytes instead of {expected}"
            raise DataError(
                f"shard {shard['name']} {state}",
                where=str(path),
                way_out="Build the corpus again; finished parts of the build are kept.",
            )


def check_digests(folder: Path, index: dict[str, Any]) -> None:
    """Corpus folder and its index → nothing; DataError names a shard whose bytes have changed."""
    check_sizes(folder, index)
    for shard in index["shards"]:
        path = folder / "shards" / f"{shard['name']}.bin"
        digest = hashlib.sha256()
        for block in _blocks(path):
            digest.update(block)
        if digest.hexdigest() != shard["sha256"]:
            raise DataError(
                f"shard {shard['name']} is damaged: its SHA-256 is {digest.hexdigest()[:12]}…, "
                f"shards.json says {shard['sha256'][:12]}…",
                where=str(path),
                way_out="Build the corpus again; finished parts of the build are kept.",
            )


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block
