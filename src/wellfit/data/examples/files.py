"""A file of examples in, one mapping a row out, whatever the format; bad rows with their reason."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wellfit.data.read.decompress import DamagedStreamError, opened
from wellfit.errors import DataError

Row = dict[str, Any]
ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow")
COMPRESSED = (".gz", ".zst")
NAMED = "`.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet` or `.arrow`; text files also `.gz`, `.zst`"


class BadRowError(Exception):
    """A row that is no example; the message says why."""


def find_files(split: str, named: tuple[str, ...], corpus: Path) -> list[Path]:
    """A split, its paths as the recipe has them and the corpus folder → files, sorted within each.

    Raises DataError where a path is missing, holds no such file, is of another kind, lies in the
    corpus folder or is named twice.
    """
    found: list[Path] = []
    for path in named:
        for file in _files(Path(path).expanduser(), f"data.examples.{split} = {path}"):
            if kind(file) not in ENDINGS:
                raise DataError(
                    f"a name that ends in {file.suffix or 'nothing'} does not tell how examples "
                    "are stored",
                    where=str(file),
                    way_out=f"Name it {NAMED}.",
                )
            if file.resolve().is_relative_to(corpus.resolve()):
                raise DataError(
                    "the file lies in the corpus folder, which the build fills and empties",
                    where=str(file),
                    way_out="Give the corpus a folder of its own with `data.folder`.",
                )
            if any(file.samefile(other) for other in found):
                raise DataError(
                    f"the file is named twice in {split}", where=str(file), way_out="Name it once."
                )
            found.append(file)
    return found


def kind(file: Path) -> str:
    """A file → its ending without that of a compression.

    >>> kind(Path("train.jsonl.gz")), kind(Path("train.CSV"))
    ('.jsonl', '.csv')
    """
    endings = [one.lower() for one in file.suffixes]
    if endings and endings[-1] in COMPRESSED:
        endings.pop()
    return endings[-1] if endings else ""


def read_rows(file: Path) -> Iterator[tuple[str, Row | BadRowError]]:
    """A file → (position, row) for each of its rows; a row that cannot be read is an error itself.

    Positions are for a person: `line 12`, `row 7`, `entry 3`. Raises DataError where the file as a
    whole cannot be read.
    """
    reader = {
        ".jsonl": _json_lines, ".json": _json, ".csv": _table, ".tsv": _table,
        ".parquet": _parquet, ".arrow": _arrow,
    }[kind(file)]  # fmt: skip
    try:
        yield from reader(file)
    except (OSError, DamagedStreamError) as fault:
        raise DataError(
            f"the file cannot be read: {fault}",
            where=str(file),
            way_out="Copy it again, or take it out of the recipe.",
        ) from fault


def _files(path: Path, where: str) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        found = sorted(one for one in path.iterdir() if one.is_file() and kind(one) in ENDINGS)
        if found:
            return found
        raise DataError(
            "the folder holds no file of examples", where=where, way_out=f"They are {NAMED}."
        )
    if any(sign in str(path) for sign in "*?["):
        pattern = path.relative_to(path.anchor).as_posix()
        found = sorted(one for one in Path(path.anchor).glob(pattern) if one.is_file())
        if found:
            return found
        what = "no file fits this pattern"
    else:
        what = "there is no such file or folder"
    raise DataError(
        what, where=where, way_out="Paths are relative to the folder that the command runs in."
    )


def _json_lines(file: Path) -> Iterator[tuple[str, Row | BadRowError]]:
    with opened(file) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except (ValueError, RecursionError) as fault:
                yield f"line {number}", BadRowError(f"not JSON: {fault}")
                continue
            yield f"line {number}", _object(value)


def _json(file: Path) -> Iterator[tuple[str, Row | BadRowError]]:
    """A list of objects, or an object that holds one as `data`; SQuAD's nesting is unfolded."""
    with opened(file) as stream:
        raw = stream.read()
    try:
        value = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as fault:
        hint = ""
        if raw.lstrip()[:1] == b"{":
            hint = " If every line is an object of its own, name the file .jsonl."
        raise DataError(
            f"it is not JSON: {fault}", where=str(file), way_out=f"Mend the file.{hint}"
        ) from fault
    entries = value.get("data") if isinstance(value, dict) else value
    if not isinstance(entries, list):
        raise DataError(
            "there is no list of examples in it",
            where=str(file),
            way_out="A .json file is a list of objects, or an object with such a list as `data`.",
        )
    for number, entry in enumerate(entries, start=1):
        if isinstance(entry, dict) and isinstance(entry.get("paragraphs"), list):
            yield from _paragraphs(number, entry)
        else:
            yield f"entry {number}", _object(entry)


