"""`kill -9` of the real command at random moments, then `--resume`: the same weights, bit for bit.

The loop alone is killed far more often in tests/training/test_train_kill.py.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from pathlib import Path

import pytest
from run_kills import (
    DROPOUT,
    command,
    digest,
    disturbed,
    finish,
    kill_at,
    moments,
    refuse_unreadable,
)

MOMENTS = list(moments(Path(), Path()))


def test_killed_while_building_and_saving(tiny_home: Path, tmp_path: Path) -> None:
    """Break: batches or samples that depend on the attempt; moments left out of checkpoints."""
    run = tmp_path / "run"
    disturbed(tiny_home, run, ["reading", "saving"], random.Random(2))
    undisturbed = tiny_home / "runs" / "tiny"
    assert digest(run) == digest(undisturbed)
    read = [json.loads((one / "training_metrics.json").read_text()) for one in (run, undisturbed)]
    assert read[0] == read[1]


@pytest.mark.slow
def test_minutes_are_turned_into_steps_once(tiny_home: Path, tmp_path: Path) -> None:
    """Break: calibrate again on resume, and the plan differs."""
    run, corpus = tmp_path / "run", tiny_home / "corpora" / "tiny"
    minutes = command(run, corpus, "train.budget.minutes=0.01")
    assert kill_at(tiny_home, minutes, moments(run, corpus)["planned"], 0.05) == -9
    refuse_unreadable(run)
    planned = (run / "plan.json").read_bytes()
    finish(tiny_home, command(run, corpus, "train.budget.minutes=0.01"))
    assert (run / "plan.json").read_bytes() == planned
    assert digest(run)[0] == json.loads(planned)["steps"]


@pytest.mark.slow
def test_calibration_leaves_no_trace_in_the_weights(tiny_home: Path, tmp_path: Path) -> None:
    """Break: leave the timed steps in the weights or in the optimizer."""
    corpus = tiny_home / "corpora" / "tiny"
    timed, counted = tmp_path / "timed", tmp_path / "counted"
    finish(tiny_home, command(timed, corpus, "train.budget.minutes=0.01"))
    steps = digest(timed)[0]
    finish(tiny_home, command(counted, corpus, f"train.budget.steps={steps}"))
    assert digest(timed) == digest(counted)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_of_twenty_through_the_command(tiny_home: Path, tmp_path: Path) -> None:
    """Each trial is killed at one to three drawn moments, with dropout and accumulation."""
    undisturbed = tmp_path / "undisturbed"
    finish(tiny_home, command(undisturbed, tmp_path / "corpus", *DROPOUT))
    draw, tally = random.Random(20), []
    for trial in range(20):
        names = [MOMENTS[trial % len(MOMENTS)], *draw.sample(MOMENTS, draw.randint(0, 2))]
        names.sort(key=MOMENTS.index)
        run = tmp_path / f"{trial}"
        told = disturbed(tiny_home, run, names, draw, *DROPOUT)
        tally.append(digest(run) == digest(undisturbed))
        result = "same weights" if tally[-1] else "OTHER WEIGHTS"
        sys.stdout.write(f"{trial + 1}: {result} after {'; '.join(told)}\n")
        shutil.rmtree(run)
    assert tally == [True] * 20
