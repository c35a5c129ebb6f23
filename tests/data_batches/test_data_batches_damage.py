"""A shard that is cut, changed or replaced while batches are drawn from it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from batch_texts import prose

from wellfit.data.batches import Batches, Rows
from wellfit.data.corpus import Corpus
from wellfit.errors import DataError

Write = Callable[..., Corpus]


@pytest.fixture
def made(tmp_path: Path, write_corpus: Write) -> Corpus:
    texts = {"train": [prose(n, 60) for n in range(20)], "validation": [prose(99, 60)]}
    return write_corpus(tmp_path / "corpus", texts, shard_bytes=2000)


def last_shard(corpus: Corpus) -> Path:
    return max((corpus.folder / "shards").glob("train-*.bin"))


def flip(path: Path) -> None:
    """One bit in place, as a stray program would; the time of change is moved on for certain."""
    before = path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.seek(20)
        byte = file.read(1)[0]
        file.seek(20)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before + 10**9, before + 10**9))


def test_a_shard_cut_short_in_use_is_an_error_and_not_the_end_of_the_process(made: Corpus) -> None:
    """In a child, since a memory map would end it by SIGBUS.

    Break: `np.memmap` in place of ShardFile ends the child with status -7.
    """
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from wellfit.data.batches import Batches\n"
        "from wellfit.data.corpus import Corpus\n"
        "from wellfit.errors import DataError\n"
        "folder, shard = map(Path, sys.argv[1:])\n"
        "batches = Batches(Corpus.open(folder), 16, 400, 0)\n"
        "batches.batch(1)\n"
        "os.truncate(shard, 100)\n"
        "try:\n"
        "    batches.batch(2)\n"
        "except DataError as error:\n"
        "    print(error)\n"
    )
    shard = last_shard(made)
    done = subprocess.run(
        [sys.executable, "-c", code, str(made.folder), str(shard)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert done.stdout.startswith(f"{shard}: shard {shard.stem} has 100 bytes instead of ")
    assert "The checkpoints are untouched" in done.stdout and "--resume" in done.stdout


def test_a_changed_bit_is_found_before_a_token_is_given_out(made: Corpus) -> None:
    """Break: comparing sizes only; checking when the file is opened only."""
    batches = Batches(made, 16, 400, 0)
    batches.batch(1)
    shard = last_shard(made)
    flip(shard)
    with pytest.raises(DataError, match=r"was changed in use: its SHA-256 is \w+…, shards"):
        batches.batch(2)
    flip(shard)  # mended: the same reader goes on
    assert np.array_equal(batches.batch(2).tokens, Batches(made, 16, 400, 0).batch(2).tokens)


def test_touching_a_file_changes_nothing(made: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new time of change costs one look at the digest. Break: refusing by the time alone."""
    rows = Rows(made, "train", 16)
    before = rows.row([0, 1]).tokens
    for path in (made.folder / "shards").iterdir():
        os.utime(path, ns=(1, 1))
    assert np.array_equal(rows.row([0, 1]).tokens, before)
    from wellfit.data.tokens import stream

    monkeypatch.setattr(stream.hashlib, "sha256", None)
    assert np.array_equal(rows.row([0, 1]).tokens, before)


def test_a_corpus_built_again_beside_a_training_is_read_on(made: Corpus) -> None:
    """The files of old stay open. Break: opening the path at every read."""
    rows = Rows(made, "train", 16)
    everything = np.asarray(rows.stream)
    shutil.rmtree(made.folder / "shards")
    assert np.array_equal(np.asarray(rows.stream), everything)
    with pytest.raises(DataError, match=r"cannot be opened \(No such file or directory\)"):
        made.tokens("train")


def test_a_disk_that_fails_is_named(made: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows(made, "train", 16)

    def fails(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "pread", fails)
    with pytest.raises(DataError, match=r"cannot be read \(Input/output error\)"):
        rows.row([0])


def test_a_system_without_pread_reads_the_same(
    made: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break: forgetting to seek."""
    stream = made.tokens("train")
    expected = [stream[n : n + 40].tolist() for n in (900, 0, 500)]
    monkeypatch.delattr(os, "pread")
    assert [stream[n : n + 40].tolist() for n in (900, 0, 500)] == expected
