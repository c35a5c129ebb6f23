"""A file of records in TensorFlow's framing → where the data of its sound records stand.

`length (8 bytes), its checksum (4), data, its checksum (4)`, again and again; the checksums are
CRC-32C, masked (TensorFlow's `record_writer.h`), and all of them are verified.
"""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wellfit.errors import LogError

CHUNK = 1024
"""Bytes of a record that are summed at once, and zeros before the first record."""
BATCH_BYTES = 1 << 22

Words = NDArray[np.uint32]
Whole = NDArray[np.int64]


class Records(NamedTuple):
    """An event file's bytes after `CHUNK` zeros, and where the data of its sound records stand."""

    data: bytes
    starts: list[int]
    lengths: list[int]
    note: str

    @classmethod
    def opened(cls, path: Path) -> Records:
        """A path → its sound records. Raises LogError where there are none."""
        where = str(path)
        try:
            data = bytes(CHUNK) + path.read_bytes()
        except OSError as error:
            raise LogError(
                f"this file cannot be read ({error.strerror or error})",
                where=where,
                way_out="Give the path of an event file that exists and that you may read.",
            ) from error
        if len(data) == CHUNK:
            raise LogError(
                "the file is empty",
                where=where,
                way_out="The writer was never flushed, or the disk was full: look for another "
                "event file of the run.",
            )
        starts, lengths, end = _frames(data)
        sound = _sound(data, starts, lengths)
        left = len(data) - end
        note = f"the last record is torn; its {left:,} bytes were left out" if left else ""
        if sound < len(starts):
            begin = starts[sound] - 12
            note = (
                f"the checksum of record {sound + 1:,}, at byte {begin - CHUNK:,}, is wrong; from "
                f"there on {len(data) - begin:,} bytes were left out"
            )
        elif left >= 12 and not _length_is_sound(data, end):
            note = (
                f"record {sound + 1:,}, at byte {end - CHUNK:,}, is damaged; from there on "
                f"{left:,} bytes were left out"
            )
        if not sound:
            raise LogError(
                "this is no event file of TensorBoard, or its first record is damaged",
                where=where,
                way_out="Give a file that SummaryWriter, Keras or TensorFlow wrote; copy it again "
                "in binary mode.",
            )
        return cls(data, starts[:sound], lengths[:sound], f"{path.name}: {note}." if note else "")

    def wall_time(self) -> float:
        """The time of the first event, in seconds; 0 where it has none."""
        at = self.starts[0]
        if self.lengths[0] >= 9 and self.data[at] == 9:
            return float(struct.unpack_from("<d", self.data, at + 1)[0])
        return 0.0


def _frames(data: bytes) -> tuple[list[int], list[int], int]:
    """Bytes → where the data of each whole record starts, its length, and where they end."""
    starts: list[int] = []
    lengths: list[int] = []
    known: dict[int, int] = {}
    read = struct.Struct("<QI").unpack_from
    at, size = CHUNK, len(data)
    while at + 12 <= size:
        length, checksum = read(data, at)
        end = at + 16 + length
        if end > size:
            break
        if known.get(length) != checksum:
            if not _length_is_sound(data, at):
                break
            known[length] = checksum
        starts.append(at + 12)
        lengths.append(length)
        at = end
    return starts, lengths, at


def _length_is_sound(data: bytes, at: int) -> bool:
    table = _tables().bytes
    state = 0xFFFFFFFF
    for byte in data[at : at + 8]:
        state = int(table[(state ^ byte) & 0xFF]) ^ (state >> 8)
    masked = _masked(np.array([state ^ 0xFFFFFFFF], dtype=np.uint32))[0]
    return bool(masked == struct.unpack_from("<I", data, at + 8)[0])


def _sound(data: bytes, starts: list[int], lengths: list[int]) -> int:
    """How many records, from the first on, have the right checksum of their data."""
    if not starts:
        return 0
    begin, length = np.asarray(starts, np.int64), np.asarray(lengths, np.int64)
    raw = np.frombuffer(data, np.uint8)
    stored = np.zeros(len(begin), np.uint32)
    for byte in range(4):
        stored |= raw[begin + length + byte].astype(np.uint32) << np.uint32(8 * byte)
    wrong = np.flatnonzero(_masked(_checksums(raw, begin, length)) != stored)
    return int(wrong[0]) if len(wrong) else len(starts)


