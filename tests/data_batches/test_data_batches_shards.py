"""Shards hold what was written, and damage is told by name."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wellfit.data.corpus import Corpus
from wellfit.data.tokens import shards
from wellfit.data.tokens.tokenizer import Tokenizer
from wellfit.errors import DataError

Texts = dict[str, list[str]]
Write = Callable[..., Corpus]


def test_streams_hold_the_documents(corpus: Corpus, tokenizer: Tokenizer, texts: Texts) -> None:
    """Each split is its documents, each behind one separator; the table leads to each of them."""
    assert corpus.splits == ("train", "validation", "test")
    for split, listed in texts.items():
        stream, table = np.asarray(corpus.tokens(split)), corpus.documents(split)
        assert len(table) == len(listed)
        assert len(stream) == int(table.tokens.sum())
        assert (stream == corpus.separator).sum() == len(listed)
        for place, text in enumerate(listed):
            first, count = int(table.first_token[place]), int(table.tokens[place])
            assert stream[first] == corpus.separator
            assert tokenizer.decode(stream[first + 1 : first + count].tolist()) == text
            assert table.bytes[place] == len(text.encode())
            assert table.id[place] == f"{split}{place}"
            assert table.domain[place] == f"domain{place % 3}"


def test_many_shards_are_one_stream(tmp_path: Path, write_corpus: Write, texts: Texts) -> None:
    """Shards of 300 bytes: the same stream and table; no document torn; slices over borders.

    Fails when `first_token` is not shifted by the shards before.
    """
    whole = write_corpus(tmp_path / "one", texts)
    parts = write_corpus(tmp_path / "many", texts, shard_bytes=300)
    assert len(parts.shards()) > 12
    assert parts.digest != whole.digest
    for split in texts:
        one, many = whole.tokens(split), parts.tokens(split)
        assert np.array_equal(np.asarray(one), np.asarray(many))
        for name in ("id", "first_token", "tokens", "bytes", "domain"):
            assert np.array_equal(
                getattr(whole.documents(split), name), getattr(parts.documents(split), name)
            )
        flat = np.asarray(one)
        for start, stop in ((0, len(flat)), (5, 400), (59, 61), (7, 7), (-50, None), (3, 10**9)):
            assert np.array_equal(many[start:stop], flat[start:stop])
        assert np.array_equal(many[::-7], flat[::-7])
        assert many[-1] == flat[-1] and many[61] == flat[61]
    with pytest.raises(IndexError):
        parts.tokens("test")[10**6]
    for shard in parts.shards():
        alone = len(shard["documents"]["id"]) == 1
        assert shard["tokens"] * 2 <= 300 or alone


def test_same_documents_same_digest(tmp_path: Path, write_corpus: Write, texts: Texts) -> None:
    """Written twice: the same bytes and digest; one letter changed: another digest."""
    one, two = (write_corpus(tmp_path / name, texts) for name in "ab")
    assert one.digest == two.digest
    files = [path.relative_to(one.folder) for path in one.folder.rglob("*") if path.is_file()]
    assert len(files) == 5
    assert all((one.folder / f).read_bytes() == (two.folder / f).read_bytes() for f in files)
    changed = {**texts, "test": [texts["test"][0] + "!", *texts["test"][1:]]}
    assert write_corpus(tmp_path / "c", changed).digest != one.digest


def test_wide_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    """From 65,536 entries on tokens are uint32, and large ids survive."""
    for size, width in ((65_535, 2), (65_536, 4)):
        folder = tmp_path / str(size)
        folder.mkdir()
        (folder / "tokenizer.json").write_bytes(b"{}")
        document = shards.TokenDocument("d", "train", "x", 3, [1, size - 1, 2])
        shards.write(
            folder,
            [document],
            vocabulary_size=size,
            separator=0,
            tokenizer_sha256="44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        )
        assert (folder / "shards" / "train-00000.bin").stat().st_size == 4 * width
        assert np.asarray(Corpus.open(folder).tokens("train")).tolist() == [0, 1, size - 1, 2]


@pytest.fixture
def copy(tmp_path: Path, corpus: Corpus) -> Path:
    return Path(shutil.copytree(corpus.folder, tmp_path / "copy"))


def test_cut_shard_is_named(copy: Path) -> None:
    """Two bytes short: refused at once, by name. Fails when only existence is checked."""
    path = copy / "shards" / "validation-00000.bin"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError) as fault:
        Corpus.open(copy)
    assert "shard validation-00000 has" in str(fault.value)
    assert "instead of" in str(fault.value) and "Build the corpus again" in str(fault.value)
    path.unlink()
    with pytest.raises(DataError, match="shard validation-00000 is missing"):
        Corpus.open(copy)


def test_flipped_bit_is_found_by_verify(copy: Path) -> None:
    """One bit flipped: sizes agree, digests do not. Fails when `verify` compares sizes only."""
    path = copy / "shards" / "train-00000.bin"
    raw = bytearray(path.read_bytes())
    raw[100] ^= 1
    path.write_bytes(raw)
    opened = Corpus.open(copy)
    with pytest.raises(DataError, match="shard train-00000 is damaged: its SHA-256 is"):
        opened.verify()


def test_whole_corpus_verifies(corpus: Corpus) -> None:
    """What was just written has the digests that it says."""
    corpus.verify()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.update(format_version=99), "format_version 99 is unknown"),
        (lambda index: index.pop("format_version"), "damaged"),
    ],
)
def test_unknown_version(copy: Path, change: Callable[..., object], message: str) -> None:
    """A later format, or none at all: refused by name."""
    path = copy / "shards.json"
    index = json.loads(path.read_text())
    change(index)
    path.write_text(json.dumps(index))
    with pytest.raises(DataError, match=message):
        Corpus.open(copy)


def test_torn_index_and_missing_folder(copy: Path, tmp_path: Path) -> None:
    """Half a shards.json, none, no folder: three messages, each with its place."""
    path = copy / "shards.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(DataError, match="damaged"):
        Corpus.open(copy)
    path.unlink()
    with pytest.raises(DataError, match=r"there is no shards\.json"):
        Corpus.open(copy)
    with pytest.raises(DataError, match="there is no such corpus folder"):
        Corpus.open(tmp_path / "nowhere")


def test_other_tokenizer_is_refused(copy: Path) -> None:
    """The tokenizer belongs to the shards. Fails when its digest is not compared."""
    path = copy / "tokenizer.json"
    path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(DataError, match="not the tokenizer that the shards were made with"):
        Corpus.open(copy)


def test_missing_split_names_the_others(tmp_path: Path, write_corpus: Write) -> None:
    """Asked for a split that was not made: which there are, and how to get it."""
    made = write_corpus(tmp_path / "c", {"train": ["a b c"]})
    with pytest.raises(DataError) as fault:
        made.tokens("validation")
    assert "no split 'validation', only train" in str(fault.value)
    assert "data.split.validation" in str(fault.value)


def test_full_disk(tmp_path: Path, write_corpus: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full while a shard is synced: one clear message, and no corpus to be opened."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    write_corpus(tmp_path / "c", {"train": ["a b c"]})
    monkeypatch.setattr(shards.os, "fsync", full)
    with pytest.raises(DataError) as fault:
        write_corpus(tmp_path / "c", {"train": ["a b c d"]})
    assert "shards cannot be written: No space left on device" in str(fault.value)
    assert "Make room on the disk" in str(fault.value)
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"there is no shards\.json"):
        Corpus.open(tmp_path / "c")
    write_corpus(tmp_path / "c", {"train": ["a b c d"]})
