"""A growing log → its diagnosis, told anew whenever the log has changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from wellfit.diagnosis import Given
from wellfit.errors import WellfitError
from wellfit.report.html import readable
from wellfit.report.terminal import SIGNS
from wellfit.report.words import headline, worst
from wellfit.run.opinion import Opinion, as_text, examine

Stamp = tuple[tuple[str, int, int], ...]
"""(name, size, time of change) of each file of a log; empty while there is none."""
DEEP = 3
"""Folders below a given one in which a log's files are looked for."""
PATIENCE = 5
"""Looks at a log that stands still before it is called unreadable: a file is often met half
written, or between its removal and its replacement."""
HOME_AND_CLEAR = "\x1b[H\x1b[J"


def follow(
    path: str,
    given: Given | None,
    tell: Callable[[str], None],
    *,
    screen: Callable[[], tuple[int, int]] | None = None,
    colour: bool = False,
    interval: float = 1.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """A path → the exit status of its last diagnosis, once Ctrl-C has ended the watch.

    `tell` gets each text as it is to be written. With `screen`, which gives its columns and
    lines, the whole page is drawn anew at every change; without, a line stands for every change
    of verdict or findings. Raises KeyboardInterrupt where nothing could be diagnosed until then.
    """
    watch = _Watch(path, given, tell, screen, colour)
    try:
        while True:
            begun = clock()
            watch.look()
            # A long log takes its time to read: most of the time is left to the training.
            sleep(max(interval, 3 * (clock() - begun)))
    except KeyboardInterrupt:
        if watch.status is None:
            raise
        if screen is not None:
            tell("\n")
        return watch.status


class _Watch:
    """What is known of the log since the last look."""

    def __init__(
        self,
        path: str,
        given: Given | None,
        tell: Callable[[str], None],
        screen: Callable[[], tuple[int, int]] | None,
        colour: bool,
    ) -> None:
        self.path = path
        self.given = given
        self.tell = tell
        self.screen = screen
        self.colour = colour
        self.status: int | None = None
        self.read: Stamp | None = None
        """What the log was when it was last read with success."""
        self.seen: Stamp | None = None
        self.still = 0
        """Looks since the log last changed."""
        self.said: object = None
        """Verdict and findings last told."""

    def look(self) -> None:
        """Read the log again if it has changed, and tell what is new."""
        now = stamp(Path(self.path))
        if now != self.seen:
            self.seen, self.still = now, 0
        else:
            self.still += 1
        if not now:
            if self.still == 0 and self.read is None:
                self.tell(f"Waiting for {readable(self.path)}; Ctrl-C ends.\n")
            return
        if now == self.read or self.still > PATIENCE:
            return
        opinion = examine([self.path], self.given)
        if not opinion.cases:
            if self.still == PATIENCE:
                self._unreadable(opinion.unreadable[0][1])
            return
        self.read = now
        self.status = opinion.exit_status
        self._diagnosed(opinion)

    def _unreadable(self, error: WellfitError) -> None:
        self.tell(f"Not readable yet: {readable(str(error))}\n")

    def _diagnosed(self, opinion: Opinion) -> None:
        if self.screen is not None:
            columns, rows = self.screen()
            width, room = min(columns, 100), max(1, rows - 2)
            lines = as_text(opinion, colour=self.colour, width=width).splitlines()
            if len(lines) > room:
                # What does not fit would scroll the top away, and the top is what matters.
                page = as_text(opinion, colour=self.colour, width=width, brief=True)
                lines = page.splitlines()[:room]
            at = time.strftime("%H:%M:%S")
            foot = f"Following {readable(self.path)} (read at {at}); Ctrl-C ends."[: columns - 1]
            self.tell(HOME_AND_CLEAR + "\n".join([*lines, foot]))
            return
        key = [
            (case.history.name, case.diagnosis.verdict, *_kinds(case.diagnosis.findings))
            for case in opinion.cases
        ]
        if key == self.said:
            return
        self.said = key
        for case in opinion.cases:
            told = case.diagnosis.to_json()
            verdict = case.diagnosis.verdict
            steps = told["summary"].get("steps")
            reach = f" {steps:,}" if isinstance(steps, int) else ""
            self.tell(
                f"{SIGNS[worst(told)]} {readable(case.history.name)}, {case.history.axis}{reach}: "
                f"{readable(headline(told, case.history))} [{verdict.fit}, {verdict.progress}]\n"
            )


def _kinds(findings: tuple[object, ...]) -> list[tuple[object, object]]:
    """What makes findings new: their kind and severity. Their figures move with every step."""
    return [(getattr(one, "kind", None), getattr(one, "severity", None)) for one in findings]


def stamp(path: Path) -> Stamp:
    """A file or folder → the sizes and times of its files; empty where there is nothing."""
    files = [path]
    if path.is_dir():
        files = []
        for folder, below, names in os.walk(path):
            depth = len(Path(folder).relative_to(path).parts)
            if depth >= DEEP:
                below.clear()
            files += [Path(folder) / name for name in names]
    found = []
    for file in sorted(files):
        try:
            told = file.stat()
        except OSError:
            continue
        found.append((str(file), told.st_size, told.st_mtime_ns))
    return tuple(found)
