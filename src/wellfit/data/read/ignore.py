"""Ignore files (`.gitignore`, `.ignore`) → which paths of a tree are passed over.

A subset of git's rules, and exactly this: one pattern a line; blank lines and lines that begin
with `#` say nothing; `!` takes a path back in; a trailing `/` means folders only; a pattern with
a `/` before its end is anchored to the folder of its file, any other matches at every depth; `*`
and `?` stop at `/`, `[…]` is a set, `**` crosses folders. The last matching line decides. A path
inside an ignored folder cannot be taken back in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

FILES = (".gitignore", ".ignore")


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of an ignore file."""

    pattern: re.Pattern[str]
    """Matches paths relative to the root of the walk."""
    take_back: bool
    folders_only: bool


def rules_of(folder: Path, relative: str) -> list[Rule]:
    """A folder and its path relative to the walk's root → the rules of its ignore files."""
    found = []
    for name in FILES:
        path = folder / name
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                rule = parse(line, relative)
                if rule:
                    found.append(rule)
    return found


def parse(line: str, relative: str) -> Rule | None:
    """A line of the ignore file of the folder `relative` → its rule, or None where it says nothing.

    >>> ignored([parse("*.log", ""), parse("!keep.log", "")], "a/keep.log", folder=False)
    False
    """
    line = line.rstrip("\r\n")
    if not line.endswith("\\ "):
        line = line.rstrip(" ")
    if not line or line.startswith("#"):
        return None
    take_back = line.startswith("!")
    line = line[take_back:].removeprefix("\\")
    folders_only = line.endswith("/")
    line = line.rstrip("/")
    anchored = "/" in line
    line = line.lstrip("/")
    if not line:
        return None
    base = re.escape(relative.rstrip("/") + "/") if relative else ""
    depth = "" if anchored else "(?:.*/)?"
    try:
        return Rule(re.compile(base + depth + _expression(line)), take_back, folders_only)
    except re.error:
        return None


def ignored(rules: list[Rule], relative: str, *, folder: bool) -> bool:
    """Rules, outermost folder first, and a path → whether it is passed over."""
    for rule in reversed(rules):
        if (folder or not rule.folders_only) and rule.pattern.fullmatch(relative):
            return not rule.take_back
    return False


def _expression(glob: str) -> str:
    """Glob → regular expression.

    >>> _expression("src/**/*.p?")
    'src/(?:.*/)?[^/]*\\\\.p[^/]'
    """
    parts = []
    place = 0
    while place < len(glob):
        if glob.startswith("**/", place):
            parts.append("(?:.*/)?")
            place += 3
        elif glob.startswith("**", place):
            parts.append(".*")
            place += 2
        elif glob[place] == "*":
            parts.append("[^/]*")
            place += 1
        elif glob[place] == "?":
            parts.append("[^/]")
            place += 1
        elif glob[place] == "[" and (end := glob.find("]", place + 2)) > 0:
            inside = glob[place + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            negated = inside.startswith(("!", "^"))
            parts.append("[" + ("^" if negated else "") + inside[negated:] + "]")
            place = end + 1
        else:
            place += glob[place] == "\\" and place + 1 < len(glob)
            parts.append(re.escape(glob[place]))
            place += 1
    return "".join(parts)
