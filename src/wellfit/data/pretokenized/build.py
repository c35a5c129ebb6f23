"""The recipe's `data.tokens` in, a corpus out: the same folder that documents become.

    files of ids ─▶ documents (by separator or row) ─▶ splits ─▶ shards

Ids are taken as they are. They are streamed: what is held at a time is a block of a file, the
document that is open, and a few numbers for each document (see docs/howto-guests.md).
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wellfit.data import publish, report
from wellfit.data.corpus import Corpus
from wellfit.data.engine.engine import Progress
from wellfit.data.engine.lock import held
from wellfit.data.engine.task import file_digest, no_room
from wellfit.data.engine.version import code_version
from wellfit.data.pretokenized.documents import Ids, Seen, documents, share_of
from wellfit.data.pretokenized.inputs import Input, find_inputs, refuse_twice
from wellfit.data.tokens import shards, tokenizer
from wellfit.errors import DataError
from wellfit.recipe.schema import Data, Tokens

STAGE = "tokens"
DOMAIN = "tokens"
UNKNOWN_BYTES = -1
"""Bytes of a document whose text nobody knows."""


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """What is known of the ids."""

    size: int
    separator: int
    file: Path | None
    sha256: str
    tokenizer: tokenizer.Tokenizer | None

    def bytes_of(self, ids: Ids, lengths: Ids | None) -> int:
        """UTF-8 bytes of the text behind some ids."""
        if self.tokenizer is None:
            return UNKNOWN_BYTES
        if lengths is not None:
            return int(lengths[ids].sum())
        return len(self.tokenizer.decode(ids.tolist()).encode())


def build_tokens(
    data: Data, format_version: int, *, name: str, folder: Path, progress: Progress | None = None
) -> Corpus:
    """A data section with `tokens`, and a folder → the corpus there, rebuilt where files changed.

    `progress(stage, done, total)` counts files. Raises DataError where a file is missing, damaged
    or holds ids that the vocabulary does not have, where no separator is found, or where a wanted
    split would be empty. What stood in the folder before stands until the new corpus is whole.
    """
    section = data.tokens
    assert section is not None
    publish.refuse_unknown_version(folder, format_version)
    inputs = [one for split in shards.SPLITS for one in find_inputs(split, getattr(section, split))]
    refuse_twice(inputs, folder)
    vocabulary = _vocabulary(section)
    with held(folder / "tasks"):
        manifest = _manifest(data, format_version, name, inputs, vocabulary)
        standing = publish.standing(folder, manifest["key"])
        if standing is not None:
            return standing
        scratch = folder / "tasks" / "tokens"
        counts = _write(scratch, section, inputs, vocabulary, progress)
        try:
            _publish(folder, scratch, vocabulary)
        except OSError as fault:
            raise no_room(fault, folder) from fault
        corpus = Corpus.open(folder)
        content = {
            "format_version": report.FORMAT_VERSION,
            "name": name,
            "digest": corpus.digest,
            **counts,
        }
        publish.write_json(folder / "report.json", content)
        publish.write_json(folder / "manifest.json", {**manifest, "digest": corpus.digest})
    return corpus


def _vocabulary(section: Tokens) -> _Vocabulary:
    if not section.tokenizer:
        assert section.vocabulary_size is not None and section.separator is not None
        return _Vocabulary(section.vocabulary_size, section.separator, None, "", None)
    file = Path(section.tokenizer).expanduser()
    ready = tokenizer.load(file)
    separator = ready.separator if section.separator is None else section.separator
    if separator >= ready.vocabulary_size:
        raise DataError(
            f"the tokenizer has {ready.vocabulary_size} entries, none with the id {separator}",
            where="data.tokens.separator",
            way_out=f"Leave it out to take {ready.separator_text} ({ready.separator}).",
        )
    return _Vocabulary(ready.vocabulary_size, separator, file, file_digest(file), ready)


def _manifest(
    data: Data, format_version: int, name: str, inputs: list[Input], vocabulary: _Vocabulary
) -> dict[str, Any]:
    """Everything that decides the corpus, and `key`, its digest."""
    content = {
        "format_version": format_version,
        "name": name,
        "inputs": [
            {
                "source": one.split,
                "path": one.path.as_posix(),
                "format": one.kind,
                "bytes": one.path.stat().st_size,
                "sha256": file_digest(one.path),
            }
            for one in inputs
        ],
        "parameters": data.of_corpus(),
        "code": code_version([build_tokens]),
        "tokenizer_sha256": vocabulary.sha256,
    }
    key = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    roots = {one.path.as_posix(): str(one.path.resolve()) for one in inputs}
    return {**content, "roots": roots, "key": key}


def _write(
    scratch: Path,
    section: Tokens,
    inputs: list[Input],
    vocabulary: _Vocabulary,
    progress: Progress | None,
) -> dict[str, Any]:
    """Files → `scratch/shards/` and `scratch/shards.json`; the counts of the report."""
    by_split: dict[str, Counter[str]] = {split: Counter() for split in shards.SPLITS}
    seen = {split: Seen() for split in shards.SPLITS}
    lengths = None
    if vocabulary.tokenizer is not None and vocabulary.tokenizer.byte_level:
        lengths = np.array([len(one) for one in vocabulary.tokenizer.token_bytes()], np.int64)

    def cut() -> Iterator[shards.TokenDocument]:
        done = 0
        for split in shards.SPLITS:
            mine = [one for one in inputs if one.split == split]

            def tell(count: int, before: int = done) -> None:
                if progress:
                    progress(STAGE, before + count, len(inputs))

            for one in documents(
                mine,
                done,
                section,
                vocabulary_size=vocabulary.size,
                separator=vocabulary.separator,
                seen=seen[split],
                tell=tell,
            ):
                side = _side(one.ids, section) if split == "train" else split
                size = vocabulary.bytes_of(one.ids, lengths)
                by_split[side].update(documents=1, tokens=len(one.ids) + 1, bytes=size)
                # A row of NumPy numbers is filled into the shard as a sequence of int is.
                yield shards.TokenDocument(one.id, side, DOMAIN, size, one.ids)  # type: ignore[arg-type]
            done += len(mine)
            _refuse_unseparated(mine, seen[split], vocabulary.separator)

    written = shards.write(
        scratch,
        cut(),
        vocabulary_size=vocabulary.size,
        separator=vocabulary.separator,
        tokenizer_sha256=vocabulary.sha256,
    )
    _refuse_empty(section, inputs, by_split)
    known = vocabulary.tokenizer is not None
    shown = {
        split: {name: n for name, n in counts.items() if known or name != "bytes"}
        for split, counts in by_split.items()
        if counts["documents"]
    }
    total: Counter[str] = Counter()
    for counts in shown.values():
        total.update(counts)
    empty = sum(one.empty for one in seen.values())
    return {
        "documents": total["documents"],
        **({"bytes": total["bytes"]} if known else {}),
        "dropped": {"no token between separators": {"documents": empty}} if empty else {},
        "by_split": shown,
        "kept": {"total": dict(total)},
        "files": [
            {"split": one.split, "path": one.path.as_posix(), "kind": one.kind} for one in inputs
        ],
        "shards": report.shards_of(written),
    }


def _side(ids: Ids, section: Tokens) -> str:
    """The ids of a train document → the split that its hash decides."""
    if not section.validation_share and not section.test_share:
        return "train"
    place = share_of(ids)
    if place < section.validation_share:
        return "validation"
    return "test" if place < section.validation_share + section.test_share else "train"


def _refuse_unseparated(inputs: list[Input], seen: Seen, separator: int) -> None:
    if seen.flat and not seen.separators:
        raise DataError(
            f"the separator {separator} stands nowhere in {seen.flat} "
            f"file{'' if seen.flat == 1 else 's'} of {inputs[0].split}, so documents cannot be "
            "told apart",
            where=str(inputs[0].path),
            way_out="Set data.tokens.separator to the id that ends (or begins) each document.",
        )


def _refuse_empty(section: Tokens, inputs: list[Input], by_split: dict[str, Counter[str]]) -> None:
    named = {one.split for one in inputs}
    documents = sum(counts["documents"] for counts in by_split.values())
    for split in shards.SPLITS:
        share = getattr(section, f"{split}_share", 0.0)
        if by_split[split]["documents"] or not (split in named or share):
            continue
        if share:
            raise DataError(
                f"a share of {share:g} of {documents} documents leaves {split} without one",
                where=f"data.tokens.{split}_share",
                way_out=f"Raise it, or name files as data.tokens.{split}.",
            )
        raise DataError(
            f"{split} has no document: its files hold no tokens but separators",
            where=f"data.tokens.{split}",
            way_out="Name other files, or lower the shares that are cut from train.",
        )


def _publish(folder: Path, scratch: Path, vocabulary: _Vocabulary) -> None:
    """The finished shards → the corpus folder; what another build left there goes."""
    publish.take_down(folder)
    for stale in ("shards", "documents"):
        shutil.rmtree(folder / stale, ignore_errors=True)
    for stale in ("tokenizer.json", "decisions.parquet", "pairs.parquet", "rejected.jsonl"):
        (folder / stale).unlink(missing_ok=True)
    if vocabulary.file is not None:
        publish.place(vocabulary.file, folder / "tokenizer.json")
    (scratch / "shards").rename(folder / "shards")
    (scratch / "shards.json").rename(folder / "shards.json")
