"""What a training printed → a Log: lines with a name before each number, in any order.

The first line of a kind is taken apart word by word and becomes a pattern; the lines of the same
kind that follow only have to match it, which makes a log of a million lines readable in seconds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain

import numpy as np

from wellfit.diagnosis.importers import names
from wellfit.diagnosis.importers.json_file import loose
from wellfit.diagnosis.importers.log import Column, Log

_NUMBER = (
    r"[-+]?(?:\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d+)?|\d+\.?\d*(?:[eE][-+]?\d+)?"
    r"|\.\d+(?:[eE][-+]?\d+)?|[nN]a[nN]|[iI]nf(?:inity)?)"
)
_SCAN = re.compile(rf"(?<![\w.+-]){_NUMBER}(?:(?<=\d)|(?<=\.)|(?!\w))")
_QUICK = r"(?:[-+]?[\d.]++(?:[eE][-+]?\d++)?+|[-+]?(?:[nN]a[nN]|[iI]nf(?:inity)?))"
"""The same within a pattern, where the text around says that a number stands there."""
_BEFORE_NAN = re.compile(
    r"(?:[:=]\s*[\"']?|(?:loss|norm|ppl|perplexity|lr|rate|train|val|eval|value)\s+[-+]?)$", re.I
)
_WORTH = re.compile(
    r"loss|ppl|perplex|nll|entropy|train|val|eval|epoch|iter|step|\blr\b|rate|norm|update|vocab",
    re.I,
)
_GLUED = re.compile(r"[A-Za-z%µ][\w%/µ]*")
_UNITS = re.compile(r"\((?:[a-zµ]{1,3}|sec\w*|\w*/\w+|%)\)", re.I)
_DIVIDERS = re.compile(
    r"[|,;:{}\[\]()\t]|\s-+\s|\.\s|\b(?:INFO|DEBUG|WARNING|ERROR|CRITICAL)\b|[│─━]"
)
_EDGES = " :=\"'-*#>~·•|[("
_AT = re.compile(r"(.*\S)\s+(?:at|after|on|for)\s+(?:global\s+)?(\w+)$", re.I)
_BAR = re.compile(
    r"(?:\d+%\s*)?(?:\|[^|\n]*\|)?\s*\b(\d+)/(\d+)\s*\[[\d:?]+<[\d:? day,s]*[\d:?](?:,[^,\]=\n]*)?"
)
_KERAS = re.compile(r"\s*(\d+)/(\d+)\s+(?:\[[=>.]*\]|[━╸╺ ]*━[━╸╺ ]*|-)(?=\s|$)")
NOISE = frozenset(
    ["info", "debug", "warning", "root", "main", "train", "trainer", "training", "rank", "at",
     "end", "of", "the", "after", "finished", "completed", "starting", "begin", "start", "on",
     "for", "global", "current", "summary", "results", "log", "logger", "loop", "fit", "stdout",
     "stderr", "now", "average", "avg", "mean"]
)  # fmt: skip
"""Words before `step`, `epoch` and the like that change nothing."""
_SETTINGS = {key: key for known in names.SETTINGS.values() for key in known if key != "epochs"} | {
    "total_optimization_steps": "total_steps"
}
"""Settings that trainings print before they begin."""
BLOCK = 100_000
"""Characters that are tried at once."""
PROSE = 5
"""Kinds of lines that a log may have before most of its lines must repeat one."""
MOST_NAMES = 300
MOST_KINDS = 200


@dataclass(slots=True)
class Kind:
    """Lines of one kind: their pattern, the names of its groups, and what was found."""

    pattern: str
    names: tuple[str, ...]
    match: Callable[[str], re.Match[str] | None] = field(init=False)
    """A line → its groups."""
    rows: list[int] = field(default_factory=list)
    found: list[str | None] = field(default_factory=list)
    """The groups of its first row, then those of the next."""

    def __post_init__(self) -> None:
        self.match = re.compile(self.pattern).fullmatch

    @property
    def whole(self) -> re.Pattern[str]:
        """Finds the groups of every line of a block that is of this kind."""
        return re.compile(f"^{self.pattern}$", re.M)  # `re` keeps what it compiled


def log_of_console(text: str, name: str) -> Log | None:
    """Console text → its Log; None where no line holds a loss."""
    log = Log(name, "console text")
    bars = _BAR.search(text[:400_000]) is not None or _BAR.search(text[-100_000:]) is not None
    kinds: list[Kind] = []
    if bars:
        rows, dicts = _with_bars(text, log, kinds)
    else:
        rows, dicts = _without_bars(text, log, kinds), []
    if len(kinds) > max(PROSE, rows // 2):
        return None  # every line is worded anew: somebody writes about trainings
    log.rows = rows
    _collect(log, kinds)
    _steps_of_bars(log, dicts)
    if not any(
        (role := names.role(key)) and role.kind in ("train", "validation") for key in log.columns
    ):
        return None
    return log


def _without_bars(text: str, log: Log, kinds: list[Kind]) -> int:
    """Read every line; returns the number of rows."""
    row = 0
    recent: list[Kind] = []
    for block in _blocks(text):
        # Most logs say the same line again and again: then one search serves a whole block.
        alike = recent[0].whole.findall(block) if recent and recent[0].names else []
        if alike and len(alike) == block.count("\n") + 1:
            cells = alike if len(recent[0].names) == 1 else chain.from_iterable(alike)
            recent[0].rows.extend(range(row, row + len(alike)))
            recent[0].found.extend(cells)
            row += len(alike)
        else:
            row = _block(block, row, log, kinds, recent)
    return row


def _blocks(text: str) -> Iterator[str]:
    """A text → pieces of about `BLOCK` characters that end where a line ends."""
    begin = 0
    while begin < len(text):
        end = text.find("\n", begin + BLOCK)
        end = len(text) if end < 0 else end
        yield text[begin:end]
        begin = end + 1


def _block(block: str, row: int, log: Log, kinds: list[Kind], recent: list[Kind]) -> int:
    """Read some lines, the first of which is row `row`; returns the next one's."""
    for line in block.split("\n"):
        for kind in recent:
            groups = kind.match(line)
            if groups is not None:
                kind.rows.append(row)
                kind.found.extend(groups.groups())
                row += 1
                break
        else:
            if _WORTH.search(line) is None:
                continue
            keras = _KERAS.match(line)
            if keras is not None and _WORTH.search(line[keras.end() :]):
                if keras[1] != keras[2]:
                    continue  # the mean so far, within an epoch
                line = line[keras.end() :]
            row += _line(line, row, log, kinds, recent)
    return row


