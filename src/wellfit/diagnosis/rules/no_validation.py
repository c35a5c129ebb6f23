"""no_validation: nothing held out was scored often enough (information, never an alarm; E11)."""

from __future__ import annotations

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.monitor.history import History
from wellfit.records import Cause, Change, Finding


def no_validation(history: History) -> list[Finding] | NotAssessed:
    """A history → information where no evaluation set was scored at two steps or more."""
    counts = [len(curves.finite(series)[1]) for series in history.validation_loss.values()]
    most = max(counts, default=0)
    if most >= 2:
        return []
    steps, _ = curves.finite(history.train_loss)
    patch = {"evaluate.every": max(1, int(steps[-1]) // 10)} if len(steps) else {}
    return [
        Finding(
            kind="no_validation",
            severity="info",
            certainty="certain",
            since_step=None,
            evidence=(
                "For: the log holds no validation loss."
                if most == 0
                else "For: the validation loss was measured once; that shows no course.",
                "So nothing can be said about overfitting.",
            ),
            causes=(Cause("E11", 1.0, "no evaluation during training is configured"),),
            change=Change("Score held-out data about ten times during training.", patch),
        )
    ]
