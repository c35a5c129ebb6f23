"""Stores of experiments: what is read from bytes built by hand, and from the real libraries' files.

The libraries are not needed: where one is not installed, the test of its real output is skipped.
"""

from __future__ import annotations

import json
import math
import sqlite3
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from wellfit.diagnosis.importers import mlflow, neptune, tensorboard, tfrecord, trackio, wandb
from wellfit.diagnosis.importers.assemble import assemble
from wellfit.diagnosis.importers.log import Log
from wellfit.errors import LogError

LOSSES = [4.0 - 0.01 * i for i in range(100)]
LOSSES[50], LOSSES[60], LOSSES[61] = math.nan, math.inf, -math.inf


def same(found: Sequence[float], wanted: Sequence[float], digits: float = 1e-6) -> bool:
    return len(found) == len(wanted) and all(
        a == b or abs(a - b) < digits or (math.isnan(a) and math.isnan(b))
        for a, b in zip(found, wanted, strict=True)
    )


def points(log: Log, name: str) -> list[tuple[float, float]]:
    """A column → its (step, value) pairs."""
    column = log.columns[name]
    return [(log.steps[row], value) for row, value in zip(column.rows, column.values, strict=True)]


def needs(*libraries: str) -> pytest.MarkDecorator:
    absent = [name for name in libraries if find_spec(name) is None]
    return pytest.mark.skipif(
        bool(absent), reason=f"not installed, so nothing real to read: {', '.join(absent)}"
    )


