"""Data in; a commented recipe for it out, chosen by what the data is and how much there is."""

from __future__ import annotations

import glob
import json
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

from wellfit.data.read.decompress import DamagedStreamError, opened
from wellfit.data.read.plain import PIECE_BYTES
from wellfit.data.read.walk import Found, Input, find
from wellfit.errors import DataError, RunError
from wellfit.recipe.schema import Model, Source
from wellfit.recipe.shapes import parameter_count
from wellfit.recipe.show import scalar
from wellfit.recipe.sizes import DIALS, fill

# Byte-level BPE of 4,096 entries on the standard library: 3.4 bytes a token. Larger vocabularies
# reach about 4; the figure only steers size and budget.
_BYTES_PER_TOKEN = 3.5
# Text grows about so much when a compressed file is opened.
_GROWTH = {".gz": 3.5, ".zst": 3.5, ".parquet": 2.0}
# About 20 tokens for each parameter spend a training best (arXiv 2203.15556).
_TOKENS_PER_PARAMETER = 20
# Up to 4 epochs, repeated text teaches nearly as much as new text (arXiv 2305.16264).
_EPOCHS = 4
_TRAIN_SHARE = 0.9
_VOCABULARIES = ((100_000, 512), (1_000_000, 1_024), (5_000_000, 2_048), (50_000_000, 4_096),
                 (500_000_000, 8_192), (5_000_000_000, 16_384))  # fmt: skip
_TEXT_NAMES = ("text", "content", "body", "document", "raw_content")
_SIZES = ("nano", "micro", "mini", "small")
_LOOKED_AT = 8
_SPLITS = 3
_ROWS = 32
_HEAD = 65_536


@dataclass(frozen=True, slots=True)
class _Looked:
    """What the first rows of a file say."""

    column: str
    """The column or key with the text; empty where the file itself is the text."""
    rivals: tuple[str, ...]
    """Other columns that could have been meant."""
    start: str
    """How one of its texts begins."""


def write_recipe(path: Path, out: Path) -> str:
    """A file or folder of data and the recipe to write → what was found and written, in words.

    Raises DataError where there is nothing that can be read, and RunError where `out` stands
    already or cannot be written.
    """
    if out.exists():
        raise RunError(
            "a file of this name stands there already and is not overwritten",
            where=str(out),
            way_out=f"Give another name: wellfit init {shlex.quote(str(path))} --out OTHER.yaml",
        )
    found = find(Source(path=str(path)))
    inputs = [one for one in found.inputs if one.path.stat().st_size]
    if not inputs:
        raise DataError(_nothing(found), where=str(path), way_out=_WAY_OUT)
    sources, notes, starts = _sources(path, inputs)
    total = sum(_text_bytes(one) for one in inputs)
    held_out = _held_out(_documents(inputs))
    if held_out:
        notes.append(f"too few documents to hold out {held_out}: the split says so")
    text = _recipe(_name(path), inputs, total, sources, notes, starts, held_out)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as fault:
        raise RunError(
            f"the recipe cannot be written ({fault.strerror})",
            where=str(out),
            way_out="Make the folder, or give another place with --out.",
        ) from None
    told = [f"found {_counts(inputs)} in {path}", *notes, f"wrote {out}"]
    return "\n".join([*told, f"next: wellfit train {shlex.quote(str(out))}"])


_WAY_OUT = (
    "Text (.txt .rst), Markdown, source code, JSONL (.gz, .zst) and Parquet are read; "
    "for other names write a recipe with `format:`."
)


def _nothing(found: Found) -> str:
    if found.inputs:
        return f"all {len(found.inputs)} files are empty"
    reasons = ", ".join(f"{count} {reason}" for reason, count in found.passed_over.items())
    return "no file here can be read" + (f"; passed over: {reasons}" if reasons else "")


# ── what the data is ───────────────────────────────────────────────────────────────────────


