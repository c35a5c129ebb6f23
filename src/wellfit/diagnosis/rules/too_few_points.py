"""too_few_points: the log is too short to judge (information, never an alarm)."""

from __future__ import annotations

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.monitor.history import History
from wellfit.records import Change, Finding

FEWEST = 8
"""Two quarters of two points each, twice: the least that shows a level and its scatter."""


def too_few_points(history: History) -> list[Finding] | NotAssessed:
    """A history → information where it holds fewer than eight finite training losses."""
    steps, losses = curves.finite(history.train_loss)
    if len(losses) >= FEWEST:
        return []
    evaluations = sum(len(curves.finite(s)[1]) for s in history.validation_loss.values())
    return [
        Finding(
            kind="too_few_points",
            severity="info",
            certainty="certain",
            since_step=int(steps[0]) if len(steps) else None,
            evidence=(
                f"For: {len(losses)} training losses are numbers; {FEWEST} are the least that "
                "show a level and its scatter.",
                f"Beside them stand {evaluations} validation losses.",
            ),
            change=_change(history, int(steps[-1]) if len(steps) else 0),
        )
    ]


def _change(history: History, done: int) -> Change | None:
    """A run that logs every step is short, not badly logged; one that still runs has time."""
    if history.status == "running":
        return None
    if done < 2 * FEWEST:
        return Change(f"Train for more than {done} steps.", {"train.budget": {"steps": 200}})
    return Change("Log the training loss more often; once a step costs nothing.")
