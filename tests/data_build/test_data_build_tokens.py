"""Tokens that another program has made: every format, the same documents, and what is refused."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wellfit.data.batches import Rows
from wellfit.data.build import build_corpus
from wellfit.data.corpus import Corpus
from wellfit.data.locate import locate
from wellfit.data.pretokenized.documents import share_of
from wellfit.data.pretokenized.table import of_batch
from wellfit.data.tokens import tokenizer
from wellfit.errors import DataError
from wellfit.recipe.schema import Data, Tokens

SEPARATOR, VOCABULARY = 99, 100
DOCUMENTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9], [10, 11], [98, 0, 98]]
STREAM = [one for document in DOCUMENTS for one in (*document, SEPARATOR)]


def section(train: str | Path, **more: Any) -> Data:
    known: dict[str, Any] = {"vocabulary_size": VOCABULARY, "separator": SEPARATOR}
    if "tokenizer" in more:
        known = {}
    return Data(tokens=Tokens(train=(str(train),), **{**known, **more}))


def build(folder: Path, data: Data) -> Corpus:
    return build_corpus(data, name="made", folder=folder)


def texts(corpus: Corpus, split: str = "train") -> list[list[int]]:
    """The documents of a split, without separators."""
    table, stream = corpus.documents(split), corpus.tokens(split)
    found = []
    for first, count in zip(table.first_token.tolist(), table.tokens.tolist(), strict=True):
        whole = stream[first : first + count].tolist()
        assert whole[0] == corpus.separator
        found.append(whole[1:])
    return found


def headed(ids: list[int], *, magic: int = 20240520, version: int = 1, count: int = -1) -> bytes:
    """A file as modded-nanogpt writes it."""
    head = np.zeros(256, "<i4")
    head[:3] = magic, version, len(ids) if count < 0 else count
    return head.tobytes() + np.array(ids, "<u2" if magic == 20240520 else "<u4").tobytes()


def write_arrow(path: Path, rows: Any, *, stream: bool, kind: Any = None) -> None:
    table = pa.table({"input_ids": pa.array(rows, kind or pa.list_(pa.int32()))})
    opened = (pa.ipc.new_stream if stream else pa.ipc.new_file)(str(path), table.schema)
    with opened as writer:
        for batch in table.to_batches(max_chunksize=2):
            writer.write_batch(batch)


def write_saved(folder: Path, rows: list[list[int]]) -> None:
    """A folder as `save_to_disk` leaves it, in two files named against their order."""
    folder.mkdir()
    write_arrow(folder / "b.arrow", rows[:2], stream=True)
    write_arrow(folder / "a.arrow", rows[2:], stream=True)
    listed = [{"filename": "b.arrow"}, {"filename": "a.arrow"}]
    (folder / "state.json").write_text(json.dumps({"_data_files": listed}))
    (folder / "dataset_info.json").write_text("{}")


WRITERS: dict[str, Callable[[Path], Path]] = {}


def writes(name: str) -> Callable[[Callable[[Path], object]], None]:
    def keep(write: Callable[[Path], object]) -> None:
        def wrote(home: Path) -> Path:
            write(home / name)
            return home / name

        WRITERS[name] = wrote

    return keep


writes("end.bin")(lambda path: np.array(STREAM, "<u2").tofile(path))
writes("begin.bin")(lambda path: np.array([SEPARATOR, *STREAM[:-1]], "<u2").tofile(path))
writes("headed.bin")(lambda path: path.write_bytes(headed(STREAM)))
writes("llama.bin")(lambda p: p.write_bytes(headed(STREAM, magic=20240801, version=7)))
writes("long.npy")(lambda path: np.save(path, np.array(STREAM, np.int64)))
writes("file.arrow")(lambda path: write_arrow(path, DOCUMENTS, stream=False))
writes("stream.arrow")(lambda path: write_arrow(path, DOCUMENTS, stream=True))
writes("large.arrow")(
    lambda path: write_arrow(path, DOCUMENTS, stream=True, kind=pa.large_list(pa.uint16()))
)
writes("rows.parquet")(
    lambda path: pq.write_table(
        pa.table({"text": ["x"] * 5, "input_ids": [[*one, SEPARATOR] for one in DOCUMENTS]}), path
    )
)
writes("packed.parquet")(  # several documents in a row, empty rows, separators on either side
    lambda path: pq.write_table(
        pa.table({"input_ids": [[SEPARATOR, *STREAM[:6]], [], [SEPARATOR], STREAM[6:]]}), path
    )
)
writes("saved")(lambda path: write_saved(path, DOCUMENTS))


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_documents(name: str, tmp_path: Path) -> None:
    """Breaks when a header is read as tokens, the files of a folder are sorted by name, or an empty
    row becomes a document."""
    corpus = build(tmp_path / "corpus", section(WRITERS[name](tmp_path)))
    assert texts(corpus) == DOCUMENTS
    assert (corpus.vocabulary_size, corpus.separator, corpus.has_tokenizer) == (100, 99, False)
    assert (corpus.documents("train").bytes == -1).all()
    corpus.verify()


def test_rows_that_come_in_several_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when the offsets of a batch are taken for those of the whole column."""
    monkeypatch.setattr("wellfit.data.pretokenized.table.ROWS", 2)
    corpus = build(tmp_path / "corpus", section(WRITERS["rows.parquet"](tmp_path)))
    assert texts(corpus) == DOCUMENTS
    assert corpus.documents("train").id.tolist() == [f"0:{row}:0" for row in range(5)]
    part = pa.array(DOCUMENTS, pa.list_(pa.int32()))[2:]
    found = [(row, ids.tolist()) for row, ids in of_batch(tmp_path, part, "input_ids", 2)]
    assert found == [(2, DOCUMENTS[2]), (3, DOCUMENTS[3]), (4, DOCUMENTS[4])]


