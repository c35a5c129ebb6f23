"""Weights & Biases run folders and exports → Logs, without an account and without its library.

A run folder, `wandb/run-TIME-ID/` or `wandb/offline-run-TIME-ID/`, holds `run-ID.wandb`: a header
of 7 bytes, then blocks of 32 KiB framed as in LevelDB's log format (leveldb `doc/log_format.md`;
the checksum is the plain CRC-32 of type and data), each record a protocol buffer `Record` of
`wandb_internal.proto`. Older folders hold `wandb-history.jsonl` instead.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from wellfit.diagnosis.importers.log import Log, append, flattened
from wellfit.diagnosis.importers.protobuf import fields
from wellfit.errors import LogError

FORMAT = "W&B run"
HISTORY = "wandb-history.jsonl"
BLOCK = 32_768
HEADER = b":W&B\xe1\xbe"
"""The first six bytes; the seventh is a version."""
AXES = ("Step", "Relative Time (Process)", "Relative Time (Wall)", "Wall Time")
"""First columns of an exported chart whose x axis was not a metric."""
WAY_OUT = "Give a run folder of `wandb/`, its run-ID.wandb, or the history exported as CSV or JSON."


def looks_like_wandb(path: Path) -> bool:
    """Whether a path is a `.wandb` file, an old history, a run folder, or a folder of those."""
    if not path.is_dir():
        return path.suffix == ".wandb" or path.name == HISTORY
    return _holds_run(path) or any(folder.parent == path for folder in _run_folders(path))


def read_wandb(path: Path) -> list[Log]:
    """A `.wandb` file, an old history, a run folder or a folder of runs → one Log for each run.

    Folders of one run id are attempts of one run: their rows follow each other in one Log. Runs
    without a history are left out while another one has some.
    Raises LogError where nothing there can be read, or nothing was logged.
    """
    if not path.is_dir():
        return [_read_lines(path) if path.name == HISTORY else read_wandb_file(path)]
    if _holds_run(path):
        return [read_run_folder(path)]
    logs: dict[str, Log] = {}
    faults: list[LogError] = []
    for folder in _run_folders(path):
        try:
            log = read_run_folder(folder)
        except LogError as error:
            faults.append(error)
            continue
        run = folder.name.rpartition("-")[2]
        if run in logs:
            append(logs[run], log)
            logs[run].status = log.status
        else:
            logs[run] = log
    if logs:
        return list(logs.values())
    if faults:
        raise faults[0]
    raise LogError("no run of W&B is in this folder", where=str(path), way_out=WAY_OUT)


def read_run_folder(folder: Path) -> Log:
    """A run folder of W&B → its Log: the history, and the settings of `config.yaml` as facts.

    Raises LogError where it holds no history, or one that cannot be read.
    """
    files = sorted(folder.glob("run-*.wandb"))
    old = [path for path in (folder / "files" / HISTORY, folder / HISTORY) if path.is_file()]
    if not files and not old:
        raise LogError(
            "this folder holds neither a run-ID.wandb nor a wandb-history.jsonl",
            where=str(folder),
            way_out=WAY_OUT,
        )
    log = read_wandb_file(files[-1]) if files else _read_lines(old[0])
    inside = folder / "files" if (folder / "files").is_dir() else folder
    log.facts |= _config(inside / "config.yaml", log)
    try:
        summary = json.loads((inside / "wandb-summary.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        summary = None
    if isinstance(summary, dict):
        _compare(log, summary.get("_step"))
    return log


def read_wandb_file(path: Path) -> Log:
    """A `run-ID.wandb` → its Log, as far as the file goes.

    Raises LogError where the file cannot be read, is empty or of another kind, or nothing was
    logged in it.
    """
    data = _bytes(path)
    if not data.startswith(HEADER) or len(data) < 7:
        raise LogError(
            "this is no .wandb file: its first bytes are others", where=str(path), way_out=WAY_OUT
        )
    log = Log(name=path.stem.removeprefix("run-"), format=FORMAT)
    summary: dict[str, Any] = {}
    broken = 0
    for record in _records(data, log):
        try:
            _take(record, log, summary)
        except (ValueError, RecursionError):
            broken += 1
    if broken:
        log.notes.append(f"{broken:,} records could not be decoded; they were left out.")
    _compare(log, summary.get("_step"))
    return _filled(log, path)


def looks_like_export(value: Any) -> bool:
    """Whether a JSON value is a history exported from W&B: a list of objects with `_step`.

    >>> looks_like_export([{"_step": 0, "loss": 2.5}]), looks_like_export({"log_history": []})
    (True, False)
    """
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(row, dict) for row in value)
        and any("_step" in row for row in value)
    )


def from_export(value: list[dict[str, Any]], path: Path) -> Log:
    """The JSON value of an exported history (`run.scan_history()` as a list) → its Log.

    Raises LogError where its rows hold no numbers.
    """
    log = Log(name=path.stem, format="W&B export")
    for row in value:
        _add(log, row)
    return _filled(log, path)


def export_runs(header: Sequence[str]) -> dict[str, dict[str, str]] | None:
    """The columns of a CSV → run → {column: metric} where W&B exported them from a chart, else
    None. The x axis belongs to every run, the bounds `__MIN` and `__MAX` to none.

    >>> export_runs(["Step", "brisk-1 - loss", "brisk-1 - loss__MIN", "brisk-1 - loss__MAX"])
    {'brisk-1': {'Step': 'Step', 'brisk-1 - loss': 'loss'}}
    >>> export_runs(["step", "loss"]) is None
    True
    """
    names = [name.strip() for name in header]
    if len(names) < 2 or not names[0] or " - " in names[0]:
        return None
    if not all(" - " in name for name in names[1:] if name):
        return None
    known = set(names)
    bounded = any({f"{name}__MIN", f"{name}__MAX"} <= known for name in names[1:])
    if not bounded and names[0] not in AXES:
        return None
    runs: dict[str, dict[str, str]] = {}
    for column, name in zip(header[1:], names[1:], strict=True):
        run, _, metric = name.rpartition(" - ")
        bare = metric.removesuffix("__MIN").removesuffix("__MAX")
        if not run or (bare != metric and f"{run} - {bare}" in known):
            continue
        columns = runs.setdefault(run, {header[0]: names[0]})
        # W&B's own counter of calls, where the x axis is a better one.
        if metric != "_step" or "step" not in names[0].lower():
            columns[column] = metric
    return {run: columns for run, columns in runs.items() if len(columns) > 1} or None


# ── folders ────────────────────────────────────────────────────────────────────────────────


def _holds_run(folder: Path) -> bool:
    return (
        (folder / "files" / HISTORY).is_file()
        or (folder / HISTORY).is_file()
        or any(folder.glob("run-*.wandb"))
    )


def _run_folders(path: Path) -> list[Path]:
    """A folder → the run folders in it or in its `wandb/`, oldest first."""
    return sorted(
        (
            folder
            for root in (path, path / "wandb")
            for pattern in ("run-*", "offline-run-*")
            for folder in root.glob(pattern)
            if folder.is_dir() and _holds_run(folder)
        ),
        key=lambda folder: folder.name.removeprefix("offline-"),
    )


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise LogError(
            f"this file cannot be read ({error.strerror or error})",
            where=str(path),
            way_out="Give the path of a W&B run that exists and that you may read.",
        ) from error
    if not data:
        raise LogError(
            "the file is empty",
            where=str(path),
            way_out="The run was killed before anything was written: look for another folder of "
            "the run in `wandb/`.",
        )
    return data


def _read_lines(path: Path) -> Log:
    """An old `wandb-history.jsonl` → its Log, named after the run folder."""
    folder = path.absolute().parent
    if folder.name == "files":
        folder = folder.parent
    log = Log(name=folder.name.rpartition("-")[2] or path.stem, format=FORMAT)
    broken = 0
    for line in _bytes(path).splitlines():
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            broken += 1
            continue
        if isinstance(row, dict):
            _add(log, row)
        else:
            broken += 1
    if broken:
        log.notes.append(f"{path.name}: {broken:,} lines are no JSON objects; they were left out.")
    return _filled(log, path)


def _config(path: Path, log: Log) -> dict[str, Any]:
    """A `config.yaml`, every setting under `value`, → settings."""
    import yaml

    try:
        loaded = yaml.safe_load(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        log.notes.append("config.yaml could not be read; its settings are unknown.")
        return {}
    if not isinstance(loaded, dict):
        return {}
    return flattened(
        {
            str(key): one["value"]
            for key, one in loaded.items()
            if isinstance(one, dict) and "value" in one and not str(key).startswith("_")
        }
    )


def _compare(log: Log, last: Any) -> None:
    """Note where the summary knows a later step than the history."""
    found = max(log.steps.values(), default=None)
    if isinstance(last, int) and found is not None and last > found:
        note = f"The summary ends at step {last:,}, the history at {found:,.0f}: a part is missing."
        if note not in log.notes:
            log.notes.append(note)


def _filled(log: Log, path: Path) -> Log:
    if not log.columns:
        raise LogError(
            "no numbers are logged in it" + (f" ({log.notes[0]})" if log.notes else ""),
            where=str(path),
            way_out="Give a run that called `log`, or export its history from the website.",
        )
    return log


# ── records ────────────────────────────────────────────────────────────────────────────────


def _records(data: bytes, log: Log) -> Iterator[bytes]:
    """The bytes of a `.wandb` → its records, up to the end or the first damage, which is noted."""
    at, size = 7, len(data)
    parts: list[bytes] = []
    while at < size:
        room = BLOCK - at % BLOCK
        if room < 7:
            at += room
            continue
        if at + 7 > size:
            break
        checksum, length, kind = struct.unpack_from("<IHB", data, at)
        if checksum == length == kind == 0:  # room that was never written
            at += room
            continue
        end = at + 7 + length
        if end > size and length <= room - 7:
            break
        if length > room - 7 or zlib.crc32(data[at + 6 : end]) != checksum:
            log.notes.append(
                f"The file is damaged at byte {at:,}; its last {size - at:,} bytes were left out."
            )
            return
        if kind in (1, 2):
            parts = []
        parts.append(data[at + 7 : end])
        if kind in (1, 4):
            yield b"".join(parts)
            parts = []
        at = end
    if at < size or parts:
        log.notes.append(
            "The file is cut off in its last record, as after a crash or in a running training; "
            "what stands before it was read."
        )


def _take(record: bytes, log: Log, summary: dict[str, Any]) -> None:
    """One `Record`: history becomes a row; settings, name and end are put where they belong."""
    for number, a, b in fields(record):
        if b < 0:
            continue
        if number == 2:
            row, step = _items(record, a, b)
            if step is not None:
                row.setdefault("_step", step)
            _add(log, row)
        elif number == 3:
            summary |= _items(record, a, b, only="_step")[0]
        elif number == 5:
            _settings(log, _items(record, a, b)[0])
        elif number == 17:
            for inner, c, d in fields(record, a, b):
                if inner == 4 and d >= 0:
                    _settings(log, _items(record, c, d)[0])
                elif inner == 8 and d > c:
                    log.name = record[c:d].decode("utf-8", "replace")
        elif number == 18:
            code = next((c for inner, c, d in fields(record, a, b) if inner == 1 and d < 0), 0)
            log.status = "failed" if code else "finished"


def _settings(log: Log, settings: Mapping[str, Any]) -> None:
    log.facts |= flattened({k: v for k, v in settings.items() if not k.startswith("_")})


def _items(
    data: bytes, start: int, end: int, only: str | None = None
) -> tuple[dict[str, Any], int | None]:
    """A record of items (field 1: key 1 or nested keys 2, the value) → them, and a `HistoryStep`.

    The value is JSON (16), or a typed field: 5 whole number, 6 double, 7 text, 8 JSON.
    """
    found: dict[str, Any] = {}
    step = None
    for number, a, b in fields(data, start, end):
        if b < 0:
            continue
        if number == 2:
            step = next((c for inner, c, d in fields(data, a, b) if inner == 1 and d < 0), 0)
        if number != 1:
            continue
        keys: list[str] = []
        value: Any = None
        for inner, c, d in fields(data, a, b):
            if inner in (1, 2) and d >= 0:
                keys.append(data[c:d].decode("utf-8", "replace"))
            elif inner in (8, 16) and d >= 0:
                value = _json(data[c:d])
            elif inner == 6 and d - c == 8:
                value = struct.unpack_from("<d", data, c)[0]
            elif inner == 5 and d < 0:
                value = c if c < 1 << 63 else c - (1 << 64)
            elif inner == 7 and d >= 0:
                value = data[c:d].decode("utf-8", "replace")
        name = ".".join(keys)
        if only is None or name == only:
            found[name] = value
    return found, step


def _json(text: bytes) -> Any:
    """JSON → its value; numbers, by far the most, the quick way."""
    try:
        return float(text) if b"." in text or b"e" in text else json.loads(text)
    except ValueError:
        return json.loads(text)


def _add(log: Log, row: Mapping[str, Any]) -> None:
    """A row of history → a row of the Log; nested numbers get names with dots, as in W&B."""
    step = row.get("_step")
    known = step if isinstance(step, int | float) and not isinstance(step, bool) else None
    values: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            if "_type" not in value:
                values |= {
                    f"{name}.{inner.replace('/', '.')}": number
                    for inner, number in flattened(value).items()
                }
        elif name not in ("_step", "_runtime", "_timestamp", "_wandb"):
            values[name] = value
    log.add_row(values, known)
