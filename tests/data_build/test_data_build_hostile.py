"""Sources that nobody chose for a test: odd bytes, odd names, files that change meanwhile."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from building import bytes_of, decisions, section

from wellfit.data.build import build_corpus
from wellfit.data.corpus import Corpus
from wellfit.data.locate import locate
from wellfit.data.tokens.tokenizer import train
from wellfit.errors import DataError, RecipeError

Prose = Callable[..., str]


@pytest.fixture
def folder(tmp_path: Path, prose: Prose) -> Path:
    """A folder of twelve texts."""
    made = tmp_path / "texts"
    made.mkdir()
    for number in range(12):
        (made / f"{number:02}.txt").write_text(prose(number) + "\n")
    return made


def rejected(corpus: Corpus) -> list[tuple[str, str, str]]:
    """What `rejected.jsonl` says: path, position, reason."""
    with (corpus.folder / "rejected.jsonl").open(encoding="utf-8") as lines:
        found = [json.loads(line) for line in lines]
    return [(one["path"], one["position"], one["reason"]) for one in found]


def passed_over(corpus: Corpus, source: Path) -> dict[str, int]:
    found = corpus.report["sources"][str(source)]["passed_over"]
    assert isinstance(found, dict)
    return found


def test_quoted_documents_are_never_held_out(tmp_path: Path, prose: Prose) -> None:
    """Short documents that long ones quote whole are no near duplicates; the build keeps them in
    train, tells which, and still holds out the asked shares.

    Fails when the build takes the first split, as it did before `hold_out` was wired in.
    """
    source = tmp_path / "texts"
    source.mkdir()
    for number in range(40):
        (source / f"short{number:02}.txt").write_text(prose(100 + number, 60))
        (source / f"own{number:02}.txt").write_text(prose(300 + number, 120))
    for number in range(10):
        quoted = [prose(100 + one, 60) for one in range(number * 2, number * 2 + 2)]
        (source / f"long{number}.txt").write_text(" ".join([prose(200 + number, 400), *quoted]))
    wanted = {"validation": 0.15, "test": 0.15}
    corpus = build_corpus(section(source, split=wanted), name="c", folder=tmp_path / "corpus")
    made = decisions(corpus)
    for number in range(20):
        if made[f"short{number:02}.txt"]["split"] != "train":
            assert made[f"long{number // 2}.txt"]["split"] != "train"
    leakage = corpus.report["leakage"]
    assert leakage["contained_documents"] == 0
    assert all(one["share"] < 0.5 for one in leakage["worst_documents"])
    barred = {one for one in made if made[one]["id"] in leakage["kept_in_train"]["samples"]}
    assert barred and all(one.startswith("short") for one in barred)
    assert all(made[one]["split"] == "train" for one in barred)
    for side, share in wanted.items():
        held = corpus.report["by_split"][side]["bytes"]
        assert held >= share * corpus.report["kept"]["total"]["bytes"]


def test_published_functions_clean_and_filter(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package's entry points `wellfit.clean` and `wellfit.filters` are found by short name, in
    the build and in its workers; an unknown name is told with the recipe's own words.

    Fails when the build looks for cleaners under another word than the recipe does.
    """
    package = tmp_path / "site"
    (package / "loud-1.0.dist-info").mkdir(parents=True)
    (package / "loud.py").write_text(
        "def shout(text): return text.upper()\n"
        "def quiet(document, mark='Q'): return 'quiet' if mark in document.text else None\n"
    )
    (package / "loud-1.0.dist-info" / "METADATA").write_text("Name: loud\nVersion: 1.0\n")
    (package / "loud-1.0.dist-info" / "entry_points.txt").write_text(
        "[wellfit.clean]\nshout = loud:shout\n[wellfit.filters]\nquiet = loud:quiet\n"
    )
    monkeypatch.syspath_prepend(str(package))
    (folder / "marked.txt").write_text("one word with a # mark and some more of them")
    data = section(folder, clean=["shout"], filters=[{"quiet": {"mark": "#"}}], workers=2)
    corpus = build_corpus(data, name="c", folder=tmp_path / "corpus")
    assert decisions(corpus)["marked.txt"]["reason"] == "quiet"
    (part,) = (corpus.folder / "documents").glob("*.parquet")
    texts = pq.read_table(part, columns=["text"])["text"].to_pylist()
    assert texts and all(text == text.upper() != text.lower() for text in texts)
    for kind in ("clean", "filters"):
        with pytest.raises(RecipeError, match=f"not among the functions of `{kind}`"):
            build_corpus(section(folder, **{kind: ["shoot"]}), name="c", folder=tmp_path / "no")