def test_a_document_goes_on_in_the_next_file_and_over_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks when the end of a block ends the document."""
    monkeypatch.setattr("wellfit.data.pretokenized.flat.BLOCK", 3)
    for number, cut in enumerate((slice(0, 7), slice(7, 9), slice(9, None))):
        np.array(STREAM[cut], "<u2").tofile(tmp_path / f"part-{number}.bin")
    corpus = build(tmp_path / "corpus", section(tmp_path / "part-*.bin"))
    assert texts(corpus) == DOCUMENTS
    # The third document begins in the first file and ends in the third.
    place = locate(corpus.folder, "train-00000:11")
    assert (place.token, Path(place.path).name, place.start_byte) == (9, "part-2.bin", 2)


def test_located_tokens_stand_where_they_are_said_to(tmp_path: Path) -> None:
    """Breaks when the separator before a document is not counted."""
    for name in ("headed.bin", "long.npy", "begin.bin"):
        file = WRITERS[name](tmp_path)
        corpus = build(tmp_path / f"of-{name}", section(file))
        stream, raw = corpus.tokens("train"), file.read_bytes()
        told = 0
        for offset in range(len(stream)):
            place = locate(corpus.folder, f"train-00000:{offset}")
            assert place.token == int(stream[offset])
            if place.exact:
                told += 1
                assert int.from_bytes(raw[place.start_byte : place.end_byte], "little") == (
                    place.token
                )
        # Only the separator that was put before the first document stands nowhere.
        assert told == len(stream) - (name != "begin.bin")
    rows = build(tmp_path / "of-rows", section(WRITERS["rows.parquet"](tmp_path)))
    place = locate(rows.folder, "train-00000:7")
    assert (place.token, place.row, place.start_byte) == (5, 2, None)


def test_same_bytes_again_and_nothing_is_built_twice(tmp_path: Path) -> None:
    """Breaks when a path or a clock enters the shards, or the key leaves the files out."""
    file = WRITERS["end.bin"](tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "same.bin").write_bytes(file.read_bytes())
    one = build(tmp_path / "one", section(file))
    two = build(tmp_path / "two", section(tmp_path / "other"))
    assert one.digest == two.digest
    index = tmp_path / "one" / "shards.json"
    assert index.read_bytes() == (tmp_path / "two" / "shards.json").read_bytes()
    before = index.stat().st_mtime_ns
    assert build(tmp_path / "one", section(file)).digest == one.digest
    assert index.stat().st_mtime_ns == before
    np.array([*STREAM[:-2], 3, SEPARATOR], "<u2").tofile(file)  # as long as before
    assert texts(build(tmp_path / "one", section(file)))[-1] == [98, 0, 3]


def test_splits_by_files_and_by_the_hash_of_whole_documents(tmp_path: Path) -> None:
    """Breaks when the hash is of anything but the ids."""
    draw = np.random.default_rng(0)
    many = [draw.integers(0, 99, draw.integers(3, 9)).tolist() for _ in range(400)]
    for name, order in (("one", many), ("two", many[::-1])):
        ids = [i for document in order for i in (*document, SEPARATOR)]
        np.array(ids, "<u2").tofile(tmp_path / f"{name}.bin")
    WRITERS["file.arrow"](tmp_path)
    shares = {"validation_share": 0.2, "test": (str(tmp_path / "file.arrow"),)}
    one = build(tmp_path / "a", section(tmp_path / "one.bin", **shares))
    two = build(tmp_path / "b", section(tmp_path / "two.bin", **shares))
    assert texts(one, "test") == DOCUMENTS
    assert sorted(texts(one, "validation")) == sorted(texts(two, "validation"))
    wanted = [d for d in many if share_of(np.array(d)) < 0.2]
    assert texts(one, "validation") == wanted
    assert 50 < len(wanted) < 110
    assert sorted([*texts(one), *wanted]) == sorted(many)


def test_an_exported_corpus_gives_the_same_rows(tmp_path: Path) -> None:
    """The shards of a corpus are such `.bin` files: read back, every row of every split is equal.

    Breaks when a document loses its first token."""
    (tmp_path / "texts").mkdir()
    for number in range(40):
        words = " ".join(f"{number * i % 17} words of {i}" for i in range(40))
        (tmp_path / "texts" / f"{number}.txt").write_text(words)
    own = Data.model_validate(
        {
            "sources": [{"path": str(tmp_path / "texts")}],
            "duplicates": {"near": False},
            "split": {"validation": 0.2, "test": 0.2},
            "tokenizer": {"vocabulary_size": 300},
            "filters": [],
            "workers": 1,
        },
        strict=False,
    )
    first = build_corpus(own, name="own", folder=tmp_path / "own")
    shards = {split: str(first.folder / "shards" / f"{split}-*.bin") for split in first.splits}
    data = section(
        shards.pop("train"),
        tokenizer=str(first.folder / "tokenizer.json"),
        **{split: (path,) for split, path in shards.items()},
    )
    second = build(tmp_path / "again", data)
    assert second.splits == first.splits == ("train", "validation", "test")
    for split in first.splits:
        before, after = Rows(first, split, 16), Rows(second, split, 16)
        assert len(before) == len(after)
        one, two = before.row(range(len(before))), after.row(range(len(after)))
        for name in ("tokens", "labels", "positions", "segments", "documents"):
            assert np.array_equal(getattr(one, name), getattr(two, name)), name
        # The tokenizer tells the bytes of every document.
        assert np.array_equal(first.documents(split).bytes, second.documents(split).bytes)
    assert first.tokenizer().separator == second.tokenizer().separator


def test_a_separator_beside_that_of_the_tokenizer_is_heeded(tmp_path: Path) -> None:
    """Breaks when samples begin with the tokenizer's own separator."""
    made = tokenizer.train(["some words of no weight"], 300)
    (tmp_path / "tokenizer.json").write_text(made.json())
    np.array([70, 71, 5, 72, 5], "<u2").tofile(tmp_path / "t.bin")
    data = section(tmp_path / "t.bin", tokenizer=str(tmp_path / "tokenizer.json"), separator=5)
    corpus = build(tmp_path / "corpus", data)
    assert corpus.separator == corpus.tokenizer().separator == 5
    assert texts(corpus) == [[70, 71], [72]]
    with pytest.raises(DataError, match="none with the id 4000") as refused:
        other = {"tokenizer": str(tmp_path / "tokenizer.json"), "separator": 4000}
        build(tmp_path / "x", section(tmp_path / "t.bin", **other))
    assert "Leave it out to take <|endoftext|>" in str(refused.value)


