"""Trains in forked children of one warmed-up process, so that starting one takes milliseconds.

Reads one JSON line for each child: `folder`, `variant`, `resume`, and `kill` (null, or how many
recorded steps and then how many seconds to wait for). Writes the child's exit status.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import safetensors.torch  # noqa: F401  (imported once, before the forks)
import torch
from train_parts import ADAMW, CONTEXT, MUON, VOCABULARY, Cycle, Tiny, run, section

from wellfit.model.init import initialise
from wellfit.model.transformer import Transformer
from wellfit.monitor.folder import RunFolder
from wellfit.recipe.schema import AdamW, Model, Muon
from wellfit.training import optimizers

STEPS = 16
# Every run resumes mid-epoch (20 rows, 8 a step) unless it was killed at a multiple of 5 steps.
VARIANTS = {
    "accumulation and dropout": {"optimizer": ADAMW, "micro_batch": 3, "dropout": 0.2},
    "Muon in bf16": {"optimizer": MUON, "micro_batch": 3, "dropout": 0.1, "precision": "bf16"},
    "AdamW in bf16, whole batch": {"optimizer": ADAMW, "micro_batch": 8, "precision": "bf16"},
    "Muon, row by row": {"optimizer": MUON, "micro_batch": 1, "dropout": 0.0},
    "averages, saved in the background": {
        "optimizer": MUON,
        "micro_batch": 3,
        "dropout": 0.1,
        "ema_decay": 0.9,
        "save_in_background": True,
    },
    "fp16, 8-bit moments, averages": {
        "optimizer": {"kind": "adamw_8bit", "learning_rate": 0.01},
        "micro_batch": 3,
        "dropout": 0.1,
        "ema_decay": 0.9,
        "precision": "fp16",
        "save_in_background": True,
        "hidden": 160,  # matrices of 5,120 numbers, whose moments are kept in 8 bits
    },
}


def train(folder: Path, variant: str, resume: bool) -> None:
    """One attempt at a run; its records are written as they come."""
    settings = dict(VARIANTS[variant])
    shape = Model(
        context=CONTEXT,
        layers=2,
        width=32,
        heads=2,
        kv_heads=1,
        hidden=settings.pop("hidden", 48),
        dropout=settings.pop("dropout", 0.0),
    )
    model = Transformer(shape, VOCABULARY)
    initialise(model, 3)
    recipe = section(budget={"steps": STEPS}, checkpoint_every=2, **settings)
    begun = resume and (folder / "run.json").exists()
    opened = RunFolder.open(folder) if begun else RunFolder.create(folder, "{}\n")
    with opened as records:
        for record in run(folder, model, Cycle(), train_section=recipe, resume=resume):
            records.write(record)


def wait(file: Path, steps: int, child: int) -> None:
    """Returns when the file has so many lines, or the child has ended."""
    ended = None
    while ended is None and (not file.exists() or file.read_bytes().count(b"\n") < steps):
        time.sleep(0.001)
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)


def serve() -> None:
    """Forks a child for each line of the input until it ends."""
    torch.set_num_threads(1)
    # Optimizers import most of torch at their first step; no backward pass may come before a fork.
    for settings in (AdamW.model_validate(ADAMW), Muon.model_validate(MUON)):
        model = Tiny()
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizers.build(settings, dict(model.named_parameters()), model.roles()).step()
    for line in sys.stdin:
        task = json.loads(line)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                train(Path(task["folder"]), task["variant"], task["resume"])
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        if task["kill"]:
            steps, seconds = task["kill"]
            wait(Path(task["folder"]) / "records" / "steps-0.jsonl", steps, child)
            time.sleep(seconds)
            # Not waited for yet, so the number still means this child, even if it has ended.
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
