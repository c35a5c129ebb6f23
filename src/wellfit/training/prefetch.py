"""Fetches the next batch while the current one is trained on."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Fetched = TypeVar("Fetched")


def prefetch(
    fetch: Callable[[int], Fetched], first: int, last: int
) -> Generator[tuple[Fetched, float], None, None]:
    """Steps `first` to `last` in; per step what `fetch(step)` gives and the seconds waited for it.

    One thread runs one step ahead, never past `last`; what comes out is the same as without it.
    An error of `fetch` is raised at the step it belongs to.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="wellfit-batch") as pool:
        ahead = pool.submit(fetch, first) if first <= last else None
        for step in range(first, last + 1):
            assert ahead is not None
            started = time.perf_counter()
            fetched = ahead.result()
            waited = time.perf_counter() - started
            ahead = pool.submit(fetch, step + 1) if step < last else None
            yield fetched, waited
