"""A folder → held by one build at a time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from wellfit.errors import DataError


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Folder → nobody else builds in it meanwhile; the kernel frees the lock of a killed process.

    Raises DataError when another process, or another thread of this one, holds it.
    """
    # POSIX only; imported here so that reading a corpus works everywhere.
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DataError(
            f"the corpus cannot be written here ({error.strerror})",
            where=str(folder.parent),
            way_out="Name another folder with `data.folder`, or mend the rights of this one.",
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.pread(handle, 64, 0).decode("ascii", "replace").strip()
            raise DataError(
                f"another build{f' (process {owner})' if owner else ''} is writing this corpus",
                where=str(folder.parent),
                way_out="Wait until it has ended, or name another folder with `data.folder`.",
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)