def _with_bars(
    text: str, log: Log, kinds: list[Kind]
) -> tuple[int, list[tuple[int, int | None, int]]]:
    """The same for text with progress bars: the bar before a dictionary tells its step.

    Returns the number of rows, and of each dictionary its row, the last bar's step and total.
    """
    row = 0
    recent: list[Kind] = []
    dicts: list[tuple[int, int | None, int]] = []
    bar: tuple[int, int] | None = None
    for line in text.split("\n"):
        found = _BAR.search(line)
        if found is not None:
            line = line[: found.start()] + " | " + line[found.end() :]
        is_dict = "{'" in line or '{"' in line
        if not is_dict and found is not None and _WORTH.search(line, found.start()):
            # A bar with its losses behind it; what it counts may start anew at every epoch.
            if "poch" in line:
                log.facts.setdefault("steps_per_epoch", float(found[2]))
            line = f"batch {found[1]} | {line}"
        if _WORTH.search(line) is not None:
            for kind in recent:
                groups = kind.match(line)
                if groups is not None:
                    kind.rows.append(row)
                    kind.found.extend(groups.groups())
                    added = 1
                    break
            else:
                added = _line(line, row, log, kinds, recent)
            if is_dict and added:
                dicts.append((row, bar[0] if bar else None, bar[1] if bar else 0))
                bar = None
            row += added
        if found is not None:
            bar = (int(found[1]), int(found[2]))
    return row, dicts


