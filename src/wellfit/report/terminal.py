"""A diagnosis and its history → a page for the terminal, understood in ten seconds."""

from __future__ import annotations

import math
import textwrap
from bisect import bisect_right
from collections.abc import Callable, Sequence
from statistics import median_high
from typing import Any

from wellfit.monitor.history import History, Series
from wellfit.report.context import missing_context
from wellfit.report.html import readable
from wellfit.report.numbers import figure, number_of, share
from wellfit.report.patch import is_ours, train_command
from wellfit.report.words import (
    FIT_WORDS,
    PROGRESS_WORDS,
    criteria_of,
    finding_name,
    headline,
    next_change,
    not_assessed_lines,
    ranked,
    since_words,
    texts,
    verdict_of,
    worst,
)

BLOCKS = "▁▂▃▄▅▆▇█"
SIGNS = {"healthy": "✓", "info": "·", "warning": "▲", "critical": "✗"}
NOTES = 3
"""Notes of the reader that are shown; the page has all of them."""
QUESTIONS = 5
"""Reasons for which something was not assessed that are shown."""
Painter = Callable[[str, str], str]
"""(text, style) → the text, with colour where it is wanted."""
_COLOURS = {
    "healthy": "32",
    "info": "36",
    "warning": "33",
    "critical": "31",
    "soft": "2",
    "bold": "1",
}


def diagnosis_text(
    diagnosis: dict[str, Any],
    history: History,
    *,
    colour: bool = False,
    width: int = 80,
    brief: bool = False,
) -> str:
    """The JSON of a diagnosis and its history → plain text of at most `width` columns.

    With `brief`, only the title and the first evidence of each finding are told. With `colour`,
    ANSI colours are added; signs and words say the same without. Control characters in texts
    from data are shown, never sent to the terminal.
    """
    width = max(40, width)
    paint = painter(colour)
    state = worst(diagnosis)
    about = paint(readable(history.format), "soft")
    lines = [f"{paint(readable(history.name), 'bold')}  {about}", ""]
    lines += _curves(history, width)
    said = readable(headline(diagnosis, history))
    lines += _wrapped(said, width, f"{SIGNS[state]} ", paint, state)
    fit, progress = verdict_of(diagnosis)
    words = (
        f"{FIT_WORDS.get(fit, readable(fit))} · {PROGRESS_WORDS.get(progress, readable(progress))}"
    )
    lines += [f"  {paint(words, 'soft')}"]
    for why in criteria_of(diagnosis):
        lines += _wrapped(readable(why), width, "  – ", paint, "soft")
    lines.append("")
    findings = ranked(diagnosis)
    alarms = [finding for finding in findings if finding.get("severity") != "info"]
    for finding in alarms:
        told = _information if brief else _finding
        lines += [*told(finding, history.axis, width, paint), ""]
    lines += _advice(diagnosis, history, width, paint)
    for finding in findings[len(alarms) :]:
        lines += [*_information(finding, history.axis, width, paint), ""]
    lines += _open_questions(diagnosis, width, paint)
    lines += _listed("Not known", missing_context(diagnosis, history), width, paint)
    lines += _listed("While reading", _brief(history.notes), width, paint)
    return "\n".join(lines).rstrip() + "\n"


def sparkline(
    series: Series, columns: int, steps: tuple[int, int], values: tuple[float, float]
) -> str:
    """A series → one row of blocks: the median of each column, for a range of steps and values.

    A column with a value that is not finite is a cross; a column without values is a dot.

    >>> sparkline(Series((1, 2, 3, 5), (4.0, 3.0, float("nan"), 0.0)), 5, (1, 5), (0.0, 4.0))
    '█▆×·▁'
    """
    first, last = steps
    # Steps rise, so each column is one stretch: a log may hold a million of them.
    ends = [
        bisect_right(series.steps, first + (column + 0.5) * max(1, last - first) / (columns - 1))
        for column in range(columns - 1)
    ]
    groups = zip([0, *ends], [*ends, len(series)], strict=True)
    return "".join(_block(series.values[a:b], *values) for a, b in groups)


def _block(group: Sequence[float], low: float, high: float) -> str:
    if not group:
        return "·"
    if not all(map(math.isfinite, group)):
        return "×"
    middle = median_high(group) if len(group) < 1000 else _middle(group)
    if low > 0:
        # Losses fall fast and then slowly: ratios keep the later part of the curve visible.
        low, high, middle = math.log(low), math.log(high), math.log(middle)
    place = (middle - low) / (high - low) if high > low else 0.0
    return BLOCKS[round(min(1.0, max(0.0, place)) * (len(BLOCKS) - 1))]


def _middle(group: Sequence[float]) -> float:
    """The higher median, for columns of a long log."""
    import numpy as np

    place = len(group) // 2
    return float(np.partition(np.asarray(group), place)[place])