BAD: dict[str, tuple[Callable[[Path], object], dict[str, Any], str, str]] = {
    "id": (
        lambda p: np.array([1, 2, SEPARATOR, 100, 3], "<u2").tofile(p / "x.bin"), {},
        r"token 3 \(byte 6\) is the id 100, and the vocabulary has 100 entries",
        "data.tokens.dtype",
    ),
    "negative id": (
        lambda p: np.save(p / "x.npy", np.array([1, SEPARATOR, -1], np.int32)), {},
        r"token 2 \(byte 136\) is the id -1", "were made with",
    ),
    "id in a row": (
        lambda p: pq.write_table(pa.table({"input_ids": [[1], [2, 500]]}), p / "x.parquet"), {},
        "row 1, place 1 is the id 500", "were made with",
    ),
    "odd length": (
        lambda p: (p / "x.bin").write_bytes(b"\1\0\2"), {},
        "3 bytes are no whole number of uint16", "data.tokens.dtype",
    ),
    "wide": (
        lambda p: np.array(STREAM * 2, "<u4").tofile(p / "x.bin"), {},
        "every second uint16 is 0", "data.tokens.dtype=uint32",
    ),
    "short header": (
        lambda p: (p / "x.bin").write_bytes(headed(STREAM)[:600]), {},
        "the header has 600 bytes of 1024", "copy or write it again",
    ),
    "header of another length": (
        lambda p: (p / "x.bin").write_bytes(headed(STREAM, count=500)), {},
        "promises 500 tokens, 2024 bytes in all, and the file has 1062", "was cut",
    ),
    "version": (
        lambda p: (p / "x.bin").write_bytes(headed(STREAM, version=2)), {},
        "magic number 20240520 and version 2; known is 1", "without a header",
    ),
    "header against dtype": (
        lambda p: (p / "x.bin").write_bytes(headed(STREAM)), {"dtype": "uint32"},
        "says uint16, data.tokens.dtype says uint32", "Leave data.tokens.dtype out",
    ),
    "empty": (lambda p: (p / "x.bin").touch(), {}, "the file is empty", "write it again"),
    "empty npy": (
        lambda p: np.save(p / "x.npy", np.zeros(0, np.int32)), {}, "the file is empty", "again",
    ),
    "square npy": (
        lambda p: np.save(p / "x.npy", np.zeros((2, 2), np.int32)), {},
        r"int32 of shape \(2, 2\), not one row", "reshape",
    ),
    "cut npy": (
        lambda p: (np.save(p / "x.npy", np.arange(9)),
                   (p / "x.npy").write_bytes((p / "x.npy").read_bytes()[:-8])), {},
        "ends before its 9 tokens do", "write it again",
    ),
    "no npy": (
        lambda p: (p / "x.npy").write_bytes(b"none"), {}, "no .npy that can be read", "save",
    ),
    "separator absent": (
        lambda p: np.array([1, 2, 3], "<u2").tofile(p / "x.bin"), {},
        "the separator 99 stands nowhere in 1 file of train", "data.tokens.separator",
    ),
    "only separators": (
        lambda p: np.array([99, 99], "<u2").tofile(p / "x.bin"), {},
        "train has no document", "other files",
    ),
    "column": (
        lambda p: pq.write_table(pa.table({"input_idx": [[1]]}), p / "x.parquet"), {},
        "no column 'input_ids', only input_idx", "data.tokens.column=input_idx",
    ),
    "text": (
        lambda p: pq.write_table(pa.table({"input_ids": ["a"]}), p / "x.parquet"), {},
        "holds string, not lists", "data.sources",
    ),
    "null row": (
        lambda p: pq.write_table(pa.table({"input_ids": [[1], None, [2]]}), p / "x.parquet"), {},
        "row 1 of the column 'input_ids' holds a null", "Drop",
    ),
    "null id": (
        lambda p: write_arrow(p / "x.arrow", [[1], [2], [3], [4, None]], stream=True), {},
        "row 3 of the column 'input_ids' holds a null", "Drop",
    ),
    "cut arrow": (
        lambda p: (write_arrow(p / "x.arrow", DOCUMENTS, stream=False),
                   (p / "x.arrow").write_bytes((p / "x.arrow").read_bytes()[:-40])), {},
        "no arrow file that can be read", "cut short",
    ),
    "kind": (lambda p: (p / "x.txt").write_text("1 2"), {}, "ends in .txt", "data.sources"),
    "share": (
        lambda p: np.array(STREAM, "<u2").tofile(p / "x.bin"), {"test_share": 1e-9},
        "a share of 1e-09 of 5 documents leaves test without one", "Raise it",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_trained_on_is_refused_with_the_way_out(name: str, tmp_path: Path) -> None:
    """Breaks when a check is left out; tried: ids, separator, four bytes, null rows, null ids."""
    write, more, what, way_out = BAD[name]
    write(tmp_path)
    (file,) = tmp_path.iterdir()
    standing = build(tmp_path / "corpus", section(WRITERS["end.bin"](tmp_path)))
    with pytest.raises(DataError, match=what) as refused:
        build(tmp_path / "corpus", section(file, **more))
    assert way_out in str(refused.value)
    # What stood there is as it was.
    assert texts(Corpus.open(standing.folder)) == DOCUMENTS


def test_paths_that_lead_nowhere_or_twice(tmp_path: Path) -> None:
    """Breaks when validation may be a file of train."""
    file = WRITERS["end.bin"](tmp_path)
    corpus = tmp_path / "corpus"
    cases: list[tuple[Data, str]] = [
        (section(tmp_path / "none.bin"), "there is no such file or folder"),
        (section(tmp_path / "none*.bin"), "no file fits this pattern"),
        (section(file, validation=(str(file),)), "named twice, in train and in validation"),
    ]
    (tmp_path / "hollow").mkdir()
    cases.append((section(tmp_path / "hollow"), "the folder holds none of .bin"))
    (tmp_path / "dict" / "train").mkdir(parents=True)
    (tmp_path / "dict" / "dataset_dict.json").write_text("{}")
    (tmp_path / "dict" / "train" / "state.json").write_text('{"_data_files": []}')
    cases.append((section(tmp_path / "dict"), "several data sets of `save_to_disk`"))
    write_saved(tmp_path / "saved", DOCUMENTS)
    (tmp_path / "saved" / "a.arrow").unlink()
    cases.append((section(tmp_path / "saved"), "state.json names a.arrow, which is not there"))
    for data, what in cases:
        with pytest.raises(DataError, match=what):
            build(corpus, data)
    corpus.mkdir(exist_ok=True)
    (corpus / "x.bin").write_bytes(file.read_bytes())
    with pytest.raises(DataError, match="lies in the corpus folder"):
        build(corpus, section(corpus / "x.bin"))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """What Python and NumPy hold at their fullest, for a file and for one eight times as long.

    Breaks when a file is read whole, or documents are gathered before they are written."""
    peaks = []
    for blocks in (2, 16):
        ids = np.arange(blocks << 20, dtype=np.uint32) % 90
        ids[:: 1 << 16] = SEPARATOR
        ids.astype("<u2").tofile(tmp_path / f"{blocks}.bin")
        tracemalloc.start()
        build(tmp_path / f"corpus-{blocks}", section(tmp_path / f"{blocks}.bin"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
