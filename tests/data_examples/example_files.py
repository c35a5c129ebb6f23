"""Small files of examples, and a corpus of each."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wellfit.data.build import build_corpus
from wellfit.data.corpus import Corpus
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.schema import Recipe

WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "né", "tu", "日") for b in ("ra", "so", "tin", "pé")]
Rows = list[dict[str, Any]]


def sentence(draw: random.Random, least: int = 3, most: int = 14) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(draw.randint(least, most)))


def answers(count: int, seed: int = 0) -> Rows:
    draw = random.Random(seed)
    return [{"prompt": sentence(draw), "completion": sentence(draw)} for _ in range(count)]


def labelled(count: int, seed: int = 0, classes: Iterable[str] = ("bad", "fine", "good")) -> Rows:
    draw, names = random.Random(seed), list(classes)
    return [{"text": sentence(draw), "label": draw.choice(names)} for _ in range(count)]


def questions(count: int, seed: int = 0) -> Rows:
    """Every fourth has no answer; the others are some words of the context."""
    draw, rows = random.Random(seed), []
    for number in range(count):
        words = sentence(draw, 6, 20).split(" ")
        first = draw.randrange(len(words))
        last = min(len(words), first + draw.randint(1, 3))
        answer = {"text": [" ".join(words[first:last])]}
        answer["answer_start"] = [len(" ".join(words[:first])) + (first > 0)]
        if number % 4 == 0:
            answer = {"text": [], "answer_start": []}
        rows.append({"question": sentence(draw), "context": " ".join(words), "answers": answer})
    return rows


def write_rows(file: Path, rows: Rows) -> Path:
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


TASKS = {
    "answer": (answers, {}, {}),
    "apart": (answers, {}, {"kind": "encoder_decoder"}),
    "classification": (labelled, {"classes": ["bad", "fine", "good"]}, {"kind": "encoder"}),
    "span": (questions, {}, {"kind": "encoder"}),
}
"""Task → what makes its rows, and what its recipe says of the examples and of the model."""


def recipe_of(folder: Path, task: str, rows: Rows | None = None, **changes: Any) -> Recipe:
    """A recipe of a tiny model on such examples; `changes` are `section__setting=value`."""
    make, section, model = TASKS[task]
    file = folder / "examples.jsonl"
    write_rows(file, make(60) if rows is None else rows)
    raw: dict[str, Any] = {
        "name": task,
        "data": {
            "examples": {
                "train": [str(file)],
                "task": "answer" if task == "apart" else task,
                "validation_share": 0.2,
                **section,
            },
            "folder": str(folder / "corpus"),
            "tokenizer": {"vocabulary_size": 320},
        },
        "model": {
            "context": 64, "layers": 2, "width": 16, "heads": 2, "hidden": 32,
            "init": "scaled_normal", **model,
        },
        "train": {"budget": {"steps": 2}, "batch_tokens": 256, "precision": "fp32", "threads": 1},
        "monitor": {"prompts": []},
    }  # fmt: skip
    for path, value in changes.items():
        holder = raw
        *sections, last = path.split("__")
        for name in sections:
            holder = holder.setdefault(name, {})
        holder[last] = value
    return parse_recipe(raw)


def corpus_of(recipe: Recipe) -> Corpus:
    return build_corpus(recipe.data, name=recipe.name, folder=Path(recipe.data.folder))
