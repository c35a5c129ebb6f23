"""CSV, TSV, tables with semicolons or blanks → Logs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from typing import Any

from wellfit.diagnosis.importers import names
from wellfit.diagnosis.importers.json_file import loose
from wellfit.diagnosis.importers.json_shapes import add_column, add_unnamed
from wellfit.diagnosis.importers.log import Log

DELIMITERS = (",", "\t", ";", "|")
BLANKS = " "
"""Stands for: fields divided by any number of blanks."""
LARGE = 2_000_000
"""From this many characters on, importing pyarrow pays."""
EMPTY = frozenset(["", "null", "none", "na", "n/a", "#n/a", "-", "--"])
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?")
_WORD = re.compile(r"[^\W\d]")


def delimiter_of(text: str) -> str | None:
    """What divides the fields of a table; None where a text is none."""
    lines = _head(text)
    for delimiter in (*DELIMITERS, BLANKS):
        rows = [_split(line, delimiter) for line in lines]
        if rows and len(rows[0]) > 1 and _is_table(rows):
            return delimiter
    # One column: a header that names a loss, or numbers alone.
    if len(lines) > 1 and all(loose(line) is not None for line in lines[1:]):
        role = names.role(lines[0].strip('"'))
        if loose(lines[0]) is not None or (role and role.kind in ("train", "validation")):
            return ","
    return None


def _head(text: str) -> list[str]:
    lines = [
        line for line in text[:60_000].split("\n")[:60] if line.strip() and line.lstrip()[0] != "#"
    ]
    if len(text) > 60_000 and len(lines) > 1:
        lines.pop()
    return lines[:40]


def _is_table(rows: list[list[str]]) -> bool:
    width = len(rows[0])
    body = [row for row in rows[1:] if row != rows[0]]
    if _named(rows[0]):
        known = [names.role(cell) for cell in rows[0]]
        if not body:
            return sum(one is not None for one in known) > 1
        # An excerpt of a table may end within a row.
        same = [row for row in body if len(row) == width]
        numbers = sum(_is_number(cell) for row in same for cell in row)
        return len(same) >= 0.7 * len(body) and numbers >= 0.4 * width * len(same)
    return len(rows) > 1 and all(
        len(row) == width and all(_is_number(cell) for cell in row) for row in rows[:-1]
    )


def _named(row: list[str]) -> bool:
    """Whether a row is a header: words, of which one at least is a known name."""
    filled = [cell for cell in row if cell]
    return (
        len(filled) >= 0.5 * len(row)
        and all(_WORD.search(cell) and loose(cell) is None for cell in filled)
        and (any(names.role(cell) for cell in filled) or any(" - " in cell for cell in filled))
    )


def _is_number(cell: str) -> bool:
    cell = cell.strip()
    return (
        cell.lower() in EMPTY
        or loose(cell) is not None
        or _DECIMAL_COMMA.fullmatch(cell) is not None
    )


def logs_of_table(text: str, delimiter: str, name: str) -> list[Log]:
    """A table → its Log, or its Logs where it is an export of several runs."""
    lines = _head(text)
    header = _split(lines[0], delimiter)
    notes: list[str] = []
    if not _named(header) and (len(header) > 1 or loose(header[0]) is not None):
        rows = [_split(line, delimiter) for line in _lines(text)]
        log = Log(name, _format(delimiter))
        add_unnamed(log, [[_cell(cell, delimiter) for cell in row] for row in rows])
        return [log]
    if "\n" + lines[0] + "\n" in text:  # written again after each resume
        rest = text.partition(lines[0] + "\n")[2]
        if repeated := rest.count(lines[0] + "\n"):
            notes.append(f"The header comes {repeated + 1} times.")
            text = lines[0] + "\n" + rest.replace(lines[0] + "\n", "")
    columns, rows_count, cut = _columns(text, delimiter, header)
    if cut:
        notes.append(f"{cut:,} rows have more or fewer fields than the header.")
    if [cell.lower() for cell in header] == ["wall time", "step", "value"]:
        # A curve saved from TensorBoard: only the file's name says of what.
        tag = name.removesuffix(".csv").rpartition("tag-")[2]
        named = {"Step": "step", "Value": tag if names.is_wanted(tag) else "loss"}
        return [_log(name, delimiter, named, columns, rows_count, notes)]
    runs = _runs(header)
    if runs is None:
        return [_log(name, delimiter, {key: key for key in columns}, columns, rows_count, notes)]
    return [_log(run, delimiter, named, columns, rows_count, notes) for run, named in runs.items()]


def _runs(header: list[str]) -> dict[str, dict[str, str]] | None:
    """The header of a Weights & Biases export → run → column → metric; None elsewhere."""
    if not any(" - " in cell for cell in header):
        return None
    from wellfit.diagnosis.importers.wandb import export_runs

    return export_runs(header)


def _log(
    name: str,
    delimiter: str,
    named: dict[str, str],
    columns: dict[str, tuple[list[int], list[float]]],
    count: int,
    notes: list[str],
) -> Log:
    log = Log(name, _format(delimiter), notes=list(notes))
    for column, metric in named.items():
        if column in columns and columns[column][0]:
            add_column(log, metric, *columns[column])
    log.rows = count
    return log


def _format(delimiter: str) -> str:
    return {",": "CSV", "\t": "TSV"}.get(delimiter, "table")


# ── cells ──────────────────────────────────────────────────────────────────────────────────


def _columns(
    text: str, delimiter: str, header: list[str]
) -> tuple[dict[str, tuple[list[int], list[float]]], int, int]:
    """A table with its header → name → (rows, values), the number of rows, of uneven rows."""
    if len(text) > LARGE and delimiter != BLANKS:
        fast = _by_arrow(text, delimiter, header)
        if fast is not None:
            return *fast, 0
    rows = list(_rows(text, delimiter))[1:]
    uneven = sum(len(row) != len(header) for row in rows)
    found: dict[str, tuple[list[int], list[float]]] = {}
    for i, key in enumerate(header):
        cells = [row[i] if i < len(row) else "" for row in rows]
        values = [_cell(cell, delimiter) for cell in cells]
        at = [row for row, one in enumerate(values) if one is not None]
        found.setdefault(key, (at, [one for one in values if one is not None]))
    return found, len(rows), uneven


def _by_arrow(
    text: str, delimiter: str, header: list[str]
) -> tuple[dict[str, tuple[list[int], list[float]]], int] | None:
    """The same with Arrow; None where it cannot read the table."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    if len(set(header)) < len(header) or "\n#" in text:
        return None
    try:
        table = arrow_csv.read_csv(
            io.BytesIO(text.encode()),
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter),
            read_options=arrow_csv.ReadOptions(block_size=16 << 20),
            convert_options=arrow_csv.ConvertOptions(
                null_values=["", "null", "None", "NA", "N/A", "#N/A", "-"]
            ),
        )
    except pa.ArrowException:
        return None
    everywhere = list(range(table.num_rows))
    found: dict[str, tuple[list[int], list[float]]] = {}
    for key, column in zip(header, table.columns, strict=True):
        if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
            values = column.cast(pa.float64()) if column.type != pa.float64() else column
            if column.null_count == 0:
                found[key] = (everywhere, values.to_numpy().tolist())
            else:
                at = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
                found[key] = (at.tolist(), values.drop_null().to_numpy().tolist())
        elif pa.types.is_string(column.type):
            cells = [_cell(cell or "", delimiter) for cell in column.to_pylist()]
            kept = [row for row, one in enumerate(cells) if one is not None]
            found[key] = (kept, [one for one in cells if one is not None])
    return found, table.num_rows


def _rows(text: str, delimiter: str) -> Sequence[list[str]]:
    lines = _lines(text)
    if delimiter == BLANKS:
        return [line.split() for line in lines]
    try:
        return [
            [cell.strip() for cell in row]
            for row in csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
            if row
        ]
    except csv.Error:  # a NUL, or a field of 128 KiB
        return [line.split(delimiter) for line in lines]


def _lines(text: str) -> list[str]:
    """Lines that are neither blank nor comments."""
    return [line for line in text.split("\n") if line.strip() and line.lstrip()[0] != "#"]


def _split(line: str, delimiter: str) -> list[str]:
    rows: Any = _rows(line, delimiter)
    return rows[0] if rows else [""]


def _cell(cell: str, delimiter: str) -> float | None:
    """A cell → its number. A comma is decimal where it does not divide fields."""
    found = loose(cell)
    if found is None and delimiter != "," and _DECIMAL_COMMA.fullmatch(cell.strip()):
        return float(cell.replace(",", "."))
    return found
