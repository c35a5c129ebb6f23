"""`kill -9` at random moments, resume: the same weights to the last bit as undisturbed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from train_kill_worker import STEPS, VARIANTS

from wellfit.monitor.folder import read_history
from wellfit.training import checkpoint

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


class Server:
    """The warmed-up process; `attempt` starts a child, kills it after a while, gives its status."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("train_kill_worker.py")
        single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **single},
        )

    def attempt(self, folder: Path, variant: str, *, resume: bool, kill=None) -> int:
        task = {"folder": str(folder), "variant": variant, "resume": resume}
        task["kill"] = kill
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture(scope="module")
def undisturbed(server, tmp_path_factory):
    """Variant → digests of the final checkpoint, and the losses."""
    known = {}

    def reference(variant):
        if variant not in known:
            folder = tmp_path_factory.mktemp("undisturbed") / "run"
            assert server.attempt(folder, variant, resume=False) == 0
            history = read_history(folder)
            assert history.status == "finished" and len(history.train_loss) == STEPS
            known[variant] = (final_digests(folder), history.train_loss)
        return known[variant]

    return reference


def final_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the last checkpoint's weights, moments and averages, read and checked."""
    path = checkpoint.latest(folder / "checkpoints")
    assert path.name == f"step-{STEPS:06d}"
    checkpoint.verify(path)
    files = json.loads((path / "state.json").read_text())["files"]
    return {name: written["sha256"] for name, written in files.items()}


def disturbed(server, folder, variant, draw):
    """Killed two or three times at random moments, then left to end; how each kill went.

    A moment is a random number of further steps and up to 30 ms more, which reaches into the next
    steps, into saving, and, for the first kill, into the time before the first step.
    """
    kills, recorded = [], 0
    for attempt in range(draw.choice([2, 3])):
        wanted = recorded + draw.randint(0 if attempt == 0 else 1, 6)
        moment = (wanted, draw.uniform(0, 0.03))
        assert server.attempt(folder, variant, resume=attempt > 0, kill=moment) in (0, -9)
        checkpoints = folder / "checkpoints"
        newest = checkpoint.latest(checkpoints)
        if newest:  # a folder under its final name is whole
            checkpoint.verify(newest)
        saving = any(checkpoints.glob("*.partial"))
        if (folder / "run.json").exists():
            history = read_history(folder)
            assert not [note for note in history.notes if "unreadable" in note.lower()]
            kills.append((len(history.train_loss), saving))
        steps = folder / "records" / "steps-0.jsonl"
        recorded = steps.read_bytes().count(b"\n") if steps.exists() else 0
    assert server.attempt(folder, variant, resume=True) == 0
    return kills


def check(server, undisturbed, folder, variant, seed):
    digest, losses = undisturbed(variant)
    kills = disturbed(server, folder, variant, random.Random(seed))
    assert final_digests(folder) == digest
    history = read_history(folder)
    assert history.train_loss == losses and history.status == "finished"
    assert not list((folder / "checkpoints").glob("*.partial"))
    return kills


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_and_resumed_ends_with_the_same_weights(server, undisturbed, tmp_path, variant):
    """Break: not restoring the moments; dropout keyed by the attempt; batches by a counter."""
    check(server, undisturbed, tmp_path / "run", variant, seed=variant)


@pytest.mark.slow
def test_twenty_of_twenty(server, undisturbed, tmp_path):
    """Four trials of each variant, two or three kills each."""
    kills = []
    for trial in range(20):
        variant = list(VARIANTS)[trial % len(VARIANTS)]
        kills += check(server, undisturbed, tmp_path / f"{trial}", variant, seed=trial)
    assert len({steps for steps, _ in kills}) >= 8, "kills hit many different steps"
    sys.stdout.write(f"{len(kills)} kills, as (steps recorded, while saving): {sorted(kills)}\n")
