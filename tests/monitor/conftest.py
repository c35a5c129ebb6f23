"""What the tests of this room share: records made of a few numbers, and a run to write into."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wellfit.monitor.folder import RunFolder
from wellfit.records import Evaluated, Step

RECIPE = """\
name: tiny
data:
  tokenizer: {file: "", vocabulary_size: 4096}
train:
  budget: {steps: 200}
  optimizer: {kind: adamw, learning_rate: 3e-4}
  clip_norm: 1.0
"""


def make_step(step: int, loss: float = 2.0, rate: float = 1e-3, seconds: float = 0.5) -> Step:
    return Step(
        step=step,
        epoch=step / 40,
        loss=loss,
        learning_rate=rate,
        grad_norm=1.25,
        clipped=False,
        supervised_tokens=1000,
        tokens=1000 * step,
        seconds=seconds,
        wait_seconds=0.125,
    )


def make_evaluated(step: int, loss: float = 2.5, split: str = "validation") -> Evaluated:
    return Evaluated(
        step=step,
        split=split,
        loss=loss,
        loss_se=0.01,
        perplexity=12.2,
        bits_per_byte=1.5,
        bits_per_byte_se=0.02,
        accuracy=0.4,
        accuracy_se=0.003,
        tokens=5000,
        bytes=20000,
        documents=12,
        seconds=0.25,
        by_domain={"code": {"loss": loss, "bits_per_byte": float("nan"), "tokens": 5000.0}},
    )


@pytest.fixture
def step() -> Callable[..., Step]:
    return make_step


@pytest.fixture
def evaluated() -> Callable[..., Evaluated]:
    return make_evaluated


@pytest.fixture
def recipe_text() -> str:
    return RECIPE


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.create(tmp_path / "run", RECIPE) as folder:
        yield folder
