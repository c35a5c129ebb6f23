"""A corpus, a split and a context in, its packing out: made once, kept beside the corpus.

`packing/train-best_fit-1024.index` in the corpus folder: a line of JSON that says what it is for,
and the numbers of `best_fit.Packing`, little-endian int64, starts before bounds. It follows from
the corpus and is no part of its digest: one that is missing, damaged, of another corpus or of
another format is made again, to the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wellfit.data.corpus import Corpus
from wellfit.data.engine.task import no_room, sync
from wellfit.data.packing.best_fit import Packing, pack

FORMAT_VERSION = 1
METHOD = "best_fit"
_NUMBERS = np.dtype("<i8")


@dataclass(frozen=True, slots=True)
class Index:
    """A packing and the digest of what it is for and of its numbers."""

    packing: Packing
    sha256: str


def opened(corpus: Corpus, split: str, context: int) -> Index:
    """A corpus, a split and the places of a row → the index there, made where there is none.

    Raises DataError where there is no such split, or the index cannot be written.
    """
    path = index_path(corpus, split, context)
    head = {
        "format_version": FORMAT_VERSION,
        "method": METHOD,
        "corpus": corpus.digest,
        "split": split,
        "context": context,
    }
    found = _read(path, head)
    if found is None:
        table = corpus.documents(split)
        packing = pack(table.first_token, table.tokens, context)
        _write(path, head, packing)
        found = Index(packing, _digest(_described(head, packing), _payload(packing)))
    return found


def index_path(corpus: Corpus, split: str, context: int) -> Path:
    """Where the index of a split and a context stands."""
    return corpus.folder / "packing" / f"{split}-{METHOD}-{context}.index"


def _read(path: Path, head: dict[str, Any]) -> Index | None:
    """A file and what it must be for → the index in it; None where it is anything else."""
    try:
        raw = path.read_bytes()
        line, _, payload = raw.partition(b"\n")
        told = json.loads(line)
        sha256, count = told.pop("sha256"), told["pieces"]
        if told != {**head, "pieces": count} or _digest(told, payload) != sha256:
            return None
        numbers = np.frombuffer(payload, _NUMBERS).astype(np.int64)
        return Index(Packing(numbers[:count], numbers[count:]), sha256)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(path: Path, head: dict[str, Any], packing: Packing) -> None:
    payload, told = _payload(packing), _described(head, packing)
    told["sha256"] = _digest(told, payload)
    # Of each process its own, so that two that begin at once do not write into one file.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.writing")
    try:
        path.parent.mkdir(exist_ok=True)
        unfinished.write_bytes(json.dumps(told).encode() + b"\n" + payload)
        sync(unfinished)
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise no_room(error, path.parent) from error


def _described(head: dict[str, Any], packing: Packing) -> dict[str, Any]:
    return {**head, "pieces": len(packing.starts)}


def _payload(packing: Packing) -> bytes:
    return np.concatenate((packing.starts, packing.bounds)).astype(_NUMBERS).tobytes()


def _digest(told: dict[str, Any], payload: bytes) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode() + payload).hexdigest()
