"""A run folder: written by one training at a time, read by anyone at any moment.

The lines under `records/` are the truth and are only ever appended to; everything else in the
folder can be made again from them. Reading never writes and needs no torch.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from wellfit.errors import RunError
from wellfit.monitor.context import run_context
from wellfit.monitor.history import History
from wellfit.monitor.lock import holder_of, release, sign, take
from wellfit.monitor.masking import MASK, mask_text, names_a_secret
from wellfit.monitor.records_store import (
    FILES,
    Line,
    file_name,
    last_line,
    line_text,
    now,
    record_fields,
)
from wellfit.monitor.timeline import Timeline, read_timeline
from wellfit.records import Evaluated, Event, Record

FORMAT_VERSION = 1


class RunFolder:
    """An open run folder that holds the lock; a context manager.

    `path` is the folder, `attempt` counts from 1 and rises with every opening that writes.
    """

    def __init__(self, path: Path, lock: int, attempt: int, next_seq: int) -> None:
        self.path = path
        self.attempt = attempt
        self._lock = lock
        self._next_seq = next_seq
        self._files: dict[str, _Appender] = {}

    @classmethod
    def create(cls, path: Path, recipe_text: str, *, resume: bool = False) -> RunFolder:
        """A new run folder with this recipe, or with `resume` the one that is there.

        The recipe's secrets are masked. With `resume` the recipe that stands there stays until
        `write_recipe`: a resume that is refused must not change what the weights are read with.

        A folder in which an earlier start failed before anything was recorded counts as new.

        Raises RunError when the folder holds a run already (or none, with `resume`), is in use,
        or cannot be written.
        """
        if not resume:
            with explained(path):
                path.mkdir(parents=True, exist_ok=True)
        elif not _is_run(path):
            raise _no_run(path)
        folder = cls._locked(path)
        try:
            if not resume and _has_begun(path):
                raise RunError(
                    "this folder already holds a run",
                    where=str(path),
                    way_out="Continue it with `--resume`, or choose another folder with `--out`.",
                )
            with explained(path):
                if not resume:
                    born = {"format_version": FORMAT_VERSION, "created": now()}
                    replace_file(path / "run.json", json.dumps(born) + "\n")
                if not (resume and (path / "recipe.yaml").exists()):
                    folder._keep_earlier("recipe", ".yaml", mask_text(recipe_text))
        except BaseException:
            folder.close()
            raise
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The run folder that is there, for a further attempt.

        Raises RunError when there is no run, it is in use, or it cannot be written.
        """
        if not _is_run(path):
            raise _no_run(path)
        return cls._locked(path)

    def write(self, record: Record, **measured: Any) -> Line:
        """Append one record with what was measured beside it; gives the line as it will be read.

        The line is handed to the operating system before this returns, so killing the process
        loses nothing; see `sync` for loss of power. Secrets in the text of events are masked.

        Raises RunError when the line cannot be written.
        """
        line: Line = {"seq": self._next_seq, "attempt": self.attempt, "time": now()}
        line |= record_fields(record)
        if isinstance(record, Event):
            line["text"] = mask_text(record.text)
            line["data"] = _mask_within(record.data)
        clash = line.keys() & measured.keys()
        assert not clash, f"measured values may not replace fields of the record: {clash}"
        line |= measured
        text = line_text(line)
        name = file_name(record)
        with explained(self.path):
            if name not in self._files:
                self._files[name] = _Appender(self.path / "records" / name)
            self._files[name].append(text.encode())
        self._next_seq += 1
        read_back: Line = json.loads(text)
        return read_back

    def write_recipe(self, recipe_text: str) -> None:
        """Keep the recipe, secrets masked; another one before stays as `recipe-ATTEMPT.yaml`."""
        with explained(self.path):
            self._keep_earlier("recipe", ".yaml", mask_text(recipe_text))

    def settle_recipe(self, recipe_text: str) -> None:
        """Keep the recipe in which what was left to the machine has become numbers."""
        with explained(self.path):
            replace_file(self.path / "recipe.yaml", mask_text(recipe_text))

    def write_environment(self, environment: dict[str, Any]) -> None:
        """Keep where this attempt runs as `environment.json`.

        An earlier attempt's that differs stays as `environment-ATTEMPT.json`.
        """
        text = json.dumps(environment, indent=2, allow_nan=False) + "\n"
        with explained(self.path):
            self._keep_earlier("environment", ".json", text)

    def begin_attempt(self) -> None:
        """What follows belongs to a further attempt, as after a resume: the run was rewound."""
        self.attempt += 1
        with explained(self.path):
            sign(self._lock, self.attempt)

    def sync(self) -> None:
        """Wait until every line is on the disk itself; called when a checkpoint stands."""
        with explained(self.path):
            for file in self._files.values():
                file.sync()

    def close(self) -> None:
        """Give the folder free for others; a second call does nothing."""
        if self._lock < 0:
            return
        for file in self._files.values():
            file.close()
        self._files.clear()
        release(self._lock)
        self._lock = -1

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @classmethod
    def _locked(cls, path: Path) -> RunFolder:
        with explained(path):
            lock = take(path)
        try:
            _check_version(path)
            with explained(path):
                (path / "records").mkdir(exist_ok=True)
                newest = [last_line(path / "records" / name) for name in FILES.values()]
                lines = [line for line in newest if line is not None]
                attempt = 1 + max((line["attempt"] for line in lines), default=0)
                next_seq = 1 + max((line["seq"] for line in lines), default=0)
                sign(lock, attempt)
                folder = cls(path, lock, attempt, next_seq)
                for name in FILES.values():
                    if (path / "records" / name).exists():
                        folder._files[name] = _Appender(path / "records" / name)
        except BaseException:
            release(lock)
            raise
        return folder

    def _keep_earlier(self, stem: str, suffix: str, text: str) -> None:
        path = self.path / f"{stem}{suffix}"
        with contextlib.suppress(FileNotFoundError):
            earlier = path.read_text(encoding="utf-8", errors="replace")
            if earlier == text:
                return
            if self.attempt > 1:
                replace_file(self.path / f"{stem}-{self.attempt - 1}{suffix}", earlier)
        replace_file(path, text)


