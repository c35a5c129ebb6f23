"""Readers: what is read, what is rejected and why, and the bytes behind every character."""

from __future__ import annotations

import gzip
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wellfit.data.read.formats import READERS
from wellfit.data.read.plan import RANGE_BYTES, inspect, tasks_of
from wellfit.data.read.walk import Input
from wellfit.recipe.schema import Source
from wellfit.records import Document, Rejected

SOURCE = Source(path="texts")
own_folder = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read(path: Path, format_: str, source: Source = SOURCE) -> list[Document | Rejected]:
    """All of a file, in the tasks that the build would make of it."""
    found = inspect(Input(path, path.name, format_, ""))
    tasks, rejected = tasks_of(source, [found])

    def all_of() -> Iterator[Document | Rejected]:
        yield from rejected
        for task in tasks:
            for file, (relative, name, _, start, end, row) in zip(
                task.files, task.data["entries"], strict=True
            ):
                yield from READERS[name].read(file.path, relative, source, start, end, row)

    return list(all_of())


def one(path: Path, format_: str) -> Document:
    (document,) = read(path, format_)
    assert isinstance(document, Document), document
    return document


def span(path: Path, format_: str, document: Document, start: int, end: int) -> bytes:
    """The bytes of the file that stand for these characters."""
    found = READERS[format_].byte_span(path, document.origin, start, end)
    assert found is not None
    return path.read_bytes()[slice(*found)]


