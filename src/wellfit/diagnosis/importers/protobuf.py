"""Encoded messages of protocol buffers → their fields, without a schema (protobuf.dev)."""

from __future__ import annotations

from collections.abc import Iterator


def fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, int]]:
    """An encoded message → (field number, a, b) of each of its fields.

    A varint is `a`, and `b` is −1; all other fields are the bytes from `a` to `b`.
    Raises ValueError where the bytes are no message (protobuf.dev, "Encoding").

    >>> list(fields(b"\\x08\\x96\\x01\\x12\\x02hi"))
    [(1, 150, -1), (2, 5, 7)]
    """
    at = start
    end = len(data) if end is None else end
    while at < end:
        key, at = varint(data, at, end)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = varint(data, at, end)
            yield number, value, -1
            continue
        if kind == 2:
            size, at = varint(data, at, end)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > end:
            raise ValueError("a field is longer than its message")
        yield number, at, at + size
        at += size


def varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """The number at `at` → it, and where it ends. Raises ValueError where it is cut off."""
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("a number is cut off")
