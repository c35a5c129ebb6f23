"""Ctrl-C and SIGTERM in, a request to stop out: the training ends at a step boundary."""

from __future__ import annotations

import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from wellfit.records import Request

REASONS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


@contextmanager
def stop_requests(requests: queue.SimpleQueue[Request]) -> Iterator[None]:
    """A queue in; while inside, the first Ctrl-C or SIGTERM puts a stop request on it.

    A second Ctrl-C raises KeyboardInterrupt at once, without waiting for the step to end; the
    last checkpoint on disk stays good. The former handlers return at the end. Python hands
    signals to the main thread only: in any other thread nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)
        # SimpleQueue.put may be interrupted by itself, which a signal handler can bring about.
        requests.put(Request("stop", REASONS[signal.Signals(number)]))

    before = {number: signal.signal(number, handle) for number in REASONS}
    try:
        yield
    finally:
        for number, former in before.items():
            # None: the former handler was not installed from Python and cannot be put back.
            signal.signal(number, signal.SIG_DFL if former is None else former)
