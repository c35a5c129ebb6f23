"""Python's collector of reference cycles, kept from interrupting a step."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def between_steps() -> Iterator[Callable[[], int]]:
    """Nothing in; inside, cycles are collected only where the function that it gives is called.

    Call it where a pause costs nothing: after a checkpoint or an evaluation. It gives the number
    of unreachable objects found. What exists already (modules, recipes, the model) is frozen, so
    that no collection looks at it again. Afterwards the collector is as it was.
    """
    before = gc.isenabled()
    frozen = gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield gc.collect
    finally:
        # `unfreeze` frees everything; it is left alone where somebody else had frozen before.
        if not frozen:
            gc.unfreeze()
        if before:
            gc.enable()