def test_every_gate_names_its_fault_and_what_was_built_stays(
    tmp_path: Path, folder: Path, prose: Prose
) -> None:
    """A missing file, an emptied folder, and nothing but bad lines: one message each, and the
    corpus that was built before still stands, whole.

    Fails when the old corpus is taken down before the new one is ready.
    """
    lines = tmp_path / "lines.jsonl"
    lines.write_text(json.dumps({"text": prose(70)}) + "\n")
    corpus = build_corpus(section(folder, lines), name="c", folder=tmp_path / "corpus")
    listed = ("shards", "documents", "manifest.json", "decisions.parquet", "report.json")

    def standing() -> dict[str, bytes]:
        found = bytes_of(corpus.folder)
        return {name: found[name] for name in found if name.startswith(listed)}

    before = standing()

    def fault() -> str:
        with pytest.raises(DataError) as caught:
            build_corpus(section(folder, lines), name="c", folder=corpus.folder)
        assert standing() == before
        Corpus.open(corpus.folder).verify()
        return str(caught.value)

    whole = lines.read_text()
    lines.write_text(whole[:-20])
    told = fault()
    assert told.startswith(f"{lines}: the source gives no document: 1 records rejected")
    assert "(1 × not JSON: Unterminated string" in told
    lines.unlink()
    told = fault()
    assert told.startswith(f"{lines}: there is no such file or folder")
    lines.write_text(whole)
    for path in folder.iterdir():
        path.unlink()
    told = fault()
    assert told.startswith(f"{folder}: the source gives no document")
    assert "It holds no file that can be read" in told
    (folder / "a.txt").write_bytes(b"\x7fELF\0\0")
    assert "1 of 2 records (50.0%) cannot be read" in (told := fault())
    assert "1 × binary: a NUL byte; the first is a.txt" in told


def test_odd_lines_are_read_or_rejected_one_by_one(
    tmp_path: Path, folder: Path, prose: Prose
) -> None:
    """Each bad line is told, every good one is read, and tokens of what was read lead back.

    Fails when only JSONDecodeError is caught: Python refuses huge numbers with a ValueError.
    """
    good = json.dumps({"text": prose(60) + " a\0b \U0001f600 \u2028 c", "n": [[[[]]]]})
    bad = [
        '{"text": "x\0y"}',
        "\0\0\0",
        '{"text": "\\ud800"}',
        '{"\\udc00": 1}',
        '{"text": "long", "n": ' + "9" * 5000 + "}",
        '{"text": "deep", "n": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ]
    (folder / "a.jsonl").write_text("\n".join([good, *bad, good.replace("a", "e")]))
    data = section(folder, clean=[], max_rejected_share=0.5)
    corpus = build_corpus(data, name="c", folder=tmp_path / "corpus")
    assert corpus.report["documents"] == 12 + 2
    told = rejected(corpus)
    assert [position for _, position, _ in told] == [f"line {n}" for n in range(2, 8)]
    assert told[4][2] == "not JSON that can be read: a number of thousands of digits"
    assert told[5][2] == "not JSON that can be read: nested too deeply"
    for shard in corpus.shards():
        for offset in range(1, shard["tokens"], 97):
            place = locate(corpus.folder, f"{shard['name']}:{offset}")
            assert place.read_text is not None and place.start_byte is not None


def test_odd_parquet_columns_are_told_and_no_row_is_lost(
    tmp_path: Path, folder: Path, prose: Prose
) -> None:
    """Fails when one value that is not UTF-8 costs all rows behind it, or a name that two columns
    have ends the build.
    """
    texts = [prose(80 + number) for number in range(4)]
    tables: dict[str, Any] = {
        "binary": pa.array([text.encode() for text in texts]),
        "list": pa.array([[text] for text in texts]),
        "nothing": pa.nulls(4),
        "struct": pa.array([{"a": text} for text in texts]),
        "words": pa.array(texts).dictionary_encode(),
    }
    for name, column in tables.items():
        pq.write_table(pa.table({"text": column}), folder / f"{name}.parquet")
    pq.write_table(
        pa.table([pa.array(texts), pa.array(texts)], names=["text", "text"]),
        folder / "twice.parquet",
    )
    pq.write_table(pa.table({"body": texts}), folder / "other.parquet")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), folder / "empty.parquet")
    values = [prose(90).encode(), b"bad \xff bytes", prose(91).encode()]
    bounds = [0, *(sum(map(len, values[: n + 1])) for n in range(3))]
    offsets = b"".join(bound.to_bytes(4, "little") for bound in bounds)
    damaged = pa.Array.from_buffers(
        pa.string(), 3, [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))]
    )
    pq.write_table(pa.table({"text": damaged}), folder / "damaged.parquet")
    data = section(folder, max_rejected_share=0.5)
    corpus = build_corpus(data, name="c", folder=tmp_path / "corpus")
    assert corpus.report["documents"] == 12 + 4 + 2
    assert {(path, position): reason for path, position, reason in rejected(corpus)} == {
        ("binary.parquet", "the file"): "the column 'text' holds binary, not text",
        ("damaged.parquet", "row 1"): "not UTF-8 at byte 4 of the value",
        ("list.parquet", "the file"): "the column 'text' holds list<element: string>, not text",
        ("nothing.parquet", "the file"): "the column 'text' holds null, not text",
        ("other.parquet", "the file"): "no column 'text'; its columns: body",
        ("struct.parquet", "the file"): "the column 'text' holds struct<a: string>, not text",
        ("twice.parquet", "the file"): "2 columns are called 'text'",
    }


