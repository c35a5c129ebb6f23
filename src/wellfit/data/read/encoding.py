"""Bytes → text and the encoding that maps it back, byte for byte.

The rules, in order, for a file of text:

1. A byte order mark decides: UTF-8, UTF-16 or UTF-32. The mark is no part of the text.
2. In Python code, a coding cookie in the first two lines decides (PEP 263).
3. A NUL byte, or more than 5 % control characters, means binary: rejected.
4. Valid UTF-8 is UTF-8.
5. Where most of the bytes above 127 are still valid UTF-8, the file is damaged UTF-8: rejected
   with the place of the first bad byte, rather than read as something it is not.
6. Otherwise Windows-1252, unless a byte has no meaning there: then rejected.

What is accepted encodes back to the same bytes; that is checked.
"""

from __future__ import annotations

import codecs
import io
import tokenize

_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b")) + b"\x7f"
_LARGEST_CONTROL_SHARE = 0.05


class UndecodableError(ValueError):
    """These bytes are no text; the message is the reason, `offset` the first bad byte if known."""

    def __init__(self, reason: str, offset: int = 0) -> None:
        super().__init__(reason)
        self.offset = offset


def declared(head: bytes, *, python: bool = False) -> tuple[str, int]:
    """First bytes of a file → (encoding that it declares, or "", and bytes of its mark).

    >>> declared(b"\\xef\\xbb\\xbfhello"), declared(b"hello")
    (('utf-8', 3), ('', 0))
    >>> declared(b"# -*- coding: latin-1 -*-", python=True)
    ('iso8859-1', 0)
    """
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    if python and b"coding" in head[:400]:
        try:
            name = tokenize.detect_encoding(io.BytesIO(head).readline)[0]
            return codecs.lookup(name).name, 0
        except (SyntaxError, LookupError):
            pass
    return "", 0


def decode(data: bytes, encoding: str = "") -> tuple[str, str]:
    """Bytes and the declared encoding, if any → (text, encoding). Raises UndecodableError.

    >>> decode("naïve".encode("cp1252"))
    ('naïve', 'cp1252')
    """
    if encoding:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            raise UndecodableError(f"not {encoding} as the file declares", error.start) from None
    else:
        text, encoding = _guess(data)
    if encoding != "utf-8" and encode_prefix(text, len(text), encoding) != data:
        raise UndecodableError(f"{encoding} text that does not encode back to the same bytes")
    return text, encoding


def encode_prefix(text: str, characters: int, encoding: str) -> bytes:
    """Text → the bytes of its first `characters`; also right for encodings with a state."""
    encoder = codecs.getincrementalencoder(encoding)()
    return encoder.encode(text[:characters], final=characters >= len(text))


def _guess(data: bytes) -> tuple[str, str]:
    nul = data.find(0)
    if nul >= 0:
        raise UndecodableError("binary: a NUL byte", nul)
    controls = len(data) - len(data.translate(None, _CONTROLS))
    if controls > _LARGEST_CONTROL_SHARE * len(data):
        raise UndecodableError(f"binary: {controls} of {len(data)} bytes are control characters")
    try:
        return data.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as error:
        bad = error.start
    valid = sum(len(c.encode()) for c in data.decode("utf-8", "ignore") if c > "\x7f")
    high = len(data) - len(data.translate(None, bytes(range(128, 256))))
    if 2 * valid > high:
        raise UndecodableError("damaged UTF-8", bad)
    try:
        return data.decode("cp1252"), "cp1252"
    except UnicodeDecodeError as error:
        raise UndecodableError("neither UTF-8 nor Windows-1252", error.start) from None
