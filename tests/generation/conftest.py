"""Small models with random weights; their next tokens are neither certain nor uniform."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import Model


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_model() -> Any:
    def make(**changes: Any) -> Transformer:
        values: dict[str, Any] = {
            "context": 16,
            "layers": 2,
            "width": 32,
            "heads": 4,
            "kv_heads": 2,
            "hidden": 48,
        }
        model = Transformer(Model(**{**values, **changes}), 61)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in model.parameters():
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
        return model

    return make