def _sources(path: Path, inputs: list[Input]) -> tuple[list[dict[str, str]], list[str], list[str]]:
    """Files → the `sources` of the recipe, notes for a person, and beginnings of texts."""
    columns: dict[str, Counter[str]] = {}
    notes: list[str] = []
    starts: list[str] = []
    faults: list[str] = []
    for format_ in sorted({one.format for one in inputs}):
        files = [one for one in inputs if one.format == format_]
        # The largest files say most about the data.
        files = sorted(files, key=lambda one: (-one.path.stat().st_size, one.relative))
        for one in files[:_LOOKED_AT]:
            try:
                looked = _look(one)
            except DataError as fault:
                faults.append(f"{one.relative}: {fault.what}")
                continue
            starts.append(looked.start)
            columns.setdefault(format_, Counter())[looked.column] += 1
            if looked.rivals:
                rivals = ", ".join(f"`{name}`" for name in looked.rivals)
                notes.append(
                    f"unclear which column holds the text of {one.relative}: took "
                    f"`{looked.column}`, could be {rivals}"
                )
    if not columns:
        raise DataError(
            "nothing here is text: " + "; ".join(faults), where=str(path), way_out=_WAY_OUT
        )
    notes += [f"passed over: {fault}" for fault in faults]
    fields: dict[str, str] = {}
    for format_, counted in columns.items():
        (fields[format_], _), *others = counted.most_common()
        notes += [
            f"{count} {format_} files hold their text in `{name}`, not in `{fields[format_]}`"
            for name, count in others
        ]
    named = {name for name in fields.values() if name}
    if len(named) > 1:  # one column cannot serve all files: a source for each ending
        return _by_ending(path, inputs, fields), notes, starts
    source = {"path": path.as_posix()}
    if named - {"text"}:
        source["text_field"] = named.pop()
    return [source], notes, starts


def _by_ending(path: Path, inputs: list[Input], fields: dict[str, str]) -> list[dict[str, str]]:
    sources = []
    folder = glob.escape(path.as_posix())
    for ending in sorted({"".join(Path(one.relative).suffixes[-2:]) for one in inputs}):
        format_ = next(one.format for one in inputs if one.relative.endswith(ending))
        source = {"path": f"{folder}/**/*{glob.escape(ending)}"}
        if fields.get(format_):
            source["text_field"] = fields[format_]
        sources.append(source)
    return sources


def _look(one: Input) -> _Looked:
    if one.format in ("jsonl", "parquet"):
        rows = list(islice((_jsonl if one.format == "jsonl" else _parquet)(one.path), _ROWS))
        return _column(rows)
    with one.path.open("rb") as file:
        head = file.read(_HEAD)
    if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError("a binary file")
    return _Looked("", (), head.decode("utf-8", "ignore"))


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with opened(path) as stream:
        try:
            for number, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DataError(f"line {number} is no JSON object")
                yield row
        except (ValueError, RecursionError):
            raise DataError(f"line {number} is no JSON") from None
        except DamagedStreamError as fault:
            raise DataError(str(fault)) from None


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(_ROWS):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as fault:
        raise DataError(f"no Parquet that can be read ({str(fault).splitlines()[0]})") from None


def _column(rows: list[dict[str, Any]]) -> _Looked:
    """First rows → the column with the text: one of the usual names, else the longest texts."""
    lengths: Counter[str] = Counter()
    for row in rows:
        lengths.update({name: len(text) for name, text in row.items() if isinstance(text, str)})
    names = [name for name, length in lengths.most_common() if length]
    if not names:
        raise DataError("no column holds text" if rows else "no rows")
    usual = [name for name in _TEXT_NAMES if name in names]
    column = usual[0] if usual else names[0]
    rivals = [name for name in names if name != column and 2 * lengths[name] >= lengths[column]]
    start = next(row[column] for row in rows if isinstance(row.get(column), str) and row[column])
    return _Looked(column, () if usual else tuple(rivals[:3]), start)


def _documents(inputs: list[Input]) -> int:
    """Files → documents in them, counted no further than matters to the split."""
    count = 0
    for one in inputs:
        if one.format in ("jsonl", "parquet"):
            rows = (_jsonl if one.format == "jsonl" else _parquet)(one.path)
            with suppress(DataError):
                count += sum(1 for _ in islice(rows, _SPLITS))
        else:
            piece = PIECE_BYTES.get(one.format, PIECE_BYTES["text"])
            count += ceil(one.path.stat().st_size / piece)
        if count >= _SPLITS:
            break
    return count


def _held_out(documents: int) -> str:
    """Documents → what cannot be held out of so few, in words.

    >>> _held_out(1), _held_out(2), _held_out(3)
    ('validation and test', 'a test split', '')
    """
    return {0: "validation and test", 1: "validation and test", 2: "a test split"}.get(
        documents, ""
    )


def _text_bytes(one: Input) -> float:
    return one.path.stat().st_size * _GROWTH.get(one.path.suffix.lower(), 1.0)


