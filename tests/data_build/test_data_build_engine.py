"""The engine: same bytes inline and in processes, resumable at any moment, clear when it breaks."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import engine_work
import numpy as np
import pytest

from wellfit.data.engine.engine import Engine
from wellfit.data.engine.lock import held
from wellfit.data.engine.task import File, Task, file_digest
from wellfit.data.engine.version import code_version
from wellfit.errors import DataError

WORDS = ["one\ntwo\n", "three\n", "four\nfive\n", "six\n", "seven\n"]


def tasks_in(folder: Path, words: list[str] = WORDS) -> list[Task]:
    folder.mkdir(parents=True, exist_ok=True)
    tasks = []
    for number, text in enumerate(words):
        path = folder / f"{number}.txt"
        path.write_text(text)
        file = File(path, file_digest(path))
        tasks.append(Task(f"task {number}", (file,), {"number": number}))
    return tasks


def tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_workers_and_inline_write_the_same_bytes(tmp_path: Path) -> None:
    """Breaks when results or markers hold anything of their process (its id, a time)."""
    tasks = tasks_in(tmp_path / "in")
    for workers in (1, 2, 3):
        with Engine(tmp_path / str(workers), workers) as engine:
            results = engine.map("shout", engine_work.shout, tasks, {"mark": "!"}, suffix=".txt")
        assert next(r.file.path.read_text() for r in results) == "ONE!\nTWO!\n"
        assert [r.summary["lines"] for r in results] == [2, 1, 2, 1, 1]
    assert tree(tmp_path / "1") == tree(tmp_path / "2") == tree(tmp_path / "3")
    assert len(tree(tmp_path / "1")) == 10


def test_finished_tasks_are_reused_and_changed_ones_redone(tmp_path: Path) -> None:
    """Breaks when the key leaves out the inputs' digests or the parameters, or when a marker is
    believed without comparing its file."""

    def build(mark: str = "!", words: list[str] = WORDS) -> tuple[int, list[str]]:
        with Engine(tmp_path / "out") as engine:
            tasks = tasks_in(tmp_path / "in", words)
            results = engine.map("shout", engine_work.shout, tasks, {"mark": mark}, suffix=".txt")
            return engine.tasks_run["shout"], [r.file.path.read_text() for r in results]

    assert build()[0] == 5
    assert build()[0] == 0
    run, texts = build(words=[*WORDS[:4], "eight\n"])
    assert (run, texts[4]) == (1, "EIGHT!\n")
    run, texts = build(mark="?")
    assert (run, texts[1]) == (5, "THREE?\n")
    damaged = next(p for p in (tmp_path / "out/shout").glob("*.txt") if p.read_text() == "SIX?\n")
    damaged.write_text("SIX?!")
    run, texts = build(mark="?")
    assert (run, texts[3]) == (1, "SIX?\n")
    next((tmp_path / "out/shout").glob("*.marker.json")).write_text("{torn")
    assert build(mark="?")[0] in (0, 1)  # the torn marker may be one of the older parameters


def test_a_function_whose_code_changed_runs_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks when the version leaves out the modules that a function's module imports."""
    folder = tmp_path / "code"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    (folder / "changing_work.py").write_text("def work(): return 1\n")
    import changing_work

    from wellfit.data.engine import version

    one = code_version([changing_work.work])
    assert one == code_version([changing_work.work])
    (folder / "changing_work.py").write_text("def work(): return 2\n")
    version._source.cache_clear()
    assert code_version([changing_work.work]) != one
    followed: set[str] = set()
    version._follow("wellfit.data.read.task", followed)
    assert {"wellfit.data.read.jsonl", "wellfit.data.clean.unicode", "wellfit.records"} <= followed
    assert "wellfit.data.filter.quality" not in followed  # a filter's code cannot change a text