def _masked(checksum: Words) -> Words:
    """A CRC-32C → as TFRecord stores it: turned by 15 bits and moved, so that a checksum of data
    with checksums in it stays a good one."""
    turned = (checksum >> np.uint32(15)) | (checksum << np.uint32(17))
    return np.asarray(turned + np.uint32(0xA282EAD8), dtype=np.uint32)


class _Tables(NamedTuple):
    bytes: Words
    """[256]: what one byte does."""
    low: Words
    high: Words
    """[65536] each: what the halves of a word of four bytes do."""
    start: Words
    """[CHUNK + 1]: the initial state after that many zeros."""
    skip: tuple[tuple[int, ...], ...]
    """[4][256]: what CHUNK zeros make of each byte of a state."""


@cache
def _tables() -> _Tables:
    one = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        one = np.where(one & 1, (one >> np.uint32(1)) ^ np.uint32(0x82F63B78), one >> np.uint32(1))
    one = one.astype(np.uint32)
    after = [one]  # a byte, then 0, 1, 2, 3 zeros
    for _ in range(3):
        after.append((one[after[-1] & 0xFF] ^ (after[-1] >> np.uint32(8))).astype(np.uint32))
    pair = np.arange(65536)
    low = after[3][pair & 0xFF] ^ after[2][pair >> 8]
    high = after[1][pair & 0xFF] ^ after[0][pair >> 8]
    start = [0xFFFFFFFF]
    for _ in range(CHUNK):
        start.append(int(one[start[-1] & 0xFF]) ^ (start[-1] >> 8))
    states = np.concatenate([np.arange(256, dtype=np.uint32) << np.uint32(8 * k) for k in range(4)])
    for _ in range(CHUNK):
        states = one[states & 0xFF] ^ (states >> np.uint32(8))
    skip = tuple(tuple(row) for row in states.reshape(4, 256).tolist())
    return _Tables(one, low, high, np.array(start, dtype=np.uint32), skip)


def _checksums(raw: NDArray[np.uint8], starts: Whole, lengths: Whole) -> Words:
    """Bytes and the slices of them [n] → the CRC-32C of each slice [n].

    A CRC is linear: all slices are summed side by side from a state of zero, in chunks that end
    where the slice ends (zeros in front change nothing), then the chunks of a long slice and the
    true initial state are added. `CHUNK` bytes must stand before the first slice.
    """
    tables = _tables()
    pieces = np.maximum(1, -(-lengths // CHUNK))
    first = lengths - (pieces - 1) * CHUNK
    owner = np.repeat(np.arange(len(starts)), pieces)
    heads = np.cumsum(pieces) - pieces
    nth = np.arange(len(owner)) - heads[owner]
    ends = starts[owner] + first[owner] + nth * CHUNK
    sums = _zero_based(raw, ends, np.where(nth == 0, first[owner], CHUNK))
    totals = sums[heads] ^ tables.start[first]
    a, b, c, d = tables.skip
    for one in np.flatnonzero(pieces > 1):
        state = int(totals[one])
        for piece in sums[heads[one] + 1 : heads[one] + pieces[one]].tolist():
            state = (
                a[state & 0xFF]
                ^ b[(state >> 8) & 0xFF]
                ^ c[(state >> 16) & 0xFF]
                ^ d[state >> 24]
                ^ piece
            )
        totals[one] = state
    return np.asarray(totals ^ np.uint32(0xFFFFFFFF), dtype=np.uint32)


def _zero_based(raw: NDArray[np.uint8], ends: Whole, lengths: Whole) -> Words:
    """Slices by end and length (at most CHUNK) → their checksums from a state of zero."""
    tables = _tables()
    sums = np.zeros(len(ends), np.uint32)
    widths = np.maximum(16, -(-lengths // 16) * 16)
    for width in np.unique(widths):
        chosen = np.flatnonzero(widths == width)
        windows = np.lib.stride_tricks.sliding_window_view(raw, int(width))
        each = max(1, BATCH_BYTES // int(width))
        for begin in range(0, len(chosen), each):
            batch = chosen[begin : begin + each]
            rows = windows[ends[batch] - width]
            rows[np.arange(width) < (width - lengths[batch])[:, None]] = 0
            words = np.ascontiguousarray(rows.view("<u4").T)
            state = np.zeros(len(batch), np.uint32)
            for word in words:
                state ^= word
                state = tables.low[state & np.uint32(0xFFFF)] ^ tables.high[state >> np.uint32(16)]
            sums[batch] = state
    return sums
