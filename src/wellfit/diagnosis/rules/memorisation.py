"""memorisation: the training loss steps down where texts come again (D22, D28)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.diagnosis.changes import FRESH, fewer_epochs
from wellfit.diagnosis.curves import Array
from wellfit.monitor.history import History, Series
from wellfit.records import Cause, Finding

STEP = 0.03
"""A border under 3 % of the loss is not told from chance or from the course."""
ERRORS = 4.0
"""Standard errors that a step must exceed the course by; a run has a handful of borders."""
LARGE = 0.2
"""One step of a fifth: five times what a second pass over fresh-like text brings."""
TOGETHER = 0.4
"""All steps together: from here on most of what was learned is the text, not the language."""
PER_QUARTER = 2
"""Losses in each quarter of an epoch beside a border, the least that show a level."""
BY_HEART = 0.2
"""Nats: 1.2 choices a token. Text that is not known by heart needs several times as much."""
SEEN_OFTEN = 10.0
"""Passes from which a loss by heart is read as memorised (more than twice `FRESH`)."""
NOT_A_CHOICE = 1.5
"""Nats at the start: more than a choice among four classes, so the loss is one of tokens."""


@dataclass(frozen=True, slots=True)
class Border:
    """What happened where one pass over the data ended and the next began."""

    epoch: int
    step: int
    excess: float
    """Fall at the border beyond the course beside it, in `scaled` units; ≥ 0."""
    before: float
    after: float


def memorisation(history: History) -> list[Finding] | NotAssessed:
    """A history → a finding where the training loss falls because texts are met again.

    *Staircase*: at epoch borders the loss drops by more than the course on both sides explains
    (four standard errors, 3 %), and the levels of whole epochs fall with it (ordered data would
    jump without that). One step ≥ 20 %, or all ≥ 40 % together, is a warning where no validation
    loss fell with them; else information. *By heart*: without validation, ten passes or more that
    end below 0.2 nats from a loss of tokens. Causes: D22, D04, D28.
    """
    if not curves.loss_is_likelihood(history):
        return NotAssessed(
            "memorisation", "This loss is no likelihood.", "the reward of reinforcement learning"
        )
    steps, losses = curves.finite(history.train_loss)
    epochs = _epochs(history, steps)
    if epochs is None or len(losses) < 8:
        return NotAssessed(
            "memorisation", "Where one pass over the data ends is not known.", "epochs in the log"
        )
    borders = _borders(steps, epochs, curves.scaled(losses))
    staircase = _staircase(history, borders, float(epochs[-1])) if borders else None
    if staircase is not None and staircase.severity != "info":
        return [staircase]
    found = _by_heart(history, losses, float(epochs[-1])) or staircase
    return [found] if found else []


def _epochs(history: History, steps: Array) -> Array | None:
    """Passes over the data at each step; None where they are unknown or each row is one."""
    if history.axis == "epoch":
        return None
    at, values = curves.finite(history.epoch)
    if len(at) >= 2 and values[-1] > 0 and np.all(values[1:] >= values[:-1]):
        return np.asarray(np.interp(steps, at, values))
    planned = history.context.planned_epochs
    done = history.context.planned_steps
    if planned and len(steps) and (done or history.status in ("finished", "unknown")):
        return np.asarray(steps * (planned / (done or steps[-1])))
    return None


def _borders(steps: Array, epochs: Array, logs: Array) -> list[Border]:
    found: list[Border] = []
    noise = curves.noise(logs)
    for k in range(1, int(np.ceil(epochs[-1] - 1e-6))):
        quarters = []
        for begin in (-0.5, -0.25, 0.0, 0.25):
            inside = (epochs > k + begin + 1e-6) & (epochs <= k + begin + 0.25 + 1e-6)
            quarters.append(logs[inside])
        if min(map(len, quarters)) < PER_QUARTER:
            continue
        level = [curves.middle(quarter) for quarter in quarters]
        course = max(0.0, 0.5 * (level[0] - level[1] + level[2] - level[3]))
        excess = level[1] - level[2] - course
        # The median of normal values scatters by 1.25 sigma over the root of their number; the
        # course takes part with half the weight of the four.
        error = 1.2533 * noise * np.sqrt(1.5 * float(np.mean([1 / len(q) for q in quarters])) * 2)
        whole = [logs[(epochs > k + a + 1e-6) & (epochs <= k + a + 1 + 1e-6)] for a in (-1.0, 0.0)]
        between = curves.middle(whole[0]) - curves.middle(whole[1])
        if excess < max(STEP, ERRORS * float(error)) or between < 0.5 * excess:
            continue
        first = int(steps[np.flatnonzero(epochs > k + 1e-6)[0]])
        found.append(Border(k, first, excess, level[1], level[2]))
    return found


def _staircase(history: History, found: list[Border], passes: float) -> Finding:
    single = max(1 - float(np.exp(-border.excess)) for border in found)
    together = 1 - float(np.exp(-sum(border.excess for border in found)))
    large = single >= LARGE or together >= TOGETHER
    validation = _validation_fall(history, found[0].step)
    explained = validation is not None and validation >= 0.5 * sum(b.excess for b in found)
    evidence = [
        f"For: at the end of pass {border.epoch} the training loss steps from "
        f"{curves.unscaled(border.before):.4g} to {curves.unscaled(border.after):.4g} "
        f"(step {border.step:,}), beyond its course."
        for border in found[:4]
    ]
    if validation is None:
        evidence.append("No validation loss tells whether unseen text gained as well.")
    elif explained:
        evidence.append("Against: the validation loss fell as much.")
    else:
        evidence.append(
            f"For: since then the validation loss changed by {np.expm1(-validation):+.1%} only."
        )
    if not large:
        evidence.append("Against: the steps are small, as in most runs of a few passes.")
    alarm = large and not explained
    return Finding(
        kind="memorisation",
        severity="warning" if alarm else "info",
        certainty="likely" if alarm and validation is not None else "possible",
        since_step=found[0].step,
        evidence=tuple(evidence),
        causes=(
            Cause("D22", 0.7, f"{passes:.3g} passes over the same texts"),
            Cause("D04", 0.2, "repeated documents add to the passes"),
            Cause("D28", 0.1, "the model may now repeat its training texts word for word"),
        ),
        change=fewer_epochs(history, found[0].epoch, passes) if alarm else None,
    )


def _validation_fall(history: History, since: int) -> float | None:
    """Fall of the main validation loss from `since` to the end (`scaled`); None where unknown."""
    steps, losses = curves.finite(history.validation_loss.get("validation", Series()))
    before, after = losses[steps <= since], losses[steps > since]
    if len(before) == 0 or len(after) == 0:
        return None
    return float(curves.scaled(before)[-1] - curves.middle(curves.scaled(after)[-3:]))


def _by_heart(history: History, losses: Array, passes: float) -> Finding | None:
    if any(len(series) >= 2 for series in history.validation_loss.values()):
        return None
    if history.context.task in ("classification", "preference") or passes < SEEN_OFTEN:
        return None
    first, last = float(np.max(losses[:5])), curves.middle(losses[-max(1, len(losses) // 10) :])
    if first < NOT_A_CHOICE or not 0 < last < BY_HEART:
        return None
    below = np.flatnonzero(losses < BY_HEART)
    return Finding(
        kind="memorisation",
        severity="warning",
        certainty="possible",
        since_step=int(curves.finite(history.train_loss)[0][below[0]]),
        evidence=(
            f"For: after {passes:.3g} passes the training loss is {last:.3g} nats, from "
            f"{first:.3g}: hardly a choice is left at any token.",
            f"For: after about {FRESH:.0f} passes a text teaches little more than itself.",
            "No validation loss tells whether unseen text gained as well.",
            "Against: a task with one right answer, always in the same words, ends as low.",
        ),
        causes=(
            Cause("D22", 0.7, f"{passes:.3g} passes over the same texts"),
            Cause("D04", 0.2, "repeated documents make the data smaller than it looks"),
        ),
        change=fewer_epochs(history, FRESH, passes),
    )
