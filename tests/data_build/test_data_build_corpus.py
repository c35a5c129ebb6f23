"""From files to a corpus: same bytes whatever the workers, little redone, clear when it fails."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from building import bytes_of, decisions, section

from wellfit.data.build import build_corpus
from wellfit.data.corpus import Corpus
from wellfit.data.engine.engine import Engine
from wellfit.errors import DataError, RecipeError

Prose = Callable[..., str]


@pytest.fixture
def texts(tmp_path: Path, prose: Prose) -> Path:
    """A folder of 60 texts, some code, a duplicate and a near duplicate."""
    folder = tmp_path / "texts"
    (folder / "code").mkdir(parents=True)
    for number in range(60):
        (folder / f"{number:02}.txt").write_text(prose(number) + "\n")
    for number in range(20):
        body = "".join(
            f"def {w}():\n    return {i}\n" for i, w in enumerate(prose(900 + number).split())
        )
        (folder / "code" / f"m{number}.py").write_text(body)
    (folder / "copy.txt").write_text(prose(3) + "\n")
    (folder / "near.txt").write_text(prose(4) + " and one more word\n")
    return folder


def test_the_corpus_does_not_depend_on_the_workers(
    tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks when parts are numbered in the order in which they are finished."""
    monkeypatch.setattr("wellfit.data.read.plan.GROUP_BYTES", 20_000)
    folders = []
    for workers in (1, 2, 3):
        folder = tmp_path / f"corpus{workers}"
        build_corpus(section(texts, workers=workers), name="c", folder=folder)
        folders.append(bytes_of(folder))
    assert len([name for name in folders[0] if name.startswith("documents/")]) > 2
    assert folders[0] == folders[1] == folders[2]


def test_duplicates_go_and_everything_is_counted(tmp_path: Path, texts: Path) -> None:
    corpus = build_corpus(section(texts), name="c", folder=tmp_path / "corpus")
    made = decisions(corpus)
    assert (made["copy.txt"]["stage"], made["near.txt"]["stage"]) == (
        "exact duplicate",
        "near duplicate",
    )
    assert made["03.txt"]["keep"] and made["04.txt"]["keep"]
    report = corpus.report
    assert report["documents"] == 82
    assert {name: one["documents"] for name, one in report["dropped"].items()} == {
        "exact duplicate": 1,
        "near duplicate": 1,
    }
    shown = {(s["kept"]["path"], s["dropped"]["path"]) for s in report["duplicate_samples"]}
    assert shown == {("03.txt", "copy.txt"), ("04.txt", "near.txt")}
    assert report["by_domain"].keys() == {"code", "text"}
    assert report["by_language"]["python"]["documents"] == 20
    assert report["leakage"]["share"] < 0.01
    kept = report["kept"]["total"]
    for label in ("split", "domain", "source", "language", "content_type"):
        groups = report[f"by_{label}"].values()
        for unit in ("documents", "bytes", "tokens"):
            assert sum(group[unit] for group in groups) == kept[unit]
    assert kept["tokens"] == sum(len(corpus.tokens(split)) for split in corpus.splits)
    held_out = sum(report["by_split"][split]["bytes"] for split in ("validation", "test"))
    assert held_out >= 0.05 * kept["bytes"]
    manifest = json.loads((corpus.folder / "manifest.json").read_text())
    assert manifest["digest"] == corpus.digest == report["digest"]
    assert {one["path"] for one in manifest["inputs"]} == set(made)