def test_exchange_regroups_rows_by_key_and_redoes_only_touched_buckets(tmp_path: Path) -> None:
    """Breaks when rows are sorted per task only, or a slice's digest is the whole file's."""
    words = ["aebca", "bcd", "zz"]
    expected = {}
    for number, word in enumerate(words):
        for letter in word:
            rows, numbers = expected.get(letter, (0, 0))
            expected[letter] = (rows + 1, numbers + number)
    trees = []
    for workers in (1, 2):
        with Engine(tmp_path / str(workers), workers) as engine:
            results = engine.exchange(
                "letters",
                engine_work.emit_letters,
                engine_work.count_keys,
                tasks_in(tmp_path / "in", words),
                {},
                buckets=4,
            )
        found = [row for r in results for row in np.load(r.file.path).tolist()]
        assert {chr(key): (rows, numbers) for key, rows, numbers in found} == expected
        assert len(found) == len(expected)  # every key in one bucket only
        trees.append(tree(tmp_path / str(workers)))
    assert trees[0] == trees[1]
    with Engine(tmp_path / "1") as engine:
        tasks = tasks_in(tmp_path / "in", ["aebca", "bcd", "zzz"])
        engine.exchange(
            "letters", engine_work.emit_letters, engine_work.count_keys, tasks, {}, buckets=4
        )
    assert engine.tasks_run == {"letters-rows": 1, "letters": 1}


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
import engine_work
from test_data_build_engine import tasks_in
from wellfit.data.engine.engine import Engine
words = [f"word {n}\\n" * 50 for n in range(12)]
tasks = tasks_in(Path(sys.argv[2]), words)
with Engine(Path(sys.argv[1]), int(sys.argv[4])) as engine:
    engine.map("shout", engine_work.shout, tasks, {"mark": "!", "seconds": 0.02}, suffix=".txt")
    engine.sweep()
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path: Path, workers: int) -> None:
    """Breaks when a result is written under its final name before it is whole."""
    here = str(Path(__file__).parent)
    arguments = [str(tmp_path / "in"), here, str(workers)]

    def start(out: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", KILLED, str(tmp_path / out), *arguments]
        return subprocess.Popen(command)

    assert start("whole").wait() == 0
    chance = random.Random(workers)
    killed = 0
    for attempt in range(6):
        process = start("killed")
        if attempt:
            time.sleep(chance.uniform(0.3, 0.8))
        else:  # on a quick machine only this one is sure to meet unfinished work
            while process.poll() is None and not any(tmp_path.glob("killed/shout/*.marker.json")):
                time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        for marker in (tmp_path / "killed" / "shout").glob("*.marker.json"):
            if not marker.name.startswith("."):
                content = json.loads(marker.read_text())
                digest = file_digest(marker.with_name(content["file"]))
                assert digest == content["sha256"]
    assert start("killed").wait() == 0
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")
    assert killed


def test_a_killed_worker_is_one_clear_error_and_finished_tasks_stay(tmp_path: Path) -> None:
    tasks = tasks_in(tmp_path / "in", ["one\n", "DIE\n", "three\n", "four\n"])
    with pytest.raises(DataError) as caught, Engine(tmp_path / "out", 2) as engine:
        engine.map("die", engine_work.die, tasks, {"mark": "!"}, suffix=".txt")
    assert caught.value.where == "die: task 1"
    assert "was killed by SIGKILL" in str(caught.value)
    assert "fewer `data.workers`" in caught.value.way_out
    texts = {p.read_text() for p in (tmp_path / "out/die").glob("*.txt")}
    assert "ONE!\n" in texts
    tasks = tasks_in(tmp_path / "in", ["one\n", "two\n", "three\n", "four\n"])
    with Engine(tmp_path / "out", 2) as engine:
        engine.map("die", engine_work.die, tasks, {"mark": "!"}, suffix=".txt")
    assert engine.tasks_run["die"] <= 3


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_is_told_and_nothing_half_written_stands(tmp_path: Path, workers: int) -> None:
    """Breaks when the unfinished file is not removed."""
    tasks = tasks_in(tmp_path / "in")
    with pytest.raises(DataError) as caught, Engine(tmp_path / "out", workers) as engine:
        engine.map("full", engine_work.fill_the_disk, tasks, {}, suffix=".bin")
    assert "the disk is full (No space left on device)" in str(caught.value)
    assert "finished tasks are kept" in caught.value.way_out
    assert tree(tmp_path / "out") == {}


def test_a_fault_in_a_worker_reads_as_it_does_inline(tmp_path: Path) -> None:
    messages = []
    for workers in (1, 2):
        with pytest.raises(DataError) as caught, Engine(tmp_path / "out", workers) as engine:
            tasks = tasks_in(tmp_path / "in")
            engine.map("refuse", engine_work.refuse, tasks, {}, suffix=".txt")
        messages.append((caught.value.what, caught.value.way_out))
    assert messages == [("the word is wrong", "Use another word.")] * 2


def test_workers_are_light_and_several(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Breaks when the data room imports torch on its way to a worker."""
    tasks = tasks_in(tmp_path / "in")
    with Engine(tmp_path / "out", 2) as engine:
        results = engine.map("modules", engine_work.loaded_modules, tasks, {}, suffix=".txt")
    assert [result.summary["heavy"] for result in results] == [[]] * 5
    assert len({result.summary["process"] for result in results}) == 2
    assert "a user's function may print" in capfd.readouterr().err


def test_progress_counts_tasks_and_says_what_was_reused(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    tasks = tasks_in(tmp_path / "in", WORDS[:2])
    for _ in range(2):
        with Engine(tmp_path / "out", 1, lambda *call: told.append(call)) as engine:
            engine.map("shout", engine_work.shout, tasks, {"mark": "!"}, suffix=".txt")
    assert told == [("shout", 0, 2), ("shout", 1, 2), ("shout", 2, 2), ("shout", 2, 2)]


def test_one_folder_is_built_by_one_at_a_time(tmp_path: Path) -> None:
    """Breaks when the lock is not taken, or not given back."""
    with (
        held(tmp_path / "tasks"),
        pytest.raises(DataError, match=r"another build .* is writing this corpus") as caught,
        held(tmp_path / "tasks"),
    ):
        pass
    assert caught.value.where == str(tmp_path)
    assert "Wait until it has ended" in caught.value.way_out
    with held(tmp_path / "tasks"):
        pass
