"""TensorBoard event files → Logs: the scalars of a run, and the settings written beside them.

The format, as TensorFlow's `record_writer.h`, `event.proto`, `summary.proto` and `tensor.proto`
describe it: records of `length (8 bytes), its checksum (4), data, its checksum (4)`, the data a
protocol buffer `Event`. Both checksums are CRC-32C, masked, and both are verified.

    file ─▶ _frames ─▶ _checksums ─▶ _Decoder ─▶ Log

Images, histograms and graphs are passed over unread.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wellfit.diagnosis.importers.log import Column, Log
from wellfit.errors import LogError

FORMAT = "TensorBoard events"
PARTS = ("train", "training", "validation", "valid", "val", "eval", "evaluation", "test", "dev")
"""Folders that Keras and Estimators make for the parts of one run."""
CHUNK = 1024
"""Bytes of a record that are summed at once, and zeros before the first record."""
BATCH_BYTES = 1 << 22

Words = NDArray[np.uint32]
Whole = NDArray[np.int64]

_FLOAT, _DOUBLE, _STRING, _HALF, _BFLOAT = 1, 2, 7, 19, 14
_single = struct.Struct("<f")


def looks_like_events(path: Path) -> bool:
    """Whether a path bears the name of an event file: `tfevents` stands in it.

    >>> looks_like_events(Path("runs/events.out.tfevents.1700000000.host.1.0"))
    True
    """
    return "tfevents" in path.name


def looks_like_tensorboard(path: Path) -> bool:
    """Whether a path is an event file, or the folder of a run: it, or its `train/` or the like,
    holds one."""
    if not path.is_dir():
        return looks_like_events(path)
    return any(
        file.is_file()
        for folder in (path, *(path / part for part in PARTS))
        for file in folder.glob("*tfevents*")
    )


def read_tensorboard(path: Path) -> list[Log]:
    """An event file, a run folder or a folder of runs → one Log for each run with scalars.

    Folders below a run that hold its parts are joined to it: `train/` and `validation/` as Keras
    writes them (tags get the folder's name in front), and those of `SummaryWriter.add_scalars`.
    The final values that `add_hparams` repeats in a folder of its own are left out.
    Raises LogError where no event file is there, or none can be read or holds scalars.
    """
    if not path.is_dir():
        return [read_events(path)]
    folders: dict[Path, list[Path]] = {}
    for file in sorted(path.rglob("*tfevents*")):
        if file.is_file():
            folders.setdefault(file.parent, []).append(file)
    if not folders:
        raise LogError(
            "no event file is in this folder",
            where=str(path),
            way_out="Give the folder that TensorBoard is given, or a file with `tfevents` in its "
            "name.",
        )
    logs: dict[Path, Log] = {}
    faults: list[LogError] = []
    for folder, files in folders.items():
        if re.fullmatch(r"\d{9,}\.\d+", folder.name) and folder.parent in folders:
            continue  # add_hparams
        try:
            logs[folder] = read_event_folder(files)
        except LogError as error:
            faults.append(error)
    if not logs:
        raise faults[0]
    runs = _join_parts(logs, path)
    for folder, log in runs.items():
        if folder != path:
            log.name = folder.relative_to(path).as_posix()
    found = list(runs.values())
    for fault in faults if len(found) == 1 else ():
        if "no scalars" not in fault.what:
            found[0].notes.append(f"{fault.where} was left out: {fault.what}.")
    return found


def read_events(path: Path) -> Log:
    """One event file → its Log, named after its folder.

    Raises LogError where the file cannot be read, is empty, no event file, or without scalars.
    """
    return read_event_folder([path])


def read_event_folder(files: list[Path]) -> Log:
    """The event files of one run folder → one Log; the rows stand in the order of the files' times.

    A file that cannot be read is left out with a note while another one can.
    Raises LogError where none can be read, or where none holds scalars.
    """
    assert files
    opened: list[tuple[float, str, _File]] = []
    faults: list[LogError] = []
    for path in files:
        try:
            file = _File.opened(path)
        except LogError as error:
            faults.append(error)
        else:
            opened.append((file.wall_time(), path.name, file))
    if not opened:
        raise faults[0]
    folder = files[0].absolute().parent
    log = Log(name=folder.name or files[0].name, format=FORMAT)
    log.notes += [f"{Path(fault.where).name} was left out: {fault.what}." for fault in faults]
    decoder = _Decoder(log)
    for _, _, file in sorted(opened, key=lambda one: one[:2]):
        decoder.read(file)
    decoder.finish()
    if not log.columns:
        raise LogError(
            "no scalars are logged in it" + (f" ({log.notes[0]})" if log.notes else ""),
            where=str(files[0] if len(files) == 1 else folder),
            way_out="Give the event file of the training itself; images, histograms, texts and "
            "graphs hold no curve.",
        )
    return log


def _join_parts(logs: Mapping[Path, Log], root: Path) -> dict[Path, Log]:
    """Logs by folder → the same, parts of a run joined to the Log of the folder above them."""
    runs: dict[Path, Log] = {}
    for folder, log in sorted(logs.items()):
        prefix = None
        if folder == root:
            pass
        elif folder.name.lower() in PARTS:
            prefix = {tag: f"{folder.name}/{tag}" for tag in log.columns}
        elif folder.parent in logs:
            # add_scalars("loss", {"held out": …}) makes the folder `loss_held out`, tag `loss`.
            heads = {tag: tag.replace("/", "_") + "_" for tag in log.columns}
            if all(folder.name.startswith(head) for head in heads.values()):
                prefix = {tag: f"{tag}/{folder.name[len(heads[tag]) :]}" for tag in log.columns}
        if prefix is None:
            at, prefix = folder, {}
        else:
            at = folder.parent
        append(runs.setdefault(at, Log(name=at.absolute().name, format=FORMAT)), log, prefix)
    return runs


def append(log: Log, more: Log, renamed: Mapping[str, str] | None = None) -> None:
    """Two logs of one run → the rows of the second after those of the first, in the first."""
    for name, column in more.columns.items():
        into = log.columns.setdefault((renamed or {}).get(name, name), Column())
        into.rows += [row + log.rows for row in column.rows]
        into.values += column.values
    log.steps.update((row + log.rows, step) for row, step in more.steps.items())
    log.rows += more.rows
    log.facts |= more.facts
    log.notes += [note for note in more.notes if note not in log.notes]


# ── records ────────────────────────────────────────────────────────────────────────────────


class _File(NamedTuple):
    """An event file's bytes after `CHUNK` zeros, and where the data of its sound records stand."""

    data: bytes
    starts: list[int]
    lengths: list[int]
    note: str

    @classmethod
    def opened(cls, path: Path) -> _File:
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


# ── protocol buffers ───────────────────────────────────────────────────────────────────────


def fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int]]:
    """An encoded message → (field number, a, b) of each of its fields.

    A varint is `a`, and `b` is −1; all other fields are the bytes from `a` to `b`.
    Raises ValueError where the bytes are no message (protobuf.dev, "Encoding").

    >>> list(fields(b"\\x08\\x96\\x01\\x12\\x02hi"))
    [(1, 150, -1), (2, 5, 7)]
    """
    at = start
    end = len(data) if end is None else end
    while at < end:
        key, at = _varint(data, at, end)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at, end)
            yield number, value, -1
            continue
        if kind == 2:
            size, at = _varint(data, at, end)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > end:
            raise ValueError("a field is longer than its message")
        yield number, at, at + size
        at += size


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number is cut off")


