"""Files of the sources → tasks of a few megabytes, the same however many workers there are.

Small files are grouped. Where a group ends is decided by the hash of a file's path, so a file that
comes or goes changes its own group and no other. Huge files are cut into ranges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from wellfit.data.engine.task import File, Stamp, Task, stamp_of
from wellfit.data.read.parquet import row_ranges
from wellfit.data.read.walk import Input
from wellfit.recipe.schema import Source
from wellfit.records import Rejected

GROUP_BYTES = 1 << 20
"""Wanted bytes of a task of small files; none has more than four times as many."""
RANGE_BYTES = 8 << 20
"""Bytes of a huge file in one task: a multiple of every piece length."""

_BLOCK = 1 << 20
_MINIFIED_BYTES_PER_LINE = 500


@dataclass(frozen=True, slots=True)
class Inspected:
    """A file that was read once from its beginning to its end."""

    input: Input
    bytes: int
    sha256: str
    lines_before: tuple[int, ...]
    """Line ends before every multiple of RANGE_BYTES."""
    fault: str = ""
    """Why it is no text at all, or "" """
    minified: bool = False
    stamp: Stamp | None = None
    """Of the file when it was opened."""


def inspect_all(
    inputs: Sequence[Input], workers: int, progress: Callable[[int], None]
) -> list[Inspected]:
    """Inputs → what is in them, in the same order; files are hashed by `workers` threads."""
    found = []
    with ThreadPoolExecutor(workers) as executor:
        for number, inspected in enumerate(executor.map(inspect, inputs), 1):
            found.append(inspected)
            progress(number)
    return found


def inspect(input_: Input) -> Inspected:
    """Input → size, digest, lines at the borders of ranges, and whether it is binary."""
    digest = hashlib.sha256()
    size = lines = 0
    before: list[int] = []
    fault = ""
    stamp = None
    try:
        with input_.path.open("rb") as stream:
            stamp = stamp_of(stream.fileno())
            while block := stream.read(_BLOCK):
                if size % RANGE_BYTES == 0:
                    before.append(lines)
                if size == 0 and input_.format in ("text", "markdown", "code"):
                    fault = _binary(block)
                size += len(block)
                lines += block.count(b"\n")
                digest.update(block)
    except OSError as error:
        fault = f"cannot be read: {error.strerror}"
    minified = (
        input_.format == "code"
        and input_.relative.endswith((".js", ".mjs", ".css"))
        and size > _MINIFIED_BYTES_PER_LINE * (lines + 1)
    )
    return Inspected(input_, size, digest.hexdigest(), tuple(before), fault, minified, stamp)


def tasks_of(source: Source, files: Sequence[Inspected]) -> tuple[list[Task], list[Rejected]]:
    """Files of one source → tasks for `read_part`, and the files that are no text at all."""
    rejected = [
        Rejected(source.path, file.input.relative, "the file", file.fault)
        for file in files
        if file.fault
    ]
    good = [file for file in files if not file.fault]
    small = [file for file in good if _is_small(file)]
    often = _groups_often(small)
    tasks: list[Task] = []
    group: list[Inspected] = []
    held = 0
    for file in small:
        if group and held + file.bytes > 4 * GROUP_BYTES:
            tasks.append(_task(source, [(f, _whole(f)) for f in group]))
            group, held = [], 0
        group.append(file)
        held += file.bytes
        if _path_hash(file.input.relative) % often == 0:
            tasks.append(_task(source, [(f, _whole(f)) for f in group]))
            group, held = [], 0
    if group:
        tasks.append(_task(source, [(f, _whole(f)) for f in group]))
    for file in good:
        if not _is_small(file):
            tasks += [_task(source, [(file, range_)]) for range_ in _ranges(file)]
    return tasks, rejected


Range = tuple[int, int, int]
"""First byte, one past the last, number of the line that the first byte stands in."""


def _task(source: Source, entries: Sequence[tuple[Inspected, Range]]) -> Task:
    first, (start, *_) = entries[0]
    name = f"{source.path}/{first.input.relative}" + (f" from {start}" if start else "")
    return Task(
        name=name + (f" and {len(entries) - 1} more" if len(entries) > 1 else ""),
        files=tuple(File(file.input.path, file.sha256, file.stamp) for file, _ in entries),
        data={
            "source": source.path,
            "text_field": source.text_field,
            "entries": [
                [file.input.relative, file.input.format, file.input.domain, *range_]
                for file, range_ in entries
            ],
        },
    )


def _is_small(file: Inspected) -> bool:
    return file.bytes <= RANGE_BYTES and file.input.format != "parquet"


def _whole(file: Inspected) -> Range:
    return 0, _end(file), 0


def _end(file: Inspected) -> int:
    """One past the last byte; for a compressed file nobody knows, so a number beyond any."""
    return 1 << 62 if file.input.path.suffix.lower() in (".gz", ".zst") else file.bytes


def _ranges(file: Inspected) -> list[Range]:
    if file.input.format == "parquet":
        return [(start, end, start) for start, end in row_ranges(file.input.path, RANGE_BYTES)]
    if _end(file) > file.bytes or file.input.format == "topics":
        return [_whole(file)]
    return [
        (start, min(start + RANGE_BYTES, file.bytes), file.lines_before[start // RANGE_BYTES])
        for start in range(0, file.bytes, RANGE_BYTES)
    ]


def _groups_often(files: Sequence[Inspected]) -> int:
    """Files → n, a power of two, such that ending a group after 1 of n gives about GROUP_BYTES."""
    if not files:
        return 1
    mean = max(1, sum(file.bytes for file in files) // len(files))
    often = 1
    while often * mean < GROUP_BYTES and often < 4096:
        often *= 2
    return often


def _path_hash(relative: str) -> int:
    encoded = relative.encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(encoded).digest()[:8], "big")


def _binary(head: bytes) -> str:
    """First block of a file that should be text → why it is none, or ""."""
    from wellfit.data.read.encoding import declared

    if declared(head)[0]:  # a byte order mark: NUL bytes may be part of UTF-16 text
        return ""
    if head.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        return "binary: compressed, though its name does not end in .gz or .zst"
    place = head.find(0)
    return f"binary: a NUL byte at byte {place}" if place >= 0 else ""
