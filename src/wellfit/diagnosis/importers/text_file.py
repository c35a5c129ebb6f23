"""Bytes → text, whatever wrote them: encodings, gzip, progress bars, colours."""

from __future__ import annotations

import re
import stat
import zlib
from pathlib import Path

from wellfit.errors import LogError

MOST_BYTES = 2_000_000_000
"""Larger files, packed or not, are refused."""
_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8-sig",
}
_COLOURS = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\x0b\x0c\x1b\x08\x07"))
LOOKED_AT = 65_536


def read_bytes_of(path: Path) -> bytes:
    """A path → its content. Raises LogError where it is no ordinary file or cannot be read."""
    where = str(path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device would block, or never end
            raise LogError(
                "this is no ordinary file", where=where, way_out="Give the path of a log file."
            )
        if status.st_size > MOST_BYTES:
            raise _too_large(where)
        return path.read_bytes()
    except OSError as error:
        raise LogError(
            f"this file cannot be read ({error.strerror or error})",
            where=where,
            way_out="Give the path of a log that exists and that you may read.",
        ) from error


def to_text(data: bytes, where: str) -> tuple[str, list[str]]:
    """Bytes → text with lines that end in `\\n`, and what was mended, one sentence each.

    Raises LogError where they are empty or binary.
    """
    notes: list[str] = []
    if data[:2] == b"\x1f\x8b":
        data = _unpacked(data, where, notes)
    if not data.strip():
        raise LogError(
            "the file is empty",
            where=where,
            way_out="The trainer wrote nothing yet, or the disk was full: look for an older copy.",
        )
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    encoding = encoding or _without_mark(data) or "utf-8"
    if encoding in ("utf-8", "utf-8-sig") and _is_binary(data[:LOOKED_AT]):
        raise LogError(
            "this is a binary file, not a log",
            where=where,
            way_out="Give the log that the trainer wrote: JSON, JSON Lines, CSV or text.",
        )
    text = _decoded(data, encoding, notes)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.removeprefix("\ufeff"), notes


def without_colours(text: str) -> str:
    """A terminal's text → the same without escape codes and backspaces."""
    if "\x1b" in text:
        text = _COLOURS.sub("", text)
    return text.replace("\x08", "") if "\x08" in text else text


def _unpacked(data: bytes, where: str, notes: list[str]) -> bytes:
    """The content of a gzip file; of a cut one, what is there."""
    parts: list[bytes] = []
    size = 0
    while data[:2] == b"\x1f\x8b":  # several members may follow each other
        engine = zlib.decompressobj(wbits=31)
        try:
            parts.append(engine.decompress(data, MOST_BYTES - size + 1))
        except zlib.error as error:
            raise LogError(
                f"the gzip data is damaged ({error})",
                where=where,
                way_out="Copy the file again in binary mode.",
            ) from error
        size += len(parts[-1])
        if not size and not engine.eof:
            raise LogError(
                "the gzip data is damaged (nothing of it can be unpacked)",
                where=where,
                way_out="Copy the file again in binary mode.",
            )
        if size > MOST_BYTES:
            raise _too_large(where)
        if not engine.eof:
            notes.append("The gzip file is cut off; what could be unpacked was read.")
            break
        data = engine.unused_data
    return b"".join(parts)


def _too_large(where: str) -> LogError:
    return LogError(
        f"the file is larger than {MOST_BYTES / 1e9:.0f} GB",
        where=where,
        way_out="Keep every tenth row of it, or give a smaller log of the same run.",
    )


def _without_mark(data: bytes) -> str | None:
    """UTF-16 without a byte-order mark: every other byte of plain text is zero."""
    head = data[:4096]
    even, odd = head[::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if half >= 4 and odd > 0.4 * half and even < 0.05 * half:
        return "utf-16-le"
    if half >= 4 and even > 0.4 * half and odd < 0.05 * half:
        return "utf-16-be"
    return None


def _is_binary(head: bytes) -> bool:
    control = len(head) - len(head.translate(None, _CONTROL))
    return control > 0.01 * len(head) or b"\x00" in head


def _decoded(data: bytes, encoding: str, notes: list[str]) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        if len(data) - error.start <= 4:  # cut inside the last character
            return data.decode(encoding, errors="ignore")
        if encoding.startswith("utf-8"):
            notes.append(f"Byte {error.start:,} is not valid UTF-8; the file was read as Latin-1.")
            return data.decode("cp1252", errors="replace")
        notes.append(f"The file holds bytes that are not valid {encoding}; they were left out.")
        return data.decode(encoding, errors="ignore")
