"""The run folder: one writer, lines that survive, faults that say what to do."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wellfit.errors import RunError
from wellfit.monitor.folder import RunFolder, read_evaluations, read_history, replace_file
from wellfit.records import Evaluated, Event, Sampled, Saved, Step

HOLD = """
import sys, time
from pathlib import Path
from wellfit.monitor.folder import RunFolder
from wellfit.records import Event
folder = RunFolder.open(Path(sys.argv[1]))
folder.write(Event(0, "started", "by a child"))
sys.stdout.write("held\\n"); sys.stdout.flush()
time.sleep(60)
"""


@contextmanager
def held(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the folder open, until it is killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line, parse_constant=_refuse) for line in path.read_bytes().splitlines()]


def _refuse(word: str) -> None:
    raise AssertionError(f"{word} is not strict JSON")


def test_a_second_training_is_told_who_has_the_folder(tmp_path: Path) -> None:
    """Fails if `take` in lock.py no longer calls flock (tried: two trainings then run at once)."""
    path = tmp_path / "run"
    RunFolder.create(path, "name: a\n").close()
    with held(path) as child:
        with pytest.raises(RunError) as caught:
            RunFolder.open(path)
        message = str(caught.value)
        assert f"process {child.pid} since 20" in message
        assert message.startswith(f"{path}: another training is using this folder")
        assert "--out" in message
        assert read_history(path).status == "running"
        child.send_signal(signal.SIGKILL)
        child.wait()
        # The lock of a killed process blocks nobody, and the run is known to have crashed.
        assert read_history(path).status == "crashed"
        with RunFolder.open(path) as folder:
            assert folder.attempt == 2


def test_one_process_cannot_open_a_folder_twice(run: RunFolder) -> None:
    with pytest.raises(RunError, match=f"process {os.getpid()} since"):
        RunFolder.open(run.path)


def test_a_reader_does_not_take_the_lock_away(run: RunFolder, step: Callable[..., Step]) -> None:
    run.write(step(1))
    assert read_history(run.path).status == "running"
    with pytest.raises(RunError, match="another training"):
        RunFolder.open(run.path)


def test_a_run_is_not_overwritten(tmp_path: Path, step: Callable[..., Step]) -> None:
    path = tmp_path / "run"
    with RunFolder.create(path, "name: a\n") as folder:
        folder.write(step(1))
    with pytest.raises(RunError) as caught:
        RunFolder.create(path, "name: b\n")
    assert "already holds a run" in str(caught.value)
    assert "`--resume`" in str(caught.value) and "`--out`" in str(caught.value)
    assert (path / "recipe.yaml").read_text() == "name: a\n"
    assert len(read_history(path).train_loss) == 1


def test_a_start_that_failed_before_training_may_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "run"
    RunFolder.create(path, "name: a\n").close()
    with RunFolder.create(path, "name: b\n") as folder:
        assert folder.attempt == 1
    assert (path / "recipe.yaml").read_text() == "name: b\n"
    assert not list(path.glob("recipe-*"))


def test_faults_of_the_path_are_explained(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught:
        RunFolder.open(tmp_path / "absent")
    assert "there is no such folder" in str(caught.value)
    assert "without `--resume`" in str(caught.value)
    with pytest.raises(RunError, match="there is no run in this folder"):
        RunFolder.create(tmp_path, "name: a\n", resume=True)
    with pytest.raises(RunError, match="there is no run in this folder"):
        read_history(tmp_path)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(RunError, match="File exists"):
        RunFolder.create(file, "name: a\n")


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run"
    RunFolder.create(path, "name: a\n").close()
    (path / "run.json").write_text('{"format_version": 99}')
    for call in (RunFolder.open, read_history):
        with pytest.raises(RunError, match="format_version 99, and this wellfit knows 1"):
            call(path)
    (path / "run.json").write_text("[")
    with pytest.raises(RunError, match="format_version None"):
        read_history(path)


def test_every_record_goes_to_its_file_with_its_place(
    run: RunFolder, step: Callable[..., Step], evaluated: Callable[..., Evaluated]
) -> None:
    run.write(Event(0, "started", "go", {"planned_steps": 2}))
    run.write(step(1, float("nan")), memory_bytes=7)
    run.write(evaluated(1))
    run.write(Sampled(1, "The ", "end\u2028\udc80", ((" end", 0.5),)))
    run.write(Saved(1, "checkpoints/step-000001", "ab", 10, 0.1))
    run.sync()
    records = run.path / "records"
    read = {path.name: lines(path) for path in records.iterdir()}
    assert sorted(read) == [
        "evaluations-0.jsonl", "events-0.jsonl", "samples-0.jsonl", "saved-0.jsonl",
        "steps-0.jsonl",
    ]  # fmt: skip
    assert sorted(line["seq"] for every in read.values() for line in every) == [1, 2, 3, 4, 5]
    (line,) = read["steps-0.jsonl"]
    assert line["attempt"] == 1 and line["loss"] == "nan" and line["memory_bytes"] == 7
    assert str(line["time"]).endswith("Z")
    assert list(line)[:3] == ["seq", "attempt", "time"]
    assert read["samples-0.jsonl"][0]["text"] == "end\u2028\udc80"
    (scores,) = read_evaluations(run.path)
    assert repr(scores) == repr(evaluated(1))


def test_seq_rises_over_attempts_and_nothing_is_appended_to_half_a_line(
    tmp_path: Path, step: Callable[..., Step]
) -> None:
    """Fails if `_Appender` forgets that its file ended in half a line (tried: `_torn = False`)."""
    path = tmp_path / "run"
    with RunFolder.create(path, "name: a\n") as folder:
        for number in (1, 2, 3):
            folder.write(step(number))
    file = path / "records" / "steps-0.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert read_history(path).train_loss.steps == (1, 2)
    assert read_history(path).notes == ()
    with RunFolder.open(path) as folder:
        folder.write(Event(2, "resumed", "", {"step": 2}))
        folder.write(step(3))
    text = file.read_bytes()
    assert text.startswith(whole[:-20] + b"\n")
    assert [json.loads(line)["seq"] for line in text.splitlines() if line.endswith(b"}")] == [
        1, 2, 4,
    ]  # fmt: skip
    history = read_history(path)
    assert history.train_loss.steps == (1, 2, 3)
    assert history.attempts == 2
    assert history.notes == ("1 line of records/steps-0.jsonl could not be read and are left out.",)


FILL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from conftest import make_step
from wellfit.errors import RunError
from wellfit.monitor.folder import RunFolder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with RunFolder.create(Path(sys.argv[1]), "name: a\\n") as folder:
    for number in range(1, 4):
        folder.write(make_step(number))
    size = (folder.path / "records" / "steps-0.jsonl").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, resource.RLIM_INFINITY))
    try:
        folder.write(make_step(4))
    except RunError as error:
        sys.stdout.write(str(error))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    folder.write(make_step(4))
"""


