"""A recipe in, everything that can be observed of its corpus and its training out; in process."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import torch

from wellfit.data.build import build_corpus
from wellfit.data.corpus import Corpus
from wellfit.errors import WellfitError
from wellfit.recipe.schema import Data, Recipe
from wellfit.records import Evaluated, Event, Proof, Record, Sampled, Saved, Step
from wellfit.run.parts import first_model, training_batches
from wellfit.run.probes import evaluator, sampler
from wellfit.run.vocabulary import vocabulary_of
from wellfit.run.weights import choose_checkpoint
from wellfit.training.checkpoint import latest, read_state
from wellfit.training.loop import train

WORDS = [
    first + last
    for first in ("rav", "mol", "ket", "dus", "pil", "fen")
    for last in ("on", "ir", "ala", "et")
]

RECIPE: dict[str, Any] = {
    "name": "settings",
    "data": {
        "sources": [{"path": "texts"}, {"path": "rows"}],
        "split": {"validation": 0.2, "test": 0.1},
        "tokenizer": {"vocabulary_size": 300},
        "workers": 1,
    },
    "model": {"context": 32, "layers": 1, "width": 16, "heads": 2, "kv_heads": 1},
    "train": {
        "budget": {"steps": 4},
        "batch_tokens": 256,
        "micro_batch": 4,
        "checkpoint_every": 2,
        "precision": "fp32",
        "threads": 1,
    },
    "evaluate": {"every": 2, "tokens": 0},
    "monitor": {"sample_every": 2, "prompts": ["river "], "sampling": {"tokens": 8}},
}


def write_documents(home: Path) -> None:
    """Texts that differ, repeat and resemble each other; and rows, one of them damaged."""
    texts, rows = home / "texts", home / "rows"
    texts.mkdir()
    rows.mkdir()
    for number in range(24):
        words = [
            WORDS[(number * 7 + i * i + i // 5 * number) % 24] + str(i % 11) for i in range(90)
        ]
        (texts / f"{number:02d}.txt").write_text(" ".join(words) + ".\n")
        if number == 3:  # the same once more, nearly the same, and related
            (texts / "exact.txt").write_text(" ".join(words) + ".\n")
            (texts / "near.txt").write_text(" ".join([*words[:88], "end"]) + ".\n")
            for kin in range(5):
                rest = [f"{word}{kin}" for word in words[75:]]
                (texts / f"kin{kin}.txt").write_text(" ".join([*words[:75], *rest]) + ".\n")
    (texts / "short.txt").write_text("A few words only.\n")
    (texts / "marks.txt").write_text("caf\u00c3\u00a9 " + " ".join(WORDS[::-1]) + "\u200b.\n")
    lines = [
        json.dumps(
            {"text": f"row {n} " + " ".join(WORDS[n:]), "title": f"{n} " + "a title " * 9 + str(n)}
        )
        for n in range(8)
    ]
    (rows / "rows.jsonl").write_text("\n".join([*lines, "{damaged"]) + "\n")


def observe_corpus(data: Data, folder: Path) -> dict[str, Any]:
    """A data section → {file: digest} of the corpus, the processes of its build, or its error.

    The manifest is left out: it repeats the settings themselves.
    """
    processes = 0

    def look(stage: str, done: int, total: int | None) -> None:
        nonlocal processes
        processes = max(processes, len(psutil.Process().children()))

    try:
        build_corpus(data, name="settings", folder=folder, progress=look)
    except WellfitError as error:
        return {"error": str(error)}
    files = (path for path in folder.rglob("*") if path.is_file())
    seen: dict[str, Any] = {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if not (name := path.relative_to(folder).as_posix()).startswith(("tasks", "manifest"))
    }
    return seen | {"processes": processes, "folder": folder}


def observe_training(recipe: Recipe, corpus: Corpus, folder: Path) -> dict[str, Any]:
    """A recipe and a corpus → weights, losses, rates, and all else that the training shows."""
    model = first_model(recipe, vocabulary_of(recipe, corpus))
    threads: set[int] = set()
    writers: set[bool] = set()
    score, draw = evaluator(model, corpus, recipe), sampler(model, corpus, recipe)
    assert score is not None

    def probe(step: int) -> Iterator[Record]:
        threads.add(torch.get_num_threads())
        names = [one.name for one in threading.enumerate()]
        writers.add(any(name.startswith("wellfit-checkpoint") for name in names))
        yield from score(step)

    try:
        records = list(
            train(
                recipe.train,
                model,
                training_batches(recipe, corpus),
                folder=folder,
                seed=recipe.seed,
                evaluate=probe,
                sample=draw,
                evaluate_every=recipe.evaluate.every,
                sample_every=recipe.monitor.sample_every,
            )
        )
    except WellfitError as error:
        return {"error": str(error)}
    steps = [record for record in records if isinstance(record, Step)]
    scores = [record for record in records if isinstance(record, Evaluated)]
    saved = [record for record in records if isinstance(record, Saved)]
    checkpoints = folder / "checkpoints"
    return {
        "steps": len(steps),
        "losses": [step.loss for step in steps],
        "rates": [step.learning_rate for step in steps],
        "weights": saved[-1].sha256,
        "saved": [one.step for one in saved],
        "kept": sorted(path.name for path in (folder / "checkpoints").iterdir()),
        "taken": choose_checkpoint(folder, recipe).name,
        "scored by": {score.by for score in read_state(latest(checkpoints)).scores},
        "writers": writers,
        "losses held out": [one.loss for one in scores],
        "evaluated": [one.step for one in scores],
        "evaluated tokens": [one.tokens for one in scores],
        "samples": [(r.step, r.prompt, r.text) for r in records if isinstance(r, Sampled)],
        "threads": threads,
        "proofs": [(r.name, r.state) for r in records if isinstance(r, Proof)],
        "recompute": getattr(model, "recompute", None),
        "compile_reason": [
            r.data.get("compile_reason")
            for r in records
            if isinstance(r, Event) and r.kind == "started"
        ],
        "events": [r.kind for r in records if isinstance(r, Event)],
    }
