"""A file, perhaps compressed → its bytes as a stream that can be read and moved forward."""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

_CHUNK = 1 << 17


class DamagedStreamError(Exception):
    """A compressed stream is broken or cut short; the message says how."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """File → its decompressed bytes (by its name: .gz, .zst), from the first on.

    Reading raises DamagedStreamError where the compressed stream is broken or ends early; what
    stands before that is read.
    """
    ending = path.suffix.lower()
    with path.open("rb") as raw:
        if ending == ".gz":
            yield _stream(raw, lambda: zlib.decompressobj(wbits=31))
        elif ending == ".zst":
            import zstandard

            yield _stream(raw, lambda: zstandard.ZstdDecompressor().decompressobj())
        else:
            yield raw


def forward(stream: BinaryIO, count: int) -> None:
    """Stream → the same, `count` bytes further on."""
    if stream.seekable():
        stream.seek(count, io.SEEK_CUR)
        return
    while count > 0:
        part = stream.read(min(count, 1 << 20))
        if not part:
            return
        count -= len(part)


def _stream(raw: BinaryIO, new: Any) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Members(raw, new), _CHUNK))


class _Members(io.RawIOBase):
    """Members (gzip) or frames (zstd), one behind the other, as one stream.

    Own reading rather than the libraries' stream readers: zstandard's ends silently where a frame
    is cut short, and a training text that lost its second half must not go unnoticed.
    """

    def __init__(self, raw: BinaryIO, new: Any) -> None:
        self._raw = raw
        self._new = new
        self._member: Any = None
        self._compressed = b""
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and self._more():
            pass
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _more(self) -> bool:
        """Decompress the next chunk; False at the proper end."""
        chunk = self._compressed or self._raw.read(_CHUNK)
        self._compressed = b""
        if not chunk:
            if self._member is None:
                return False
            raise DamagedStreamError("the compressed stream ends early")
        if self._member is None:
            if not chunk.strip(b"\0"):  # zeros after the last gzip member are padding
                return True
            self._member = self._new()
        try:
            self._ready = self._member.decompress(chunk)
        except Exception as error:  # zlib.error, ZstdError: libraries' own, not worth importing
            raise DamagedStreamError(f"the compressed stream is broken ({error})") from error
        if self._member.eof:
            self._compressed = self._member.unused_data
            self._member = None
        return True
