"""Kept documents → a tokenizer, and the token ids of every document, part by part."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wellfit.data.engine.engine import Engine
from wellfit.data.engine.task import File, Task
from wellfit.data.read.parts import rows
from wellfit.data.tokens import tokenizer as tokenizers
from wellfit.data.tokens.shards import TokenDocument
from wellfit.recipe.schema import Tokenizer

TRAINING_BYTES = 128 << 20
"""A tokenizer is learned from at most this much text, chosen by the hash of the documents."""

_TEXTS_AT_ONCE = 1_000_000  # characters


def make_tokenizer(
    engine: Engine, parts: Sequence[File], train: Mapping[str, int], section: Tokenizer
) -> File:
    """Parts, the training documents (id → bytes) and the recipe's wishes → `tokenizer.json`."""
    new_tokens = list(section.new_tokens)
    if section.file:
        path = Path(section.file).expanduser()
        # A missing or unfit file is told before anything is written.
        tokenizers.load(path, section.separator, new_tokens)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        task = Task(name=section.file, files=(File(path, digest),))
        wish: dict[str, Any] = {"new_tokens": new_tokens, "separator": section.separator}
        return engine.map("tokenizer", copy_tokenizer, [task], wish, suffix=".json")[0].file
    chosen = []
    total = 0
    for one in sorted(train):  # ids are hashes
        if total >= TRAINING_BYTES:
            break
        chosen.append(one)
        total += train[one]
    task = Task("train", tuple(parts), {"ids": chosen})
    wish = {"vocabulary_size": section.vocabulary_size, "new_tokens": new_tokens}
    return engine.map("tokenizer", train_tokenizer, [task], wish, suffix=".json")[0].file


def train_tokenizer(task: Task, parameters: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """Parts and the ids to learn from → `tokenizer.json`."""
    chosen = set(task.data["ids"])

    def texts() -> Iterator[str]:
        for file in task.files:
            for row in rows(file.path, names=["id", "text"]):
                if row["id"] in chosen:
                    yield row["text"]

    made = tokenizers.train(texts(), parameters["vocabulary_size"], parameters["new_tokens"])
    output.write_text(made.json(), encoding="utf-8")
    return {"vocabulary_size": made.vocabulary_size}


def copy_tokenizer(task: Task, parameters: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """A `tokenizer.json` → the same, as wellfit reads it."""
    made = tokenizers.load(task.files[0].path, parameters["separator"], parameters["new_tokens"])
    output.write_text(made.json(), encoding="utf-8")
    return {"vocabulary_size": made.vocabulary_size}


def encode_parts(
    engine: Engine,
    parts: Sequence[File],
    tokenizer: File,
    kept: Mapping[str, str],
    separator: str = "",
) -> list[File]:
    """Parts, tokenizer and the kept ids → files of token ids, one a part, for `tokens_of`."""
    wish = {"separator": separator} if separator else {}
    tasks = []
    for part in parts:
        wanted = [row["id"] for row in rows(part.path, names=["id"]) if row["id"] in kept]
        if wanted:
            tasks.append(Task(part.path.name, (part, tokenizer), {"ids": wanted}))
    return [result.file for result in engine.map("tokens", encode_part, tasks, wish, suffix=".npy")]


def tokens_of(files: Sequence[File]) -> Iterator[list[int]]:
    """Files of token ids → those of each kept document, in order."""
    for file in files:
        with file.path.open("rb") as stream:
            bounds = np.load(stream).tolist()
            tokens = np.load(stream)
        for start, end in itertools.pairwise(bounds):
            yield tokens[start:end].tolist()


def encode_part(task: Task, parameters: Mapping[str, Any], output: Path) -> dict[str, Any]:
    """Part, tokenizer and ids → two arrays: bounds of the documents, and all their token ids."""
    made = tokenizers.load(task.files[1].path, parameters.get("separator", ""))
    wanted = set(task.data["ids"])
    pieces: list[list[int]] = []
    texts: list[str] = []
    held = 0
    for row in rows(task.files[0].path, names=["id", "text"]):
        if row["id"] in wanted:
            texts.append(row["text"])
            held += len(row["text"])
            if held >= _TEXTS_AT_ONCE:
                pieces += made.encode_batch(texts)
                texts, held = [], 0
    pieces += made.encode_batch(texts)
    bounds = np.cumsum([0, *map(len, pieces)])
    with output.open("wb") as stream:
        np.save(stream, bounds)
        np.save(stream, np.fromiter((i for ids in pieces for i in ids), np.uint32, bounds[-1]))
    return {"tokens": int(bounds[-1])}


def token_documents(
    documents: Sequence[Mapping[str, Any]], tokens: Iterator[list[int]], split: Mapping[str, str]
) -> Iterator[TokenDocument]:
    """Kept documents and their tokens, in the same order → what the shards take."""
    for document, ids in zip(documents, tokens, strict=True):
        yield TokenDocument(
            document["id"], split[document["id"]], document["domain"], document["bytes"], ids
        )