@pytest.mark.parametrize(
    ("data", "name", "text", "encoding"),
    [
        ("naïve €\n".encode(), "a.txt", "naïve €\n", "utf-8"),
        (b"\xef\xbb\xbfna\xc3\xafve", "a.txt", "naïve", "utf-8"),
        ("naïve €".encode("cp1252"), "a.txt", "naïve €", "cp1252"),
        (b"\xff\xfe" + "naïve 𝄞".encode("utf-16-le"), "a.txt", "naïve 𝄞", "utf-16-le"),
        (b"\xfe\xff" + "naïve".encode("utf-16-be"), "a.txt", "naïve", "utf-16-be"),
        (b"\xff\xfe\0\0" + "na\u00efve".encode("utf-32-le"), "a.txt", "naïve", "utf-32-le"),
        ("# coding: latin-1\n'é'".encode("latin-1"), "a.py", "# coding: latin-1\n'é'", "iso8859-1"),
        (b"", "a.txt", "", "utf-8"),
    ],
)
def test_encodings_are_told_apart_and_lead_back(
    tmp_path: Path, data: bytes, name: str, text: str, encoding: str
) -> None:
    """Breaks when the byte order mark is counted as text, or a span is counted in UTF-8 always."""
    path = tmp_path / name
    path.write_bytes(data)
    format_ = "code" if name.endswith(".py") else "text"
    document = one(path, format_)
    assert (document.text, document.origin.encoding) == (text, encoding)
    assert READERS[format_].text_at(path, document.origin) == text
    for start in range(len(text)):
        assert span(path, format_, document, start, start + 1).decode(encoding) == text[start]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"text\0more", "binary: a NUL byte at byte 4"),
        (b"\x01\x02\x03\x04text", "binary: 4 of 8 bytes are control characters"),
        ("héé wörld ünd".encode() + b"\xff", "damaged UTF-8"),
        (b"caf\x81", "neither UTF-8 nor Windows-1252"),
        (b"\xff\xfea", "not utf-16-le as the file declares"),
    ],
)
def test_what_is_no_text_is_rejected_with_its_reason(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    (rejected,) = read(path, "text")
    assert isinstance(rejected, Rejected)
    assert (rejected.path, rejected.reason) == ("a.txt", reason)


def test_a_large_text_is_cut_behind_paragraphs_and_nothing_is_lost(tmp_path: Path) -> None:
    """Breaks when a cut depends on where its range began, or a piece is given twice."""
    lines = [f"Paragraph {n} ü.\n" + "\n" * (n % 3 == 0) for n in range(40_000)]
    data = "".join(lines).encode()
    path = tmp_path / "book.txt"
    path.write_bytes(data)
    documents = read(path, "text")
    assert len(documents) > 5
    origins = [d.origin for d in documents if isinstance(d, Document)]
    assert [o.start for o in origins[1:]] == [o.end for o in origins[:-1]]
    assert (origins[0].start, origins[-1].end) == (0, len(data))
    assert all(d.text.endswith("\n\n") for d in documents[:-1] if isinstance(d, Document))
    whole = list(READERS["text"].read(path, path.name, SOURCE, 0, len(data), 0))
    halves = [
        document
        for start in range(0, len(data), 64 << 10)
        for document in READERS["text"].read(path, path.name, SOURCE, start, start + (64 << 10), 0)
    ]
    assert whole == halves == documents


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_a_large_text_without_lines_is_cut_between_characters(
    tmp_path: Path, encoding: str
) -> None:
    """Breaks when a hard cut falls inside a character of several bytes."""
    text = ("é" if encoding == "cp1252" else "x𝄞é") * 150_000
    path = tmp_path / "line.txt"
    path.write_bytes(text.encode(encoding))
    documents = read(path, "text")
    assert len(documents) > 1
    assert "".join(d.text for d in documents if isinstance(d, Document)) == text


@own_folder
@given(
    texts=st.lists(st.text(), min_size=1, max_size=4),
    escape=st.booleans(),
    key=st.sampled_from(["text", "a\nb", "é"]),
)
def test_jsonl_spans_are_exact_for_any_text(
    tmp_path: Path, texts: list[str], escape: bool, key: str
) -> None:
    """Breaks when an escape counts as one byte, or the key is found inside another value."""
    path = tmp_path / "a.jsonl"
    records = [
        {"decoy": f'"{key}": "no"', "deep": {key: "no"}, key: text, "n": 1} for text in texts
    ]
    lines = [json.dumps(record, ensure_ascii=escape) for record in records]
    path.write_bytes("\n".join(lines).encode("utf-8"))
    documents = read(path, "jsonl", Source(path="texts", text_field=key))
    for number, (document, text) in enumerate(zip(documents, texts, strict=True)):
        assert isinstance(document, Document), document
        assert (document.text, document.origin.row) == (text, number)
        assert READERS["jsonl"].text_at(path, document.origin) == text
        for start in range(len(text)):
            literal = span(path, "jsonl", document, start, start + 1)
            assert json.loads(b'"' + literal + b'"') == text[start]
        whole = span(path, "jsonl", document, 0, len(text))
        assert json.loads(b'"' + whole + b'"') == text


def test_bad_json_lines_are_rejected_with_line_and_reason_and_the_rest_is_read(
    tmp_path: Path,
) -> None:
    """Breaks when a bad line ends the reading, or a truncated last line is dropped silently."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(
        b'{"text": "good"}\n{"text": 5}\n[1]\n\n{"body": "x"}\n{"text": "\xff"}\n'
        b'{"text": "\\ud800"}\n{"text": "also good"}\r\n{"text": "trunc'
    )
    found = read(path, "jsonl")
    assert [d.text for d in found if isinstance(d, Document)] == ["good", "also good"]
    told = [(r.position, r.reason) for r in found if isinstance(r, Rejected)]
    assert told == [
        ("line 2", "the key 'text' holds a number, not a string"),
        ("line 3", "a JSON list, not an object"),
        ("line 5", "no key 'text'; its keys: body"),
        ("line 6", "not UTF-8 at byte 58"),
        ("line 7", "the key 'text' holds half a surrogate pair, which is no text"),
        (
            "line 9",
            "not JSON: Unterminated string starting at at character 10 "
            "(the file ends within this line)",
        ),
    ]
    assert path.read_bytes()[58] == 0xFF


def test_a_huge_jsonl_is_split_over_byte_ranges(tmp_path: Path) -> None:
    """Breaks when a line at the border of two ranges is read twice, or by neither, or its number
    is that of the range."""
    path = tmp_path / "huge.jsonl"
    with path.open("w") as stream:
        for number in range(40_000):
            stream.write(json.dumps({"text": f"{number} " + "x" * (number % 700)}) + "\n")
    assert path.stat().st_size > RANGE_BYTES
    documents = [d for d in read(path, "jsonl") if isinstance(d, Document)]
    assert [int(d.text.split(" ")[0]) for d in documents] == list(range(40_000))
    assert [d.origin.row for d in documents] == list(range(40_000))
    data = path.read_bytes()
    border = data.rindex(b"\n", 0, 5_000) + 1
    line = data[:border].count(b"\n")
    for start, row in ((border, line), (border - 1, line - 1), (border + 1, line)):
        first = next(READERS["jsonl"].read(path, path.name, SOURCE, start, len(data), row))
        assert isinstance(first, Document)
        assert first.origin.row == int(first.text.split(" ")[0]) == line + (start > border)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_compressed_lines_lead_back_into_the_decompressed_stream(
    tmp_path: Path, ending: str
) -> None:
    """Breaks when a second member is not read, or a cut stream ends without a word."""
    lines = [json.dumps({"text": f"naïve {n}"}) + "\n" for n in range(20_000)]
    half = len(lines) // 2
    plain = ["".join(lines[:half]).encode(), "".join(lines[half:]).encode()]
    squeeze = gzip.compress if ending == ".gz" else zstandard.ZstdCompressor().compress
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(b"".join(map(squeeze, plain)))
    documents = [d for d in read(path, "jsonl") if isinstance(d, Document)]
    assert len(documents) == len(lines)
    last = documents[-1]
    assert READERS["jsonl"].text_at(path, last.origin) == "naïve 19999"
    start, end = READERS["jsonl"].byte_span(path, last.origin, 0, 3) or (0, 0)
    assert b"".join(plain)[start:end] == rb"na\u00ef"

    path.write_bytes(path.read_bytes()[:-20])
    *good, bad = read(path, "jsonl")
    assert isinstance(bad, Rejected)
    assert bad.reason == "the compressed stream ends early"
    assert bad.position.startswith(f"line {len(good) + 1}, byte ")
    assert len(good) >= half
    path.write_bytes(b"this is not compressed at all")
    (bad,) = read(path, "jsonl")
    assert isinstance(bad, Rejected)
    assert bad.reason.startswith("the compressed stream is broken")


def test_parquet_rows_and_their_faults(tmp_path: Path) -> None:
    """Breaks when rows are numbered within their row group."""
    path = tmp_path / "a.parquet"
    texts = [None if n == 7 else f"row {n}" for n in range(1_000)]
    pq.write_table(pa.table({"text": texts, "n": range(1_000)}), path, row_group_size=100)
    found = read(path, "parquet")
    documents = [d for d in found if isinstance(d, Document)]
    assert [d.origin.row for d in documents] == [n for n in range(1_000) if n != 7]
    assert READERS["parquet"].text_at(path, documents[500].origin) == documents[500].text
    assert READERS["parquet"].byte_span(path, documents[0].origin, 0, 1) is None
    (bad,) = [r for r in found if isinstance(r, Rejected)]
    assert (bad.position, bad.reason) == ("row 7", "the column 'text' holds null")
    (wrong,) = read(path, "parquet", Source(path="texts", text_field="texd"))
    assert isinstance(wrong, Rejected)
    assert wrong.reason == "no column 'texd'; its columns: text, n; nearest: 'text'"
    (number,) = read(path, "parquet", Source(path="texts", text_field="n"))
    assert isinstance(number, Rejected)
    assert number.reason == "the column 'n' holds int64, not text"
    path.write_bytes(b"PAR1 nonsense")
    (broken,) = read(path, "parquet")
    assert isinstance(broken, Rejected)
    assert broken.reason.startswith("no Parquet that can be read")


def test_topics_of_this_interpreter_lead_back_into_their_literals() -> None:
    """Breaks when escapes, adjacent literals or quotes are miscounted; truth is pydoc itself."""
    import pydoc_data.topics as truth

    path = Path(sysconfig.get_paths()["stdlib"]) / "pydoc_data" / "topics.py"
    documents = [d for d in read(path, "topics") if isinstance(d, Document)]
    assert {d.origin.member: d.text for d in documents} == truth.topics
    reader = READERS["topics"]
    data = path.read_bytes()
    for document in documents[::9]:
        assert reader.text_at(path, document.origin) == document.text
        for start in range(0, len(document.text), max(1, len(document.text) // 10)):
            word = document.text[start : start + 1]
            first, last = reader.byte_span(path, document.origin, start, start + 1) or (0, 0)
            literal = data[first:last].decode()
            assert literal == word or eval(f"'''{literal}'''") == word


def test_topics_with_every_kind_of_literal(tmp_path: Path) -> None:
    path = tmp_path / "topics.py"
    path.write_text(
        "topics = {'a': 'x\\n' \"it's \\x41\\u00e9\"\n     r'\\n', "
        "'b': '''two\nlines\\\n on''', 'c': 3}\n"
    )
    documents = [d for d in read(path, "topics") if isinstance(d, Document)]
    assert [d.text for d in documents] == ["x\nit's Aé\\n", "two\nlines on"]
    first = documents[0]
    shown = [span(path, "topics", first, n, n + 1).decode() for n in range(len(first.text))]
    assert shown == ["x", "\\n", *"it's ", "\\x41", "\\u00e9", "\\", "n"]
    assert span(path, "topics", documents[1], 8, 10) == b"s\\\n "


def test_ids_depend_on_source_path_and_place_only(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": "two"}\n')
    before = [d.id for d in read(path, "jsonl") if isinstance(d, Document)]
    path.write_text('{"text": "ONE, longer"}\n{"text": "two"}\n')
    after = [d.id for d in read(path, "jsonl") if isinstance(d, Document)]
    other = [d.id for d in read(path, "jsonl", Source(path="b")) if isinstance(d, Document)]
    assert before == after
    assert len({*before, *other}) == 4
