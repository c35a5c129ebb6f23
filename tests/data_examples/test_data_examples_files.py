"""Every format gives the same rows; bad rows and bad files are told by place and reason."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from example_files import answers, questions

from wellfit.data.examples.files import BadRowError, find_files, read_rows
from wellfit.data.examples.shapes import Answer, Labelled, Question, example_of
from wellfit.errors import DataError
from wellfit.recipe.schema import Examples

SECTION = Examples(train=("x",), longest=64)
NAMED = Examples(train=("x",), longest=64, task="classification", classes=("bad", "fine", "good"))
ASKED = Examples(train=("x",), longest=64, task="span")


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    """Cells with commas, quotes and line breaks among them. Breaks when a table is split by hand
    at its commas."""
    rows = [*answers(20), {"prompt": 'a, "b"\nc', "completion": "d\te"}]
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "c.json").write_text(json.dumps(rows))
    (tmp_path / "d.json").write_text(json.dumps({"data": rows, "version": 1}))
    for name, sign in (("e.csv", ","), ("f.tsv", "\t")):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, ["prompt", "completion"], delimiter=sign)
            table.writeheader()
            table.writerows(rows)
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "g.parquet", row_group_size=7)
    for name, new in (("h.arrow", pa.ipc.new_file), ("i.arrow", pa.ipc.new_stream)):
        with pa.OSFile(str(tmp_path / name), "wb") as sink, new(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=5)
    found = find_files("train", (str(tmp_path),), tmp_path / "corpus")
    assert len(found) == 9
    for file in found:
        assert [row for _, row in read_rows(file)] == rows, file.name


def test_squads_nesting_is_unfolded(tmp_path: Path) -> None:
    """Break: give each paragraph as a row."""
    rows = questions(6)
    asked = [
        {
            "question": row["question"],
            "is_impossible": not row["answers"]["text"],
            "answers": [
                {"text": text, "answer_start": start}
                for text, start in zip(*row["answers"].values(), strict=True)
            ],
        }
        for row in rows
    ]
    paragraphs = [
        {"context": row["context"], "qas": [one]} for row, one in zip(rows, asked, strict=True)
    ]
    nested = {"version": "2.0", "data": [{"title": "t", "paragraphs": paragraphs}]}
    (tmp_path / "squad.json").write_text(json.dumps(nested))
    (tmp_path / "flat.json").write_text(json.dumps(rows))
    made = {
        name: [example_of(row, ASKED) for _, row in read_rows(tmp_path / name)]  # type: ignore[arg-type]
        for name in ("squad.json", "flat.json")
    }
    assert made["squad.json"] == made["flat.json"]


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({"instruction": "Say", "input": "it", "output": "so"}, Answer("Say\n\nit", "so")),
        ({"instruction": "Say", "input": "", "output": "so"}, Answer("Say", "so")),
        ({"instruction": "Say", "context": "it", "response": "so"}, Answer("Say\n\nit", "so")),
        ({"prompt": "Say", "completion": "so"}, Answer("Say", "so")),
        ({"input": "Say", "output": "so"}, Answer("Say", "so")),
        ({"question": "Say?", "answer": 4}, Answer("Say?", "4")),
        ({"question": "Say?", "context": "it", "answer": "so"}, Answer("Say?\n\nit", "so")),
    ],
)
def test_usual_names_are_found(row: dict[str, object], wanted: Answer) -> None:
    """Alpaca, Dolly, prompt and completion, GSM8K. Break: look for `input` before `instruction`."""
    assert example_of(row, SECTION) == wanted


def test_named_columns_go_before_usual_ones() -> None:
    """Break: look for usual names first."""
    columns = {"source": "translation.en", "target": "translation.de"}
    section = Examples.model_validate({"train": ["x"], "longest": 64, "columns": columns})
    row = {"translation": {"en": "a house", "de": "ein Haus"}, "prompt": "no", "output": "no"}
    assert example_of(row, section) == Answer("a house", "ein Haus")


@pytest.mark.parametrize("label", ["fine", 1, "1", 1.0, " fine "])
def test_a_class_goes_by_name_or_number(label: object) -> None:
    """Break: take numbers for names."""
    assert example_of({"text": "t", "label": label}, NAMED) == Labelled("t", None, 1)


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        ("the cat", (4, 11)),
        ({"text": ["the cat"], "answer_start": [4]}, (4, 11)),
        ([{"text": "the cat", "answer_start": 4}, {"text": "cat", "answer_start": 8}], (4, 11)),
        ({"text": [], "answer_start": []}, None),
        ([], None),
        ("", None),
    ],
)
def test_an_answer_has_many_forms(answer: object, wanted: tuple[int, int] | None) -> None:
    row = {"question": "who?", "context": "See the cat", "answers": answer}
    assert example_of(row, ASKED) == Question("who?", "See the cat", wanted)


@pytest.mark.parametrize(
    ("row", "section", "told"),
    [
        (
            {"prompt": "a"},
            SECTION,
            "no column is known to hold the target; there are prompt; name ",
        ),
        ({"prompt": "a", "output": "  "}, SECTION, "the target is empty"),
        ({"prompt": ["a"], "output": "b"}, SECTION, "the column 'prompt' holds a list, not a text"),
        ({"prompt": "\ud800", "output": "b"}, SECTION, "half a surrogate pair"),
        ({"text": "a", "label": "odd"}, NAMED, "'odd' is none of data.examples.classes (bad, fine"),
        ({"text": "a", "label": 3}, NAMED, "nor a number from 0 to 2"),
        ({"text": "a", "label": 0.5}, NAMED, "the label 0.5 is none"),
        ({"text": "a"}, NAMED, "no column is known to hold the label"),
        ({"text": " ", "label": 0}, NAMED, "the text is empty"),
        ({"question": "q", "context": "c", "answers": "d"}, ASKED, "'d' does not stand in its"),
        (
            {"question": "q", "context": "abc", "answers": {"text": "b", "answer_start": 2}},
            ASKED,
            "at answer_start 2 the context does not have the answer 'b', but 'c'",
        ),
        ({"question": "q", "context": "c", "answers": [4]}, ASKED, "the answer is a int, not a"),
        ({"question": "q", "context": " ", "answers": []}, ASKED, "or its context is empty"),
        ({"question": "q", "context": "c"}, ASKED, "no column is known to hold the answers"),
    ],
)
def test_a_bad_row_says_what_is_wrong(row: dict[str, object], section: Examples, told: str) -> None:
    with pytest.raises(BadRowError) as caught:
        example_of(row, section)
    assert told in str(caught.value)


def test_bad_lines_have_their_place(tmp_path: Path) -> None:
    """Break: count only the good ones."""
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n\n{"a": \n[1]\n')
    (tmp_path / "b.csv").write_text("a,b\n1,2\n1,2,3\n")
    bad = [
        (position, str(row))
        for name in ("a.jsonl", "b.csv")
        for position, row in read_rows(tmp_path / name)
        if isinstance(row, BadRowError)
    ]
    assert [position for position, _ in bad] == ["line 3", "line 4", "line 3"]
    assert "not JSON" in bad[0][1] and "a JSON list" in bad[1][1] and "3 cells" in bad[2][1]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.json", b'{"a": 1}\n{"a": 2}', "name the file .jsonl"),
        ("a.json", b'{"rows": []}', "there is no list of examples in it"),
        ("a.csv", b"", "the file is empty"),
        ("a.csv", b"a,a\n1,2\n", "two columns are named a"),
        ("a.csv", b'a,b\n"1,2\n', "it is no table"),
        ("a.csv", b"a,b\n\xff,2\n", "it is not UTF-8"),
        ("a.parquet", b"PAR1nothing", "it cannot be read as parquet"),
        ("a.arrow", b"ARROW1 nothing", "it cannot be read as arrow"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}' * 999, mtime=0)[:-20], "the file cannot be read"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_rows(tmp_path / name))
    assert told in str(caught.value) and name in str(caught.value)


def test_paths_that_lead_nowhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}\n")
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "b.jsonl").write_text("{}\n")
    (tmp_path / "empty").mkdir()
    for named, told in {
        ("gone.jsonl",): "there is no such file or folder",
        ("*.odd",): "no file fits this pattern",
        ("empty",): "the folder holds no file of examples",
        ("a.txt",): "does not tell how examples are stored",
        ("a.jsonl", "a.jsonl"): "the file is named twice in train",
        ("corpus/b.jsonl",): "the file lies in the corpus folder",
    }.items():
        paths = tuple(str(tmp_path / one) for one in named)
        with pytest.raises(DataError) as caught:
            find_files("train", paths, tmp_path / "corpus")
        assert told in str(caught.value), named
