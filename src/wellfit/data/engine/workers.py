"""Requests → replies, through worker processes that know nothing of the parent's program.

Workers are plain Python processes spoken to over pipes rather than a `multiprocessing` pool: they
never run the user's main script again, start without torch, and a worker that was killed is told
apart from one that failed.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from typing import IO, Any

from wellfit.errors import DataError, WellfitError

_ONE_THREAD = (
    ("TOKENIZERS_PARALLELISM", "false"),
    ("RAYON_NUM_THREADS", "1"),
    ("OMP_NUM_THREADS", "1"),
    ("OPENBLAS_NUM_THREADS", "1"),
)
"""A worker computes on one core; its libraries must not start a thread for every core."""


class Worker:
    """One worker process; `ask` sends a request and waits for its reply."""

    def __init__(self) -> None:
        # Set before the libraries are loaded, in the worker only.
        one_thread = "".join(f"os.putenv({name!r}, {value!r}); " for name, value in _ONE_THREAD)
        start = (
            f"import os, sys; {one_thread}sys.path[:] = {sys.path!r}\n"
            "from wellfit.data.engine.workers import serve; serve()"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, request: Any, what: str) -> Any:
        """Request (picklable) → reply. Raises DataError when the worker dies or reports a fault."""
        assert self.process.stdin and self.process.stdout
        try:
            _send(self.process.stdin, request)
            kind, content = _receive(self.process.stdout)
        except (EOFError, BrokenPipeError):
            raise DataError(
                f"the worker process that did this task {_ending(self.process.wait())}",
                where=what,
                way_out="Usually memory ran out: build with fewer `data.workers`. "
                "Finished tasks are kept, so building again goes on from here.",
            ) from None
        if kind == "fault":
            what_, where, way_out = content
            raise DataError(what_, where=where, way_out=way_out)
        if kind == "crash":
            raise RuntimeError(f"{what}: the worker failed with\n{content}")
        return content

    def close(self, *, kill: bool = False) -> None:
        """End the process: at once with `kill`, else as soon as it has nothing to do."""
        if kill:
            self.process.kill()
        assert self.process.stdin and self.process.stdout
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def serve() -> None:
    """Requests on standard input → replies on standard output, until the parent is gone."""
    from wellfit.data.engine.task import load, perform

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a user's function prints must not land among the replies
    while True:
        try:
            folder, key, suffix, function, task, parameters = _receive(sys.stdin.buffer)
        except EOFError:
            return
        try:
            result = perform(folder, key, suffix, load(function), task, parameters)
            _send(replies, ("result", result))
        except WellfitError as error:
            _send(replies, ("fault", (error.what, error.where, error.way_out)))
        except Exception:
            import traceback

            _send(replies, ("crash", traceback.format_exc()))


def _send(stream: IO[bytes], content: Any) -> None:
    data = pickle.dumps(content)
    stream.write(len(data).to_bytes(8, "little") + data)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    head = stream.read(8)
    if len(head) < 8:
        raise EOFError
    size = int.from_bytes(head, "little")
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return pickle.loads(data)


def _ending(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with status {code}"


class Pool:
    """Workers, started when first needed and kept until `close`."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._idle: list[Worker] = []
        self._all: list[Worker] = []
        self._guard = threading.Lock()

    def ask(self, request: Any, what: str) -> Any:
        """Request → reply of any free worker; at most `size` threads may ask at once."""
        with self._guard:
            if self._idle:
                worker = self._idle.pop()
            else:
                worker = Worker()
                self._all.append(worker)
        reply = worker.ask(request, what)
        with self._guard:
            self._idle.append(worker)
        return reply

    def close(self, *, kill: bool = False) -> None:
        """End all workers."""
        with self._guard:
            for worker in self._all:
                worker.close(kill=kill)
            self._all.clear()
            self._idle.clear()