def test_a_full_disk_is_explained_and_loses_nothing(tmp_path: Path) -> None:
    """The kernel really refuses the write, after taking 50 bytes of the line.

    Fails if `_Appender.append` does not remember that half a line was written (tried).
    """
    path = tmp_path / "run"
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert soft == resource.RLIM_INFINITY
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(path), str(Path(__file__).parent)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "there is no room left to write" in done.stdout
    assert "`--resume`; what was written before is safe" in done.stdout
    history = read_history(path)
    assert history.train_loss.steps == (1, 2, 3, 4)
    assert len(history.notes) == 1


WRITE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from conftest import make_evaluated, make_step
from wellfit.monitor.folder import RunFolder
from wellfit.monitor.listen import Listener
from wellfit.records import Event
with RunFolder.create(Path(sys.argv[1]), "name: a\\n", resume=sys.argv[3] == "resume") as folder:
    listener = Listener(folder)
    first = len(listener.history().train_loss)
    listener.hear(Event(first, "resumed" if first else "started", "", {"step": first}))
    sys.stdout.write("begun\\n"); sys.stdout.flush()
    for number in range(first + 1, 1_000_000):
        listener.hear(make_step(number, number / 7))
        if number % 50 == 0:
            listener.hear(make_evaluated(number))
"""


def test_records_stay_readable_when_the_writer_is_killed_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "run"
    reached = 0
    for attempt in range(1, 5):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITE, str(path), str(Path(__file__).parent),
             "resume" if attempt > 1 else "new"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdout is not None and child.stdout.readline() == "begun\n"
        time.sleep(0.05 * attempt)
        during = read_history(path)
        assert during.status == "running" and during.attempts == attempt
        child.kill()
        child.wait()
        child.stdout.close()
        history = read_history(path)
        assert history.status == "crashed" and history.superseded == 0
        steps = history.train_loss.steps
        assert steps == tuple(range(1, len(steps) + 1)) and len(steps) > reached
        assert history.train_loss.values == tuple(step / 7 for step in steps)
        # Replaced in one move, so whole at any moment.
        json.loads((path / "training_metrics.json").read_text())
        reached = len(steps)
    seqs = [
        json.loads(line)["seq"]
        for file in (path / "records").iterdir()
        for line in file.read_text().splitlines()
        if line.endswith("}")
    ]
    assert len(seqs) == len(set(seqs))


def test_secrets_do_not_enter_the_folder(tmp_path: Path) -> None:
    """Fails if `create` or `write` leaves out its masking (tried both)."""
    path = tmp_path / "run"
    recipe = (
        "name: a\n"
        "data:\n"
        "  sources: [{path: 'https://me:GEHEIM@host/x'}]\n"
        "  filters: [{mine:judge: {api_key: GEHEIM, words: 5}}]\n"
        "train: {batch_tokens: 4096}\n"
    )
    with RunFolder.create(path, recipe) as folder:
        data = {"token": "GEHEIM", "address": "https://x:GEHEIM@y", "planned_steps": 5}
        folder.write(Event(0, "failed", "password=GEHEIM was refused", data))
    for file in path.rglob("*"):
        if file.is_file():
            assert "GEHEIM" not in file.read_text(), file
    history = read_history(path)
    assert history.recipe is not None
    # The rest of the recipe is as it was, and still YAML.
    assert history.recipe["train"] == {"batch_tokens": 4096}
    assert history.recipe["data"]["filters"] == [
        {"mine:judge": {"api_key": "<masked>", "words": 5}}
    ]
    assert history.events[0].data["planned_steps"] == 5


def test_what_an_attempt_changes_stays_visible(tmp_path: Path, step: Callable[..., Step]) -> None:
    path = tmp_path / "run"
    with RunFolder.create(path, "name: a\n") as folder:
        folder.write_environment({"cores": 2})
        folder.write(step(1))
    other = "name: a\nseed: 2\n"
    with RunFolder.create(path, other, resume=True) as folder:
        assert (path / "recipe.yaml").read_text() == "name: a\n", "the resume may be refused yet"
        folder.write_recipe(other)
        folder.write_environment({"cores": 4})
        folder.write(step(2))
    with RunFolder.create(path, other, resume=True) as folder:
        folder.write_recipe(other)
        folder.write_environment({"cores": 4})
    assert (path / "recipe-1.yaml").read_text() == "name: a\n"
    assert (path / "recipe.yaml").read_text() == "name: a\nseed: 2\n"
    assert json.loads((path / "environment-1.json").read_text()) == {"cores": 2}
    assert json.loads((path / "environment.json").read_text()) == {"cores": 4}
    assert not list(path.glob("*-2.*"))


def test_reading_changes_nothing(tmp_path: Path, step: Callable[..., Step]) -> None:
    path = tmp_path / "run"
    with RunFolder.create(path, "name: a\n") as folder:
        folder.write(step(1))
    file = path / "records" / "steps-0.jsonl"
    file.write_bytes(file.read_bytes()[:-5])

    def picture() -> dict[Path, tuple[int, bytes]]:
        return {
            part: (part.stat().st_mtime_ns, part.read_bytes())
            for part in path.rglob("*")
            if part.is_file()
        }

    before = picture()
    read_history(path)
    assert picture() == before


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    """Fails if `replace_file` writes into the file itself (tried)."""
    path = tmp_path / "file.json"
    replace_file(path, "old")
    with pytest.raises(TypeError):
        replace_file(path, 5)  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert [part.name for part in tmp_path.iterdir()] == ["file.json"]
    with path.open() as reader:
        replace_file(path, "new", durable=False)
        assert reader.read() == "old"
    assert path.read_text() == "new"


def test_reading_a_run_imports_neither_torch_nor_matplotlib(run: RunFolder) -> None:
    """Fails if a light file of this room imports torch at its top (tried in metrics.py)."""
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "import wellfit.monitor.metrics, wellfit.monitor.summary\n"
        "from wellfit.monitor.folder import read_history\n"
        "read_history(Path(sys.argv[1]))\n"
        "heavy = {'torch', 'matplotlib', 'numpy', 'rich', 'psutil'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(run.path)], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
