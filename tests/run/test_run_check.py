"""`wellfit check` finds what would stop a recipe later; its figures are held against others."""

from __future__ import annotations

import math
import re
import subprocess
from pathlib import Path

import pytest


def check(home: Path, command: str, *changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [command, "check", "tiny.yaml", *changes],
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data.sources.0.path=nowhere", "nowhere"),
        ("data.filters=[too_shrot]", "too_short"),
        ("data.tokenizer.file=absent.json", "absent.json"),
        ("model.context=500", "batch_tokens"),
        ("train.device=cuda", "cuda"),
        ("model.context=1048576", "less than one row"),
    ],
)
def test_planted_faults_are_refused(
    own_home: Path, wellfit_command: str, change: str, said: str
) -> None:
    """Each fault, planted in a recipe that runs, is told in one message before any training.

    Break: let `check` return after it has loaded the recipe; all but the second and fourth fail.
    """
    changes = [change]
    if "1048576" in change:
        changes.append("train.batch_tokens=1048576")
    if "cuda" in change:
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("this machine has the device that the recipe asks for")
    done = check(own_home, wellfit_command, *changes)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr
    assert "The recipe runs." not in done.stdout


def test_its_figures_are_right(own_home: Path, wellfit_command: str) -> None:
    """Parameters against torch's count of the model, the blind guess against ln(vocabulary).

    Break: leave the head out of `parameter_count`.
    """
    from wellfit.model.transformer import Transformer
    from wellfit.run.load import load

    done = check(own_home, wellfit_command)
    assert done.returncode == 0, done.stderr
    model = Transformer(load(own_home / "tiny.yaml").model, 400)
    count = sum(parameter.numel() for parameter in model.parameters())
    assert f"{count:,} parameters" in done.stdout
    blind = re.search(r"among 400 tokens costs ([\d.]+)", done.stdout)
    assert blind and float(blind[1]) == pytest.approx(math.log(400), abs=5e-4)
    first = re.search(r"First loss ([\d.]+)", done.stdout)
    assert first and float(first[1]) == pytest.approx(math.log(400), abs=0.05)
    assert not (own_home / "runs" / "check").exists()
