"""A training in fp8, forced on the CPU: it learns, stays finite and resumes bit for bit."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from train_parts import Tiny

from wellfit.errors import RunError
from wellfit.model import float8
from wellfit.model.init import initialise
from wellfit.model.transformer import Transformer
from wellfit.recipe import schema
from wellfit.recipe.load import parse_recipe
from wellfit.records import Event, Step
from wellfit.run.calibrate import random_batch
from wellfit.training import precision
from wellfit.training.loop import train
from wellfit.training.precision import Choice
from wellfit.training.start import compute_in

ENTRIES = 48


class Cycles:
    """Rows that count upwards from anywhere: the next token is always this one and 1."""

    rows_per_epoch = 1000

    def __init__(self, recipe: schema.Recipe) -> None:
        self.recipe = recipe

    def batch(self, step: int) -> Any:
        made = random_batch(self.recipe, ENTRIES, step)
        made.tokens[:] = (made.tokens[:, :1] + torch.arange(16).numpy()) % ENTRIES
        made.labels[:] = (made.tokens + 1) % ENTRIES
        return made

    def epoch(self, step: int) -> float:
        return step / 100

    def restore(self, *, after_step: int) -> None:
        return None


def recipe_of(steps: int) -> schema.Recipe:
    return parse_recipe(
        {
            "name": "eight",
            "data": {"sources": [{"path": "texts"}]},
            "model": {
                "context": 16, "layers": 2, "width": 32, "heads": 2, "kv_heads": 2, "hidden": 64,
            },
            "train": {
                "budget": {"steps": steps}, "batch_tokens": 128, "micro_batch": 4,
                "precision": "fp8", "checkpoint_every": 4, "threads": 1, "proofs": "off",
                "schedule": {"kind": "constant"}, "save_in_background": False, "compile": "off",
            },
        }
    )  # fmt: skip


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU is taken for a device that multiplies fp8, and small matrices for large."""
    choices = Choice("cpu", "a test asks for it"), Choice("fp8", "a test asks for it")
    monkeypatch.setattr(precision, "choose", lambda device, wanted: choices)
    monkeypatch.setattr(float8, "SMALL_INPUTS", 16)


def trained(
    folder: Path, steps: int, *, resume: bool = False, stop: int = 0
) -> tuple[list[Step], list[Event]]:
    recipe = recipe_of(steps)
    model = Transformer(recipe.model, ENTRIES)
    initialise(model, recipe.seed)
    found: list[Any] = []
    records = train(
        recipe.train,
        model,
        Cycles(recipe),  # type: ignore[arg-type]
        folder=folder,
        seed=recipe.seed,
        evaluate_every=1000,
        sample_every=1000,
        resume=resume,
    )
    for record in records:
        found.append(record)
        if stop and isinstance(record, Step) and record.step == stop:
            records.close()  # type: ignore[attr-defined]
            break
    return (
        [one for one in found if isinstance(one, Step)],
        [one for one in found if isinstance(one, Event)],
    )


def digest(folder: Path) -> str:
    newest = max((folder / "checkpoints").iterdir())
    files = [newest / name for name in ("model.safetensors", "optimizer.safetensors")]
    return newest.name + "".join(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)


@pytest.mark.usefixtures("forced")
def test_it_learns_stays_finite_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Break tried: the gradient of the weight from features not scaled back."""
    steps, events = trained(tmp_path / "whole", 24)
    assert [step.step for step in steps] == list(range(1, 25))
    assert all(0 < step.loss < 5 and step.grad_norm < 1e3 for step in steps)
    assert steps[-1].loss < 0.5 * steps[0].loss
    started = next(event for event in events if event.kind == "started")
    assert started.data["precision"] == "fp8"
    # Of two blocks: query, key, value, output, up and down.
    assert started.data["float8_matrices"] == 12
    trained(tmp_path / "cut", 24, stop=10)
    again, _ = trained(tmp_path / "cut", 24, resume=True)
    assert again[0].step > 4
    assert digest(tmp_path / "cut") == digest(tmp_path / "whole")


@pytest.mark.usefixtures("forced")
def test_products_are_made_in_8_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """12 matrices, 3 products, 2 micro-batches a step. Break tried: no matrix taken."""
    calls = []
    kernel = torch._scaled_mm

    def counted(*given: Any, **named: Any) -> Any:
        calls.append(given[0].dtype)
        return kernel(*given, **named)

    monkeypatch.setattr(torch, "_scaled_mm", counted)
    trained(tmp_path, 2)
    assert len(calls) == 2 * 12 * 3 * 2
    assert calls.count(float8.BACKWARD) == 2 * len(calls) // 3


def test_models_without_large_matrices_are_refused() -> None:
    """Break tried: training on in bf16 under the name of fp8."""
    model = Transformer(recipe_of(1).model, ENTRIES)
    for other in (model, Tiny()):
        with pytest.raises(RunError, match="no matrix of the model's blocks is large enough"):
            compute_in(other, "fp8")  # type: ignore[arg-type]
    assert compute_in(model, "bf16") == 0