def test_a_threshold_redoes_decisions_only(
    tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks when filters run in the reading task, or the key of a part holds the filters."""
    seen: list[dict[str, int]] = []
    leave = Engine.__exit__

    def watched(engine: Engine, *kind: Any) -> None:
        seen.append({stage: run for stage, run in engine.tasks_run.items() if run})
        leave(engine, *kind)

    monkeypatch.setattr(Engine, "__exit__", watched)
    folder = tmp_path / "corpus"
    first = build_corpus(section(texts), name="c", folder=folder)
    stamp = (folder / "shards.json").stat().st_mtime_ns
    again = build_corpus(section(texts), name="c", folder=folder)
    assert seen[1] == {}
    assert again.digest == first.digest
    assert (folder / "shards.json").stat().st_mtime_ns == stamp
    filters = [{"too_short": {"min_characters": 400}}]
    build_corpus(section(texts, filters=filters), name="c", folder=folder)
    assert not {"documents", "candidates-rows", "similarities"} & seen[2].keys()
    assert "filters" in seen[2]
    near = {"threshold": 0.99}
    other = build_corpus(section(texts, duplicates=near), name="c", folder=folder)
    assert "documents" not in seen[3] and "candidates" not in seen[3]
    assert decisions(other)["near.txt"]["keep"]


def test_one_changed_file_redoes_one_part(
    tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch, prose: Prose
) -> None:
    """Breaks when the groups of files follow their sizes or their number alone."""
    monkeypatch.setattr("wellfit.data.read.plan.GROUP_BYTES", 4_000)
    runs: list[int] = []
    leave = Engine.__exit__

    def watched(engine: Engine, *kind: Any) -> None:
        runs.append(engine.tasks_run["documents"])
        leave(engine, *kind)

    monkeypatch.setattr(Engine, "__exit__", watched)
    folder = tmp_path / "corpus"
    build_corpus(section(texts), name="c", folder=folder)
    (texts / "31.txt").write_text(prose(31) + " changed\n" + prose(777))
    corpus = build_corpus(section(texts), name="c", folder=folder)
    (texts / "311.txt").write_text(prose(311))
    build_corpus(section(texts), name="c", folder=folder)
    # A file that comes may end a group, which makes two of one.
    assert runs[0] > 5 and runs[1] == 1 and runs[2] <= 2
    fresh = build_corpus(section(texts), name="c", folder=tmp_path / "fresh")
    assert fresh.digest == Corpus.open(folder).digest != corpus.digest


def test_a_damaged_corpus_is_mended_by_building_again(tmp_path: Path, texts: Path) -> None:
    folder = tmp_path / "corpus"
    build_corpus(section(texts), name="c", folder=folder)
    whole = bytes_of(folder)
    shard = folder / "shards" / "train-00000.bin"
    shard.write_bytes(shard.read_bytes()[:-2] + b"\0\0")
    build_corpus(section(texts), name="c", folder=folder)
    assert bytes_of(folder) == whole


KILLED = """
import os, signal, sys
from pathlib import Path
from wellfit.data.build import build_corpus
from wellfit.recipe.schema import Data

data = Data(sources=[{"path": sys.argv[1]}], tokenizer={"vocabulary_size": 300}, workers=1)
left = int(sys.argv[3])

def count(event, arguments):
    global left
    writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
    if writes or event == "os.rename":
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(count)
build_corpus(data, name="c", folder=Path(sys.argv[2]))
"""


def test_killed_and_built_again_it_is_the_same_corpus(tmp_path: Path, texts: Path) -> None:
    """Breaks when the corpus is published before everything is finished.

    The process kills itself as it opens or renames its n-th file, so the moments do not depend
    on the machine's pace.
    """
    whole, folder = tmp_path / "whole", tmp_path / "killed"
    build_corpus(section(texts), name="c", folder=whole)
    chance = random.Random(5)
    statuses = []
    while statuses[-1:] != [0]:
        files = 6 + 2 * len(statuses) + chance.randrange(4)
        command = [sys.executable, "-c", KILLED, str(texts), str(folder), str(files)]
        statuses.append(subprocess.run(command, check=False).returncode)
        assert statuses[-1] in (0, -signal.SIGKILL)
        if (folder / "manifest.json").exists():
            Corpus.open(folder).verify()
    assert len(statuses) > 3, statuses
    assert bytes_of(folder) == bytes_of(whole)


def test_two_builds_in_one_folder(tmp_path: Path, texts: Path) -> None:
    folder = tmp_path / "corpus"

    def second(stage: str, done: int, total: int) -> None:
        if stage == "documents" and not refused:
            with pytest.raises(DataError, match=r"another build .* is writing this corpus") as one:
                build_corpus(section(texts), name="c", folder=folder)
            refused.append(str(one.value))

    refused: list[str] = []
    build_corpus(section(texts), name="c", folder=folder, progress=second)
    assert refused and str(folder) in refused[0]
    Corpus.open(folder).verify()


def test_a_binary_file_and_a_cut_line_are_rejected_and_listed(
    tmp_path: Path, texts: Path, prose: Prose
) -> None:
    (texts / "picture.txt").write_bytes(b"\x89PNG\0\0\0")
    lines = [json.dumps({"text": prose(500 + n)}) for n in range(10)]
    (texts / "lines.jsonl").write_text("\n".join(lines)[:-30])
    (texts / "photo.png").write_bytes(b"\0")
    corpus = build_corpus(section(texts), name="c", folder=tmp_path / "corpus")
    rejected = [
        json.loads(line) for line in (corpus.folder / "rejected.jsonl").read_text().splitlines()
    ]
    assert [(r["path"], r["position"]) for r in rejected] == [
        ("picture.txt", "the file"),
        ("lines.jsonl", "line 10"),
    ]
    report = corpus.report
    assert report["rejected"]["records"] == 2
    assert report["documents"] == 82 + 9
    assert report["sources"][str(texts)]["passed_over"] == {"unknown kind of file (.png)": 1}


def test_too_many_rejected_records_stop_the_build(tmp_path: Path, prose: Prose) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join([json.dumps({"text": prose(1)})] * 7 + ["{broken"] * 3))
    with pytest.raises(DataError) as caught:
        build_corpus(section(path), name="c", folder=tmp_path / "corpus")
    message = str(caught.value)
    assert (
        "3 of 10 records (30.0%) cannot be read, more than data.max_rejected_share 0.2" in message
    )
    assert "3 × not JSON" in message and "a.jsonl, line 8" in message
    assert str(tmp_path / "corpus" / "rejected.jsonl") in message
    assert len((tmp_path / "corpus" / "rejected.jsonl").read_text().splitlines()) == 3


def test_nothing_to_read_and_nothing_left(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="the source gives no document") as caught:
        build_corpus(section(empty), name="c", folder=tmp_path / "one")
    assert "holds no file that can be read" in caught.value.way_out
    (empty / "a.txt").write_text("short")
    (empty / "b.txt").write_text(" \n")
    with pytest.raises(DataError) as caught:
        build_corpus(section(empty), name="c", folder=tmp_path / "two")
    assert "2 were read, and all were dropped (empty 1, too_short 1)" in str(caught.value) or (
        "2 were read, and all were dropped (too_short 1, empty 1)" in str(caught.value)
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "a.txt").write_bytes(b"\0")
    with pytest.raises(DataError, match=r"1 records rejected .*binary: a NUL byte"):
        build_corpus(section(tmp_path / "bin"), name="c", folder=tmp_path / "three")


def test_missing_path_twice_named_source_and_foreign_corpus(tmp_path: Path, texts: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder") as caught:
        build_corpus(section(tmp_path / "text"), name="c", folder=tmp_path / "corpus")
    assert f"Nearest: {texts}" in caught.value.way_out
    assert not (tmp_path / "corpus").exists()
    with pytest.raises(DataError, match="named twice"):
        build_corpus(section(texts, texts), name="c", folder=tmp_path / "corpus")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "manifest.json").write_text('{"format_version": 99}')
    with pytest.raises(DataError, match="format_version 99"):
        build_corpus(section(texts), name="c", folder=tmp_path / "foreign")


def test_user_functions_clean_and_filter(tmp_path: Path, texts: Path) -> None:
    """Breaks when cleaners run in another order, or a filter sees the text before cleaning."""
    (texts / "seven.txt").write_text("SEVEN IS 7 AND " + "WORDS ARE MANY HERE " * 3)
    corpus = build_corpus(
        section(
            texts,
            clean=["unicode", "user_functions:lower"],
            filters=["user_functions:has_number"],
            workers=2,
        ),
        name="c",
        folder=tmp_path / "corpus",
    )
    made = decisions(corpus)["seven.txt"]
    assert (made["stage"], made["reason"]) == ("user_functions:has_number", "the digit 7")
    rows = [
        row
        for part in (corpus.folder / "documents").glob("*.parquet")
        for row in pq.read_table(part).to_pylist()
    ]
    (seven,) = [row for row in rows if row["path"] == "seven.txt"]
    assert seven["text"].startswith("seven is 7") and seven["edits"]


def test_faults_in_user_functions_name_function_and_document(tmp_path: Path, texts: Path) -> None:
    (texts / "bad.txt").write_text("Forbidden words")
    for workers in (1, 2):
        with pytest.raises(DataError) as caught:
            data = section(texts, clean=["user_functions:broken"], workers=workers)
            build_corpus(data, name="c", folder=tmp_path / f"corpus{workers}")
        assert caught.value.where == "cleaner user_functions:broken"
        assert "ZeroDivisionError: division by zero on bad.txt" in str(caught.value)
    with pytest.raises(DataError, match="it gave True, neither a reason nor None"):
        data = section(texts, filters=["user_functions:says_true"])
        build_corpus(data, name="c", folder=tmp_path / "corpus")
    with pytest.raises(RecipeError, match="too_short"):
        build_corpus(section(texts, filters=["to_short"]), name="c", folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_one_large_file_is_still_split(tmp_path: Path, prose: Prose) -> None:
    """Breaks when pieces of a file too large to be held out whole are kept together."""
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(prose(n, 150) for n in range(400)))
    corpus = build_corpus(section(path), name="c", folder=tmp_path / "corpus")
    assert set(corpus.splits) == {"train", "validation", "test"}
    for number in range(10):
        (tmp_path / "many").mkdir(exist_ok=True)
        body = "\n\n".join(prose(100_000 + number * 500 + n, 150) for n in range(160))
        (tmp_path / "many" / f"{number}.txt").write_text(body)
    many = build_corpus(
        section(tmp_path / "many", split={"validation": 0.2, "test": 0.2}),
        name="c",
        folder=tmp_path / "books",
    )
    side: dict[str, set[str]] = {}
    for part in (many.folder / "documents").glob("*.parquet"):
        for row in pq.read_table(part, columns=["id", "path"]).to_pylist():
            side.setdefault(row["path"], set()).add(row["id"])
    splits = {
        r["id"]: r["split"] for r in pq.read_table(many.folder / "decisions.parquet").to_pylist()
    }
    assert all(len(ids) > 1 for ids in side.values())
    assert all(len({splits[one] for one in ids}) == 1 for ids in side.values())


def test_a_full_disk_at_the_end_leaves_no_half_corpus(
    tmp_path: Path, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks when the old shards and manifest stand while the other files change."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def no_room(*_: Any) -> None:
        raise DataError("the disk is full")

    folder = tmp_path / "corpus"
    with monkeypatch.context() as broken:
        broken.setattr("wellfit.data.publish.sync", full)
        with pytest.raises(DataError, match="the disk is full") as caught:
            build_corpus(section(texts), name="c", folder=folder)
    assert "finished tasks are kept" in caught.value.way_out
    assert not (folder / "manifest.json").exists()
    assert not list(folder.glob(".*"))
    assert build_corpus(section(texts), name="c", folder=folder).report["documents"] == 82
    with monkeypatch.context() as broken, pytest.raises(DataError, match="the disk is full"):
        broken.setattr("wellfit.data.publish._write_table", no_room)
        build_corpus(section(texts, filters=[]), name="other", folder=folder)
    with pytest.raises(DataError, match=r"no shards\.json"):  # half old, half new: refused
        Corpus.open(folder)
