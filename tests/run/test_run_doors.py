"""Doors of the trainer: the course as JSON, resuming at a step, verifying a resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_the_course_as_lines_of_json(own_home: Path, inside: Callable[..., Any]) -> None:
    """Every line of standard error is strict JSON and tells its kind. Break: mode `auto`."""
    done = inside(own_home, "train", "tiny.yaml", "--out", "runs/json", "--json")
    assert done.status == 0
    lines = [json.loads(line) for line in done.error.splitlines()]
    kinds = {line["record"] for line in lines}
    assert {"stage", "step", "evaluated", "event"} <= kinds
    steps = [line for line in lines if line["record"] == "step"]
    assert steps[-1]["step"] == 24 and steps[-1]["loss"] < steps[0]["loss"]
    assert all(line["tokens_per_second"] for line in steps[1:])


def test_resuming_at_an_earlier_checkpoint(own_home: Path, inside: Callable[..., Any]) -> None:
    """Later checkpoints are set aside, and the training ends where it ended before."""
    train = ("train", "tiny.yaml", "train.keep_last=5", "--out", "runs/at", "--quiet")
    assert inside(own_home, *train).status == 0
    checkpoints = own_home / "runs/at/checkpoints"

    def weights() -> str:
        state = json.loads((checkpoints / "step-000024" / "state.json").read_text())
        return str(state["files"]["model.safetensors"]["sha256"])

    first = weights()
    assert inside(own_home, *train, "--resume", "--at", "8").status == 0
    assert weights() == first
    assert (checkpoints / "set-aside-step-000024").is_dir()
    refused = inside(own_home, *train, "--at", "8")
    assert refused.status == 2 and "Add --resume, or leave --at out" in refused.error
    absent = inside(own_home, *train, "--resume", "--at", "9")
    assert absent.status == 2
    assert "there is no checkpoint of step 9; those that stand: 8, 16, 24" in absent.error
