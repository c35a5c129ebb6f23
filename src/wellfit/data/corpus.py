"""A corpus folder in, its tokens and documents out: read where asked for, torch-free, read-only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wellfit.data.tokens.shards import (
    BESIDE,
    SPLITS,
    check_digests,
    check_sizes,
    file_name,
    read_index,
)
from wellfit.data.tokens.stream import ShardFile, TokenStream
from wellfit.errors import DataError

if TYPE_CHECKING:
    from wellfit.data.tokens.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class DocumentTable:
    """The documents of a split in the order of its tokens; arrays [documents]."""

    id: NDArray[np.str_]
    first_token: NDArray[np.int64]
    """Place of its separator in the token stream of the split."""
    tokens: NDArray[np.int64]
    """Its tokens, the separator before it included."""
    bytes: NDArray[np.int64]
    """UTF-8 bytes of its cleaned text; −1 where they are unknown."""
    domain: NDArray[np.str_]
    source_first: NDArray[np.int64] | None = None
    """Place of its source in the sources of the split; None where there are none apart."""
    source_tokens: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.first_token)


@dataclass(frozen=True, slots=True)
class Corpus:
    """An opened corpus folder; made by `Corpus.open`."""

    folder: Path
    digest: str
    """Covers tokens, documents and tokenizer: the same digest gives the same batches."""
    vocabulary_size: int
    separator: int
    """Id of the token before every document."""
    _index: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Corpus:
        """A corpus folder → the corpus; the sizes of all shards are checked, digests by `verify`.

        Raises DataError where the folder is no finished corpus, a shard is missing or cut, the
        tokenizer does not belong to the shards, or the `format_version` is unknown.
        """
        folder = Path(folder)
        index = read_index(folder)
        check_sizes(folder, index)
        tokenizer = folder / "tokenizer.json"
        found = hashlib.sha256(tokenizer.read_bytes()).hexdigest() if tokenizer.is_file() else ""
        if found != index["tokenizer_sha256"]:
            raise DataError(
                "it is not the tokenizer that the shards were made with"
                if found
                else "there is no such file",
                where=str(tokenizer),
                way_out="Build the corpus again with `wellfit data build RECIPE`.",
            )
        return cls(folder, index["digest"], index["vocabulary_size"], index["separator"], index)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have tokens: some of train, validation and test."""
        present = {shard["split"] for shard in self._index["shards"]}
        return tuple(split for split in SPLITS if split in present)

    @property
    def report(self) -> dict[str, Any]:
        """The build's `report.json`; empty where there is none."""
        path = self.folder / "report.json"
        if not path.is_file():
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
        assert isinstance(found, dict)
        return found

    def verify(self) -> None:
        """Read every shard and compare digests; DataError names the first damaged one."""
        check_digests(self.folder, self._index)

    def tokens(self, split: str) -> TokenStream:
        """A split → its tokens, shards in order. Raises DataError where there is no such split."""
        return self._stream(split, "tokens")

    @property
    def of_examples(self) -> bool:
        """Whether it holds examples: tokens with labels of their own, as `labels` gives them."""
        return any("labels" in shard.get("beside", {}) for shard in self._index["shards"])

    def labels(self, split: str) -> TokenStream:
        """A split of examples → what is asked at each of its tokens."""
        return self._stream(split, "labels")

    def sources(self, split: str) -> TokenStream:
        """A split of examples with sources apart → their tokens, one source behind the other."""
        return self._stream(split, "source")

    def _stream(self, split: str, name: str) -> TokenStream:
        own = "<u2" if self._index["token_bytes"] == 2 else "<u4"
        kind = np.dtype(BESIDE.get(name) or own)
        parts = []
        for shard in self._shards(split):
            told = {"count": shard["tokens"], "sha256": shard["sha256"]}
            told = told if name == "tokens" else shard["beside"][name]
            path = self.folder / "shards" / file_name(shard["name"], name)
            parts.append(ShardFile(path, kind, told["count"], told["sha256"]))
        return TokenStream(parts, kind)

    def documents(self, split: str) -> DocumentTable:
        """A split → its documents. Raises DataError where there is no such split."""
        columns: dict[str, list[Any]] = {
            "id": [], "first_token": [], "tokens": [], "bytes": [], "domain": []
        }  # fmt: skip
        start = source_start = 0
        first, count = [], []
        for shard in self._shards(split):
            told = shard["documents"]
            for name, column in columns.items():
                values = told[name]
                column += [start + value for value in values] if name == "first_token" else values
            start += shard["tokens"]
            if "source_first" in told:
                first += [source_start + value for value in told["source_first"]]
                count += told["source_tokens"]
                source_start += shard["beside"]["source"]["count"]
        numbers = {
            name: np.array(columns[name], np.int64) for name in ("first_token", "tokens", "bytes")
        }
        return DocumentTable(
            id=np.array(columns["id"], np.str_),
            domain=np.array(columns["domain"], np.str_),
            **numbers,
            source_first=np.array(first, np.int64) if first else None,
            source_tokens=np.array(count, np.int64) if first else None,
        )

    def texts(self, split: str) -> Iterator[str]:
        """A split → the cleaned texts of its documents. Raises DataError for a missing split."""
        import pyarrow.parquet as pq

        wanted = set(self.documents(split).id.tolist())
        for part in sorted((self.folder / "documents").glob("part-*.parquet")):
            columns = pq.read_table(part, columns=["id", "text"]).to_pydict()
            for number, text in zip(columns["id"], columns["text"], strict=True):
                if number in wanted:
                    yield text

    @property
    def has_tokenizer(self) -> bool:
        """Whether it is known what text the tokens stand for."""
        return bool(self._index["tokenizer_sha256"])

    def tokenizer(self) -> Tokenizer:
        """The corpus's tokenizer, read from `tokenizer.json`, with the corpus's separator.

        Raises DataError where the tokens were made elsewhere and no tokenizer was named.
        """
        from wellfit.data.tokens.tokenizer import load

        if not self.has_tokenizer:
            raise DataError(
                "its tokens came without a tokenizer, so nothing can be told in words",
                where=str(self.folder),
                way_out="Name the tokenizer.json that they were made with as "
                "data.tokens.tokenizer, and build the corpus again.",
            )
        found = load(self.folder / "tokenizer.json")
        if found.separator == self.separator:
            return found
        text = str(found.backend.id_to_token(self.separator))
        return replace(found, separator=self.separator, separator_text=text)

    def shards(self) -> list[dict[str, Any]]:
        """The entries of `shards.json`: name, split, tokens, sha256, and columns of documents."""
        return list(self._index["shards"])

    def _shards(self, split: str) -> list[dict[str, Any]]:
        found = [shard for shard in self._index["shards"] if shard["split"] == split]
        if not found:
            raise DataError(
                f"there is no split {split!r}, only {', '.join(self.splits) or 'none at all'}",
                where=str(self.folder),
                way_out=f"Hold some out by data.split.{split} (of ready tokens and of examples by "
                f"their {split} or {split}_share) and build the corpus again."
                if split in SPLITS
                else "Name one of those.",
            )
        return found
