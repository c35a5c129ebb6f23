"""no_validation: nothing held out was scored often enough (information, never an alarm; E11)."""

from __future__ import annotations

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.diagnosis.changes import recipe_value
from wellfit.monitor.history import History
from wellfit.records import Cause, Change, Finding


def no_validation(history: History) -> list[Finding] | NotAssessed:
    """A history → information where no evaluation set was scored at two steps or more."""
    counts = [len(curves.finite(series)[1]) for series in history.validation_loss.values()]
    most = max(counts, default=0)
    if most >= 2:
        return []
    steps, _ = curves.finite(history.train_loss)
    change = _score_more(history, int(steps[-1])) if len(steps) else None
    if most == 0:
        seen, why = "the log holds no validation loss.", "no evaluation during training is seen"
    else:
        seen = "the validation loss was measured once; that shows no course."
        why = "the evaluations lie further apart than the run is long"
    return [
        Finding(
            kind="no_validation",
            severity="info",
            certainty="certain",
            since_step=None,
            evidence=(f"For: {seen}", "So nothing can be said about overfitting."),
            causes=(Cause("E11", 1.0, why),),
            change=change,
        )
    ]


def _score_more(history: History, done: int) -> Change | None:
    """Ten evaluations over the whole run; None where the recipe plans as many already."""
    every = max(1, max(done, history.context.planned_steps or 0) // 10)
    planned = recipe_value(history, "evaluate.every")
    if isinstance(planned, int | float) and 0 < planned <= every:
        return None
    return Change(
        f"Score held-out data every {every:,} steps: about ten times over the run.",
        {"evaluate.every": every},
    )
