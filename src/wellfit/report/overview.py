"""Several diagnosed runs → one text: a line for each, then the pages that are worth reading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from wellfit.monitor.history import History
from wellfit.report.html import readable
from wellfit.report.numbers import counted
from wellfit.report.terminal import SIGNS, Painter, diagnosis_text, painter
from wellfit.report.words import (
    FIT_WORDS,
    PROGRESS_WORDS,
    ranked,
    since_words,
    verdict_of,
    worst,
)

PAGES = 3
"""Pages shown below the table; more would bury it."""
NAME = 26
"""Columns of the longest name."""
Told = tuple[str, dict[str, Any], History]
"""A run's path as given, the JSON of its diagnosis, its history."""

_ORDER = ("critical", "warning", "healthy")


def overview_text(
    runs: Sequence[Told], *, unreadable: int = 0, colour: bool = False, width: int = 80
) -> str:
    """Diagnosed runs → a table, the worst first, then pages: of all where they are few, else of
    the worst ones with an alarm.
    """
    width = max(40, width)
    paint = painter(colour)
    ordered = sorted(runs, key=lambda run: _ORDER.index(worst(run[1])))
    named = _names(ordered)
    verdicts = [_verdict(diagnosis) for _, diagnosis, _ in ordered]
    broad = [max(map(len, column), default=0) for column in (named, verdicts)]
    lines = [paint(_count(ordered, unreadable), "bold"), ""]
    for name, verdict, (_, diagnosis, history) in zip(named, verdicts, ordered, strict=True):
        begin = f"{name:<{broad[0]}}  {verdict:<{broad[1]}}"
        lines.append(_line(begin, diagnosis, history, width, paint))
    alarmed = [run for run in ordered if worst(run[1]) != "healthy"]
    shown = (ordered if len(ordered) <= PAGES else alarmed)[:PAGES]
    for _, diagnosis, history in shown:
        page = diagnosis_text(diagnosis, history, colour=colour, width=width)
        lines += ["", paint("─" * width, "soft"), "", page.rstrip("\n")]
    hidden = len(alarmed) - sum(run in shown for run in alarmed)
    if hidden:
        more = f"{counted(hidden, 'more run')} with findings: `wellfit diagnose PATH` shows one."
        lines += ["", paint("─" * width, "soft"), "", more]
    return "\n".join(lines) + "\n"


def _count(runs: Sequence[Told], unreadable: int) -> str:
    """How many runs there are, by what was found."""
    of = Counter(worst(diagnosis) for _, diagnosis, _ in runs)
    said = (
        (of["critical"], "critical"),
        (of["warning"], "with warnings"),
        (of["healthy"], "without alarm"),
        (unreadable, "not readable"),
    )
    parts = [f"{number} {what}" for number, what in said if number]
    return f"{counted(len(runs), 'run')}: {', '.join(parts)}" if parts else "No runs"


def _names(runs: Sequence[Told]) -> list[str]:
    """A name for each run; where two are called alike, the path they were given by.

    Runs that came from one path have only their names.
    """
    times = Counter(history.name for _, _, history in runs)
    given = Counter(path for path, _, _ in runs)
    names = []
    for path, _, history in runs:
        alike = times[history.name] > 1 and given[path] == 1 and path != "-"
        name = path if alike else history.name
        name = " ".join(readable(name).split())
        # Of a path the end tells more than the beginning.
        names.append(name if len(name) <= NAME else f"…{name[1 - NAME :]}")
    return names


def _verdict(diagnosis: dict[str, Any]) -> str:
    fit, progress = verdict_of(diagnosis)
    return readable(f"{FIT_WORDS.get(fit, fit)} · {PROGRESS_WORDS.get(progress, progress)}")


def _line(
    begin: str, diagnosis: dict[str, Any], history: History, width: int, paint: Painter
) -> str:
    """Sign, name and verdict, and the worst finding; cut to the width."""
    state = worst(diagnosis)
    what = ""
    if state != "healthy":
        finding = ranked(diagnosis)[0]
        kind = readable(str(finding.get("kind"))).replace("_", " ")
        what = f"{kind}{since_words(finding, history.axis)}"
        if len(f"{begin}  {what}") > width - 2:
            what = kind  # since when, the page tells
    text = f"{begin}  {what}".rstrip()
    cut = text if len(text) <= width - 2 else f"{text[: width - 3]}…"
    return paint(f"{SIGNS[state]} {cut}", state)
