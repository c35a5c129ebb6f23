"""A corpus in memory: a stream of tokens with documents, as the data room would open it."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from wellfit.data.batches import Rows
from wellfit.data.corpus import DocumentTable
from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import Model

SEPARATOR = 0


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_documents() -> Any:
    """Lengths (separator included) → (rows of 16, table, stream); two domains, odd byte counts."""

    def make(lengths: list[int], context: int = 16) -> tuple[Rows, DocumentTable, Any]:
        generator = np.random.default_rng(0)
        parts = [np.r_[SEPARATOR, generator.integers(1, 61, n - 1)] for n in lengths]
        stream = np.concatenate([np.zeros(0, np.int64), *parts])
        table = DocumentTable(
            id=np.array([f"document-{n}" for n in range(len(lengths))], dtype=np.str_),
            first_token=np.cumsum([0, *lengths])[:-1].astype(np.int64),
            tokens=np.array(lengths, dtype=np.int64),
            bytes=np.array([3 * n + 1 + n % 5 for n in lengths], dtype=np.int64),
            domain=np.array(["code" if n % 3 else "prose" for n in range(len(lengths))], np.str_),
        )
        corpus: Any = SimpleNamespace(
            separator=SEPARATOR, tokens=lambda split: stream, documents=lambda split: table
        )
        return Rows(corpus, "validation", context), table, stream

    return make


@pytest.fixture
def model() -> Transformer:
    section = Model(
        context=16, layers=1, width=32, heads=2, kv_heads=2, hidden=48, dropout=0.4, rope_base=100
    )
    model = Transformer(section, 61)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    return model
