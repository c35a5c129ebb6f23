"""Small models with random weights that no symmetry hides."""

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


def section(**changes: Any) -> Model:
    """A small model section: 2 layers, width 32, 4 heads of 8, 2 key heads, context 24."""
    values: dict[str, Any] = {
        "context": 24,
        "layers": 2,
        "width": 32,
        "heads": 4,
        "kv_heads": 2,
        "hidden": 48,
    }
    return Model(**{**values, **changes})


def random_model(section: Model, vocabulary_size: int = 61, seed: int = 0) -> Transformer:
    """Every parameter random, norms and biases too, so that none can be left out unseen."""
    model = Transformer(section, vocabulary_size)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            centre = 1.0 if model.roles()[name] == "norm" else 0.0
            weight.copy_(centre + drawn * 0.2)
    return model


@pytest.fixture
def make_section() -> Any:
    return section


@pytest.fixture
def make_model() -> Any:
    return random_model
