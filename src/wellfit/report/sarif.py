"""Diagnoses → a SARIF 2.1.0 document, the format in which tools hand findings to a CI.

The standard: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wellfit.report.html import readable
from wellfit.report.words import changes_of, finding_name, ranked, since_words, texts

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {"info": "note", "warning": "warning", "critical": "error"}
PROPERTIES = ("kind", "certainty", "since_step", "causes")


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """What the document needs of a run."""

    path: str
    """As the user gave it; `-` is standard input."""
    name: str
    diagnosis: dict[str, Any]
    """The JSON of its diagnosis."""
    axis: str = "step"


def sarif_document(
    runs: Sequence[Diagnosed],
    *,
    version: str,
    kinds: Iterable[str] = (),
    unreadable: Sequence[tuple[str, str]] = (),
    home: Path | None = None,
) -> dict[str, Any]:
    """Diagnosed runs → one SARIF document; a finding is a result, its kind the rule.

    `kinds` are those that were looked for, `unreadable` holds (path, message) of logs that could
    not be read. Paths below `home` (the working folder) become relative to it.
    """
    home = home or Path.cwd()
    found = {str(f.get("kind")) for run in runs for f in ranked(run.diagnosis)}
    known = sorted(found | set(kinds))
    results = [
        _result(finding, run, known, home) for run in runs for finding in ranked(run.diagnosis)
    ]
    notifications = [
        {"level": "error", "message": {"text": _text(what)}, "locations": [_location(path, home)]}
        for path, what in unreadable
    ]
    invocation = {
        "executionSuccessful": not notifications,
        "toolExecutionNotifications": notifications,
    }
    driver = {
        "name": "wellfit",
        "version": version,
        "semanticVersion": version,
        "rules": [_rule(kind) for kind in known],
    }
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "columnKind": "unicodeCodePoints",
                "invocations": [invocation],
                "results": results,
            }
        ],
    }


def artifact_uri(path: str, home: Path) -> str:
    """A path as given → a URI: relative below `home` or where it was relative, else `file:`.

    >>> artifact_uri("runs/my run/log.csv", Path("/ci")), artifact_uri("/ci/a.json", Path("/ci"))
    ('runs/my%20run/log.csv', 'a.json')
    >>> artifact_uri("/tmp/a.json", Path("/ci")), artifact_uri("-", Path("/ci"))
    ('file:///tmp/a.json', 'stdin')
    """
    if path == "-":
        return "stdin"
    given = Path(path)
    if given.is_absolute():
        if not given.is_relative_to(home):
            return f"file:///{_quoted(given)}"
        given = given.relative_to(home)
    # A colon in the first part would read as a scheme, such as `C:` or `run:2`.
    return _quoted(given)


def _quoted(path: Path) -> str:
    """A path → the same with everything quoted that means something else in a URI."""
    # Only absolute paths can be asked for their URI; `..` stays as it is.
    return Path("/", path).as_uri().removeprefix("file:///")


def _rule(kind: str) -> dict[str, Any]:
    name = finding_name(kind)
    return {
        "id": kind,
        "name": "".join(part.capitalize() for part in re.split(r"\W|_", kind)) or "Finding",
        "shortDescription": {"text": _text(f"{name}.")},
        "help": {
            "text": _text(
                f"{name}. The message of a result holds its evidence and the change to make; its "
                "properties hold how sure it is and the causes by likelihood. `wellfit diagnose` "
                "on the log prints them beside its curves."
            )
        },
    }


def _result(
    finding: dict[str, Any], run: Diagnosed, known: list[str], home: Path
) -> dict[str, Any]:
    kind = str(finding.get("kind"))
    evidence = [_sentence(line) for line in texts(finding.get("evidence"))]
    change, _ = changes_of(finding)
    parts = [f"{finding_name(kind)}{since_words(finding, run.axis)}.", *evidence]
    if change:
        parts.append(f"Change: {change}")
    return {
        "ruleId": kind,
        "ruleIndex": known.index(kind),
        "level": LEVELS.get(str(finding.get("severity")), "none"),
        "message": {"text": _text(f"{run.name}: {' '.join(parts)}")},
        "locations": [_location(run.path, home)],
        "properties": {key: finding.get(key) for key in PROPERTIES} | {"run": run.name},
    }


def _location(path: str, home: Path) -> dict[str, Any]:
    # A finding is about the log as a whole. Viewers put it at a line all the same: the first.
    return {
        "physicalLocation": {
            "artifactLocation": {"uri": artifact_uri(path, home)},
            "region": {"startLine": 1},
        }
    }


def _sentence(line: str) -> str:
    return line if line.endswith((".", "!", "?")) else f"{line}."


def _text(text: str) -> str:
    return readable(text)