def _counts(inputs: list[Input]) -> str:
    counted = Counter(one.format for one in inputs)
    size = sum(one.path.stat().st_size for one in inputs)
    parts = [f"{count:,} {name} file{'s' * (count > 1)}" for name, count in counted.most_common()]
    return f"{', '.join(parts)}, {_amount(size)}"


def _amount(size: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1_000:
            return f"{size:.3g} {unit}"
        size /= 1_000
    return f"{size:.3g} TB"


# ── what the recipe says ───────────────────────────────────────────────────────────────────


def _recipe(
    name: str,
    inputs: list[Input],
    total: float,
    sources: list[dict[str, str]],
    notes: list[str],
    starts: list[str],
    held_out: str,
) -> str:
    vocabulary = next((size for most, size in _VOCABULARIES if total < most), 32_768)
    tokens = max(1.0, total * _TRAIN_SHARE / _BYTES_PER_TOKEN)
    size, parameters = _size(tokens, vocabulary)
    budget, steps, why = _budget(tokens, parameters, size)
    lines = [
        f"# A recipe for {_counts(inputs)}. `wellfit recipe show` prints every setting it implies.",
        *(f"# {_printable(note)}" for note in notes),
        f"name: {scalar(name)}",
        "data:",
        "  sources:  # paths are relative to the folder in which wellfit is started",
    ]
    for source in sources:
        first, *others = (f"{key}: {scalar(value)}" for key, value in source.items())
        lines += [f"    - {first}", *(f"      {other}" for other in others)]
    if held_out:
        share = "0" if "validation" in held_out else "0.3"
        lines += [f"  split: {{validation: {share}, test: 0}}  # too few documents for more"]
    lines += [
        "  tokenizer:",
        f"    vocabulary_size: {vocabulary}  # more text carries more entries",
        "model:",
        f"  size: {size}  # about {parameters / 1e6:.0f} million parameters; {DIALS[size].about}",
        "train:",
        f"  budget: {{{budget}}}  # {why}",
        "evaluate:",
        f"  every: {max(10, min(250, steps // 20))}",
    ]
    prompts = _prompts(inputs, starts)
    if prompts:
        lines += ["monitor:", f"  prompts: {scalar(prompts)}  # how some of the texts begin"]
    return "\n".join(lines) + "\n"


def _size(tokens: float, vocabulary: int) -> tuple[str, int]:
    """Tokens at hand → the largest size that they can feed, and its parameters."""
    chosen: tuple[str, int] | None = None
    for size in _SIZES:
        added = {path: value for path, (value, _) in fill({"model": {"size": size}}).items()}
        section = {path[6:]: one for path, one in added.items() if path.startswith("model.")}
        parameters = parameter_count(Model.model_validate({"size": size, **section}), vocabulary)
        if chosen is None or parameters * _TOKENS_PER_PARAMETER <= _EPOCHS * tokens:
            chosen = (size, parameters)
    assert chosen is not None
    return chosen


def _budget(tokens: float, parameters: int, size: str) -> tuple[str, int, str]:
    """Tokens of an epoch, parameters and size → the budget as YAML, its steps, and the reason."""
    batch = DIALS[size].batch_tokens
    wanted = parameters * _TOKENS_PER_PARAMETER
    if wanted <= _EPOCHS * tokens:
        rounded = int(float(f"{wanted:.2g}"))
        return f"tokens: {rounded}", rounded // batch, "20 tokens a parameter"
    # Very little text: a few hundred steps are needed to learn anything, so it is repeated more.
    epochs = min(20, max(_EPOCHS, ceil(200 * batch / tokens)))
    steps = int(epochs * tokens / batch)
    about = f"{float(f'{tokens:.2g}'):,.0f}"
    why = f"about {about} tokens each; more repeats teach little"
    if epochs > _EPOCHS:
        why = "little text, often repeated: watch for overfitting in the report"
    return f"epochs: {epochs}", max(1, steps), why


def _prompts(inputs: list[Input], starts: list[str]) -> list[str]:
    if Counter(one.format for one in inputs).most_common(1)[0][0] == "code":
        return []  # the default prompts are meant for code
    words = (_printable(start).lstrip("\ufeff#*=- ").split()[:3] for start in starts)
    return list(dict.fromkeys(" ".join(some)[:40] for some in words if some))[:3]


def _name(path: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().name.split(".")[0]).strip("-._")
    return name or "data"


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else " " for sign in text[:400])