def flattened(value: Any, head: str = "") -> dict[str, Any]:
    """Nested settings → one level of them, names joined by `/`; lists and empty names are left out.

    >>> flattened({"model": {"vocab_size": 99}, "betas": [0.9, 0.95], "lr": None})
    {'model/vocab_size': 99}
    """
    if not isinstance(value, Mapping):
        return {head: value} if head and isinstance(value, str | int | float | bool) else {}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= flattened(inner, f"{head}/{key}" if head else str(key))
    return flat


# ── events ─────────────────────────────────────────────────────────────────────────────────


class _Decoder:
    """Event files, one after the other → the columns of a Log.

    Most events differ from an earlier one in time, step and value alone. What stands around the
    value is remembered, so that such an event costs one look into a dictionary.
    """

    def __init__(self, log: Log) -> None:
        self.log = log
        self.steps: list[int] = []
        self.plugins: dict[str, str] = {}
        self.places: dict[int, int] = {}
        """Bytes after the step → where the four bytes of the value stand in them."""
        self.around: dict[bytes, Column] = {}
        """The bytes around the value → the column it belongs to."""

    def read(self, file: _File) -> None:
        """Append the scalars of a file as rows."""
        data, steps, places, around = file.data, self.steps, self.places, self.around
        value_at = _single.unpack_from
        broken = 0
        for start, length in zip(file.starts, file.lengths, strict=True):
            end = start + length
            at, step = end, 0
            # 9: the time, a double; 16: the step, a varint.
            if length > 14 and data[start] == 9:
                at = start + 9
                if data[at] == 16:
                    shift, at = 0, at + 1
                    while at < end and (byte := data[at]) > 127:
                        step |= (byte & 127) << shift
                        shift += 7
                        at += 1
                    step |= data[at] << shift
                    at += 1
                    step = step if step < 1 << 63 else step - (1 << 64)
                place = places.get(end - at)
                if place is not None:
                    place += at
                    column = around.get(data[at:place] + data[place + 4 : end])
                    if column is not None:
                        column.rows.append(len(steps))
                        column.values.append(value_at(data, place)[0])
                        steps.append(step)
                        continue
            try:
                self._event(data, start, end, at, step)
            except ValueError:
                broken += 1
        if file.note:
            self.log.notes.append(file.note)
        if broken:
            self.log.notes.append(f"{broken:,} records are no events; they were left out.")

    def finish(self) -> None:
        """Give the Log its rows; to be called once."""
        self.log.rows = len(self.steps)
        self.log.steps = dict(enumerate(map(float, self.steps)))
        columns = self.log.columns
        self.log.columns = {tag: column for tag, column in columns.items() if column.rows}

    def _event(self, data: bytes, start: int, end: int, body: int, expected: int) -> None:
        """Append one event; its step, `expected`, seemed to end at `body`."""
        step = 0
        summary = None
        for number, a, b in fields(data, start, end):
            if number == 2 and b < 0:
                step = a if a < 1 << 63 else a - (1 << 64)
            elif number == 5 and b >= 0:
                summary = a, b
        if summary is None:
            return
        values = [
            found
            for number, a, b in fields(data, *summary)
            if number == 1 and b >= 0 and (found := self._value(data, a, b)) is not None
        ]
        if not values:
            return
        for tag, value, place in values:
            column = self.log.columns.setdefault(tag, Column())
            if column.rows and column.rows[-1] == len(self.steps):
                continue
            column.rows.append(len(self.steps))
            column.values.append(value)
            if len(values) == 1 and place >= body and summary[1] == end and step == expected:
                self.places[end - body] = place - body
                self.around[data[body:place] + data[place + 4 : end]] = column
        self.steps.append(step)

    def _value(self, data: bytes, start: int, end: int) -> tuple[str, float, int] | None:
        """A `Summary.Value` → tag, scalar and where its four bytes stand (−1: not in four); None
        where it is no scalar. A text that holds JSON becomes facts."""
        tag, value, place = "", None, -1
        tensor = None
        for number, a, b in fields(data, start, end):
            if b < 0:
                continue
            if number == 1:
                tag = data[a:b].decode("utf-8", "replace")
            elif number == 2 and b - a == 4:
                value, place = _single.unpack_from(data, a)[0], a
            elif number == 8:
                tensor = a, b
            elif number == 9:
                plugin = _plugin(data, a, b)
                if plugin:
                    self.plugins.setdefault(tag, plugin)
        if tensor is not None:
            plugin = self.plugins.get(tag, "scalars")
            if plugin == "scalars":
                value, place = _scalar(data, *tensor)
            elif plugin == "text":
                self._text(tag, data, *tensor)
        return None if value is None else (tag, value, place)

    def _text(self, tag: str, data: bytes, start: int, end: int) -> None:
        """Trainers write their settings as a text of JSON: `args`, `model_config`."""
        for number, a, b in fields(data, start, end):
            if number == 8 and b >= 0:
                try:
                    settings = json.loads(data[a:b])
                except (ValueError, RecursionError):
                    continue
                if isinstance(settings, dict):
                    self.log.facts |= flattened(settings, tag.removesuffix("/text_summary"))


