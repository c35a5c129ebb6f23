"""Small histories written out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from wellfit.monitor.history import History, Series

Build = Callable[..., History]


@pytest.fixture
def build() -> Build:
    """`build(train=…, validation=…, rate=…, norms=…, every=10, **fields)` → a History.

    Series are lists of values; the step of value k is `every·(k+1)`, evaluations are spread over
    the same range.
    """

    def series(values: Sequence[float], every: int) -> Series:
        return Series(tuple(every * (k + 1) for k in range(len(values))), tuple(values))

    def make(
        train: Sequence[float] = (),
        validation: Sequence[float] = (),
        rate: Sequence[float] = (),
        norms: Sequence[float] = (),
        every: int = 10,
        **fields: Any,
    ) -> History:
        between = max(1, len(train) * every // len(validation)) if validation else every
        return History(
            name="by hand",
            format="run folder",
            train_loss=series(train, every),
            validation_loss={"validation": series(validation, between)} if validation else {},
            learning_rate=series(rate, every),
            grad_norm=series(norms, every),
            **fields,
        )

    return make
