"""What many rooms' tests share: a small real run, made once by the command line itself."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# Doctests are collected from every module, and two modules called `conftest` are one too many.
collect_ignore_glob = ["*/conftest.py"]

# A shell starts its background jobs with Ctrl-C ignored, and every process below inherits that.
# The tests that interrupt a command mean a command started in the foreground.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

WELLFIT = str(Path(sys.executable).parent / "wellfit")

RECIPE = """\
name: tiny
seed: 3
data:
  sources:
    - path: texts
  split: {validation: 0.1, test: 0.1}
  tokenizer: {vocabulary_size: 400}
  workers: 1
model: {context: 64, layers: 2, width: 32, heads: 2, kv_heads: 1, hidden: 64}
train:
  budget: {steps: 24}
  batch_tokens: 512
  micro_batch: 4
  checkpoint_every: 8
  precision: fp32
  compile: "off"
  threads: 1
evaluate: {every: 8}
monitor:
  sample_every: 12
  prompts: ["The ", "def "]
  sampling: {tokens: 8}
"""


def write_texts(folder: Path, files: int = 40) -> None:
    """Real text of this interpreter: the first modules of its library, one file each."""
    import sysconfig

    folder.mkdir(parents=True)
    library = Path(sysconfig.get_paths()["stdlib"])
    chosen = [path for path in sorted(library.glob("*.py")) if 2_000 < path.stat().st_size < 30_000]
    for path in chosen[:files]:
        shutil.copy(path, folder / f"{path.stem}.txt")


@pytest.fixture(scope="session")
def wellfit_command() -> str:
    return WELLFIT


@pytest.fixture(scope="session")
def tiny_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts/, tiny.yaml and the finished run runs/tiny: read it, do not change it."""
    home = tmp_path_factory.mktemp("home")
    write_texts(home / "texts")
    (home / "tiny.yaml").write_text(RECIPE)
    done = subprocess.run(
        [WELLFIT, "train", "tiny.yaml", "--quiet"],
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return home


@pytest.fixture
def own_home(tiny_home: Path, tmp_path: Path) -> Path:
    """A copy of `tiny_home` that a test may change."""
    home = tmp_path / "home"
    shutil.copytree(tiny_home, home, symlinks=True)
    return home
