"""The command line, run inside the test's own process: as `wellfit …` does, without its start."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Done:
    """What a command left: its exit status and what it printed."""

    status: int
    out: str
    error: str


@pytest.fixture
def inside(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """`inside(home, "train", …)` runs a command with `home` as its working folder."""
    from wellfit.cli import main

    def run(home: Path, *arguments: str) -> Done:
        monkeypatch.chdir(home)
        monkeypatch.setattr(sys, "argv", ["wellfit", *arguments])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = int(ended.code or 0)
        out, error = capsys.readouterr()
        assert "Traceback" not in out + error
        return Done(status, out, error)

    return run
