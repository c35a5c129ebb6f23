"""Shard files in, the tokens of a split as one array out, read where they are asked for.

Read by calls and not through a memory map: a map of a file that is cut short, or of a disk that
fails, ends the process with SIGBUS and no word. The price is two system calls a row.
"""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from wellfit.errors import DataError

MEND = (
    "The checkpoints are untouched: go on with `wellfit train … --resume`, which builds a damaged "
    "corpus again."
)


class ShardFile:
    """The tokens of one shard, `len(part)` and `part[a:b]`; safe to read from several threads.

    The file stays open as long as this lives. Where its time of change is no longer what it was,
    its SHA-256 is compared with that of `shards.json` before another token is given out. A file
    that was replaced under its name is read on as it was opened, so a corpus may be built again
    beside a running training.
    """

    def __init__(self, path: Path, kind: np.dtype[Any], tokens: int, sha256: str) -> None:
        """A shard, the type of its entries, how many there are, and the file's digest.

        Raises DataError where it cannot be opened.
        """
        self._path, self._kind, self._tokens, self._sha256 = path, kind, tokens, sha256
        try:
            self._file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError as error:
            self._refuse(f"cannot be opened ({error.strerror})", error)
        weakref.finalize(self, os.close, self._file)
        self._changed = os.fstat(self._file).st_mtime_ns
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._tokens

    def __getitem__(self, place: slice) -> NDArray[Any]:
        start, stop, _ = place.indices(self._tokens)
        size = self._kind.itemsize
        try:
            raw = self._read(start * size, max(0, stop - start) * size)
            # After reading: what is given out was read from a file that had not changed by then.
            self._check()
        except OSError as error:
            self._refuse(f"cannot be read ({error.strerror})", error)
        if len(raw) != max(0, stop - start) * size:
            self._refuse("was cut short while it was in use")
        return np.frombuffer(raw, self._kind)

    def _read(self, start: int, count: int) -> bytes:
        """Bytes of the file; fewer than `count` only at its end."""
        pieces = []
        while count > 0:
            piece = self._read_once(start, count)
            if not piece:
                break
            pieces.append(piece)
            start, count = start + len(piece), count - len(piece)
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

    def _read_once(self, start: int, count: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._file, count, start)
        with self._lock:  # Windows has no call that reads at a place
            os.lseek(self._file, start, os.SEEK_SET)
            return os.read(self._file, count)

    def _check(self) -> None:
        """Raises DataError where the file has been written to and is not what it was."""
        state = os.fstat(self._file)
        if state.st_mtime_ns == self._changed:
            return
        expected = self._tokens * self._kind.itemsize
        if state.st_size != expected:
            self._refuse(f"has {state.st_size} bytes instead of {expected}: it was changed in use")
        digest = hashlib.sha256(self._read(0, expected)).hexdigest()
        if digest != self._sha256:
            self._refuse(
                f"was changed in use: its SHA-256 is {digest[:12]}…, "
                f"shards.json says {self._sha256[:12]}…"
            )
        self._changed = state.st_mtime_ns

    def _refuse(self, how: str, cause: OSError | None = None) -> NoReturn:
        raise DataError(
            f"shard {self._path.stem} {how}", where=str(self._path), way_out=MEND
        ) from cause


class TokenStream:
    """The tokens of a split as one array over its shards.

    `len(stream)`, `stream[a:b]` and `stream[place]` as with a NumPy array; `numpy.asarray(stream)`
    reads everything into memory. Raises DataError where a shard cannot be read or has changed.
    """

    def __init__(self, parts: Sequence[ShardFile], kind: np.dtype[Any]) -> None:
        """The shards in their order, and the type of their entries."""
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
        if stop <= self._bounds[first + 1]:
            offset = int(self._bounds[first])
            return self._parts[first][start - offset : stop - offset]
        pieces = []
        while start < stop:
            offset, end = int(self._bounds[first]), min(stop, int(self._bounds[first + 1]))
            pieces.append(self._parts[first][start - offset : end - offset])
            start, first = end, first + 1
        return np.concatenate(pieces)
