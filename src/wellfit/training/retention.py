"""Steps and scores in; which checkpoints are the best, which are worth writing, which may go.

Pure functions of what is written in a checkpoint and which folders stand, so that a resumed
training decides as the undisturbed one did; no file times are asked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from wellfit.errors import RunError
from wellfit.recipe import score_names
from wellfit.records import Evaluated


@dataclass(frozen=True, slots=True)
class Score:
    """What an evaluation found at a step, by the one score that decides."""

    step: int
    by: str
    """Which score, as in `train.best_by`: a changed setting finds none of the old kind."""
    value: float


def score_of(record: Evaluated, by: str) -> Score | None:
    """An evaluation and `train.best_by` in; its score, or None where it is of another split.

    Raises RunError where the split has no such domain.
    """
    named = score_names.parse(by)
    if record.split != named.split:
        return None
    if not named.domain:
        return Score(record.step, by, _known(getattr(record, named.score), by))
    if named.domain not in record.by_domain:
        raise RunError(
            f"the {named.split} split has no domain {named.domain!r}, only "
            + (", ".join(sorted(record.by_domain)) or "none at all"),
            where=f"train.best_by = {by}",
            way_out="Name one of those, or validation.loss for all of them, and resume.",
        )
    return Score(record.step, by, _known(record.by_domain[named.domain][named.score], by))


def _known(value: float | None, by: str) -> float:
    if value is None:
        raise RunError(
            "the score is unknown here: no tokenizer tells the bytes of the tokens",
            where=f"train.best_by = {by}",
            way_out="Choose by validation.loss, or name data.tokens.tokenizer.",
        )
    return float(value)


def refuse_without_scores(*, keep_best: int, stops_early: bool, evaluates: bool) -> None:
    """What a recipe asks for, and whether anything is evaluated, in; raises RunError if in vain."""
    if evaluates or not (keep_best or stops_early):
        return
    raise RunError(
        "nothing is held out for validation, so no score can tell which checkpoint is best or "
        "when to stop",
        where="train.keep_best" if keep_best else "train.stop_early",
        way_out="Hold some out by data.split.validation (of ready tokens and of examples by their "
        "validation_share) and build the corpus again, or turn it off.",
    )


def ranked(scores: Iterable[Score], by: str) -> list[Score]:
    """Scores in any order in; those of this kind out, best first; the earlier of equal ones first.

    A step scored twice counts by its later score. Scores that are not finite are never the best,
    and are left out.

    >>> found = [Score(1, "validation.loss", 3.0), Score(2, "validation.loss", float("nan")),
    ...          Score(3, "validation.loss", 2.0)]
    >>> [score.step for score in ranked(found, "validation.loss")]
    [3, 1]
    """
    sign = 1 if score_names.parse(by).lower_is_better else -1
    newest = {score.step: score for score in scores if score.by == by}
    return sorted(
        (score for score in newest.values() if math.isfinite(score.value)),
        key=lambda score: (sign * score.value, score.step),
    )


def best(steps: Iterable[int], scores: Iterable[Score], by: str) -> Score | None:
    """The steps of the checkpoints that stand, and scores, in; the best of them, or None, out."""
    standing = set(steps)
    return next((score for score in ranked(scores, by) if score.step in standing), None)


def worth_saving(
    step: int, scores: Sequence[Score], steps: Iterable[int], *, keep_best: int, by: str
) -> bool:
    """A step just evaluated in; whether its checkpoint would be one of the best `keep_best`.

    `steps` are those of the checkpoints that stand or are being written.

    >>> scores = [Score(10, "validation.loss", 2.5), Score(20, "validation.loss", 2.6)]
    >>> worth_saving(20, scores, [10], keep_best=1, by="validation.loss")
    False
    >>> worth_saving(20, scores, [10], keep_best=2, by="validation.loss")
    True
    """
    standing = {*steps, step}
    order = [score.step for score in ranked(scores, by) if score.step in standing]
    return step in order[:keep_best]


def to_remove(
    steps: Iterable[int], scores: Iterable[Score], *, keep_last: int, keep_best: int, by: str
) -> list[int]:
    """The steps of the checkpoints that stand, and scores, in; those that may go, rising, out.

    The newest `keep_last` (at least one) stay, and the `keep_best` with the best scores.

    >>> scores = [Score(10, "validation.loss", 2.5), Score(20, "validation.loss", 2.6)]
    >>> to_remove([10, 15, 20, 25, 30], scores, keep_last=2, keep_best=1, by="validation.loss")
    [15, 20]
    """
    standing = sorted(set(steps))
    order = [score.step for score in ranked(scores, by) if score.step in set(standing)]
    stay = {*standing[-max(keep_last, 1) :], *order[:keep_best]}
    return [step for step in standing if step not in stay]
