"""The worked numbers in the docstrings of this room are right."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import wellfit.monitor

MODULES = [module.name for module in pkgutil.iter_modules(wellfit.monitor.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_worked_numbers_of_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"wellfit.monitor.{name}"))
    assert result.failed == 0


def test_there_are_worked_numbers() -> None:
    found = [
        example
        for name in MODULES
        for case in doctest.DocTestFinder().find(importlib.import_module(f"wellfit.monitor.{name}"))
        for example in case.examples
    ]
    assert len(found) >= 15
