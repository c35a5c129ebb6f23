"""A corpus folder in, its tokens and documents out: memory-mapped, torch-free, read-only."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wellfit.data.tokens.shards import SPLITS, check_digests, check_sizes, read_index
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
    """UTF-8 bytes of its cleaned text."""
    domain: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.first_token)


class TokenStream:
    """The tokens of a split as one array over its memory-mapped shards.

    `len(stream)`, `stream[a:b]` and `stream[place]` as with a NumPy array; `numpy.asarray(stream)`
    reads everything into memory.
    """

    def __init__(self, parts: Sequence[NDArray[Any]], kind: np.dtype[Any]) -> None:
        self._parts = parts
        self.dtype = kind
        self._bounds = np.concatenate(([0], np.cumsum([len(part) for part in parts])))

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            start, stop, step = place.indices(len(self))
            return self._read(start, stop) if step == 1 else np.asarray(self)[place]
        if not -len(self) <= place < len(self):
            raise IndexError(f"token {place} of {len(self)}")
        place %= len(self)
        return self._read(place, place + 1)[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._read(0, len(self)), dtype or self.dtype)

    def _read(self, start: int, stop: int) -> NDArray[Any]:
        if stop <= start:
            return np.zeros(0, self.dtype)
        first = int(np.searchsorted(self._bounds, start, side="right")) - 1
        if stop <= self._bounds[first + 1]:  # inside one shard: a view, nothing is copied
            offset = int(self._bounds[first])
            return self._parts[first][start - offset : stop - offset]
        pieces = []
        while start < stop:
            offset, end = int(self._bounds[first]), min(stop, int(self._bounds[first + 1]))
            pieces.append(self._parts[first][start - offset : end - offset])
            start, first = end, first + 1
        return np.concatenate(pieces)


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
        kind = np.dtype("<u2" if self._index["token_bytes"] == 2 else "<u4")
        parts = [
            # A plain array over the map: slicing it is several times faster than a memmap's own.
            np.memmap(self.folder / "shards" / f"{shard['name']}.bin", kind, mode="r").view(
                np.ndarray
            )
            for shard in self._shards(split)
        ]
        return TokenStream(parts, kind)

    def documents(self, split: str) -> DocumentTable:
        """A split → its documents. Raises DataError where there is no such split."""
        columns: dict[str, list[Any]] = {
            "id": [], "first_token": [], "tokens": [], "bytes": [], "domain": []
        }  # fmt: skip
        start = 0
        for shard in self._shards(split):
            for name, column in columns.items():
                values = shard["documents"][name]
                column += [start + value for value in values] if name == "first_token" else values
            start += shard["tokens"]
        numbers = {
            name: np.array(columns[name], np.int64) for name in ("first_token", "tokens", "bytes")
        }
        return DocumentTable(
            id=np.array(columns["id"], np.str_),
            domain=np.array(columns["domain"], np.str_),
            **numbers,
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

    def tokenizer(self) -> Tokenizer:
        """The corpus's tokenizer, read from `tokenizer.json`."""
        from wellfit.data.tokens.tokenizer import load

        return load(self.folder / "tokenizer.json")

    def shards(self) -> list[dict[str, Any]]:
        """The entries of `shards.json`: name, split, tokens, sha256, and columns of documents."""
        return list(self._index["shards"])

    def _shards(self, split: str) -> list[dict[str, Any]]:
        found = [shard for shard in self._index["shards"] if shard["split"] == split]
        if not found:
            raise DataError(
                f"there is no split {split!r}, only {', '.join(self.splits) or 'none at all'}",
                where=str(self.folder),
                way_out=f"Set data.split.{split} above 0 and build the corpus again."
                if split in SPLITS
                else "Name one of those.",
            )
        return found