def _curves(history: History, width: int) -> list[str]:
    """Training and held-out loss as sparklines over the same range, first and last value behind."""
    import numpy as np

    rows = [("training", history.train_loss)]
    rows += sorted(history.validation_loss.items(), key=lambda item: item[0] != "validation")[:3]
    rows = [(name, series) for name, series in rows if len(series)]
    if not rows:
        return []
    everything = np.sort(np.concatenate([series.finite[1] for _, series in rows]))
    low, high = (float(everything[0]), float(everything[-1])) if len(everything) else (0.0, 1.0)
    if len(everything) and high / 20 > abs(float(everything[len(everything) // 2])):
        # One runaway value would flatten all others: cut the picture, the figures stay true.
        high = float(everything[int(0.98 * (len(everything) - 1))])
    steps = (
        min(series.steps[0] for _, series in rows),
        max(series.steps[-1] for _, series in rows),
    )
    # No more columns than points: between two points there is nothing to draw.
    columns = max(12, min(44, width - 36, max(len(series) for _, series in rows)))
    lines = []
    for name, series in rows:
        spark = sparkline(series, columns, steps, (low, high))
        ends = f"{figure(series.values[0])} → {figure(series.values[-1])}"
        lines.append(f"  {readable(name)[:11]:<11} {spark} {ends}")
    return [*lines, f"  {history.axis + 's':<11} {steps[0]:<{columns - 8},}{steps[1]:>8,}", ""]


def _information(finding: dict[str, Any], axis: str, width: int, paint: Painter) -> list[str]:
    """A finding in brief, as what is no alarm is always told: its title and first evidence."""
    brief = finding | {"evidence": texts(finding.get("evidence"))[:1], "causes": []}
    return _finding(brief, axis, width, paint)


def _finding(finding: dict[str, Any], axis: str, width: int, paint: Painter) -> list[str]:
    severity = str(finding.get("severity", "info"))
    known = severity if severity in SIGNS else "info"
    title = (
        f"{finding_name(readable(str(finding.get('kind', 'finding'))))}{since_words(finding, axis)}"
    )
    about = f" [{readable(severity)}, {readable(str(finding.get('certainty', 'unknown')))}]"
    lines = _wrapped(title + about, width, f"{SIGNS[known]} ", paint, known)
    evidence = finding.get("evidence")
    for line in evidence if isinstance(evidence, (list, tuple)) else []:
        lines += _wrapped(readable(str(line)), width, "  – ", paint, "")
    causes = finding.get("causes")
    for cause in (causes if isinstance(causes, (list, tuple)) else [])[:3]:
        if isinstance(cause, dict):
            likely = share(number_of(cause.get("likelihood")))
            why = f"{readable(str(cause.get('why', '')))} ({readable(str(cause.get('id', '')))})"
            lines += _wrapped(f"{likely}: {why}", width, "  ? ", paint, "soft")
    return lines


def _advice(diagnosis: dict[str, Any], history: History, width: int, paint: Painter) -> list[str]:
    """The one thing to do next, where there is one."""
    text, patch = next_change(diagnosis)
    if not text and not patch:
        return []
    lines = [paint("Do this next", "bold")]
    lines += _wrapped(readable(text), width, "  ", paint, "") if text else []
    if patch and (not text or is_ours(history)):
        lines.append(f"  {readable(train_command(history, patch))}")
    return [*lines, ""]


def _open_questions(diagnosis: dict[str, Any], width: int, paint: Painter) -> list[str]:
    """What could not be judged; questions that fail for the same reason share a line."""
    by_reason: dict[str, list[str]] = {}
    for what, why in not_assessed_lines(diagnosis):
        by_reason.setdefault(why, []).append(what)
    told = []
    for why, names in by_reason.items():
        what = ", ".join([names[0], *(name[:1].lower() + name[1:] for name in names[1:])])
        told.append(f"{what}: {why}" if why else what)
    if len(told) > QUESTIONS:
        told[QUESTIONS:] = [f"… and {len(told) - QUESTIONS} more, which `--json` names"]
    return _listed("Not assessed", told, width, paint)


def _listed(title: str, entries: list[str], width: int, paint: Painter) -> list[str]:
    """A title and its entries, nothing where there are none."""
    lines = [paint(title, "bold")] if entries else []
    for entry in entries:
        lines += _wrapped(readable(entry), width, "  – ", paint, "soft")
    return [*lines, ""] if lines else []


def _brief(notes: Sequence[str]) -> list[str]:
    """The first notes, and how many there are besides.

    >>> _brief(["a", "b", "c", "d", "e"])
    ['a', 'b', 'c', '… and 2 more']
    """
    shown = list(notes[:NOTES])
    return shown + [f"… and {len(notes) - NOTES} more"] * (len(notes) > NOTES)


def _wrapped(text: str, width: int, start: str, paint: Painter, style: str) -> list[str]:
    """A text → lines of at most `width` columns, the first behind `start`, the others below it."""
    lines = textwrap.wrap(text, width, initial_indent=start, subsequent_indent=" " * len(start))
    return [paint(line, style) for line in lines]


def painter(colour: bool) -> Painter:
    """Whether colours are wanted → what gives them to a text by the name of a style."""
    if not colour:
        return lambda text, style: text
    return lambda text, style: (
        f"\x1b[{_COLOURS[style]}m{text}\x1b[0m" if style in _COLOURS else text
    )
