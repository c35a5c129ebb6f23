"""Rows packed by best fit: every token an input and a label once; and the index beside them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from packing_parts import SEPARATOR, drawn, ids_corpus

from wellfit.data.batches import ARRAYS, Batches, Rows
from wellfit.data.corpus import Corpus
from wellfit.data.packing.counts import packed_by_each
from wellfit.data.packing.index import index_path, opened
from wellfit.data.packing.rows import PackedRows
from wellfit.data.plan import DataPlan
from wellfit.errors import DataError
from wellfit.records import IGNORED


@pytest.fixture(scope="module")
def packed_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("packing") / "corpus"
    return ids_corpus(folder, drawn(0, 120, 16), shard_bytes=1000)


@pytest.mark.parametrize(("seed", "context"), [(0, 1), (1, 7), (2, 16), (3, 64), (4, 1000)])
def test_every_token_of_every_document_is_an_input_and_a_label_once(
    tmp_path: Path, seed: int, context: int
) -> None:
    """Against the documents themselves, put together again from all rows.

    Breaks tried: IGNORED at the last token of a cut piece; the next piece of the row as its
    label; no end for the last document of the split; a length one too short; padding that joins
    the last piece.
    """
    corpus = ids_corpus(tmp_path, drawn(seed, 80, context), seed=seed, shard_bytes=3000)
    rows, table = PackedRows(corpus, "train", context), corpus.documents("train")
    stream = np.append(np.asarray(corpus.tokens("train")).astype(np.int64), SEPARATOR)
    batch = rows.plain(range(len(rows)))
    assert all(getattr(batch, name).dtype == np.int64 for name in ARRAYS)
    assert all(getattr(batch, name).shape == (len(rows), context) for name in ARRAYS)
    real = batch.documents >= 0
    assert np.array_equal(real, batch.labels != IGNORED)
    inputs: dict[int, list[tuple[int, list[int], list[int]]]] = {}
    for r in range(len(rows)):
        count = int(real[r].sum())
        assert real[r, :count].all() and count > 0  # padding stands at the end
        pieces = int(batch.segments[r, count - 1]) + 1
        assert set(batch.segments[r, count:].tolist()) <= {pieces}  # of its own
        for segment in range(int(batch.segments[r, -1]) + 1):
            here = batch.segments[r] == segment
            assert batch.positions[r, here].tolist() == list(range(here.sum()))
            (owner,) = set(batch.documents[r, here].tolist())
            if owner >= 0:
                part = batch.tokens[r, here].tolist(), batch.labels[r, here].tolist()
                inputs.setdefault(owner, []).append((len(part[0]), *part))
    assert sorted(inputs) == list(range(len(table)))
    for owner, found in inputs.items():
        first, count = int(table.first_token[owner]), int(table.tokens[owner])
        text = stream[first : first + count + 1].tolist()
        wanted = [
            (len(text[at : at + context][: count - at]), text[at : min(at + context, count)],
             text[at + 1 : min(at + context, count) + 1])
            for at in range(0, count, context)
        ]  # fmt: skip
        assert sorted(found) == sorted(wanted)
        assert [n for n, *_ in found].count(context) >= count // context


def test_a_row_is_the_same_alone_and_among_others(packed_corpus: Corpus) -> None:
    """So micro-batches cannot matter. Break tried: number segments over the whole batch."""
    rows = PackedRows(packed_corpus, "train", 16)
    order = [5, len(rows) - 1, 0, 5, 3]
    together = rows.plain(order)
    for place, number in enumerate(order):
        for name in ARRAYS:
            alone = getattr(rows.plain([number]), name)[0]
            assert np.array_equal(alone, getattr(together, name)[place])


@pytest.mark.parametrize("context", [7, 16, 64])
def test_what_is_told_of_each_packing_is_what_its_rows_show(
    packed_corpus: Corpus, context: int
) -> None:
    """Rows, padding and cut documents, counted in the rows themselves.

    Breaks tried: the padding of a stream's last row, which is not trained on, counted; a document
    that ends with a row counted as cut.
    """
    table = packed_corpus.documents("train")
    told = packed_by_each(table.first_token, table.tokens, context)
    stream = Rows(packed_corpus, "train", context)
    packed = PackedRows(packed_corpus, "train", context)
    assert (told["stream"].rows, told["best_fit"].rows) == (stream.full, packed.full)
    for name, batch in (
        ("stream", stream.row(range(stream.full))),
        ("best_fit", packed.plain(range(packed.full))),
    ):
        assert told[name].padding == int((batch.documents < 0).sum())
        assert told[name].tokens == int((batch.documents >= 0).sum())
        assert told[name].tokens + told[name].left_out == len(packed_corpus.tokens("train"))
    places = np.arange(len(packed_corpus.tokens("train")))
    owner = np.repeat(np.arange(len(table)), table.tokens)
    in_rows = np.unique(np.stack((owner, places // context)), axis=1)
    assert told["stream"].cut == int((np.bincount(in_rows[0]) > 1).sum())
    assert told["best_fit"].cut == int((table.tokens > context).sum()) < told["stream"].cut


def test_the_index_is_made_once_and_again_where_it_is_not_whole(tmp_path: Path) -> None:
    """Missing, cut short, changed anywhere, of another corpus, context or format: the same bytes.

    Breaks tried: no digest compared; the corpus's digest left out of the head.
    """
    lengths = drawn(1, 60, 16)
    corpus = ids_corpus(tmp_path / "c", lengths)
    before = corpus.digest
    path = index_path(corpus, "train", 16)
    expected = opened(corpus, "train", 16)
    whole = path.read_bytes()
    assert path.stat().st_mtime_ns == opened_again(corpus, path)
    assert Corpus.open(corpus.folder).digest == before
    assert [one.name for one in path.parent.iterdir()] == ["train-best_fit-16.index"]
    line = whole.index(b"\n")
    damaged = [whole[:cut] for cut in (0, 5, line, line + 1, len(whole) - 8, len(whole) - 1)]
    for place in [*range(line + 1), *random.Random(0).sample(range(line, len(whole)), 20)]:
        damaged.append(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    damaged.append(whole.replace(b'"format_version": 1', b'"format_version": 7'))
    damaged += [b"[]\n", b"null\n", b'{"pieces": 1}\n', whole + bytes(8)]
    for raw in damaged:
        path.write_bytes(raw)
        found = opened(corpus, "train", 16)
        assert path.read_bytes() == whole and found.sha256 == expected.sha256
        assert np.array_equal(found.packing.starts, expected.packing.starts)
        assert np.array_equal(found.packing.bounds, expected.packing.bounds)
    path.unlink()
    opened(corpus, "train", 16)
    assert path.read_bytes() == whole
    other = ids_corpus(tmp_path / "c", [*lengths, 3])  # built again, the index of before stands
    assert PackedRows(other, "train", 16).plain([0]).documents.max() >= 0
    assert path.read_bytes() != whole
    assert json.loads(path.read_bytes().split(b"\n")[0])["corpus"] == other.digest


def opened_again(corpus: Corpus, path: Path) -> int:
    opened(corpus, "train", 16)
    return path.stat().st_mtime_ns


def test_an_index_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """A file where its folder should be. Break tried: let the error of the system through."""
    corpus = ids_corpus(tmp_path, [5, 9])
    (tmp_path / "packing").write_text("")
    with pytest.raises(DataError, match="See that the file exists and may be read"):
        PackedRows(corpus, "train", 8)


def test_batches_take_every_packed_row_once_an_epoch(packed_corpus: Corpus, tmp_path: Path) -> None:
    """Shuffled, resumed, rewound and skipped as the rows of a stream.

    Break tried: `Batches` counts its epoch in rows of the stream.
    """
    path = tmp_path / "plan.jsonl"

    def batches() -> Batches:
        rows = PackedRows(packed_corpus, "train", 16)
        return Batches(packed_corpus, 16, 7, 0, DataPlan.open(path), rows=rows)

    one = batches()
    count = one.rows_per_epoch
    assert count == PackedRows(packed_corpus, "train", 16).full
    taken = np.concatenate([one.rows(step) for step in range(1, 2 * count // 7 + 1)])
    assert sorted(taken[:count].tolist()) == list(range(count)) != taken[:count].tolist()
    documents = np.unique(PackedRows(packed_corpus, "train", 16).plain(taken[:count]).documents)
    assert documents.tolist() == list(range(-1, len(packed_corpus.documents("train"))))
    expected = one.rows(9).tolist()
    assert one.skip(after_step=4, through_step=6) == 14
    assert batches().rows(7).tolist() == expected
    batches().restore(after_step=4)
    assert batches().rows(9).tolist() == expected


def test_a_resume_with_another_packing_is_refused(packed_corpus: Corpus, tmp_path: Path) -> None:
    """Both ways, and a plan of before there were two is one of a stream.

    Breaks tried: the packing left out of the plan's head; none assumed for an old plan.
    """

    def begin(name: str, best_fit: bool) -> None:
        rows = PackedRows(packed_corpus, "train", 16) if best_fit else None
        Batches(packed_corpus, 16, 3, 0, DataPlan.open(tmp_path / name), rows=rows)

    begin("stream", False)
    begin("packed", True)
    old = (tmp_path / "stream").read_text().replace(', "packing": "stream"', "")
    assert "packing" not in old
    (tmp_path / "old").write_text(old)
    for name, best_fit in (("stream", False), ("packed", True), ("old", False)):
        begin(name, best_fit)
        with pytest.raises(DataError) as fault:
            begin(name, not best_fit)
        was, now = ("'best_fit ", "'stream'") if best_fit else ("'stream'", "'best_fit ")
        assert f"packing was {was}" in str(fault.value) and f"is now {now}" in str(fault.value)
        assert "begin a new run in another folder" in str(fault.value)