class _Appender:
    """A file that only grows, by whole lines."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        size = os.fstat(self._file).st_size
        # A killed writer may have left half a line; nothing may be appended to that.
        self._torn = False
        if size > 0 and os.pread(self._file, 1, size - 1) != b"\n":
            os.write(self._file, b"\n")

    def append(self, line: bytes) -> None:
        rest = memoryview((b"\n" if self._torn else b"") + line + b"\n")
        while rest:
            written = os.write(self._file, rest)
            rest = rest[written:]
            self._torn = len(rest) > 0

    def sync(self) -> None:
        os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)


def read_history(path: Path) -> History:
    """A run folder → its history, while it is written or afterwards.

    The newest attempt wins: what earlier attempts recorded after the step it resumed from is
    counted in `superseded` and otherwise left out. Losses and all else are as recorded, with
    non-finite values.

    Raises RunError when there is no run folder of a known format.
    """
    with explained(path):
        timeline = _timeline(path)
        return history_of(timeline, path)


def read_evaluations(path: Path) -> tuple[Evaluated, ...]:
    """A run folder → the evaluations behind its weights in their order, per-domain scores included.

    Raises RunError when there is no run folder of a known format.
    """
    with explained(path):
        return tuple(_timeline(path).evaluations)


def history_of(timeline: Timeline, path: Path) -> History:
    """What a timeline of the folder's records, its recipe and its lock say together."""
    recipe, context = run_context(path, timeline.events)
    named = (recipe or {}).get("name")
    return timeline.history(
        name=named if isinstance(named, str) and named else path.resolve().name,
        status=_status(timeline, path),
        context=context,
        recipe=recipe,
    )


def replace_file(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Put a whole new file in the place of an old one; no reader ever sees half of it.

    `durable` waits for the disk, so that the file also survives a loss of power.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    data = content.encode() if isinstance(content, str) else content
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _timeline(path: Path) -> Timeline:
    if not _is_run(path):
        raise _no_run(path)
    _check_version(path)
    return read_timeline(path / "records")


def _status(timeline: Timeline, path: Path) -> str:
    holder = holder_of(path)
    # Its own last words count, unless someone has begun another attempt and said nothing yet.
    if timeline.status and (holder is None or holder.get("attempt") == timeline.attempts):
        return timeline.status
    if holder is not None:
        return "running"
    return "crashed" if timeline.attempts else "unknown"


def _is_run(path: Path) -> bool:
    return (path / "run.json").exists() or (path / "recipe.yaml").exists() or _has_begun(path)


def _has_begun(path: Path) -> bool:
    """Whether a training left anything: a start that failed before it may simply be repeated."""
    files = [path / "records" / name for name in FILES.values()]
    return (path / "plan.json").exists() or any(
        file.exists() and file.stat().st_size > 0 for file in files
    )


def _no_run(path: Path) -> RunError:
    return RunError(
        "there is no run in this folder" if path.is_dir() else "there is no such folder",
        where=str(path),
        way_out="Give the folder of an earlier run, or start a new one without `--resume`.",
    )


def _check_version(path: Path) -> None:
    try:
        text = (path / "run.json").read_text(encoding="utf-8")
        version = json.loads(text).get("format_version")
    except FileNotFoundError:
        return
    except (ValueError, AttributeError):
        version = None
    if version != FORMAT_VERSION:
        raise RunError(
            f"run.json says format_version {version}, and this wellfit knows {FORMAT_VERSION}",
            where=str(path),
            way_out="Use the version of wellfit that wrote the folder, or start a new run.",
        )


def _mask_within(value: Any) -> Any:
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, dict):
        return {
            key: MASK if isinstance(part, str) and names_a_secret(key) else _mask_within(part)
            for key, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [_mask_within(part) for part in value]
    return value


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the operating system refuses into a RunError."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise RunError(
            "there is no room left to write" if full else f"{error.strerror or error}",
            where=str(error.filename or path),
            way_out="Make room and continue with `--resume`; what was written before is safe."
            if full
            else "Choose a folder that can be read and written with `--out`.",
        ) from error
