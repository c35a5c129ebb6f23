"""The evaluations so far in; whether to stop before the budget is spent, and why, out.

Pure functions of the list of scores, which every checkpoint holds: a resumed training stops where
the undisturbed one did.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from wellfit.recipe import score_names
from wellfit.training.retention import Score

if TYPE_CHECKING:
    from wellfit.recipe import schema

GRANTED = 2.0
"""Standard errors by which an improvement may be larger than it looks."""


def is_on(section: schema.StopEarly) -> bool:
    """The recipe's `train.stop_early` in; whether it can stop anything out."""
    return bool(section.patience or section.convergence)


def reason_to_stop(section: schema.StopEarly, scores: Sequence[Score], by: str) -> str:
    """`train.stop_early`, the scores in the order of their steps, and `train.best_by` in.

    Why to stop now, as a clause for a person, or nothing, out.

    >>> from wellfit.recipe.schema import StopEarly
    >>> losses = [3.0, 2.0, 2.1, 1.999]
    >>> scores = [Score(10 * n, "validation.loss", loss) for n, loss in enumerate(losses, 1)]
    >>> reason_to_stop(StopEarly(patience=2, min_delta=0.01), scores, "validation.loss")
    'no validation.loss better than 2 (step 20) by 0.01 in 2 evaluations'
    """
    newest = {score.step: score for score in scores if score.by == by}
    rising = [newest[step] for step in sorted(newest)]
    return _out_of_patience(section, rising, by) or _converged(section, rising, by)


def _out_of_patience(section: schema.StopEarly, scores: Sequence[Score], by: str) -> str:
    sign = 1 if score_names.parse(by).lower_is_better else -1
    best: Score | None = None
    waited = 0
    for score in scores:
        # Not finite is no improvement; what came before the first finite score is not held
        # against the training, but it is waited for no longer than for any other.
        better = math.isfinite(score.value) and (
            best is None
            or (
                sign * (best.value - score.value) >= section.min_delta
                and sign * (best.value - score.value) > 0
            )
        )
        if better:
            best, waited = score, 0
        else:
            waited += 1
    if not section.patience or waited < section.patience:
        return ""
    counted = "1 evaluation" if waited == 1 else f"{waited} evaluations"
    if best is None:
        return f"no finite {by} in {counted}"
    by_much = f" by {section.min_delta:g}" if section.min_delta else ""
    return f"no {by} better than {best.value:.6g} (step {best.step}){by_much} in {counted}"


def _converged(section: schema.StopEarly, scores: Sequence[Score], by: str) -> str:
    if not section.convergence or len(scores) < section.window:
        return ""
    newest = scores[-section.window :]
    if not all(math.isfinite(score.value) for score in newest):
        return ""
    sign = 1 if score_names.parse(by).lower_is_better else -1
    gain, error = improvement([score.step for score in newest], [s.value for s in newest], sign)
    scale = abs(newest[-1].value)
    if gain + GRANTED * error >= section.convergence * scale:
        return ""
    share, doubt = gain / scale, GRANTED * error / scale
    return (
        f"{by} improved by {share:.3%} (± {doubt:.3%}) over the last {section.window} "
        f"evaluations, less than {section.convergence:.3%}"
    )


def improvement(steps: Sequence[int], values: Sequence[float], sign: int) -> tuple[float, float]:
    """Steps, scores [k ≥ 3] and 1 (lower is better) or -1 in; the gain over them and its error.

    The gain is that of the straight line of least squares from the first step to the last, in the
    score's unit; its standard error follows from the scatter about the line. The standard errors
    over documents do not enter: every evaluation scores the same documents, so what they share
    cancels in a difference.

    >>> improvement([10, 20, 30], [3.0, 2.5, 2.0], 1)
    (1.0, 0.0)
    """
    count = len(steps)
    mean_step, mean_value = sum(steps) / count, math.fsum(values) / count
    away = [step - mean_step for step in steps]
    spread = math.fsum(x * x for x in away)
    slope = (
        math.fsum(x * (value - mean_value) for x, value in zip(away, values, strict=True)) / spread
    )
    scatter = math.fsum(
        (value - mean_value - slope * x) ** 2 for x, value in zip(away, values, strict=True)
    )
    length = steps[-1] - steps[0]
    error = math.sqrt(scatter / (count - 2) / spread)
    return -sign * slope * length, error * length
