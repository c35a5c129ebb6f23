"""An SQLite file that belongs to another program → a connection that never writes to it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from wellfit.errors import LogError


def has_tables(path: Path, names: set[str]) -> bool:
    """Whether a path is an SQLite database with these tables; False where that cannot be told."""
    try:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\x00":
                return False
        with open_database(path, "") as database:
            found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            return names <= {str(name) for (name,) in found}
    except (OSError, LogError):
        return False


@contextmanager
def open_database(path: Path, way_out: str) -> Iterator[sqlite3.Connection]:
    """An SQLite file → a connection to it, closed at the end; nothing is written beside the file.

    What a running or killed writer left in its log (`-wal`, `-journal`) is read too.
    Raises LogError, there and for any statement, where the file is absent, empty, no database,
    damaged or locked.
    """
    where = str(path)
    try:
        if not path.stat().st_size:
            raise LogError(
                "the file is empty",
                where=where,
                way_out="Nothing was committed to it yet: stop the training, or look for another "
                "store.",
            )
        with ExitStack() as stack:
            yield _connected(path, stack)
    except OSError as error:
        raise LogError(
            f"this file cannot be read ({error.strerror or error})",
            where=where,
            way_out=way_out,
        ) from error
    except sqlite3.Error as error:
        told = str(error)
        what, out = f"the database cannot be read ({told})", way_out
        if "locked" in told:
            what = "the database is locked by a program that is writing to it"
            out = "Try again in a moment, or read a copy of the file."
        elif "not a database" in told:
            what = "this is no SQLite database"
        elif "malformed" in told:
            what = "the database is damaged"
            out = "Mend a copy with `sqlite3 FILE .recover`, or take an older copy."
        raise LogError(what, where=where, way_out=out) from error


def _connected(path: Path, stack: ExitStack) -> sqlite3.Connection:
    log, index = Path(f"{path}-wal"), Path(f"{path}-shm")
    with path.open("rb") as file:
        uses_log = file.read(20)[18:19] == b"\x02"
    logged = log.is_file() and log.stat().st_size > 0
    # SQLite makes an index beside a write-ahead log to read it. Where there is none to share, an
    # empty log needs none, and a full one is read from a copy.
    if uses_log and not logged:
        return _open(path, "mode=ro&immutable=1", stack)
    if not logged or index.is_file():
        try:
            return _open(path, "mode=ro", stack)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise
    copy = Path(stack.enter_context(TemporaryDirectory())) / "copy.db"
    for end in ("", "-wal", "-journal"):
        if Path(f"{path}{end}").is_file():
            shutil.copyfile(f"{path}{end}", f"{copy}{end}")
    return _open(copy, "mode=rw", stack)


def _open(path: Path, mode: str, stack: ExitStack) -> sqlite3.Connection:
    address = f"{path.absolute().as_uri()}?{mode}"
    database = stack.enter_context(closing(sqlite3.connect(address, uri=True, timeout=2)))
    database.text_factory = lambda raw: raw.decode("utf-8", "replace")
    database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return database