def _paragraphs(number: int, article: Row) -> Iterator[tuple[str, Row | BadRowError]]:
    for place, paragraph in enumerate(article["paragraphs"], start=1):
        about = f"article {number}, paragraph {place}"
        questions = paragraph.get("qas") if isinstance(paragraph, dict) else None
        if not isinstance(questions, list):
            yield about, BadRowError("a paragraph without a list of questions, `qas`")
            continue
        for one, asked in enumerate(questions, start=1):
            if isinstance(asked, dict):
                yield f"{about}, question {one}", {"context": paragraph.get("context"), **asked}
            else:
                yield f"{about}, question {one}", _object(asked)


def _table(file: Path) -> Iterator[tuple[str, Row | BadRowError]]:
    """A table with a line of names on top; cells may hold line breaks within quotes."""
    limit = csv.field_size_limit(1 << 30)
    line = 0
    try:
        with opened(file) as stream:
            text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
            delimiter = "\t" if kind(file) == ".tsv" else ","
            rows = csv.reader(text, delimiter=delimiter, strict=True)
            names = _names(next(rows, []), file)
            for row in rows:
                line = rows.line_num
                if len(row) == len(names):
                    yield f"line {line}", dict(zip(names, row, strict=True))
                elif row:
                    told = f"{len(row)} cells, and {len(names)} columns"
                    yield f"line {line}", BadRowError(told)
    except csv.Error as fault:
        raise DataError(
            f"behind line {line} it is no table: {fault}",
            where=str(file),
            way_out="Quote cells that hold quotes, and double these.",
        ) from fault
    except UnicodeDecodeError as fault:
        raise DataError(
            f"behind line {line} it is not UTF-8: {fault.reason}",
            where=str(file),
            way_out="Save it as UTF-8.",
        ) from fault
    finally:
        csv.field_size_limit(limit)


def _names(names: list[str], file: Path) -> list[str]:
    """The first line of a table → its columns' names; DataError where they tell nothing apart."""
    if not names:
        raise DataError("the file is empty", where=str(file), way_out="Take it out of the recipe.")
    twice = next((name for name in names if name and names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"two columns are named {twice}",
            where=str(file),
            way_out="Give every column a name of its own.",
        )
    return names


def _parquet(file: Path) -> Iterator[tuple[str, Row | BadRowError]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        batches = table.iter_batches(1024)
        yield from _rows_of(batches)
    except pa.ArrowException as fault:
        raise _not_read(file, fault) from fault


def _arrow(file: Path) -> Iterator[tuple[str, Row | BadRowError]]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(file)) as source:
            try:
                opened_file = pa.ipc.open_file(source)
                count = opened_file.num_record_batches
                yield from _rows_of(opened_file.get_batch(i) for i in range(count))
            except pa.ArrowInvalid:
                source.seek(0)
                yield from _rows_of(iter(pa.ipc.open_stream(source)))
    except pa.ArrowException as fault:
        raise _not_read(file, fault) from fault


def _rows_of(batches: Iterator[Any]) -> Iterator[tuple[str, Row]]:
    number = 0
    for batch in batches:
        for row in batch.to_pylist():
            yield f"row {number}", row
            number += 1


def _not_read(file: Path, fault: Exception) -> DataError:
    return DataError(
        f"it cannot be read as {kind(file)[1:]}: {fault}",
        where=str(file),
        way_out="Write it again, or take it out of the recipe.",
    )


def _object(value: Any) -> Row | BadRowError:
    if isinstance(value, dict):
        return value
    return BadRowError(f"a JSON {type(value).__name__}, not an object")
