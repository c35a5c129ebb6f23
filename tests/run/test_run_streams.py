"""Where output goes: full disks, closed streams, readers that leave, locales without UTF-8."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from wellfit import __version__
from wellfit.errors import WellfitError
from wellfit.run.show import Terminal

WELLFIT = str(Path(sys.executable).parent / "wellfit")
PLAIN = {
    **os.environ,
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "WELLFIT": WELLFIT,
}


def shell(home: Path, line: str) -> subprocess.CompletedProcess[bytes]:
    """A line of bash in a C locale; `$WELLFIT` is the command."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=home,
        env=PLAIN,
        capture_output=True,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    return done


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_cannot_be_written_is_one_message(tiny_home: Path) -> None:
    done = shell(tiny_home, '"$WELLFIT" recipe show tiny.yaml > /dev/full')
    assert done.returncode == 2
    assert b"wellfit: the output: No space left on device" in done.stderr
    assert b"Make room there" in done.stderr


def test_a_closed_output_is_no_fault(tiny_home: Path) -> None:
    done = shell(tiny_home, '"$WELLFIT" recipe show tiny.yaml >&-')
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_leaves_is_no_finding(tiny_home: Path) -> None:
    """Status 1 would say that `diagnose` found something; 141 is what a shell calls SIGPIPE.

    Break tried: without the branch for BrokenPipeError in `cli.main`, a traceback and 1.
    """
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [WELLFIT, "diagnose", "runs/tiny"],
            cwd=tiny_home,
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_signs_that_a_locale_lacks_are_spelled(tiny_home: Path) -> None:
    """Break: leave the streams as Python opens them."""
    done = shell(tiny_home, '"$WELLFIT" diagnose runs/tiny')
    assert done.returncode in (0, 1)
    assert b"\\u25" in done.stdout


def test_a_prompt_of_undecoded_bytes_is_read_as_utf8(
    tiny_home: Path, inside: Callable[..., Any]
) -> None:
    """Python hands these bytes over as lone surrogates. Break: pass them to the tokenizer."""
    raw = "Grüße 🦊".encode().decode("ascii", "surrogateescape")
    done = inside(tiny_home, "generate", "runs/tiny", "--prompt", raw, "--tokens", "2")
    assert done.status == 0
    assert done.out.startswith("Grüße 🦊")


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_has_a_short_name(tiny_home: Path, inside: Callable[..., Any], option: str) -> None:
    done = inside(tiny_home, "generate", option)
    assert done.status == 0
    assert "--prompt" in done.out


def test_version(tiny_home: Path, inside: Callable[..., Any]) -> None:
    assert inside(tiny_home, "--version").out == f"wellfit {__version__}\n"


def test_commands_to_copy_are_quoted(own_home: Path, inside: Callable[..., Any]) -> None:
    (own_home / "texts").rename(own_home / "my texts")
    done = inside(own_home, "init", "my texts")
    assert "next: wellfit train 'my texts.yaml'" in done.out
    again = inside(own_home, "init", "my texts")
    assert again.status == 2
    assert "wellfit init 'my texts' --out OTHER.yaml" in again.error


def test_an_error_gives_the_terminal_its_cursor_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Break: end the bars only where all goes well."""
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(WellfitError), Terminal() as show:
        show.stage("files", 1, 2)
        assert "\x1b[?25l" in screen.getvalue()
        raise WellfitError("the disk is full")
    assert screen.getvalue().rindex("\x1b[?25h") > screen.getvalue().rindex("\x1b[?25l")


def test_ctrl_c_while_the_corpus_is_built(own_home: Path) -> None:
    """One message and 130; the same command then begins as if nothing had been."""
    arguments = [WELLFIT, "train", "tiny.yaml", "data.folder=new", "--out", "runs/new", "--quiet"]
    with subprocess.Popen(
        arguments, cwd=own_home, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 60
        while not (own_home / "new" / "tasks").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == "wellfit: interrupted\n"
    again = subprocess.run(arguments, cwd=own_home, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr


def test_a_training_that_explodes_is_called_so(own_home: Path, inside: Callable[..., Any]) -> None:
    """Ten steps in a row without a finite loss end it; run, diagnosis and page say the same."""
    rates = [f"train.optimizer.{name}=1e30" for name in ("learning_rate", "matrix_learning_rate")]
    done = inside(own_home, "train", "tiny.yaml", *rates, "--out", "runs/wild", "--quiet")
    assert done.status == 1
    assert "The run failed at step" in done.out
    found = inside(own_home, "diagnose", "runs/wild", "--json")
    assert found.status == 1
    assert '"divergence"' in found.out and '"non_finite"' in found.out
    page = (own_home / "runs" / "wild" / "report.html").read_text()
    assert "non_finite" in page or "not finite" in page