def written(folder: Path, script: str) -> None:
    """Run a script of a real library in a folder, away from this process."""
    head = f"import math\nlosses = {LOSSES!r}\n".replace("nan", "math.nan").replace(
        "inf", "math.inf"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", head + script],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def refused(read: Callable[[Path], Any], path: Path) -> LogError:
    with pytest.raises(LogError) as caught:
        read(path)
    assert caught.value.where and caught.value.way_out.endswith(".")
    return caught.value


# ── a protocol buffer encoder ──────────────────────────────────────────────────────────────


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def whole(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def text(number: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def double(number: int, value: float) -> bytes:
    return varint(number << 3 | 1) + struct.pack("<d", value)


def single(number: int, value: float) -> bytes:
    return varint(number << 3 | 5) + struct.pack("<f", value)


# ── TensorBoard ────────────────────────────────────────────────────────────────────────────


def crc32c(data: bytes) -> int:
    """Bit by bit, as slow as it is plain."""
    state = 0xFFFFFFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    state = crc32c(data)
    return struct.pack("<I", ((state >> 15 | state << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(data: bytes) -> bytes:
    head = struct.pack("<Q", len(data))
    return head + masked(head) + data + masked(data)


def event(step: int, *values: bytes, wall: float = 1000.0) -> bytes:
    summary = b"".join(text(1, value) for value in values)
    body = text(5, summary) if values else text(3, "brain.Event:2")
    return record(double(1, wall) + (whole(2, step) if step else b"") + body)


def scalar(tag: str, value: float) -> bytes:
    return text(1, tag) + single(2, value)


def plugin(name: str) -> bytes:
    return text(9, text(1, text(1, name)))


def tensor(tag: str, kind: int, body: bytes, name: str = "scalars") -> bytes:
    return text(1, tag) + text(8, whole(1, kind) + body) + (plugin(name) if name else b"")


def events(path: Path, pairs: Iterable[tuple[int, float]], tag: str = "train/loss", **at: float):
    path.parent.mkdir(parents=True, exist_ok=True)
    body = b"".join(event(step, scalar(tag, value), **at) for step, value in pairs)
    path.write_bytes(event(0, **at) + body)
    return path


def test_scalars_of_an_event_file(tmp_path: Path) -> None:
    """Plain scalars as torch writes them: step 0 left out, large and negative steps, NaN and inf.

    Fails when the shortcut for repeated events takes the value four bytes too early, and when it
    moves the bytes of a step by eight bits instead of seven.
    """
    pairs = [(-3, 2.0), *((i * 1000, value) for i, value in enumerate(LOSSES)), (2**40, 1.0)]
    path = events(tmp_path / "run" / "events.out.tfevents.1.host", pairs)
    assert tensorboard.looks_like_events(path) and tensorboard.looks_like_tensorboard(path)
    log = tensorboard.read_events(path)
    assert (log.name, log.format, log.notes) == ("run", "TensorBoard events", [])
    found = points(log, "train/loss")
    assert [step for step, _ in found] == [step for step, _ in pairs]
    assert same([value for _, value in found], [value for _, value in pairs])
    history = assemble(log)
    assert history.train_loss.steps[1] == 1000 and math.isnan(history.train_loss.values[50])


def test_other_scalars_and_what_is_none(tmp_path: Path) -> None:
    """Tensors of every width, merged summaries, metadata given once; texts of JSON become facts.

    Fails when the plugin of a tag is not remembered, when `tensor_content` is not read, or when
    two values of one event become two rows.
    """
    bits = struct.unpack("<H", struct.pack("<e", 2.5))[0]
    histogram = text(1, "weights") + text(5, double(1, 0.0) + text(6, bytes(80)))
    settings = json.dumps({"max_steps": 9, "model": {"vocab_size": 99}, "betas": [1]})
    two = scalar("lr", 0.5), scalar("loss", 3.0)
    data = [
        event(0),
        event(1, tensor("content", 1, text(4, struct.pack("<f", 1.5)))),
        event(2, tensor("content", 1, text(4, struct.pack("<f", 2.5)), "")),
        event(3, tensor("packed", 1, text(5, struct.pack("<f", 3.5)))),
        event(4, tensor("double", 2, text(6, struct.pack("<d", 4.5)))),
        event(5, tensor("half", 19, text(13, varint(bits)))),
        event(5, tensor("bfloat", 14, text(4, b"\x20\x40"))),
        event(6, tensor("matrix", 1, text(4, bytes(36)), "")),
        event(6, tensor("histogram", 1, text(4, struct.pack("<f", 1.0)), "histograms")),
        event(6, tensor("histogram", 1, text(4, struct.pack("<f", 1.0)), "")),
        event(7, histogram),
        event(8, tensor("args/text_summary", 7, text(8, settings), "text")),
        event(9, *two),
    ]
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(b"".join(data))
    log = tensorboard.read_events(path)
    assert {tag: column.values for tag, column in log.columns.items()} == {
        "content": [1.5, 2.5], "packed": [3.5], "double": [4.5], "half": [2.5], "bfloat": [2.5],
        "lr": [0.5], "loss": [3.0],
    }  # fmt: skip
    assert log.columns["lr"].rows == log.columns["loss"].rows and log.steps[log.rows - 1] == 9
    assert log.facts == {"args/max_steps": 9, "args/model/vocab_size": 99}


def test_checksums_of_every_length() -> None:
    """The checksums of all slices at once are those of the plain definition.

    Fails when the initial state is left out, and when a slice longer than one chunk is not joined.
    """
    import numpy as np

    assert crc32c(b"123456789") == 0xE3069283  # RFC 3720 names this one
    generator = np.random.default_rng(1)
    lengths = [0, 1, 3, 4, 5, 15, 16, 17, 64, 1023, 1024, 1025, 2048, 3000]
    parts = [generator.bytes(length) for length in lengths]
    raw = np.frombuffer(bytes(tfrecord.CHUNK) + b"".join(parts), np.uint8)
    starts = tfrecord.CHUNK + np.cumsum([0, *lengths[:-1]])
    found = tfrecord._checksums(raw, starts, np.array(lengths))
    assert found.tolist() == [crc32c(part) for part in parts]


def test_torn_and_damaged_event_files(tmp_path: Path) -> None:
    """A torn end is left out with a note; so is all that follows a damaged record.

    Fails when the checksum of the data, or that of the length, is not compared.
    """
    path = events(tmp_path / "events.out.tfevents.1", enumerate(LOSSES[:40]))
    whole_file = path.read_bytes()
    size = len(event(20, scalar("train/loss", 1.0)))
    path.write_bytes(whole_file[:-7])
    log = tensorboard.read_events(path)
    assert len(log.columns["train/loss"].rows) == 39
    assert log.notes == [
        f"events.out.tfevents.1: the last record is torn; its {size - 7} bytes were left out."
    ]
    path.write_bytes(whole_file[:-size] + b"abc")
    assert "torn; its 3 bytes" in tensorboard.read_events(path).notes[0]
    broken = bytearray(whole_file)
    broken[-10 * size - 8] ^= 1  # in the value of record 31, counted with the version
    path.write_bytes(broken)
    log = tensorboard.read_events(path)
    assert len(log.columns["train/loss"].rows) == 29
    assert (
        f"the checksum of record 31, at byte {len(broken) - 11 * size:,}, is wrong"
        in (log.notes[0])
    )
    assert f"from there on {11 * size:,} bytes were left out" in log.notes[0]
    broken = bytearray(whole_file)
    broken[-10 * size + 1] ^= 1  # in a length
    path.write_bytes(broken)
    log = tensorboard.read_events(path)
    assert len(log.columns["train/loss"].rows) == 30
    assert "record 32, at byte" in log.notes[0] and "is damaged" in log.notes[0]


def test_a_resumed_run_of_several_event_files(tmp_path: Path) -> None:
    """Files of a folder follow each other by the time of their first event; the later one wins.

    Fails when they are sorted by name.
    """
    first = events(tmp_path / "z.tfevents", [(s, 3.0) for s in range(0, 60, 10)], wall=100.0)
    later = events(tmp_path / "a.tfevents", [(s, 2.0) for s in range(30, 90, 10)], wall=200.0)
    (tmp_path / "empty.tfevents").touch()
    log = tensorboard.read_event_folder([later, first, tmp_path / "empty.tfevents"])
    assert points(log, "train/loss")[5:8] == [(50, 3.0), (30, 2.0), (40, 2.0)]
    assert log.notes == ["empty.tfevents was left out: the file is empty."]
    history = assemble(log)
    assert history.train_loss.steps == tuple(range(0, 90, 10))
    assert history.train_loss.values == (3.0,) * 3 + (2.0,) * 6 and history.superseded == 3
    assert tensorboard.read_tensorboard(tmp_path)[0].columns == log.columns


def test_folders_of_runs_and_parts(tmp_path: Path) -> None:
    """Runs are told from their parts: Keras' folders, `add_scalars`, `add_hparams`.

    Fails when the folder's name is not put in front of the tags.
    """
    name = "events.out.tfevents.1"
    keras = tmp_path / "keras"
    events(keras / "train" / name, [(0, 3.0)], "epoch_loss")
    events(keras / "validation" / name, [(0, 3.5)], "epoch_loss")
    torch = tmp_path / "torch"
    events(torch / name, [(0, 1.0)], "lr")
    events(torch / "a_loss_held out" / name, [(0, 2.0)], "a/loss")
    events(torch / "1700000000.5" / name, [(0, 9.0)], "hparam/loss")
    events(tmp_path / "pictures" / name, [])
    logs = {log.name: log for log in tensorboard.read_tensorboard(tmp_path)}
    assert set(logs) == {"keras", "torch"}
    assert set(logs["keras"].columns) == {"train/epoch_loss", "validation/epoch_loss"}
    assert set(logs["torch"].columns) == {"lr", "a/loss/held out"}
    history = assemble(logs["keras"])
    assert history.train_loss.values == (3.0,) and history.validation_loss["validation"].values
    assert [log.name for log in tensorboard.read_tensorboard(keras)] == ["keras"]
    assert [log.name for log in tensorboard.read_tensorboard(keras / "train")] == ["train"]
    looks = tensorboard.looks_like_tensorboard
    assert looks(keras) and looks(torch) and not looks(tmp_path) and not looks(tmp_path / "no")


def test_errors_of_event_files(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1"
    read = tensorboard.read_tensorboard
    assert "cannot be read (No such file" in refused(read, path).what
    path.touch()
    assert refused(read, path).what == "the file is empty"
    path.write_bytes(b"step,loss\n" * 20)
    assert "no event file of TensorBoard" in refused(read, path).what
    path.write_bytes(event(0) + event(1, tensor("t", 7, text(8, "hello"), "text")))
    assert refused(read, path).what == "no scalars are logged in it"
    assert "no scalars" in refused(read, tmp_path).what
    path.unlink()
    assert "no event file is in this folder" in refused(read, tmp_path).what


def test_many_events_are_read_quickly(tmp_path: Path) -> None:
    """100,000 points in well under a second each; the bound is loose for a busy machine."""
    block = b"".join(event(s, scalar("loss", 1.0)) for s in range(1000, 3000))
    path = tmp_path / "events.out.tfevents.1"
    path.write_bytes(block * 50)
    begin = time.perf_counter()
    log = tensorboard.read_events(path)
    assert time.perf_counter() - begin < 5 and log.rows == 100_000


@needs("tensorboard")
def test_real_tensorboard(tmp_path: Path) -> None:
    """Verified with tensorboard 2.21.0."""
    written(
        tmp_path,
        """
import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary
from tensorboard.plugins.scalar import metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto
about = metadata.create_summary_metadata(display_name=None, description=None)
writer = EventFileWriter("run")
for i, loss in enumerate(losses):
    for value in (
        dict(tag="train/loss", simple_value=loss),
        dict(tag="eval/loss", tensor=make_tensor_proto(np.float32(loss)), metadata=about),
        dict(tag="h", histo=HistogramProto(bucket=[1.0] * 500, bucket_limit=range(500))),
    ):
        summary = Summary()
        summary.value.add(**value)
        writer.add_event(Event(wall_time=1e9 + i, step=10 * i, summary=summary))
writer.close()
""",
    )
    (log,) = tensorboard.read_tensorboard(tmp_path / "run")
    assert set(log.columns) == {"train/loss", "eval/loss"} and log.notes == []
    for column in log.columns.values():
        assert same(column.values, LOSSES)
    assert [step for step, _ in points(log, "eval/loss")] == [10.0 * i for i in range(100)]


# ── W&B ────────────────────────────────────────────────────────────────────────────────────


def framed(records: Iterable[bytes]) -> bytes:
    """Records → a `.wandb`: a header, then LevelDB's blocks of 32 KiB."""
    out = bytearray(b":W&B\xe1\xbe\x00")
    for one in records:
        first = True
        while True:
            room = 32768 - len(out) % 32768
            if room < 7:
                out += bytes(room)
                continue
            part, one = one[: room - 7], one[room - 7 :]
            kind = bytes([(1 if not one else 2) if first else (3 if one else 4)])
            out += struct.pack("<IH", zlib.crc32(kind + part), len(part)) + kind + part
            first = False
            if not one:
                break
    return bytes(out)


def item(key: str | Sequence[str], value: Any) -> bytes:
    keys = text(1, key) if isinstance(key, str) else b"".join(text(2, part) for part in key)
    return text(1, keys + text(16, json.dumps(value)))


def history_record(step: int, **values: Any) -> bytes:
    body = b"".join(item(key, value) for key, value in values.items())
    return whole(1, step + 1) + text(2, body + text(2, whole(1, step)))


RUN = text(17, text(1, "abc") + text(4, item("lr", 0.1) + item("_wandb", {})) + text(8, "brisk-1"))


def wandb_run(folder: Path, records: Iterable[bytes], name: str = "run-20240101_1-abc") -> Path:
    path = folder / name / f"run-{name.rpartition('-')[2]}.wandb"
    path.parent.mkdir(parents=True)
    path.write_bytes(framed(records))
    return path


def test_a_wandb_file(tmp_path: Path) -> None:
    """History, settings, name and end; nested keys, typed fields, records over several blocks.

    Fails when the header's seven bytes are not counted into the first block, and when typed
    fields are passed over.
    """
    typed = text(1, text(2, "a") + text(2, "b") + whole(5, -7)) + text(
        1, text(1, "d") + double(6, 2.5)
    )
    records = [
        RUN,
        text(5, item("max_steps", 100)),
        *(history_record(i, loss=value, note="x") for i, value in enumerate(LOSSES)),
        text(2, typed + item("long", "y" * 100_000) + item("hist", {"_type": "histogram", "n": 1})
             + item("t", {"deep": {"v": 3}}) + item(["q"], True) + item("_step", 100)),
        text(18, whole(1, 0)),
    ]  # fmt: skip
    path = wandb_run(tmp_path, records)
    for log in (wandb.read_wandb_file(path), wandb.read_run_folder(path.parent)):
        assert (log.name, log.format, log.status) == ("brisk-1", "W&B run", "finished")
        assert same(log.columns["loss"].values, LOSSES) and log.notes == []
        others = {k: (c.rows, c.values) for k, c in log.columns.items() if k != "loss"}
        assert others == {"a.b": ([100], [-7.0]), "d": ([100], [2.5]), "t.deep.v": ([100], [3.0])}
        assert log.steps[99] == 99 and log.steps[100] == 100
        assert log.facts == {"lr": 0.1, "max_steps": 100}
    assert wandb.looks_like_wandb(path) and wandb.looks_like_wandb(path.parent)
    assert wandb.looks_like_wandb(tmp_path) and not wandb.looks_like_wandb(tmp_path.parent)
    path.write_bytes(framed([*records[:-1], text(18, whole(1, 255))]))
    assert wandb.read_wandb_file(path).status == "failed"


def test_a_truncated_wandb_file(tmp_path: Path) -> None:
    """What stands before the cut is read, with a note; so is what stands before damage.

    Fails when checksums are not compared.
    """
    records = [RUN, *(history_record(i, loss=float(i)) for i in range(3000))]
    summary = text(3, item("_step", 2999))
    path = wandb_run(tmp_path, [*records, summary])
    data = path.read_bytes()
    assert wandb.read_wandb_file(path).notes == []
    path.write_bytes(data[:-60])
    log = wandb.read_wandb_file(path)
    assert 2990 < log.rows < 3000 and log.status == "unknown"
    assert "cut off in its last record" in log.notes[0]
    path.write_bytes(data + bytes(5000))
    assert wandb.read_wandb_file(path).rows == 3000
    broken = bytearray(data)
    broken[50_000] ^= 1
    path.write_bytes(broken)
    log = wandb.read_wandb_file(path)
    assert 500 < log.rows < 2000 and "The file is damaged at byte" in log.notes[0]
    (path.parent / "files").mkdir()
    (path.parent / "files" / "wandb-summary.json").write_text('{"_step": 2999}')
    log = wandb.read_run_folder(path.parent)
    assert "The summary ends at step 2,999, the history at" in log.notes[1]


def test_wandb_folders(tmp_path: Path) -> None:
    """Attempts of one run are joined, runs kept apart; old folders hold lines of JSON.

    Fails when folders of one run id are not joined.
    """
    store = tmp_path / "wandb"
    wandb_run(store, [RUN, *(history_record(i, loss=3.0) for i in range(6))])
    again = [RUN, *(history_record(i, loss=2.0) for i in range(3, 9)), text(18, whole(1, 0))]
    wandb_run(store, again, "offline-run-20240102_1-abc")
    wandb_run(store, [text(17, text(1, "nothing"))], "run-20240103_1-non")
    old = store / "run-20200101_1-old" / "files"
    old.mkdir(parents=True)
    lines = ['{"_step": 0, "loss": 2.5, "_runtime": 3}', '{"_step": 1, "loss": NaN}', '{"_st']
    (old / "wandb-history.jsonl").write_text("\n".join(lines))
    (old / "config.yaml").write_text(
        "wandb_version: 1\n_wandb:\n  value: {a: 1}\nlr:\n  desc: null\n  value: 1e-4\n"
    )
    for place in (store, tmp_path):
        first, second = wandb.read_wandb(place)
        assert first.name == "old" and same(first.columns["loss"].values, [2.5, math.nan])
        assert first.facts == {"lr": "1e-4"} and list(first.columns) == ["loss"]
        assert first.notes == [
            "wandb-history.jsonl: 1 lines are no JSON objects; they were left out."
        ]
        assert second.rows == 12 and second.status == "finished"
        assert assemble(second).train_loss.values == (3.0,) * 3 + (2.0,) * 6
    (old / "config.yaml").write_text("a: [")
    assert "config.yaml could not be read" in wandb.read_run_folder(old.parent).notes[1]


def test_wandb_exports(tmp_path: Path) -> None:
    """The header of an exported chart → its runs; exported JSON → a Log.

    Fails when the bounds stay, and when a run's name is cut at its first ` - `.
    """
    header = ["Step", "a - b - train/loss", "a - b - train/loss__MIN", "a - b - train/loss__MAX",
              "c - _step", "c - _step__MIN", "c - _step__MAX", "c - eval/loss", ""]  # fmt: skip
    assert wandb.export_runs(header) == {
        "a - b": {"Step": "Step", "a - b - train/loss": "train/loss"},
        "c": {"Step": "Step", "c - eval/loss": "eval/loss"},
    }
    found = wandb.export_runs(["epoch", "r - _step", "r - _step__MIN", "r - _step__MAX"])
    assert found == {"r": {"epoch": "epoch", "r - _step": "_step"}}
    assert wandb.export_runs(["Step", "r - loss"]) is not None
    for no in (["step", "r - loss"], ["Step", "loss"], ["Step"], [], ["a - b", "c - d"]):
        assert wandb.export_runs(no) is None
    rows = [{"_step": i, "_runtime": 2.0, "loss": "NaN" if i == 1 else 3.0} for i in range(3)]
    assert wandb.looks_like_export(rows) and not wandb.looks_like_export([{"step": 1}])
    log = wandb.from_export(rows, tmp_path / "history.json")
    assert same(log.columns["loss"].values, [3.0, math.nan, 3.0]) and list(log.columns) == ["loss"]
    assert "no numbers" in refused(lambda p: wandb.from_export([{"_step": 1}], p), tmp_path).what


def test_errors_of_wandb(tmp_path: Path) -> None:
    path = tmp_path / "run-abc.wandb"
    read = wandb.read_wandb
    assert "cannot be read (No such file" in refused(read, path).what
    path.touch()
    assert refused(read, path).what == "the file is empty"
    path.write_bytes(b"step,loss\n1,2\n")
    assert "no .wandb file" in refused(read, path).what
    path.write_bytes(framed([RUN]))
    assert refused(read, path).what == "no numbers are logged in it"
    path.write_bytes(framed([RUN, RUN])[:-3])
    assert "no numbers are logged in it (The file is cut off" in refused(read, path).what
    assert refused(read, tmp_path).where == str(path)
    path.unlink()
    assert "no run of W&B is in this folder" in refused(read, tmp_path).what
    assert "neither a run-ID.wandb" in refused(wandb.read_run_folder, tmp_path).what


@needs("wandb")
def test_real_wandb(tmp_path: Path) -> None:
    """Verified with wandb 0.31.0, offline."""
    written(
        tmp_path,
        """
import wandb
settings = wandb.Settings(mode="offline", silent=True)
config = {"max_steps": 99, "m": {"vocab_size": 7}}
with wandb.init(project="p", name="brisk", dir=".", config=config, settings=settings) as run:
    for i, loss in enumerate(losses):
        run.log({"train/loss": loss, "train/global_step": 5 * i, "n": {"v": i}, "note": "x"})
    run.log({"long": "y" * 100000, "h": wandb.Histogram([1, 2, 3])})
""",
    )
    (log,) = wandb.read_wandb(tmp_path)
    assert (log.name, log.status, log.notes) == ("brisk", "finished", [])
    assert same(log.columns["train/loss"].values, LOSSES)
    assert set(log.columns) == {"train/loss", "train/global_step", "n.v"}
    assert log.facts == {"max_steps": 99, "m/vocab_size": 7}
    assert assemble(log).train_loss.steps[:3] == (0, 5, 10)


# ── MLflow ─────────────────────────────────────────────────────────────────────────────────


def mlflow_database(path: Path, metrics: int = 100) -> sqlite3.Connection:
    database = sqlite3.connect(path)
    database.executescript("""
        CREATE TABLE experiments (experiment_id INTEGER, name TEXT);
        CREATE TABLE runs (run_uuid TEXT, name TEXT, status TEXT, start_time BIGINT,
                           lifecycle_stage TEXT);
        CREATE TABLE metrics (key TEXT, value FLOAT, timestamp BIGINT, run_uuid TEXT, step BIGINT,
                              is_nan BOOLEAN, PRIMARY KEY (key, timestamp, step, run_uuid));
        CREATE TABLE params (key TEXT, value TEXT, run_uuid TEXT);
        CREATE TABLE tags (key TEXT, value TEXT, run_uuid TEXT);
        INSERT INTO runs VALUES ('r2', 'second', 'FAILED', 2, 'active'),
            ('r1', '', 'FINISHED', 1, 'active'), ('r3', 'gone', 'FINISHED', 3, 'deleted'),
            ('r4', 'silent', 'RUNNING', 4, 'active');
        INSERT INTO params VALUES ('max_steps', '500', 'r1'), ('lr', '1e-4', 'r3');
        INSERT INTO tags VALUES ('mlflow.runName', 'first', 'r1'), ('mlflow.runName', 'no', 'r2');
        INSERT INTO metrics VALUES ('loss', 1.0, 5, 'r3', 0, 0), ('loss', 2.0, 5, 'r2', 0, 0);
    """)
    largest = 1.7976931348623157e308
    rows = [
        ("loss", 0.0 if math.isnan(v) else max(min(v, largest), -largest), i, "r1", 5 * i,
         math.isnan(v))
        for i, v in enumerate(LOSSES[:metrics])
    ]  # fmt: skip
    database.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", rows)
    database.commit()
    return database


def test_an_mlflow_database(tmp_path: Path) -> None:
    """A Log for each run that is not deleted and has metrics, the oldest first.

    Fails when `is_nan` is not looked at, when infinities are not put back, and when deleted runs
    are kept.
    """
    path = tmp_path / "mlflow.db"
    mlflow_database(path).close()
    assert mlflow.looks_like_mlflow(path) and not mlflow.looks_like_mlflow(tmp_path)
    before = path.read_bytes()
    for place in (path, tmp_path):
        first, second = mlflow.read_mlflow(place)
        assert (first.name, first.status, first.format) == ("first", "finished", "MLflow store")
        assert (second.name, second.status) == ("second", "failed")
        assert points(first, "loss")[1] == (5, 3.99) and same(first.columns["loss"].values, LOSSES)
        assert first.facts == {"max_steps": "500"} and second.facts == {}
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]
    assert path.read_bytes() == before


def test_a_database_in_use(tmp_path: Path) -> None:
    """What a writer has in its log is read, whether it lives or was killed; nothing is written.

    Fails when a killed writer's log is left out (`immutable`), and when opening leaves files.
    """
    path = tmp_path / "mlflow.db"
    writer = mlflow_database(path, 10)
    writer.execute("PRAGMA journal_mode = WAL")
    writer.close()
    assert len(mlflow.read_mlflow(path)[0].columns["loss"].rows) == 10
    assert [file.name for file in tmp_path.iterdir()] == ["mlflow.db"]
    writer = sqlite3.connect(path)
    writer.execute("INSERT INTO metrics VALUES ('loss', 1.5, 99, 'r1', 99, 0)")
    writer.commit()
    assert points(mlflow.read_mlflow(path)[0], "loss")[-1] == (99, 1.5)
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in ("mlflow.db", "mlflow.db-wal"):
        (killed / name).write_bytes((tmp_path / name).read_bytes())
    writer.close()
    assert points(mlflow.read_mlflow(killed)[0], "loss")[-1] == (99, 1.5)
    assert sorted(file.name for file in killed.iterdir()) == ["mlflow.db", "mlflow.db-wal"]


def test_errors_of_databases(tmp_path: Path) -> None:
    """Absent, empty, of another kind, foreign, without metrics, locked, damaged."""
    path = tmp_path / "mlflow.db"
    for read in (mlflow.read_mlflow, trackio.read_trackio):
        path.unlink(missing_ok=True)
        assert "cannot be read (No such file" in refused(read, path).what
        path.touch()
        assert refused(read, path).what == "the file is empty"
        path.write_bytes(b"step,loss\n" * 2000)
        assert refused(read, path).what == "this is no SQLite database"
        path.unlink()
        sqlite3.connect(path).execute("CREATE TABLE metrics (x)").connection.close()
        assert "this database is not" in refused(read, path).what
        assert not mlflow.looks_like_mlflow(path) and not trackio.looks_like_trackio(path)
        path.unlink()
        writer = mlflow_database(path)
        writer.execute("CREATE TABLE many AS SELECT m.*, n.key AS k FROM metrics m, metrics n")
        writer.commit()
        writer.execute("BEGIN EXCLUSIVE")
        assert "locked by a program" in refused(read, path).what
        writer.rollback()
        writer.close()
        data = bytearray(path.read_bytes())
        data[4096:] = b"\xff" * (len(data) - 4096)
        path.write_bytes(data)
        if read is mlflow.read_mlflow:
            assert refused(read, path).what == "the database is damaged"
    path.unlink()
    writer = mlflow_database(path)
    writer.execute("DELETE FROM metrics WHERE run_uuid <> 'r3'")
    writer.commit()
    assert refused(mlflow.read_mlflow, path).what == "none of its 3 runs has a metric"
    writer.execute("DELETE FROM runs")
    writer.commit()
    writer.close()
    assert refused(mlflow.read_mlflow, path).what == "no run is in it"
    path.unlink()
    assert "no run of MLflow" in refused(mlflow.read_mlflow, tmp_path).what
    assert "no project of Trackio" in refused(trackio.read_trackio, tmp_path).what


def mlflow_folder(root: Path, run: str, **meta: Any) -> Path:
    folder = root / "mlruns" / "1" / run
    for part in ("metrics/train", "params/model"):
        (folder / part).mkdir(parents=True)
    lines = [f"{1700 + i} {value!r} {i * 5}\n" for i, value in enumerate(LOSSES)]
    (folder / "metrics" / "train" / "loss").write_text("".join(lines) + "17")
    (folder / "params" / "model" / "vocab_size").write_text("99")
    (folder / "meta.yaml").write_text("".join(f"{key}: {value}\n" for key, value in meta.items()))
    return folder


def test_an_mlflow_folder(tmp_path: Path) -> None:
    """`mlruns` and each level of it; names with folders, torn lines, deleted runs.

    Fails when the lifecycle is not looked at.
    """
    folder = mlflow_folder(tmp_path, "b", run_name="late", status=3, start_time=2)
    mlflow_folder(tmp_path, "c", run_name="early", status=4, start_time=1)
    mlflow_folder(tmp_path, "a", run_name="gone", lifecycle_stage="deleted")
    (folder.parent / "meta.yaml").write_text("name: experiment\n")
    for place in (tmp_path, tmp_path / "mlruns", folder.parent):
        assert [log.name for log in mlflow.read_mlflow(place)] == ["early", "late"]
    (log,) = mlflow.read_mlflow(folder)
    assert (log.status, log.facts) == ("finished", {"model/vocab_size": "99"})
    assert same(log.columns["train/loss"].values, LOSSES) and points(log, "train/loss")[2][0] == 10
    assert log.notes == ["1 lines of the metric `train/loss` could not be read."]
    looks = mlflow.looks_like_mlflow
    assert looks(tmp_path / "mlruns") and looks(folder) and not looks(tmp_path)
    (folder / "meta.yaml").write_text("a: [")
    assert refused(mlflow.read_mlflow, folder).what == "this file is no YAML"


@needs("mlflow", "sqlalchemy", "alembic")
def test_real_mlflow(tmp_path: Path) -> None:
    """Verified with mlflow-skinny 3.17.2, SQLAlchemy 2.1.9 and alembic 1.20.1: both stores."""
    written(
        tmp_path,
        """
import os
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
import mlflow
for store in ("sqlite:///mlflow.db", "file:" + os.path.abspath("mlruns")):
    mlflow.set_tracking_uri(store)
    mlflow.set_experiment("exp")
    for name in ("kept", "gone"):
        with mlflow.start_run(run_name=name) as run:
            mlflow.log_params({"max_steps": 500, "model/vocab_size": 99})
            for i, loss in enumerate(losses):
                mlflow.log_metric("train/loss", loss, step=5 * i)
    mlflow.delete_run(run.info.run_id)
""",
    )
    for store in ("mlflow.db", "mlruns"):
        assert mlflow.looks_like_mlflow(tmp_path / store)
        (log,) = mlflow.read_mlflow(tmp_path / store)
        assert (log.name, log.status) == ("kept", "finished")
        assert log.facts == {"max_steps": "500", "model/vocab_size": "99"}
        assert same(log.columns["train/loss"].values, LOSSES)
        assert assemble(log).train_loss.steps[:3] == (0, 5, 10)


# ── Trackio ────────────────────────────────────────────────────────────────────────────────


def test_a_trackio_store(tmp_path: Path) -> None:
    """Runs by their id, or in older stores by their name; words for NaN and infinity.

    Fails when runs of one name are joined, and when objects with a `_type` are not left out.
    """
    path = tmp_path / "project.db"
    database = sqlite3.connect(path)
    for table, column in (("metrics", "step INTEGER, metrics TEXT"), ("configs", "config TEXT")):
        database.execute(
            f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, run_id TEXT, run_name TEXT, {column})"
        )
    rows = [
        ("1", "same", i, json.dumps({"loss": {math.inf: "Infinity", -math.inf: "-Infinity"}.get(
            v, "NaN" if math.isnan(v) else v), "n": {"v": 1}, "t": {"_type": "table", "x": 3}}))
        for i, v in enumerate(LOSSES)
    ] + [("2", "same", 0, '{"loss": 1.5}'), ("2", "same", 1, "{")]  # fmt: skip
    insert = "INSERT INTO metrics (run_id, run_name, step, metrics) VALUES (?, ?, ?, ?)"
    database.executemany(insert, rows)
    config = '{"max_steps": 9, "_Created": "today", "m": {"vocab_size": 5}}'
    database.execute("INSERT INTO configs VALUES (1, '1', 'same', ?)", (config,))
    database.commit()
    assert trackio.looks_like_trackio(path) and not mlflow.looks_like_mlflow(path)
    first, second = trackio.read_trackio(path)
    assert (first.name, first.format) == ("same", "Trackio store")
    assert same(first.columns["loss"].values, LOSSES) and set(first.columns) == {"loss", "n/v"}
    assert first.facts == {"max_steps": 9, "m/vocab_size": 5}
    assert second.notes == ["1 rows are no JSON objects; they were left out."]
    for table in ("metrics", "configs"):
        database.execute(f"ALTER TABLE {table} DROP COLUMN run_id")
    database.commit()
    (log,) = trackio.read_trackio(tmp_path)
    assert log.rows == 101 and log.facts["max_steps"] == 9
    database.execute("UPDATE metrics SET metrics = '{}'")
    database.commit()
    database.close()
    assert refused(trackio.read_trackio, tmp_path).what == "none of its 1 runs logged a number"


@needs("trackio")
def test_real_trackio(tmp_path: Path) -> None:
    """Verified with trackio 0.43.0."""
    written(
        tmp_path,
        """
import os
os.environ |= {"TRACKIO_DIR": os.path.abspath("store"), "HF_HUB_OFFLINE": "1"}
import trackio
for name in ("first", "second"):
    trackio.init(project="p", name=name, config={"max_steps": 99, "m": {"vocab_size": 7}})
    for i, loss in enumerate(losses):
        trackio.log({"train/loss": loss, "n": {"v": 1.0}}, step=5 * i)
    trackio.finish()
""",
    )
    first, second = trackio.read_trackio(tmp_path / "store")
    assert (first.name, second.name) == ("first", "second")
    assert same(first.columns["train/loss"].values, LOSSES) and second.rows == 100
    assert first.facts == {"max_steps": 99, "m/vocab_size": 7}
    assert assemble(first).train_loss.steps[:3] == (0, 5, 10)


# ── Neptune ────────────────────────────────────────────────────────────────────────────────


def neptune_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows → a Parquet file with the schema of neptune-exporter."""
    import pyarrow as pa
    from pyarrow import parquet

    when = pa.timestamp("ms", tz="UTC")
    schema = pa.schema(
        [("project_id", pa.string()), ("run_id", pa.string()), ("attribute_path", pa.string()),
         ("attribute_type", pa.string()), ("step", pa.decimal128(18, 6)), ("timestamp", when),
         ("int_value", pa.int64()), ("float_value", pa.float64()), ("string_value", pa.string()),
         ("bool_value", pa.bool_()), ("datetime_value", when),
         ("string_set_value", pa.list_(pa.string())),
         ("file_value", pa.struct([("path", pa.string())]))]
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression="snappy")
    return path


def neptune_row(run: str, path: str, kind: str, **values: Any) -> dict[str, Any]:
    row = {"project_id": "w/p", "run_id": run, "attribute_path": path, "attribute_type": kind}
    return row | values


def neptune_point(run: str, path: str, step: int, value: float | None) -> dict[str, Any]:
    return neptune_row(run, path, "float_series", step=Decimal(step), float_value=value)


def test_a_neptune_export(tmp_path: Path) -> None:
    """Parts of a run in the order of their numbers, settings by type, NaN written as null.

    Fails when the parts are sorted by name (10 before 2), and when null values are dropped.
    """
    folder = tmp_path / "data" / "w_p-123"
    for part in range(11):
        rows = [
            neptune_point("RUN-1", path, 10 * part + i, None if math.isnan(v) else v)
            for i, v in enumerate(LOSSES[10 * part : 10 * part + 10] or [1.0])
            for path in ("train/loss", "eval/loss")
        ]
        neptune_file(folder / f"RUN-1-abc_part_{part}.parquet", rows)
    neptune_file(
        folder / "RUN-2-abc_part_0.parquet",
        [
            neptune_row("RUN-2", "sys/name", "string", string_value="brisk"),
            neptune_row("RUN-2", "sys/failed", "bool", bool_value=True),
            neptune_row("RUN-2", "config/max_steps", "int", int_value=500),
            neptune_row("RUN-2", "config/lr", "float", float_value=0.1),
            neptune_row("RUN-2", "config/none", "float"),
            neptune_row("RUN-2", "note", "string_series", step=Decimal(1), string_value="x"),
            neptune_point("RUN-2", "loss", 3, 2.5),
        ],
    )
    neptune_file(folder / "RUN-3_part_0.parquet", [neptune_row("RUN-3", "a", "int", int_value=1)])
    for place in (folder, folder.parent, tmp_path):
        first, second = neptune.read_neptune(place)
        assert (first.name, first.format, first.status) == ("RUN-1", "Neptune export", "unknown")
        for name in ("train/loss", "eval/loss"):
            assert same(first.columns[name].values, [*LOSSES, 1.0])
            assert [step for step, _ in points(first, name)] == list(range(101))
        assert (second.name, second.status) == ("brisk (RUN-2)", "failed")
        assert points(second, "loss") == [(3, 2.5)]
        assert second.facts["config/max_steps"] == 500 and "config/none" not in second.facts
    looks = neptune.looks_like_neptune
    assert looks(folder) and not looks(tmp_path) and looks(next(folder.iterdir()))


def test_errors_of_neptune(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    path = tmp_path / "a_part_0.parquet"
    read = neptune.read_neptune
    assert "no Parquet file is in this folder" in refused(read, tmp_path).what
    assert "cannot be read" in refused(read, path).what
    path.touch()
    assert refused(read, path).what == "the file is empty"
    path.write_bytes(b"step,loss\n")
    assert refused(read, path).what == "this is no Parquet file, or a damaged one"
    assert not neptune.looks_like_neptune(path)
    parquet.write_table(pa.table({"run_id": ["a"], "text": ["b"]}), path)
    assert "it has no column `attribute_path`" in refused(read, path).what
    assert not neptune.looks_like_neptune(tmp_path)
    neptune_file(path, [neptune_row("RUN-3", "a", "int", int_value=1)])
    assert refused(read, path).what == "none of its 1 runs has a metric"
    neptune_file(path, [])
    assert refused(read, path).what == "no run is in it"


def test_many_points_of_each_store(tmp_path: Path) -> None:
    """100,000 points; the bounds are loose for a busy machine."""
    count = 100_000
    begin = time.perf_counter()
    path = wandb_run(tmp_path, [history_record(7, loss=2.5, lr=1e-3)] * (count // 2))
    writer = mlflow_database(tmp_path / "mlflow.db")
    writer.executemany(
        "INSERT INTO metrics VALUES ('n', 1.5, ?, 'r1', ?, 0)", ((i, i) for i in range(count))
    )
    writer.commit()
    writer.close()
    made = time.perf_counter()
    assert wandb.read_wandb_file(path).rows == count // 2
    assert len(mlflow.read_mlflow(tmp_path / "mlflow.db")[0].columns["n"].rows) == count
    assert time.perf_counter() - made < 10 and made > begin
