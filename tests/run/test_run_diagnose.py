"""`wellfit diagnose` as a user meets it: several logs, a pipe, pages, SARIF, a growing log."""

from __future__ import annotations

import io
import json
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from wellfit.run import follow as following
from wellfit.run.follow import follow, stamp
from wellfit.run.opinion import as_text, examine

WELLFIT = str(Path(sys.executable).parent / "wellfit")
Inside = Callable[..., Any]


def state(path: Path, losses: list[float], planned: int = 0) -> Path:
    """A `trainer_state.json` with these losses, one every ten steps."""
    rows = [
        {"step": 10 * (i + 1), "loss": loss, "learning_rate": 1e-4} for i, loss in enumerate(losses)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"log_history": rows, "max_steps": planned, "global_step": 1}))
    return path


def falling(count: int = 60) -> list[float]:
    return [1.5 + 3 * math.exp(-i / 15) + 0.01 * (i % 3) for i in range(count)]


def broken() -> list[float]:
    return [*falling(40), *[math.nan] * 20]


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A home with a healthy log, one that broke, and one that is no log."""
    state(tmp_path / "well" / "trainer_state.json", falling())
    state(tmp_path / "broken" / "trainer_state.json", broken())
    (tmp_path / "torn.json").write_text('{"log_history": [')
    return tmp_path


WELL, BROKEN = "well/trainer_state.json", "broken/trainer_state.json"


@pytest.mark.parametrize(
    ("paths", "status"),
    [
        ((WELL,), 0),
        ((BROKEN,), 1),
        ((WELL, BROKEN), 1),
        ((WELL, WELL), 0),
        (("nowhere.json",), 2),
        (("nowhere.json", BROKEN), 2),
        ((WELL, "torn.json"), 2),
    ],
)
def test_exit_status(logs: Path, inside: Inside, paths: tuple[str, ...], status: int) -> None:
    """Break tried: 1 wherever anything was found, unreadable logs or not."""
    assert inside(logs, "diagnose", *paths).status == status


def test_an_unreadable_log_loses_nothing_of_the_others(logs: Path, inside: Inside) -> None:
    """Break tried: `examine` without its `except`."""
    done = inside(logs, "diagnose", "nowhere.json", WELL, "torn.json", BROKEN)
    assert done.out.startswith("2 runs: 1 critical, 1 without alarm, 2 not readable\n")
    assert "✗ broken" in done.out and "✓ well" in done.out
    assert "numbers stopped being finite" in done.out
    assert done.error.count("wellfit: ") == 2
    assert "nowhere.json: there is no such file" in done.error and "torn.json" in done.error


def test_a_disk_that_fails_loses_nothing_of_the_others(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break tried: `except OSError` taken out of `examine`."""
    from wellfit.run import opinion

    read = opinion.read_all

    def failing(path: Path, given: object) -> object:
        if path.name == "torn.json":
            raise OSError(5, "Input/output error")
        return read(path)

    monkeypatch.chdir(logs)
    monkeypatch.setattr(opinion, "read_all", failing)
    found = opinion.examine(["torn.json", WELL])
    assert [case.path for case in found.cases] == [WELL] and found.exit_status == 2
    assert "torn.json: it cannot be read: Input/output error" in str(found.unreadable[0][1])


def test_json_of_one_run_is_an_object_and_of_several_a_list(logs: Path, inside: Inside) -> None:
    """Break tried: always a list; path and name left out."""
    one = json.loads(inside(logs, "diagnose", WELL, "--json").out)
    assert list(one) == ["verdict", "summary", "findings", "not_assessed"]
    told = json.loads(inside(logs, "diagnose", WELL, BROKEN, "nowhere.json", "--json").out)
    assert [(run["path"], run["name"]) for run in told] == [(WELL, "well"), (BROKEN, "broken")]
    assert {key: told[0][key] for key in one} == one
    nothing = inside(logs, "diagnose", "nowhere.json", "--json")
    assert (nothing.status, nothing.out) == (2, "")


