"""A small corpus, written through the room's own writer."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from batch_texts import prose

from wellfit.data.corpus import Corpus
from wellfit.data.tokens import shards
from wellfit.data.tokens.tokenizer import Tokenizer, train


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return train([prose(seed, 300) for seed in range(20)], 400)


@pytest.fixture(scope="session")
def write_corpus(tokenizer: Tokenizer) -> Callable[..., Corpus]:
    """Folder and texts of each split → the corpus."""

    def write(
        folder: Path, texts: dict[str, list[str]], shard_bytes: int = shards.SHARD_BYTES
    ) -> Corpus:
        folder.mkdir(parents=True, exist_ok=True)
        described = tokenizer.json()
        (folder / "tokenizer.json").write_text(described, encoding="utf-8")
        shards.write(
            folder,
            (
                shards.TokenDocument(
                    f"{split}{place}",
                    split,
                    f"domain{place % 3}",
                    len(text.encode()),
                    tokenizer.encode(text),
                )
                for split in texts
                for place, text in enumerate(texts[split])
            ),
            vocabulary_size=tokenizer.vocabulary_size,
            separator=tokenizer.separator,
            tokenizer_sha256=hashlib.sha256(described.encode()).hexdigest(),
            shard_bytes=shard_bytes,
        )
        return Corpus.open(folder)

    return write


@pytest.fixture(scope="session")
def texts() -> dict[str, list[str]]:
    """Forty training documents of 0 to 400 words, and some held-out ones."""
    draw = random.Random(0)
    return {
        "train": [prose(seed, draw.choice([0, 1, 5, 30, 120, 400])) for seed in range(40)],
        "validation": [prose(seed, 50) for seed in range(100, 107)],
        "test": [prose(seed, 20) for seed in range(200, 203)],
    }


@pytest.fixture(scope="session")
def corpus(
    tmp_path_factory: pytest.TempPathFactory,
    write_corpus: Callable[..., Corpus],
    texts: dict[str, list[str]],
) -> Corpus:
    return write_corpus(tmp_path_factory.mktemp("corpus"), texts)