def _plugin(data: bytes, start: int, end: int) -> str:
    """A `SummaryMetadata` → the name of its plugin, or nothing."""
    for number, a, b in fields(data, start, end):
        if number == 1 and b >= 0:
            for inner, c, d in fields(data, a, b):
                if inner == 1 and d >= 0:
                    return data[c:d].decode("utf-8", "replace")
    return ""


def _scalar(data: bytes, start: int, end: int) -> tuple[float | None, int]:
    """A `TensorProto` → its only number, and where its four bytes stand (−1: not in four)."""
    kind = 0
    content = None
    for number, a, b in fields(data, start, end):
        if number == 1 and b < 0:
            kind = a
        elif number in (4, 5, 6) and b > a:
            if content is not None:
                return None, -1
            content = a, b
        elif number == 13 and b > a:  # 16 bits, as varints
            return _half(kind, _varint(data, a, b)[0]), -1
    if content is None:
        return None, -1
    a, b = content
    if kind == _FLOAT and b - a == 4:
        return float(_single.unpack_from(data, a)[0]), a
    if kind == _DOUBLE and b - a == 8:
        return float(struct.unpack_from("<d", data, a)[0]), -1
    if kind in (_HALF, _BFLOAT) and b - a == 2:
        return _half(kind, int.from_bytes(data[a:b], "little")), -1
    return None, -1


def _half(kind: int, bits: int) -> float | None:
    if kind == _HALF:
        return float(struct.unpack("<e", struct.pack("<H", bits & 0xFFFF))[0])
    if kind == _BFLOAT:
        return float(_single.unpack(struct.pack("<I", (bits & 0xFFFF) << 16))[0])
    return None