def test_a_log_can_come_through_a_pipe(
    logs: Path, inside: Inside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break tried: `-` taken for the name of a file."""
    data = (logs / BROKEN).read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    done = inside(logs, "diagnose", "-")
    assert done.status == 1
    assert "standard input" in done.out and "numbers stopped being finite" in done.out
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    empty = inside(logs, "diagnose", "-", WELL)
    assert empty.status == 2 and "well" in empty.out and "standard input" in empty.error


def test_sarif_goes_to_a_file_or_in_place_of_the_text(logs: Path, inside: Inside) -> None:
    """Break tried: the text left out where a file is written; text before the SARIF."""
    done = inside(logs, "diagnose", WELL, BROKEN, "--sarif", "out/found.sarif")
    written = json.loads((logs / "out/found.sarif").read_text())
    assert done.status == 1 and "✗ broken" in done.out
    printed = inside(logs, "diagnose", WELL, BROKEN, "--sarif", "-")
    assert json.loads(printed.out) == written
    results = written["runs"][0]["results"]
    uris = {
        r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]: r["level"]
        for r in reversed(results)
    }
    assert uris[BROKEN] == "error"
    failed = json.loads(inside(logs, "diagnose", "nowhere.json", "--sarif", "-").out)
    assert failed["runs"][0]["invocations"][0]["executionSuccessful"] is False


def test_a_page_of_one_run_and_pages_of_several(logs: Path, inside: Inside) -> None:
    """Break tried: the last page over the others in one file."""
    one = inside(logs, "diagnose", WELL, "--html", "page.html", "--json")
    assert json.loads(one.out)["verdict"] and "wrote page.html" in one.error
    assert "Second opinion" in (logs / "page.html").read_text()
    inside(logs, "diagnose", WELL, BROKEN, WELL, "--html", "pages")
    assert sorted(p.name for p in (logs / "pages").iterdir()) == [
        "broken.html", "well-2.html", "well.html",
    ]  # fmt: skip
    into = inside(logs, "diagnose", BROKEN, "--html", "pages")
    assert into.status == 1 and "wrote pages/broken.html" in into.error
    refused = inside(logs, "diagnose", WELL, BROKEN, "--html", "page.html")
    assert refused.status == 2 and "Name a folder" in refused.error


def test_a_run_folder_s_page_keeps_its_sections(tiny_home: Path, tmp_path: Path) -> None:
    """Break tried: `from_log` for every case."""
    from wellfit.run.opinion import write_pages

    (page,) = write_pages(examine([str(tiny_home / "runs/tiny")]), tmp_path / "page.html")
    text = page.read_text()
    assert 'id="samples"' in text and 'id="recipe"' in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((WELL, "--task", "poetry"), "'language', 'classification'"),
        ((WELL, "--vocab", "1"), "--vocab"),
        ((WELL, "--epochs", "nan"), "--epochs wants a number above 0"),
        ((WELL, "--epochs", "-1"), "--epochs wants a number above 0"),
        (("-", "-"), "only once"),
        ((WELL, "--html", "-"), "--html wants a file"),
        ((WELL, "--json", "--sarif", "-"), "both want standard output"),
        ((WELL, BROKEN, "--follow"), "one file or folder"),
        (("-", "--follow"), "one file or folder"),
        ((WELL, "--follow", "--json"), "--follow shows text only"),
        (("--json",), "PATH"),
    ],
)
def test_what_cannot_be_is_refused(
    logs: Path, inside: Inside, arguments: tuple[str, ...], said: str
) -> None:
    """Break tried: each check of `refuse` taken out."""
    done = inside(logs, "diagnose", *arguments)
    assert done.status == 2 and said in done.error and done.out == ""


def test_what_the_user_says_reaches_the_rules(logs: Path, inside: Inside) -> None:
    """Break tried: `given` not handed to `read_all`."""
    state(logs / "flat.json", [9.9 + 0.01 * (i % 4) for i in range(60)])
    plain = inside(logs, "diagnose", "flat.json", "--json")
    told = inside(logs, "diagnose", "flat.json", "--vocab", "20000", "--json")
    kinds = [finding["severity"] for finding in json.loads(told.out)["findings"]]
    assert "critical" in kinds and told.out != plain.out
    reward = inside(logs, "diagnose", "flat.json", "--task", "reinforcement", "--json")
    assert "no likelihood" in reward.out


def test_python_takes_the_same_context(logs: Path) -> None:
    """Break tried: `vocabulary_size` dropped in `api.diagnose`."""
    import wellfit

    state(logs / "flat.json", [9.9 + 0.01 * (i % 4) for i in range(60)])
    found = wellfit.diagnose(logs / "flat.json", vocabulary_size=20000, task="language")
    assert found.findings[0].severity == "critical"


# ── a growing log ──────────────────────────────────────────────────────────────────────────


class Script:
    """A sleep that does one thing at a time, and Ctrl-C at the end."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.steps = list(steps)
        self.slept: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        if not self.steps:
            raise KeyboardInterrupt
        self.steps.pop(0)()


def nothing() -> None:
    return None


def test_follow_waits_tells_news_and_ends_with_the_last_status(tmp_path: Path) -> None:
    """Break tried: a line at every change of the file; status 0 always."""
    log, told = tmp_path / "state.json", []
    script = Script(
        nothing,
        lambda: state(log, falling(40)),
        lambda: state(log, falling(41)),
        nothing,
        lambda: state(log, broken()),
        lambda: state(log, [*broken(), math.nan]),
    )
    status = follow(str(log), None, told.append, sleep=script, clock=lambda: 0.0)
    assert status == 1
    assert told[0].startswith("Waiting for ")
    assert len(told) == 3, told
    assert told[1].startswith("✓ ") and "step 400" in told[1]
    assert told[2].startswith("✗ ") and "step 600" in told[2]
    assert set(script.slept) == {1.0}


def test_a_torn_log_is_read_again_and_not_reported(tmp_path: Path) -> None:
    """Break tried: `_unreadable` at the first look."""
    log, told = state(tmp_path / "state.json", falling()), []
    whole = log.read_text()
    torn = Script(
        lambda: log.write_text("{"), nothing, nothing, lambda: log.write_text(whole + " "), nothing
    )
    assert follow(str(log), None, told.append, sleep=torn) == 0
    assert len(told) == 1
    # A file that stays unreadable is said to be so, once.
    log.write_text("{")
    lasting, told = Script(*[nothing] * 20), []
    with pytest.raises(KeyboardInterrupt):
        follow(str(log), None, told.append, sleep=lasting)
    assert len(told) == 1 and told[0].startswith("Not readable yet: ")


def test_a_log_is_read_only_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break tried: `now == self.read` taken out."""
    log, read = state(tmp_path / "state.json", falling()), []

    def counted(paths: list[str], given: object) -> object:
        read.append(paths)
        return examine(paths)

    monkeypatch.setattr(following, "examine", counted)
    follow(str(log), None, lambda _: None, sleep=Script(*[nothing] * 5))
    assert len(read) == 1


def test_a_screen_is_drawn_anew_within_its_lines(tmp_path: Path) -> None:
    """Break tried: the whole page whatever the lines of the screen."""
    log, told = state(tmp_path / "state.json", broken()), []
    script = Script(lambda: state(log, [*broken(), math.nan]))
    follow(str(log), None, told.append, screen=lambda: (60, 12), sleep=script)
    pages = [text for text in told if text != "\n"]
    assert len(pages) == 2
    for page in pages:
        assert page.startswith(following.HOME_AND_CLEAR)
        lines = page.removeprefix(following.HOME_AND_CLEAR).splitlines()
        assert len(lines) <= 12 and all(len(line) <= 60 for line in lines)
        assert "Ctrl-C ends." in lines[-1] or "Following" in lines[-1]


def test_what_to_do_stands_on_a_small_screen(tmp_path: Path) -> None:
    """Break tried: the full page cut at the last line."""
    log, told = state(tmp_path / "state.json", broken()), []
    brief = as_text(examine([str(log)]), brief=True).splitlines()
    rows = brief.index("Do this next") + 4
    follow(str(log), None, told.append, screen=lambda: (80, rows), sleep=Script())
    assert "Do this next" in told[0]


def test_a_slow_log_is_read_less_often(tmp_path: Path) -> None:
    """Break tried: `sleep(interval)`."""
    times = iter([0.0, 7.0, 7.0, 7.0])
    script = Script(nothing)
    log = state(tmp_path / "state.json", falling())
    follow(str(log), None, lambda _: None, sleep=script, clock=lambda: next(times))
    assert script.slept == [21.0, 1.0]


def test_a_folder_s_stamp_changes_with_its_files(tmp_path: Path) -> None:
    """Break tried: the stamp of the folder itself."""
    assert stamp(tmp_path / "none") == ()
    log = state(tmp_path / "run" / "checkpoint-1" / "trainer_state.json", falling())
    before = stamp(tmp_path / "run")
    with log.open("a") as file:
        file.write(" ")
    assert stamp(tmp_path / "run") != before


def test_ctrl_c_ends_the_watch_with_the_last_status(tmp_path: Path) -> None:
    """As a user does it, with a real file, a real clock and a real signal.

    Break tried: KeyboardInterrupt not caught in `follow` (status 130).
    """
    log = tmp_path / "state.json"
    process = subprocess.Popen(
        [WELLFIT, "diagnose", str(log), "--follow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Waiting for ")
        state(log, falling())
        assert process.stdout.readline().startswith("✓ ")
        new = state(tmp_path / "new.json", broken())
        new.replace(log)
        assert process.stdout.readline().startswith("✗ ")
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
    finally:
        watchdog.cancel()
        process.kill()
    assert (process.returncode, out, error) == (1, "", "")


def test_ctrl_c_before_anything_was_read_is_an_interruption(tmp_path: Path) -> None:
    """Break tried: status 0 where nothing was diagnosed."""
    process = subprocess.Popen(
        [WELLFIT, "diagnose", str(tmp_path / "none.json"), "--follow"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("Waiting for ")
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert error == "wellfit: interrupted\n"


def test_the_watch_needs_no_torch() -> None:
    """Break tried: `import torch` atop run/follow.py."""
    code = (
        "import sys, wellfit.run.follow, wellfit.run.opinion\n"
        "heavy = {'torch', 'plotly', 'matplotlib', 'pyarrow'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