def _line(line: str, row: int, log: Log, kinds: list[Kind], recent: list[Kind]) -> int:
    """Take a line apart; 1 where it made a row, whose pattern then stands first in `recent`."""
    known = next((kind for kind in kinds if kind.match(line)), None)
    if known is None:
        known = _kind(line, log)
        if known is None:
            return 0
        if len(kinds) < MOST_KINDS:
            kinds.append(known)
        else:  # every line differs: no use to keep their patterns
            merged = next((k for k in kinds if k.names == known.names), None)
            groups = known.match(line)
            if merged is None or groups is None:
                return 0
            merged.rows.append(row)
            merged.found.extend(groups.groups())
            return 1
    groups = known.match(line)
    if groups is None:
        return 0
    known.rows.append(row)
    known.found.extend(groups.groups())
    if known in recent:
        recent.remove(known)
    recent.insert(0, known)
    del recent[4:]
    return 1


def _kind(line: str, log: Log) -> Kind | None:
    """A line → its pattern; None where it tells nothing of a training."""
    named = _named(line, log)
    roles = [names.role(name) if name else None for name, _, _ in named]
    if not any(roles):
        return None
    losses = any(role.kind in ("train", "validation") for role in roles if role)
    if not losses and not any(r.kind in ("step", "epoch", "rate", "norm") for r in roles if r):
        return None
    pattern: list[str] = []
    wanted: list[str] = []
    end = 0
    for name, begin, stop in named:
        pattern.append(_literal(line[end:begin]))
        number = _NUMBER if "," in line[begin:stop] or line[stop : stop + 1] == "." else _QUICK
        if name not in wanted and names.is_wanted(name):
            pattern.append(f"({number})")
            wanted.append(name)
        else:
            pattern.append(number)
        end = stop
    tail = line[end:]
    pattern.append(".*" if re.search(r"\d", tail) else _literal(tail))
    return Kind("".join(pattern), tuple(wanted))


def _literal(text: str) -> str:
    """Text between numbers → its pattern: digits within words and widths of blanks may vary."""
    parts = re.split(r"(\d+|\s+)", text)
    return "".join(
        r"\d++" if part[:1].isdigit() else r"\s*+" if part.isspace() else re.escape(part)
        for part in parts
    )


def _named(line: str, log: Log) -> list[tuple[str, int, int]]:
    """A line → its numbers: name (empty where it has none), begin, end."""
    found: list[tuple[str, int, int]] = []
    end, context, about, last_step = 0, "", "", ""
    batch: tuple[int, float] | None = None
    for match in _SCAN.finditer(line):
        text = match[0]
        if text[-1] in "nNfFyY" and not _BEFORE_NAN.search(line[: match.start()]):
            continue
        between = line[end : match.start()]
        if found and between[:1] and (unit := _GLUED.match(between)):
            between = between[unit.end() :]
        end = match.end()
        if between.strip() in ("/", "of", "out of"):
            if last_step and (total := loose(text.replace(",", ""))):
                key = "epochs" if last_step == "epoch" else "total_steps"
                log.facts.setdefault(key, total)
            elif found and not found[-1][0] and (total := loose(text)):
                batch = batch or (len(found) - 1, total)
            found.append(("", match.start(), end))
            continue
        name, cut = _label(between)
        for word in cut:
            if word in names.HELD_OUT:
                context = word
            elif word in ("train", "training"):
                context = ""
        at = _AT.fullmatch(name)
        if at is not None and (role := names.role(at[2])) and role.kind in ("step", "epoch"):
            about, name = at[1], at[2]  # `validation loss at iteration 1000 | …`
        elif not name and about:
            name, about = about, ""
        elif about and any(word in names.HELD_OUT for word in names.plain(about).split("_")):
            context = next(w for w in names.plain(about).split("_") if w in names.HELD_OUT)
            about = ""
        name, role = _meaning(name)
        last_step = role.kind if role is not None and role.kind in ("step", "epoch") else ""
        if role is None and (setting := _SETTINGS.get(names.plain(name))) is not None:
            log.facts.setdefault(setting, loose(text.replace(",", "")))
        if role is not None and role.kind == "train" and context and "train" not in name.lower():
            name = f"{context} {name}"
        found.append((name[:100], match.start(), end))
    return _leading_step(line, _counted(found, batch, log))


