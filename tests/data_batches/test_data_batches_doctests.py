"""The small worked examples in the docstrings of this half of the room."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = (
    "batches",
    "corpus",
    "dedup.exact",
    "dedup.near",
    "dedup.shingles",
    "edits",
    "locate",
    "permutation",
    "plan",
    "split",
    "tokens.shards",
    "tokens.tokenizer",
)
EXAMPLES = 14


@pytest.mark.parametrize("module", MODULES)
def test_examples_hold(module: str) -> None:
    """Every example gives what it says."""
    assert doctest.testmod(importlib.import_module(f"wellfit.data.{module}")).failed == 0


def test_there_are_examples() -> None:
    """They are found at all."""
    tried = sum(
        doctest.testmod(importlib.import_module(f"wellfit.data.{name}")).attempted
        for name in MODULES
    )
    assert tried >= EXAMPLES
