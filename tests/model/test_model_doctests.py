"""The worked numbers in the docstrings of this room hold."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import wellfit.model


def test_worked_numbers() -> None:
    """Breaks when a docstring's number is changed."""
    tried = 0
    for found in pkgutil.iter_modules(wellfit.model.__path__):
        result = doctest.testmod(importlib.import_module(f"wellfit.model.{found.name}"))
        assert result.failed == 0
        tried += result.attempted
    assert tried > 0