def _counted(
    found: list[tuple[str, int, int]], batch: tuple[int, float] | None, log: Log
) -> list[tuple[str, int, int]]:
    """`Epoch: [3][ 20/500] … Loss 2.1`: what is counted up to a total is a batch of the epoch."""
    if batch is None:
        return found
    place, total = batch
    kinds = [role.kind if (role := names.role(name)) else "" for name, _, _ in found]
    if "step" in kinds or "train" not in kinds[place:]:
        return found
    if "epoch" in kinds[:place]:
        log.facts.setdefault("steps_per_epoch", total)
    elif place == 0 and "epoch" not in kinds:
        log.facts.setdefault("total_steps", total)
    else:
        return found
    return [*found[:place], ("batch", *found[place][1:]), *found[place + 1 :]]


def _leading_step(line: str, found: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """`123 train 3.2`: a whole number that begins a line without any other step is the step."""
    if len(found) < 2 or found[0][0] or not line[found[0][1] : found[0][2]].isdigit():
        return found
    roles = [names.role(name) for name, _, _ in found if name]
    if line[: found[0][1]].strip(" [(#") or any(r and r.kind in ("step", "epoch") for r in roles):
        return found
    if line[found[0][2] : found[0][2] + 1] not in (" ", "\t", ":", "]", ")", ","):
        return found  # a time or a share
    return [("step", found[0][1], found[0][2]), *found[1:]]


@lru_cache(maxsize=4096)
def _label(between: str) -> tuple[str, tuple[str, ...]]:
    """The text before a number → its name, and the words that were cut away before that."""
    text = _UNITS.sub("", between).rstrip(_EDGES)
    parts = _DIVIDERS.split(text)
    name = parts[-1].strip(_EDGES)
    cut = names.plain(" ".join(parts[:-1])).split("_")
    return name, tuple(cut)


@lru_cache(maxsize=4096)
def _meaning(name: str) -> tuple[str, names.Role | None]:
    """A name → the same without words that change nothing, and its role."""
    role = names.role(name)
    if role is not None or not name:
        return name, role
    words = names.plain(name).split("_")
    for i, word in enumerate(words[:-1]):
        if word not in NOISE:
            break
        rest = "_".join(words[i + 1 :])
        if (role := names.role(rest)) is not None:
            return rest, role
    return name, None


# ── rows → columns ─────────────────────────────────────────────────────────────────────────


def _collect(log: Log, kinds: list[Kind]) -> None:
    """What the kinds of lines found → columns, rows ascending."""
    for kind in kinds:
        for i, name in enumerate(kind.names):
            cells = kind.found[i :: len(kind.names)]
            try:
                values = list(map(float, cells))  # type: ignore[arg-type]
            except (TypeError, ValueError):
                values = [_float(cell or "") for cell in cells]
            column = log.columns.get(name)
            if column is None:
                if len(log.columns) < MOST_NAMES:
                    log.columns[name] = Column(kind.rows, values)
                continue
            rows = np.concatenate([np.asarray(column.rows), np.asarray(kind.rows)])
            joined = np.concatenate([np.asarray(column.values), np.asarray(values)])
            order = np.argsort(rows, kind="stable")
            log.columns[name] = Column(rows[order].tolist(), joined[order].tolist())


def _float(cell: str) -> float:
    found = loose(cell.replace(",", ""))
    return math.nan if found is None else found


def _steps_of_bars(log: Log, dicts: list[tuple[int, int | None, int]]) -> None:
    """The steps of dictionaries printed between progress bars, where most of them are known."""
    total = max((total for _, _, total in dicts), default=0)
    if total:
        log.facts.setdefault("total_steps", total)
    if any((role := names.role(key)) and role.kind == "step" for key in log.columns):
        return
    at = {row: step for row, step, of in dicts if step is not None and of == total}
    losses = set(log.columns["loss"].rows) if "loss" in log.columns else set()
    order = [row for row, _, _ in dicts if row in losses]
    known = [at[row] for row in order if row in at]
    if len(known) < 2 or len(known) < 0.6 * len(order) or sorted(set(known)) != known:
        return
    gap = int(np.median(np.diff(known)))
    for i in reversed(range(len(order) - 1)):  # the bar before a dictionary may not be shown
        before = at.get(order[i + 1], 0) - gap
        if order[i] not in at and before > max((at[r] for r in order[:i] if r in at), default=0):
            at[order[i]] = before
    placed = sorted(at.items())
    log.columns["step"] = Column([row for row, _ in placed], [float(s) for _, s in placed])
