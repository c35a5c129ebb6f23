"""Trainings through the real command, ended with `kill -9` at chosen moments."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from wellfit.monitor.folder import read_history
from wellfit.training import checkpoint

WELLFIT = str(Path(sys.executable).parent / "wellfit")

# 8 rows a step in micro-batches of 3, so that the last one is smaller; resumes fall mid-epoch.
DROPOUT = ("model.dropout=0.1", "train.micro_batch=3", "evaluate.every=4")
# These change how often something is written, and no weight.
OFTEN = ("train.checkpoint_every=3", "train.keep_last=3")


def _any(folder: Path, pattern: str) -> Callable[[], bool]:
    return lambda: any(folder.glob(pattern))


def moments(run: Path, corpus: Path) -> dict[str, Callable[[], bool]]:
    """A run and its corpus → name of a moment → whether it has come."""
    return {
        "reading": _any(corpus / "tasks", "documents*"),
        "tokenizer": _any(corpus / "tasks", "tokenizer*"),
        "shards": _any(corpus, "tokenizer.json"),
        "calibrating": (run / "environment.json").exists,
        "planned": (run / "plan.json").exists,
        "saving": _any(run / "checkpoints", "*.partial"),
        "evaluating": _any(run / "records", "evaluations-0.jsonl"),
        "saved": _any(run / "checkpoints", "step-000012"),
        "concluding": _any(run / "checkpoints", "step-000024"),
    }


def command(run: Path, corpus: Path, *changes: str) -> list[str]:
    """The command of a training in the folder `home`, resumed where there is something to resume.

    A folder in which no run was begun yet is refused by `--resume`, as its message says.
    """
    resume = ["--resume"] if (run / "run.json").exists() else []
    where = [f"data.folder={corpus}", *OFTEN, *changes]
    return [WELLFIT, "train", "tiny.yaml", *where, "--out", str(run), "--quiet", *resume]


def kill_at(home: Path, arguments: list[str], come: Callable[[], bool], delay: float) -> int:
    """Start the command and kill it `delay` seconds after `come()`; its exit status."""
    with subprocess.Popen(
        arguments, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while process.poll() is None and not come() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(delay)
        process.kill()
        _, error = process.communicate()
    assert process.returncode in (0, -9), error
    return process.returncode


def finish(home: Path, arguments: list[str]) -> None:
    """Run the command to its end, which must be a good one."""
    done = subprocess.run(arguments, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def refuse_unreadable(run: Path) -> int:
    """A run folder after a kill → its recorded steps; fails where a file is half-written."""
    if not (run / "run.json").exists():
        return 0
    history = read_history(run)
    assert not [note for note in history.notes if "unreadable" in note.lower()], history.notes
    newest = checkpoint.latest(run / "checkpoints")
    if newest:
        checkpoint.verify(newest)
    for name in ("plan.json", "corpus.json", "environment.json", "training_metrics.json"):
        if (run / name).exists():
            json.loads((run / name).read_text())
    return len(history.train_loss)


def digest(run: Path) -> tuple[int, str]:
    """A finished run → its last step and the digest of its weights, read from the file."""
    newest = checkpoint.latest(run / "checkpoints")
    assert newest is not None
    content = json.loads((newest / "state.json").read_text())
    checkpoint.verify(newest)
    return content["step"], content["files"]["model.safetensors"]["sha256"]


def disturbed(
    home: Path, run: Path, names: list[str], draw: random.Random, *changes: str
) -> list[str]:
    """Kill a training at each of these moments and then let it end; what happened, in words."""
    corpus = run.with_name(f"{run.name}-corpus")
    told = []
    for name in names:
        come = moments(run, corpus)[name]
        delay = draw.uniform(0, 0.05 if come() is False else 6.0)
        status = kill_at(home, command(run, corpus, *changes), come, delay)
        told.append(f"{name}: {'killed' if status else 'had ended'}, {refuse_unreadable(run)}")
    finish(home, command(run, corpus, *changes))
    return told
