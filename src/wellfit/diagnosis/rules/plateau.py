"""plateau: the loss rests where a model that learned nothing would rest (O24, D01, O16, A13)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.diagnosis.changes import scale_rate
from wellfit.monitor.history import History, Series
from wellfit.records import Cause, Change, Finding

FEWEST = 8
"""Losses below which flat and slow cannot be told apart."""
UNIFORM = 0.97
"""Share of ln(vocabulary) from which a model still guesses uniformly."""
CONTEXT_UNUSED = 0.75
"""Share of ln(vocabulary) that even the frequency of tokens alone goes below: 0.57 to 0.70 for
bytes and byte-pair vocabularies of 256 to 50,257 entries on text and code."""
FLAT = 0.01
"""A fall under 1 % of the loss is none."""
SINCE_THEN = 0.02
"""Fall after the first twentieth that is none beside a chance level."""
BARELY = 0.03
"""A training loss that fell by less than 3 % in all learned nothing worth a name."""
BARELY_VALIDATED = 0.05
"""The same for a validation loss, whose first value is a single noisy one."""
LOWEST_CHANCE = 0.96 * float(np.log(2))
"""Chance between two classes, the lowest chance level there is: below it, flat means nothing."""
HIGH = 7.0
"""Nats: uniform over 1,100 entries; no trained language model rests there."""
RESTS = 5.0
"""Nats: what the frequencies of pairs of tokens reach with tens of thousands of entries. A model
of language that learns nothing below it learns no language."""
EARLY = 0.15
"""Share of the run by which such a loss has come to rest; a learning curve bends later."""
CLASSES = (2, 3, 4)
"""Numbers of classes whose chance levels ln k lie far enough apart to be recognised."""


@dataclass(frozen=True, slots=True)
class Course:
    """How a loss moved, in `scaled` units."""

    end: float
    """Level of the last half, in nats."""
    flat: bool
    """The last half does not fall."""
    never: bool
    """Nothing falls after the first twentieth, and hardly anything in it."""
    fall: float
    """Whole fall from the first level to the end."""
    fell: float
    """The same as a share of the first loss."""


def plateau(history: History) -> list[Finding] | NotAssessed:
    """A history → a finding where the loss is flat at a level that shows nothing was learned.

    Fires where the vocabulary is known and the last half lies flat above 0.97·ln(vocabulary)
    (uniform guesses: critical) or, for training from scratch, above 0.75 (the context is not
    used: warning); and, vocabulary or not, where nothing fell since the first twentieth of the
    run and the level is that of chance: ln 2, ln 3, ln 4 (up to 4 %
    below, as unequal classes have it), or above 7 nats; or where training and validation loss came
    to rest above 5 nats in the first 15 % of the run. Flat from
    the start elsewhere above ln 2 is information. A loss that fell and then rests is converged,
    not a plateau; one below ln 2 shows a model that knows something. The unigram entropy of the
    targets would settle the range between. Causes: O24, D01, O16, A13, O03.
    """
    if not curves.loss_is_likelihood(history):
        return NotAssessed(
            "plateau", "This loss is no likelihood.", "the reward of reinforcement learning"
        )
    _, losses = curves.finite(history.train_loss)
    if len(losses) < FEWEST:
        return NotAssessed(
            "plateau",
            f"{len(losses)} training losses do not tell flat from slow.",
            f"at least {FEWEST} training losses",
        )
    if curves.rate_is_zero(history) or not np.any(losses):
        return []
    course = read_course(history)
    since = int(curves.finite(history.train_loss)[0][0])
    vocabulary = history.context.vocabulary_size
    if vocabulary and vocabulary > 1:
        return _against_vocabulary(history, course, float(np.log(vocabulary)), since)
    rest = _rests_high(history, course)
    if rest is not None:
        return [_finding(history, course, since, f"a high rest since step {rest:,}", "warning")]
    if not course.never or course.end < LOWEST_CHANCE:
        return []
    chance = [k for k in CLASSES if -0.04 <= course.end / float(np.log(k)) - 1 <= 0.02]
    if chance or course.end >= HIGH:
        level = f"ln {chance[0]} = {np.log(chance[0]):.3f}" if chance else "7 nats and more"
        return [_finding(history, course, since, f"chance ({level})", "warning")]
    if course.fall >= SINCE_THEN:
        return []
    return [_finding(history, course, since, "where it began", "info")]


def read_course(history: History) -> Course:
    """A history with training losses → how they moved; the validation loss has a say in `never`."""
    levels = curves.levels(history.train_loss)
    assert levels is not None
    level, noise = levels.level, levels.noise
    half = len(level) // 2
    quarter = max(1, half // 2)
    third, fourth = level[-2 * quarter : -quarter], level[-quarter:]
    error = noise * np.sqrt(2 / quarter)
    flat = float(np.mean(third) - np.mean(fourth)) < max(FLAT, 2 * float(error))
    end = float(np.median(level[-half:]))
    rest = level[1 : 1 + quarter]
    since_then = float(np.mean(rest) - np.mean(fourth))
    fall = float(level[0] - end)
    never = (
        flat
        and fall < BARELY
        and since_then < max(SINCE_THEN, 2 * float(error))
        and _validation_fall(history) < BARELY_VALIDATED
    )
    return Course(curves.unscaled(end), flat, never, fall, -curves.change(float(level[0]), end))


def _rests_high(history: History, course: Course) -> int | None:
    """The step since which training and validation loss rest above 5 nats; None elsewhere."""
    levels = curves.levels(history.train_loss)
    assert levels is not None
    scored, losses = curves.finite(history.validation_loss.get("validation", Series()))
    first = round(EARLY * len(levels.level))
    if not course.flat or len(losses) < 2 or len(levels.level) < 2 / EARLY or course.never:
        return None
    level = levels.level[first:]
    fell = float(np.mean(level[:3]) - np.mean(level[-3:]))
    later = losses[scored > levels.last_step[first]]
    if len(later) < 2 or min(course.end, float(later[-1])) < RESTS:
        return None
    validated = float(curves.scaled(later[:1])[0] - curves.scaled(later[-1:])[0])
    return int(levels.first_step[first]) if max(fell, validated) < FLAT else None


def _validation_fall(history: History) -> float:
    main = history.validation_loss.get("validation", Series())
    _, losses = curves.finite(main)
    if len(losses) < 2:
        return 0.0
    logs = curves.scaled(losses)
    return float(logs[0] - np.median(logs[-3:]))


def _against_vocabulary(
    history: History, course: Course, uniform: float, since: int
) -> list[Finding] | NotAssessed:
    share = course.end / uniform
    words = f"{share:.0%} of ln(vocabulary) = {uniform:.3f}"
    if course.flat and share >= UNIFORM:
        return [_finding(history, course, since, f"uniform guesses ({words})", "critical")]
    _, losses = curves.finite(history.train_loss)
    scratch = history.context.from_scratch
    if scratch is None:
        scratch = float(losses[0]) >= 0.85 * uniform
    if course.flat and scratch and share >= CONTEXT_UNUSED:
        return [_finding(history, course, since, f"token frequencies ({words})", "warning")]
    if course.flat and scratch and share >= 0.55:
        return NotAssessed(
            "plateau",
            f"The loss is flat at {course.end:.3g} nats, {words}: token frequencies alone reach "
            "that in some corpora.",
            "the unigram entropy of the training targets",
        )
    if course.never and course.end >= LOWEST_CHANCE and course.fall < SINCE_THEN:
        return [_finding(history, course, since, "where it began", "info")]
    return []


def _finding(history: History, course: Course, since: int, level: str, severity: str) -> Finding:
    alarm = severity != "info"
    evidence = [
        f"For: the last half of the run is flat near {course.end:.4g} nats, the level of {level}.",
        f"{'For' if course.fall < BARELY else 'Against'}: from first to last the loss fell by "
        f"{course.fell:.1%}.",
    ]
    rate = curves.peak_rate(history)
    if rate is not None:
        evidence.append(f"Against a stopped optimizer: the rate went up to {rate:.3g}.")
    if not alarm:
        evidence.append("Against a fault: a model that is already trained looks the same.")
    _, norms = curves.finite(history.grad_norm)
    causes = [
        Cause("D01", 0.35, "labels do not belong to their inputs"),
        Cause("O16", 0.3, "the weights that matter are not in the optimizer, or frozen (A13)"),
        Cause("O24", 0.25, "the model cannot use the context"),
    ]
    if len(norms) >= 8 and curves.middle(norms[-len(norms) // 3 :]) / 10 >= curves.middle(
        norms[:3]
    ):
        causes.insert(0, Cause("O01", 0.5, "gradients grew tenfold: the rate is too high"))
        change = scale_rate(history, 1 / 10, "gradients grow while nothing is learned.")
    else:
        causes.append(Cause("O03", 0.2, "the rate is too small to move the weights"))
        change = Change(
            "Train on one single batch until its loss is near 0: if it cannot get there, the "
            "model or the optimizer is at fault; if it can, look at the data.",
            {"train.budget": {"steps": 200}},
        )
    return Finding(
        kind="plateau",
        severity="critical" if severity == "critical" else "warning" if alarm else "info",
        certainty="likely" if severity == "critical" else "possible",
        since_step=since,
        evidence=tuple(evidence),
        causes=tuple(causes),
        change=change if alarm else None,
    )
