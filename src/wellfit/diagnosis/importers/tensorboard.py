"""TensorBoard event files → Logs: the scalars of a run, and the settings written beside them.

The format, as TensorFlow's `record_writer.h`, `event.proto`, `summary.proto` and `tensor.proto`
describe it: records of `length (8 bytes), its checksum (4), data, its checksum (4)`, the data a
protocol buffer `Event`. Both checksums are CRC-32C, masked, and both are verified.

    file ─▶ Records ─▶ _Decoder ─▶ Log

Images, histograms and graphs are passed over unread.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path

from wellfit.diagnosis.importers.log import Column, Log, append, flattened
from wellfit.diagnosis.importers.protobuf import fields, varint
from wellfit.diagnosis.importers.tfrecord import Records
from wellfit.errors import LogError

FORMAT = "TensorBoard events"
PARTS = ("train", "training", "validation", "valid", "val", "eval", "evaluation", "test", "dev")
"""Folders that Keras and Estimators make for the parts of one run."""
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
    opened: list[tuple[float, str, Records]] = []
    faults: list[LogError] = []
    for path in files:
        try:
            file = Records.opened(path)
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

    def read(self, file: Records) -> None:
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
            return _half(kind, varint(data, a, b)[0]), -1
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
