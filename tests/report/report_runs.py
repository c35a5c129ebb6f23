"""Run folders with known contents, written the way a training writes them."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wellfit.monitor.folder import RunFolder
from wellfit.records import Evaluated, Event, Sampled, Step

RECIPE = """name: {name}  # recipe.yaml:1
seed: 0  # default
data:
  sources:
    - path: python-stdlib  # recipe.yaml:4
model:
  size: nano  # default
  context: 256  # size nano: short documents, quick steps
  layers: 4  # size nano: enough to learn grammar in minutes
  width: 128  # size nano: trains in minutes on a CPU
  heads: 2  # size nano: few wide heads
  kv_heads: 2  # size nano: no grouping
  hidden: 512  # size nano: four times the width
train:
  budget:
    steps: {planned}  # recipe.yaml:10
  clip_norm: 1.0  # default
  optimizer:
    kind: muon  # size nano: the best known for small models
    matrix_learning_rate: 0.02  # size nano: stable up to this width
    learning_rate: 0.006  # size nano: stable up to this width
"""

HEALTHY = {
    "verdict": {"fit": "well_fit", "progress": "still_improving"},
    "summary": {"criteria": "Validation loss fell at every evaluation."},
    "findings": [],
    "not_assessed": [
        {
            "what": "architecture",
            "why": "No values of layers were recorded.",
            "needs": "norms of the layers",
        }
    ],
}

SICK = {
    "verdict": {"fit": "unclear", "progress": "stuck"},
    "summary": {},
    "findings": [
        {
            "kind": "no_validation",
            "severity": "info",
            "certainty": "certain",
            "since_step": None,
            "evidence": ["No evaluation was recorded."],
            "causes": [{"id": "E11", "likelihood": 1.0, "why": "evaluation is turned off"}],
            "change": {
                "text": "Hold out 5 % of the text.",
                "patch": {"data.split.validation": 0.05},
            },
        },
        {
            "kind": "non_finite",
            "severity": "critical",
            "certainty": "certain",
            "since_step": 300,
            "evidence": [
                "The loss is NaN from step 300 on; the last finite one was 6.1 at step 299.",
                "The gradient norm rose from 0.8 to 412 within the 20 steps before.",
                "Against: the learning rate did not change there.",
            ],
            "causes": [
                {"id": "O01", "likelihood": 0.7, "why": "the learning rate is too high"},
                {"id": "P01", "likelihood": 0.2, "why": "a number overflowed"},
            ],
            "change": {
                "text": "Go back to the checkpoint before step 300 and halve the learning rate.",
                "patch": {
                    "train.optimizer.learning_rate": 0.003,
                    "train.optimizer.matrix_learning_rate": 0.01,
                },
            },
        },
        {
            "kind": "loss_spike",
            "severity": "warning",
            "certainty": "likely",
            "since_step": 250,
            "evidence": ["The loss jumped from 6.0 to 9.4."],
            "causes": [],
            "change": None,
        },
    ],
    "not_assessed": [
        {"what": "overfitting", "why": "Nothing was held out.", "needs": "evaluations"}
    ],
}

CORPUS: dict[str, Any] = {
    "format_version": 1,
    "name": "stdlib",
    "sources": {"python-stdlib": {"root": "/usr/lib/python3.11", "files": 2480, "rejected": 3}},
    "records": 2483,
    "documents": 2480,
    "bytes": 12_900_000,
    "changed_by_cleaning": 12,
    "rejected": {
        "records": 3,
        "by_reason": {"binary: a NUL byte": 2, "not UTF-8": 1},
        "samples": [{"path": "a.pyc", "position": "the file", "reason": "binary: a NUL byte"}],
    },
    "dropped": {
        "too_short": {
            "documents": 41,
            "bytes": 3_000,
            "by_source": {"python-stdlib": 41},
            "samples": [{"id": "81", "path": "x/__init__.py", "reason": "2 characters"}],
        },
        "near duplicate": {"documents": 27, "bytes": 417_000, "by_source": {}, "samples": []},
    },
    "by_split": {
        "train": {"documents": 2170, "bytes": 11_230_000, "tokens": 2_800_000},
        "validation": {"documents": 150, "bytes": 750_000, "tokens": 190_000},
        "test": {"documents": 92, "bytes": 500_000, "tokens": 130_000},
    },
    "by_domain": {
        "code": {"documents": 2301, "bytes": 10_600_000, "tokens": 2_700_000},
        "documentation": {"documents": 111, "bytes": 1_880_000, "tokens": 420_000},
    },
    "kept": {"total": {"documents": 2412, "bytes": 12_480_000, "tokens": 3_120_000}},
    "duplicate_samples": [
        {
            "dropped": {"id": "1", "path": "json/decoder.py", "text": "class JSONDecoder:"},
            "kept": {"id": "2", "path": "simplejson/decoder.py", "text": "class JSONDecoder:"},
            "similarity": 0.9123,
            "stage": "near duplicate",
        }
    ],
    "leakage": {
        "ngram_words": 13,
        "held_out_ngrams": 104_204,
        "shared_with_train": 219,
        "share": 0.0021,
        "worst_documents": [],
    },
    "scores": {"characters": {"0": 2.0, "0.5": 4588.0, "1": 4907.0}},
}

Write = Callable[..., Path]


def write_run(
    run: Path,
    *,
    name: str = "stdlib-nano",
    steps: int = 400,
    broken_from: int | None = None,
    held_out: bool = True,
    diagnosis: dict[str, Any] | None = None,
    corpus: dict[str, Any] | None = None,
    domain: str = "documentation",
    prompt: str = "def ",
    text: str = "read(self, size):\n    return self.buffer[:size]\n",
    every: int = 50,
) -> Path:
    """A run folder with `steps` steps; from `broken_from` on every loss is NaN."""
    chance = random.Random(7)
    with RunFolder.create(run, RECIPE.format(name=name, planned=steps)) as folder:
        folder.write_environment(
            {"python": "3.11.9", "cores": 2, "libraries": {"torch": "2.13.0", "numpy": "2.3.1"}}
        )
        folder.write(Event(0, "started", "training begins"))
        for step in range(1, steps + 1):
            share = step / steps
            loss = 1.9 + 6.4 * math.exp(-9 * share**0.6) + 0.12 * chance.gauss(0, 1)
            norm = 0.4 + 2.5 * math.exp(-6 * share) * chance.uniform(0.6, 1.4)
            if broken_from is not None and step >= broken_from - 50:
                loss += 3.2 if step == broken_from - 50 else 0.06 * (step - broken_from + 50)
                norm *= 1.12 ** (step - broken_from + 50)
            if broken_from is not None and step >= broken_from:
                loss = norm = math.nan
            folder.write(
                Step(
                    step=step,
                    epoch=step * 4096 / 2_700_000,
                    loss=loss,
                    learning_rate=0.02 * min(1.0, step / 20, (1 - share) / 0.7),
                    grad_norm=norm,
                    clipped=norm > 1,
                    supervised_tokens=4096,
                    tokens=4096 * step,
                    seconds=0.2 + 0.01 * chance.random(),
                    wait_seconds=0.0,
                ),
                tokens_per_second=4096 / (0.2 + 0.02 * chance.random()),
                memory_bytes=1_310_000_000 + 20_000 * step,
                mfu=0.41 + 0.02 * chance.random(),
            )
            if step % every == 0 or step == steps:
                if held_out:
                    folder.write(_evaluated(step, share, "validation", domain))
                folder.write(_sampled(step, prompt, text))
        if held_out:
            folder.write(_evaluated(steps, 1.0, "test", domain))
        folder.write(Event(steps, "finished", "training ends"))
    if diagnosis is not None:
        (run / "findings.json").write_text(json.dumps(diagnosis), encoding="utf-8")
    if corpus is not None:
        place = run.parent / f"{run.name}-corpus"
        place.mkdir()
        (place / "report.json").write_text(json.dumps(corpus), encoding="utf-8")
        (run / "corpus.json").write_text(
            json.dumps({"folder": str(place), "vocabulary_size": 4096}), encoding="utf-8"
        )
    return run


def _evaluated(step: int, share: float, split: str, domain: str) -> Evaluated:
    loss = 2.0 + 6.3 * math.exp(-9 * share**0.6)
    return Evaluated(
        step=step,
        split=split,
        loss=loss,
        loss_se=0.021,
        perplexity=math.exp(loss),
        bits_per_byte=loss / math.log(2) / 3.4,
        bits_per_byte_se=0.009,
        accuracy=0.55,
        accuracy_se=0.004,
        tokens=65_536,
        bytes=222_000,
        documents=41,
        seconds=1.9,
        by_domain={
            "code": {
                "loss": loss - 0.1,
                "bits_per_byte": 0.8,
                "accuracy": 0.57,
                "tokens": 50_000,
                "bytes": 172_000,
            },
            domain: {
                "loss": loss + 0.4,
                "bits_per_byte": 1.1,
                "accuracy": 0.48,
                "tokens": 15_536,
                "bytes": 50_000,
            },
        },
    )


def _sampled(step: int, prompt: str, text: str) -> Sampled:
    guesses = (("__init__", 0.31), ("get", 0.12), (" self", 0.05), ("\n", 0.02))
    return Sampled(step=step, prompt=prompt, text=text, predictions=guesses)
