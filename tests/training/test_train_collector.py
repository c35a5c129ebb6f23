"""The collector of cycles: silent within, as before afterwards."""

from __future__ import annotations

import gc
import weakref

import pytest

from wellfit.training.collector import between_steps


class Knot:
    """Refers to itself, so that only the collector can free it."""

    def __init__(self) -> None:
        self.me = self


def test_cycles_wait_until_they_are_collected() -> None:
    """Break: leaving the collector enabled."""
    before = gc.get_threshold()
    gc.set_threshold(10, 1, 1)
    try:
        with between_steps() as collect:
            lost = weakref.ref(Knot())
            alive = [[number] for number in range(10_000)]
            assert lost() is not None and len(alive) == 10_000
            assert collect() >= 1
            assert lost() is None
    finally:
        gc.set_threshold(*before)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_afterwards_as_it_was(enabled: bool) -> None:
    """Also after an error. Break: enabling it in any case, or leaving everything frozen."""
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(KeyError), between_steps():
            assert not gc.isenabled() and gc.get_freeze_count() > 1000
            raise KeyError
        assert gc.isenabled() is enabled and gc.get_freeze_count() == 0
    finally:
        (gc.enable if before else gc.disable)()


def test_what_somebody_else_froze_stays_frozen() -> None:
    """Break: unfreezing in any case."""
    gc.freeze()
    try:
        with between_steps():
            pass
        assert gc.get_freeze_count() > 1000
    finally:
        gc.unfreeze()
