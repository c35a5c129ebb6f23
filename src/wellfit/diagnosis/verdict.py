"""A history and its findings → the verdict, with its criteria in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import Fit, Progress, Verdict
from wellfit.diagnosis.curves import Trend
from wellfit.diagnosis.longer import cooled_down, gain_apart_from_cooldown, last_full_step
from wellfit.diagnosis.rules.plateau import LOWEST_CHANCE, SINCE_THEN, read_course
from wellfit.monitor.history import History, Series
from wellfit.records import Finding

FEWEST_LOSSES = 8
FEWEST_EVALUATIONS = 3
WORTH = 0.02
"""FAULTS O30: a further fall of 2 % in another fifth of the run is worth the steps."""
WORTH_NATS = 0.005
"""And half a per cent of perplexity, for losses near zero."""
FALLING = 0.995
"""The last evaluation still falls where it is half a per cent below those before."""
SIGNIFICANT = 3.0
"""Standard errors that a trend must pass."""
_TOO_LITTLE = f"less than {WORTH:.0%} or not significant"
STUCK = (
    "non_finite",
    "zero_loss",
    "divergence",
    "lr_too_high",
    "gradient_explosion",
    "vanishing_gradient",
    "plateau",
    "lr_too_low",
)
"""Kinds that stop learning when they are an alarm and last to the end."""


def judge(history: History, findings: Sequence[Finding]) -> tuple[Verdict, dict[str, str]]:
    """A history and its findings → the verdict and why, as `{"fit": …, "progress": …}`."""
    progress, why_progress = _progress(history, findings)
    fit, why_fit = _fit(history, findings, progress)
    return Verdict(fit, progress), {"fit": why_fit, "progress": why_progress}


def _progress(history: History, findings: Sequence[Finding]) -> tuple[Progress, str]:
    stopped = [f.kind for f in findings if f.kind in STUCK and _stops(f)]
    if stopped:
        return "stuck", f"{', '.join(stopped)}: no learning at the end of the log"
    _, losses = curves.finite(history.train_loss)
    if not curves.loss_is_likelihood(history):
        return "unclear", "the loss of reinforcement learning shows no progress; the reward would"
    if len(losses) < FEWEST_LOSSES and len(_evaluations(history)) < FEWEST_LOSSES:
        return "unclear", f"fewer than {FEWEST_LOSSES} losses"
    if cooled_down(history):
        return _apart_from_cooldown(history)
    name, series = _witness(history)
    trend = curves.trend(series)
    if trend is None:
        return "unclear", "fewer than four losses in the last fifth"
    if name == "validation" and trend.gain > WORTH and not _worth_it(trend):
        # Few evaluations scatter; the many training losses say whether their fall is real.
        trained = curves.trend(history.train_loss)
        if trained is not None and _worth_it(trained):
            name, trend = "training", trained
    gain = f"another fifth of the run would lower the {name} loss by {_told(trend)}"
    if _worth_it(trend):
        return "still_improving", gain
    if len(losses) >= FEWEST_LOSSES:
        course = read_course(history)
        if course.never and course.end >= LOWEST_CHANCE and course.fall < SINCE_THEN:
            return "stuck", "the loss never left the level it began at"
    return "converged", f"{gain}, {_TOO_LITTLE}"


def _apart_from_cooldown(history: History) -> tuple[Progress, str]:
    """A history whose rate came down → whether a longer run would bring more.

    The last fifth cannot tell: there the loss falls because the rate does (a linear end), or
    rests because hardly any rate is left (a cosine's).
    """
    trend = gain_apart_from_cooldown(history)
    if trend is None:
        last = curves.trend(_witness(history)[1])
        if last is not None and not _worth_it(last):
            return "converged", "the loss came to rest while the rate came down"
        return "unclear", (
            "the loss fell while the rate came down, and too few losses before that tell what "
            "a longer run would bring"
        )
    gain = f"apart from its cooldown, a run a fifth longer would end {_told(trend)} lower"
    if _worth_it(trend):
        return "still_improving", gain
    return "converged", f"{gain}, {_TOO_LITTLE}"


def promised(history: History) -> Trend | None:
    """What a run a fifth longer would gain, as the verdict reads it; None where it cannot tell."""
    if cooled_down(history):
        return gain_apart_from_cooldown(history)
    return curves.trend(_witness(history)[1])


def _worth_it(trend: Trend) -> bool:
    nats = trend.gain * (trend.level + curves.FLOOR)
    return trend.gain > max(WORTH, SIGNIFICANT * trend.error) and nats > WORTH_NATS


def _told(trend: Trend) -> str:
    return f"{trend.gain:.1%} (± {trend.error:.1%})"


def _fit(history: History, findings: Sequence[Finding], progress: Progress) -> tuple[Fit, str]:
    kinds = {finding.kind for finding in findings if finding.severity != "info"}
    if "overfitting" in kinds:
        return "overfit", "the validation loss rises beyond its noise while the training loss falls"
    if "generalisation_gap" in kinds:
        return "overfit", "the training loss falls on, the validation loss has come to rest"
    if "memorisation" in kinds and len(_evaluations(history)) >= FEWEST_EVALUATIONS:
        return "overfit", "the training loss falls where texts come again, the validation loss not"
    if progress == "stuck":
        if kinds & {"non_finite"}:
            return "unclear", "the losses are no numbers"
        if kinds & {"zero_loss"}:
            return "unclear", "a loss of exactly 0 measures nothing"
        return "underfit", "learning stopped before the data was learned"
    evaluations = _evaluations(history)
    if len(evaluations) < FEWEST_EVALUATIONS:
        suspected = "memorisation is suspected, and " if "memorisation" in kinds else ""
        return "unclear", f"{suspected}fewer than {FEWEST_EVALUATIONS} validation losses"
    if progress == "unclear":
        return "unclear", "whether a longer run would help is unclear"
    if progress == "still_improving":
        if not longer_helps(history):
            return "well_fit", "the training loss still falls, the validation loss has come to rest"
        if not _falls_at_the_end(history):
            return (
                "well_fit",
                "the losses came to rest with the rate; a longer run may still help",
            )
        return "underfit", "the loss still falls, and the last evaluation is the best one"
    return "well_fit", "the validation loss does not rise, and a fifth more steps promise little"


def _falls_at_the_end(history: History) -> bool:
    """FAULTS O30 asks to see the fall: without it a run whose rate came down ended as it should."""
    last = curves.trend(_witness(history)[1])
    return last is not None and _worth_it(last)


def longer_helps(history: History) -> bool:
    """Whether the validation loss fell to the end, or through the cooldown; False where unknown.

    What a longer run teaches beyond that is the training text, not the language.
    """
    main = history.validation_loss.get("validation", Series())
    steps, losses = curves.finite(main)
    if len(losses) < FEWEST_EVALUATIONS:
        return False
    full = last_full_step(history) if cooled_down(history) else None
    if full is not None and np.any(steps[:-1] <= full):
        before = losses[:-1][steps[:-1] <= full]
        # At the end of a cosine nothing moves: the last one need not be the lowest by itself.
        return bool(losses[-1] < FALLING * before.min() and losses[-1] <= losses.min() / FALLING)
    return bool(losses[-1] < FALLING * losses[:-1].min())


def _stops(finding: Finding) -> bool:
    if finding.kind in ("non_finite", "lr_too_high"):
        return finding.severity == "critical"
    if finding.kind == "lr_too_low":
        return finding.certainty == "certain" and finding.severity == "critical"
    return finding.severity != "info"


def _evaluations(history: History) -> list[float]:
    main = history.validation_loss.get("validation", Series())
    return [float(value) for value in curves.finite(main)[1]]


def _witness(history: History) -> tuple[str, Series]:
    """The validation loss where it was measured four times or more, else the training loss."""
    if len(_evaluations(history)) >= 4:
        return "validation", history.validation_loss["validation"]
    return "training", history.train_loss