def test_odd_names_and_links(tmp_path: Path, folder: Path, prose: Prose) -> None:
    """Fails when a link to itself ends the walk."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "o.txt").write_text(prose(50))
    (folder / "new\nline.txt").write_text(prose(51))
    (folder / "x.jsonl").mkdir()
    (folder / "x.jsonl" / "in.txt").write_text(prose(52))
    (folder / "link.txt").symlink_to(outside / "o.txt")
    (folder / "linked").symlink_to(outside)
    (folder / "nowhere.txt").symlink_to(tmp_path / "nowhere")
    (folder / "circle.txt").symlink_to(folder / "circle.txt")
    (folder / "above").symlink_to(folder)
    os.mkfifo(folder / "pipe.txt")
    (folder / ".gitignore").write_bytes(b"\xff\xfe[\n[z-a]*\n!\n/\n")
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.txt")).write_text(prose(53))
    corpus = build_corpus(section(folder), name="c", folder=tmp_path / "corpus")
    made = decisions(corpus)
    assert {"new\nline.txt", "x.jsonl/in.txt", "link.txt", "linked/o.txt"} <= made.keys()
    assert len(made) == 12 + 4
    assert made["linked/o.txt"]["stage"] == "exact duplicate"
    assert passed_over(corpus, folder) == {
        "hidden": 1,
        "link that leads in a circle": 1,
        "link to a folder above": 1,
        "name that is not UTF-8": 1,
        "neither file nor folder": 2,
    }


def test_odd_texts(tmp_path: Path, folder: Path, prose: Prose) -> None:
    (folder / "bom.txt").write_text(prose(60) + "\ufeff" + prose(61))
    (folder / "lines.txt").write_bytes(f"{prose(62)}\r\r\n{prose(63)}\n\r{prose(64)}".encode())
    (folder / "separators.txt").write_text(f"{prose(65)}\u2028{prose(66)}\x85{prose(67)}")
    (folder / "one.txt").write_bytes(b"x")
    (folder / "none.txt").write_bytes(b"")
    (folder / "mark.txt").write_bytes(b"\xef\xbb\xbf")
    (folder / "packed.txt").write_bytes(gzip.compress(prose(68).encode()))
    members = [json.dumps({"text": prose(70 + n)}).encode() + b"\n" for n in range(3)]
    (folder / "good.jsonl.gz").write_bytes(b"".join(map(gzip.compress, members)))
    (folder / "tail.jsonl.gz").write_bytes(gzip.compress(members[0]) + b"junk")
    (folder / "none.jsonl.gz").write_bytes(b"")
    corpus = build_corpus(section(folder), name="c", folder=tmp_path / "corpus")
    made = decisions(corpus)
    stages = {name: made[name]["stage"] for name in ("one.txt", "none.txt", "mark.txt")}
    assert stages == {"one.txt": "too_short", "none.txt": "empty", "mark.txt": "empty"}
    assert all(made[f"{name}.txt"]["keep"] for name in ("bom", "lines", "separators"))
    assert corpus.report["documents"] == 12 + 6 + 3 + 1
    packed, tail = sorted(rejected(corpus))
    assert packed == (
        "packed.txt",
        "the file",
        "binary: compressed, though its name does not end in .gz or .zst",
    )
    assert tail[1].startswith("line 2, byte ") and "is broken" in tail[2]
    for shard in corpus.shards():
        for offset in range(0, shard["tokens"], 61):
            locate(corpus.folder, f"{shard['name']}:{offset}")


def test_a_corpus_inside_its_source_is_not_read(tmp_path: Path, folder: Path) -> None:
    """Fails when the second build reads what the first one wrote; and a source inside the corpus
    folder is refused before the build empties folders there.
    """
    plain = build_corpus(section(folder), name="c", folder=tmp_path / "plain")
    for place, source in (("one", folder), ("two", folder / "**")):
        for _ in range(2):
            corpus = build_corpus(section(source), name="c", folder=folder / "corpora" / place)
            assert corpus.report["documents"] == plain.report["documents"] == 12
            assert corpus.report["kept"] == plain.report["kept"]
    own = tmp_path / "project"
    (own / "documents").mkdir(parents=True)
    (own / "documents" / "part-1.txt").write_text("precious")
    for place in (own, own / "documents"):
        with pytest.raises(DataError, match="the source lies in the corpus folder") as caught:
            build_corpus(section(own / "documents"), name="c", folder=place)
        assert f"`data.folder`, such as {place / 'corpus'}" in str(caught.value)
    assert bytes_of(own) == {"documents/part-1.txt": b"precious"}


def test_a_file_that_changes_during_the_build_is_told_and_poisons_nothing(
    tmp_path: Path, folder: Path, prose: Prose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails when the result of a task stands under the digest of bytes that it did not read."""
    corpus = tmp_path / "corpus"
    path = folder / "03.txt"
    old = path.read_text()

    def meanwhile(change: Callable[[], object]) -> str:
        def progress(stage: str, done: int, total: int) -> None:
            if stage == "documents" and not done:
                change()

        with pytest.raises(DataError) as caught:
            build_corpus(section(folder), name="c", folder=corpus, progress=progress)
        assert caught.value.where == str(path)
        return str(caught.value)

    assert "the file changed while the corpus was being built" in meanwhile(
        lambda: path.write_text(old + prose(77))
    )
    path.write_text(old)
    assert "the file went away (No such file or directory)" in meanwhile(path.unlink)
    path.write_text(old)
    # A cleaner that writes to the file: it changes while the task that reads it runs.
    (tmp_path / "meddler.py").write_text(
        "from pathlib import Path\n"
        f"def meddle(text): Path({str(path)!r}).write_text('other'); return text\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError, match="the file changed while the corpus was being built"):
        build_corpus(section(folder, clean=["meddler:meddle"]), name="c", folder=corpus)
    assert not list((corpus / "tasks").rglob("*.marker.json"))
    path.write_text(old)
    mended = build_corpus(section(folder), name="c", folder=corpus)
    fresh = build_corpus(section(folder), name="c", folder=tmp_path / "fresh")
    assert mended.digest == fresh.digest


def test_a_corpus_may_move_and_take_another_name(tmp_path: Path, folder: Path) -> None:
    """Fails when a corpus names its own place, or a name decides tokens."""
    first = build_corpus(section(folder), name="one", folder=tmp_path / "here")
    place = locate(first.folder, "train-00000:9")
    (tmp_path / "here").rename(tmp_path / "there")
    moved = Corpus.open(tmp_path / "there")
    moved.verify()
    assert locate(moved.folder, "train-00000:9") == place
    other = build_corpus(section(folder), name="two", folder=moved.folder)
    assert other.digest == first.digest
    assert json.loads((other.folder / "manifest.json").read_text())["name"] == "two"


def test_two_sources_with_the_same_files(tmp_path: Path, folder: Path) -> None:
    """The first source keeps its texts, the second gives only copies; nothing is held out."""
    twin = tmp_path / "twin"
    twin.mkdir()
    for path in folder.iterdir():
        (twin / path.name).write_bytes(path.read_bytes())
    data = section(folder, twin, split={"validation": 0, "test": 0})
    corpus = build_corpus(data, name="c", folder=tmp_path / "corpus")
    assert corpus.splits == ("train",)
    assert corpus.report["leakage"] is None
    gone = corpus.report["dropped"]["exact duplicate"]
    assert (gone["documents"], gone["by_source"]) == (12, {str(twin): 12})


def test_a_text_without_words_does_not_hold_up_the_tokenizer(prose: Prose) -> None:
    """Learning and encoding take the square of the length of a run: 100,000 letters took 5 s.

    Fails when runs are not bounded.
    """
    run = prose(1, 60_000).replace(" ", "")[:150_000]
    assert len(run) == 150_000
    start = time.process_time()
    made = train([run, " " * 100_000, prose(2, 50)], 400)
    assert time.process_time() - start < 4
    assert made.decode(made.encode(run)) == run


@pytest.mark.slow
def test_twenty_thousand_tiny_files(tmp_path: Path, prose: Prose) -> None:
    """Fails when work grows with the square of the number of files."""
    source = tmp_path / "tiny"
    source.mkdir()
    for number in range(20_000):
        (source / f"{number}.txt").write_text(f"t{number} " + prose(number, 3))
    start = time.monotonic()
    data = section(source, filters=[], workers=2)
    corpus = build_corpus(data, name="c", folder=tmp_path / "corpus")
    assert corpus.report["documents"] == 20_000
    assert time.monotonic() - start < 120
