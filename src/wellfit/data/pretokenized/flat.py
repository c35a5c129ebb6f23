"""Files that are one row of ids, `.bin` and `.npy` → blocks of ids, read by calls.

A `.bin` holds little-endian numbers and nothing else, as nanoGPT writes it; or it begins with 256
int32 numbers: a magic number, a version and the count of tokens, as llm.c and modded-nanogpt do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wellfit.errors import DataError

HEADER_NUMBERS = 256
HEADER_BYTES = 4 * HEADER_NUMBERS
HEADERS = {20240520: (1, "<u2"), 20240801: (7, "<u4")}
"""Magic number → version and type of the tokens (llm.c, dev/data/data_common.py)."""
BLOCK = 1 << 20
"""Ids that are read at a time."""


@dataclass(frozen=True, slots=True)
class Flat:
    """Where the ids of a file lie."""

    path: Path
    dtype: np.dtype[Any]
    start: int
    """Byte of the first id."""
    tokens: int

    def blocks(self) -> Iterator[tuple[int, NDArray[np.integer[Any]]]]:
        """(place of the first id, ids), some at a time; DataError where the file ends early."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            for at in range(0, self.tokens, BLOCK):
                wanted = min(BLOCK, self.tokens - at)
                ids: NDArray[np.integer[Any]] = np.fromfile(file, self.dtype, wanted)
                if len(ids) < wanted:
                    raise _refused(self.path, "the file was cut short while it was read", "")
                yield at, ids

    def byte(self, place: int) -> int:
        """The place of an id → its first byte in the file."""
        return self.start + place * self.dtype.itemsize


def open_bin(path: Path, dtype: str, vocabulary_size: int) -> Flat:
    """A `.bin`, `data.tokens.dtype` and the entries → where its ids lie.

    Raises DataError where it is empty, cut, or of another type than its header or its size says.
    """
    size = path.stat().st_size
    if not size:
        raise _refused(path, "the file is empty", "Name another one, or write it again.")
    with path.open("rb") as file:
        begin = np.frombuffer(file.read(HEADER_BYTES)[: size - size % 4][:HEADER_BYTES], "<i4")
    if len(begin) and int(begin[0]) in HEADERS:
        return _with_header(path, begin, size, dtype)
    if dtype == "auto":
        dtype = "uint16" if vocabulary_size <= 65_536 else "uint32"
        said = f"data.tokens.dtype auto means {dtype} for {vocabulary_size:,} entries"
    else:
        said = f"data.tokens.dtype says {dtype}"
    kind = np.dtype("<u2" if dtype == "uint16" else "<u4")
    if size % kind.itemsize:
        raise _refused(
            path,
            f"{size} bytes are no whole number of {dtype} ({said})",
            "Name the type that it was written with as data.tokens.dtype; if it is the right one, "
            "the file was cut short: write it again.",
        )
    flat = Flat(path, kind, 0, size // kind.itemsize)
    if said.startswith("data.tokens.dtype auto") and dtype == "uint16":
        _refuse_wide(flat)
    return flat


def open_npy(path: Path) -> Flat:
    """A `.npy` with one row of whole numbers → where its ids lie; DataError for anything else."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read(file)
            start = file.tell()
    except (ValueError, EOFError, OSError) as fault:
        raise _refused(
            path, f"this is no .npy that can be read ({fault})", "Write it with numpy.save."
        ) from fault
    if len(shape) != 1 or dtype.kind not in "iu":
        raise _refused(
            path,
            f"it holds {dtype} of shape {shape}, not one row of whole numbers",
            "Save the ids as one row: array.reshape(-1).",
        )
    if not shape[0]:
        raise _refused(path, "the file is empty", "Name another one, or write it again.")
    flat = Flat(path, dtype, start, shape[0])
    if path.stat().st_size < flat.byte(flat.tokens):
        raise _refused(
            path, f"it ends before its {flat.tokens} tokens do", "It was cut: write it again."
        )
    return flat


def _with_header(path: Path, begin: NDArray[np.int32], size: int, dtype: str) -> Flat:
    if size < HEADER_BYTES:
        raise _refused(
            path,
            f"the header has {size} bytes of {HEADER_BYTES}",
            "The file was cut: copy or write it again.",
        )
    magic, version, tokens = (int(number) for number in begin[:3])
    known, kind = HEADERS[magic]
    if version != known:
        raise _refused(
            path,
            f"its header has the magic number {magic} and version {version}; known is {known}",
            "Write it with the version that is known, or without a header.",
        )
    flat = Flat(path, np.dtype(kind), HEADER_BYTES, tokens)
    if tokens < 1 or flat.byte(tokens) != size:
        raise _refused(
            path,
            f"its header promises {tokens} tokens, {flat.byte(max(0, tokens))} bytes in all, and "
            f"the file has {size}",
            "The file was cut, or its header belongs to another one: copy or write it again.",
        )
    if dtype not in ("auto", flat.dtype.name):
        raise _refused(
            path,
            f"its header says {flat.dtype.name}, data.tokens.dtype says {dtype}",
            "Leave data.tokens.dtype out.",
        )
    return flat


def _refuse_wide(flat: Flat) -> None:
    """Numbers of four bytes below 65,536, read as two each, have a zero at every second place."""
    if flat.tokens % 2:
        return
    ids = next(flat.blocks())[1]
    if len(ids) >= 16 and not ids[1::2].any() and ids[::2].any():
        raise _refused(
            flat.path,
            "every second uint16 is 0, as if each token had four bytes",
            "Set data.tokens.dtype=uint32, or uint16 if it is really so.",
        )


def _refused(path: Path, what: str, way_out: str) -> DataError:
    return DataError(what, where=str(path), way_out=way_out)
