"""Paths of logs → runs, diagnosed → what `wellfit diagnose` prints and writes.

One log that cannot be read loses nothing of the others.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wellfit.diagnosis import Diagnosis, Given, diagnose, exit_status, read_all, read_bytes
from wellfit.errors import LogError, RunError, WellfitError
from wellfit.monitor.history import History

if TYPE_CHECKING:
    from wellfit.report.gather import Material

STANDARD_INPUT = "-"


@dataclass(frozen=True, slots=True)
class Case:
    """One run, read and diagnosed."""

    path: str
    """As the user gave it; several runs of one log share it."""
    history: History
    diagnosis: Diagnosis


@dataclass(frozen=True, slots=True)
class Opinion:
    """All runs of all paths, and the paths that could not be read."""

    paths: tuple[str, ...]
    cases: tuple[Case, ...]
    unreadable: tuple[tuple[str, WellfitError], ...] = ()

    @property
    def exit_status(self) -> int:
        """2 where anything could not be read, 1 where any run has a warning or worse, else 0."""
        if self.unreadable:
            return 2
        return max((exit_status(case.diagnosis) for case in self.cases), default=0)


def refuse(
    paths: Sequence[str],
    *,
    as_json: bool,
    html: Path | None,
    sarif: str | None,
    epochs: float | None,
    follow: bool,
) -> None:
    """Raise WellfitError where the command's options cannot be had together, or make no sense."""
    if epochs is not None and not 0 < epochs < math.inf:
        raise WellfitError(
            "--epochs wants a number above 0",
            way_out="Give the passes over the data that were planned, such as 3 or 0.5.",
        )
    if paths.count(STANDARD_INPUT) > 1:
        raise WellfitError(
            "standard input can be read only once", way_out="Give - once, and files by their path."
        )
    if html is not None and str(html) == "-":
        raise WellfitError("--html wants a file", way_out="Name one, such as --html page.html.")
    if as_json and sarif == "-":
        raise WellfitError(
            "--json and --sarif - both want standard output",
            way_out="Give --sarif the name of a file.",
        )
    if follow and (as_json or html is not None or sarif is not None):
        raise WellfitError(
            "--follow shows text only",
            way_out="Leave --json, --html and --sarif away, and ask for them once it is over.",
        )
    if follow and (len(paths) != 1 or paths[0] == STANDARD_INPUT):
        raise WellfitError(
            "--follow watches one file or folder",
            way_out="Give one path; start the command once more for each other log.",
        )


def examine(
    paths: Sequence[str],
    given: Given | None = None,
    *,
    standard_input: Callable[[], bytes] | None = None,
) -> Opinion:
    """Paths as given (`-`: standard input) → their runs, diagnosed, and what could not be read."""
    cases: list[Case] = []
    unreadable: list[tuple[str, WellfitError]] = []
    for path in paths:
        try:
            if path == STANDARD_INPUT:
                data = (standard_input or sys.stdin.buffer.read)()
                histories = read_bytes(data, given=given)
            else:
                histories = read_all(Path(path), given)
        except WellfitError as error:
            unreadable.append((path, error))
            continue
        except OSError as error:
            # Such as a disk that fails, or a file taken away, in the middle of reading.
            what = f"it cannot be read: {error.strerror or error}"
            unreadable.append((path, LogError(what, where=path, way_out="Try it again.")))
            continue
        cases += [Case(path, history, diagnose(history)) for history in histories]
    return Opinion(tuple(paths), tuple(cases), tuple(unreadable))


def as_text(opinion: Opinion, *, colour: bool = False, width: int = 80, brief: bool = False) -> str:
    """An opinion → the terminal's text: a run's page, or for several a table and pages."""
    from wellfit.report.terminal import diagnosis_text

    if not opinion.cases:
        return ""
    if len(opinion.cases) == 1 and len(opinion.paths) == 1:
        case = opinion.cases[0]
        told = case.diagnosis.to_json()
        return diagnosis_text(told, case.history, colour=colour, width=width, brief=brief)
    from wellfit.report.overview import overview_text

    return overview_text(
        [(case.path, case.diagnosis.to_json(), case.history) for case in opinion.cases],
        unreadable=len(opinion.unreadable),
        colour=colour,
        width=width,
    )


def as_json(opinion: Opinion) -> str:
    """An opinion → JSON: the object of the one run, or a list of objects with path and name.

    Nothing where the only path could not be read: there is no run to tell of.
    """
    if len(opinion.paths) == 1 and len(opinion.cases) < 2:
        told = [case.diagnosis.to_json() for case in opinion.cases]
        return json.dumps(told[0], indent=2) if told else ""
    return json.dumps(
        [
            {"path": case.path, "name": case.history.name} | case.diagnosis.to_json()
            for case in opinion.cases
        ],
        indent=2,
    )


def as_sarif(opinion: Opinion, version: str) -> str:
    """An opinion and the version of wellfit → a SARIF 2.1.0 document as text."""
    from wellfit.diagnosis.rules import RULES
    from wellfit.report.sarif import Diagnosed, sarif_document

    document = sarif_document(
        [
            Diagnosed(case.path, case.history.name, case.diagnosis.to_json(), case.history.axis)
            for case in opinion.cases
        ],
        version=version,
        kinds=RULES,
        unreadable=[(path, f"{error.what} {error.way_out}") for path, error in opinion.unreadable],
    )
    return json.dumps(document, indent=2) + "\n"


def write_sarif(opinion: Opinion, target: Path, version: str) -> None:
    """Put the SARIF document of an opinion in place, whole. Raises RunError."""
    from wellfit.monitor.folder import replace_file

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, as_sarif(opinion, version))
    except OSError as error:
        raise RunError(
            f"the SARIF file cannot be written: {error.strerror or error}",
            where=str(target),
            way_out="Make room there, or name another file.",
        ) from error


def write_pages(opinion: Opinion, target: Path) -> list[Path]:
    """Write a page of each run: to the file `target`, or into it where it is a folder or there
    are several runs. Gives the files. Raises RunError.
    """
    from wellfit.report.page import write_page

    cases = opinion.cases
    several = len(cases) > 1 or len(opinion.paths) > 1
    if several and target.exists() and not target.is_dir():
        raise RunError(
            "several pages cannot be written to one file",
            where=str(target),
            way_out="Name a folder; it gets a page for each run.",
        )
    if not (several or target.is_dir()):
        return [write_page(_material(case), target) for case in cases]
    names = _file_names([case.history.name for case in cases])
    return [
        write_page(_material(case), target / name) for case, name in zip(cases, names, strict=True)
    ]


def _material(case: Case) -> Material:
    from wellfit.report.gather import from_log, from_run

    told = case.diagnosis.to_json()
    if case.history.format == "run folder" and Path(case.path).is_dir():
        return from_run(Path(case.path), case.history, told)
    return from_log(case.history, told)


def _file_names(names: Sequence[str]) -> list[str]:
    """Names of runs → different file names, whatever stands in them.

    >>> _file_names(["a run", "../../etc", "a/run", "a run"])
    ['a-run.html', 'etc.html', 'a-run-2.html', 'a-run-3.html']
    """
    taken: set[str] = set()
    made = []
    for name in names:
        stem = re.sub(r"[^\w.-]+", "-", name).strip("-._")[:80] or "run"
        unique, number = stem, 1
        while unique.lower() in taken:
            number += 1
            unique = f"{stem}-{number}"
        taken.add(unique.lower())
        made.append(f"{unique}.html")
    return made
