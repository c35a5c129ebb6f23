"""`verify-resume`: an exact resume is called exact, and one that loses something is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wellfit.errors import RunError
from wellfit.run import verify_resume
from wellfit.run.show import Quiet

FORGETFUL = """
from wellfit.training import start

whole = start.restore
start.restore = lambda setup, weights, moments: whole(setup, weights, {})
from wellfit.cli import main

main()
"""


def verify(home: Path, monkeypatch: pytest.MonkeyPatch, *changes: str, **more: int | None):
    monkeypatch.chdir(home)
    return verify_resume.verify_resume(
        Path("tiny.yaml"), ("model.dropout=0.1", *changes), Quiet(), steps=6, **more
    )


def test_an_exact_resume_is_called_exact(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed once; dropout on. Break: comparing the run with itself."""
    found = verify(own_home, monkeypatch, kills=1)
    assert found.exact and found.same.identical and found.other is None
    assert found.same.differences == () and len(found.same.kills) == 1
    told = verify_resume.lines(found)
    assert "identical, bit for bit" in told and "Resuming is exact" in told
    assert json.loads(found.to_json())["exact"] is True
    assert not (own_home / "runs" / "whole").exists()


@pytest.mark.slow
def test_a_resume_that_forgets_its_moments_is_found_out(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is planted in the child; the tensors that differ are named."""
    monkeypatch.setattr(verify_resume, "CHILD", FORGETFUL)
    found = verify(own_home, monkeypatch, kills=1)
    assert not found.exact and found.same.largest > 0
    assert any(line.startswith("model.safetensors: ") for line in found.same.differences)
    assert "NOT exact" in verify_resume.lines(found)


@pytest.mark.slow
def test_another_micro_batch_is_the_same_up_to_rounding(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, whose draws belong to rows. Break: a key of the micro-batch's number."""
    found = verify(own_home, monkeypatch, kills=2, micro_batch=3)
    assert found.exact and found.other is not None
    assert found.other.micro_batch == 3 and 0 < found.other.largest < verify_resume.TOLERANCE


def test_a_training_that_cannot_run_is_told(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_resume, "CHILD", "import sys; sys.exit('the disk is full')")
    with pytest.raises(RunError) as error:
        verify(own_home, monkeypatch, kills=1)
    assert "a training ended with status 1: the disk is full" in str(error.value)
    assert "wellfit check RECIPE" in str(error.value)
