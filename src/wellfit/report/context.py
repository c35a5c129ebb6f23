"""A diagnosis and its history → what was not known about the run and would have changed the answer.

Context comes from the log or from the user; a sentence stands here only where the answer hangs
on it, so that a sure verdict is not followed by questions.
"""

from __future__ import annotations

from typing import Any

from wellfit.monitor.history import History
from wellfit.report.numbers import figure
from wellfit.report.words import ranked, verdict_of

RESTS_HIGH = 3.0
"""Nats from which on a resting loss may be mere knowledge of how often each token comes: three
quarters of ln 65, the smallest vocabulary in use (single characters)."""
WITHOUT_VOCABULARY = ("classification", "preference", "reinforcement")
"""Tasks whose loss does not compare with the logarithm of a vocabulary."""


def missing_context(diagnosis: dict[str, Any], history: History) -> list[str]:
    """A diagnosis and its history → a sentence for each unknown, with the option that tells it.

    >>> from wellfit.monitor.history import Series
    >>> high = History("a", "CSV", Series((1, 2), (28.0, 16.6)))
    >>> missing_context({"verdict": {"fit": "unclear", "progress": "converged"}}, high)
    ['The size of the vocabulary: `--vocab N` would tell whether a loss that rests at 16.600 has \
learned anything.']
    """
    context, told = history.context, []
    alarms = [str(f.get("kind")) for f in ranked(diagnosis) if f.get("severity") != "info"]
    last = history.train_loss.finite[1][-1:].tolist()
    if (
        context.vocabulary_size is None
        and context.task not in WITHOUT_VOCABULARY
        and verdict_of(diagnosis)[1] in ("converged", "stuck")
        and not set(alarms) - {"plateau", "lr_too_low"}
        and last
        and last[0] >= RESTS_HIGH
    ):
        told.append(
            "The size of the vocabulary: `--vocab N` would tell whether a loss that rests at "
            f"{figure(last[0])} has learned anything."
        )
    # Epochs are laid over the steps that were planned, or over all of the log.
    reaches = history.status in ("finished", "unknown") or context.planned_steps is not None
    unknown = context.planned_epochs is None and not len(history.epoch)
    if reaches and unknown and _asks_for(diagnosis, "epoch"):
        told.append(
            "The passes over the data: with `--epochs E` it is asked whether the model learned "
            "its text by heart."
        )
    if context.task is None and history.format != "run folder" and "memorisation" in alarms:
        told.append(
            "The task: this was judged as language modelling; `--task classification` or "
            "`preference` if it is that, where a loss near 0 is no memorisation."
        )
    return told


def _asks_for(diagnosis: dict[str, Any], word: str) -> bool:
    """Whether something could not be assessed for want of this."""
    entries = diagnosis.get("not_assessed")
    return any(
        isinstance(entry, dict) and word in str(entry.get("needs", ""))
        for entry in (entries if isinstance(entries, (list, tuple)) else ())
    )
