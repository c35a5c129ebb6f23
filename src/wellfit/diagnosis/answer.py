"""What a diagnosis is: a verdict, a summary, findings, and what could not be judged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from wellfit.monitor.history import History
from wellfit.records import Finding

Fit = Literal["underfit", "overfit", "well_fit", "unclear"]
Progress = Literal["converged", "still_improving", "stuck", "unclear"]


@dataclass(frozen=True, slots=True)
class NotAssessed:
    """A question the history cannot answer: what, why, and the signal that would decide it."""

    what: str
    why: str
    needs: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How well the run fits and whether it still gets better; `unclear` where it cannot be told."""

    fit: Fit
    progress: Progress


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The answer about one run."""

    verdict: Verdict
    summary: dict[str, Any]
    """Figures of the run, and `criteria`: why the verdict is what it is, in words."""
    findings: tuple[Finding, ...] = ()
    """The worst first."""
    not_assessed: tuple[NotAssessed, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as values that strict JSON can hold; non-finite numbers become words.

        Keys: `verdict` {fit, progress}, `summary`, `findings`, `not_assessed`.
        """
        plain = _strict(asdict(self))
        assert isinstance(plain, dict)
        return plain


Rule = Callable[[History], list[Finding] | NotAssessed]
"""A pure function: a history → its findings (none is an answer too), or why it cannot judge."""


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
