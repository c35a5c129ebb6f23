"""One writer per run folder: a lock that dies with its process.

The lock is the operating system's (`flock`), so a killed training leaves nothing to clear away.
What stands in the file only tells others who has it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from wellfit.errors import RunError
from wellfit.monitor.records_store import now

FILE = ".lock"
_PATIENCE_SECONDS = 0.5


def take(folder: Path) -> int:
    """A folder → the open file that holds its lock.

    Raises RunError naming the process that has it and since when, and OSError where the folder
    cannot be written.
    """
    lock = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                # A reader that looks whether the run is alive holds the lock for an instant.
                if time.monotonic() >= deadline:
                    raise _in_use(folder, _read(lock)) from None
            time.sleep(0.02)
    except BaseException:
        os.close(lock)
        raise


def sign(lock: int, attempt: int) -> None:
    """Write into the lock who has it, for `holder_of` and for the message of `take`."""
    told = {"pid": os.getpid(), "host": socket.gethostname(), "since": now(), "attempt": attempt}
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps(told).encode(), 0)


def release(lock: int) -> None:
    """Give the lock back and forget who had it."""
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
    os.close(lock)


def holder_of(folder: Path) -> dict[str, Any] | None:
    """What the holder of the lock wrote: `pid, host, since, attempt`; None where nobody has it."""
    try:
        lock = os.open(folder / FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(lock)
    except OSError:
        return None  # a file system without locks: nobody is claimed to be at work
    finally:
        os.close(lock)
    return None


def _read(lock: int) -> dict[str, Any]:
    try:
        told = json.loads(os.pread(lock, 4096, 0))
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _in_use(folder: Path, holder: dict[str, Any]) -> RunError:
    who = f"process {holder['pid']}" if "pid" in holder else "another process"
    if holder.get("host") not in (None, socket.gethostname()):
        who += f" on {holder['host']}"
    since = f" since {holder['since']}" if "since" in holder else ""
    return RunError(
        f"another training is using this folder: {who}{since}",
        where=str(folder),
        way_out="Wait for it or stop it, or choose another folder with `--out`.",
    )
