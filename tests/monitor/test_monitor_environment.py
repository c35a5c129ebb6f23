"""`environment.json`: what it says of this machine, and what it must not say."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import psutil
import pytest

from wellfit.monitor.environment import _cpu, _cpu_limit, environment


def test_it_describes_this_machine(tmp_path: Path) -> None:
    told = environment(["wellfit", "train", "--token", "GEHEIM"], tmp_path)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["command"] == ["wellfit", "train", "--token", "<masked>"]
    assert told["cores_usable"] == len(os.sched_getaffinity(0))
    assert told["memory_bytes"] == psutil.virtual_memory().total
    assert told["python"].startswith("CPython 3.")
    assert told["libraries"]["torch"].split(".")[0] == "2"
    assert told["git"] is None
    assert isinstance(told["accelerators"], list)


def test_no_environment_variable_enters_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails if `os.environ` is recorded (tried)."""
    monkeypatch.setenv("SOME_NAME", "GEHEIM")
    assert "GEHEIM" not in json.dumps(environment([], tmp_path))


def test_the_commit_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
            cwd=tmp_path, check=True, capture_output=True, text=True,
        )  # fmt: skip
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "file").write_text("one")
    assert environment([], tmp_path)["git"] is None
    git("add", "file")
    git("commit", "-qm", "one")
    commit = git("rev-parse", "HEAD")
    assert environment([], tmp_path)["git"] == {"commit": commit, "changed": False}
    (tmp_path / "file").write_text("two")
    assert environment([], tmp_path)["git"] == {"commit": commit, "changed": True}


def test_processors_and_limits_are_read_or_unknown(tmp_path: Path) -> None:
    about = tmp_path / "cpuinfo"
    about.write_text(
        "model name\t: A Chip\nflags\t\t: fpu avx2 amx_bf16 fma lm\n\nflags\t: other\n"
    )
    assert _cpu(about) == {"cpu": "A Chip", "cpu_flags": ["amx_bf16", "avx2", "fma"]}
    assert _cpu(tmp_path / "absent")["cpu_flags"] is None
    limit = tmp_path / "cpu.max"
    limit.write_text("150000 100000\n")
    assert _cpu_limit(limit) == 1.5
    limit.write_text("max 100000\n")
    assert _cpu_limit(limit) is None
    assert _cpu_limit(tmp_path / "absent") is None
