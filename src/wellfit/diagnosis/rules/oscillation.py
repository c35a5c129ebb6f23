"""oscillation: the training loss swings about its course, again and again (O02, D14)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import NotAssessed
from wellfit.diagnosis.changes import scale_rate
from wellfit.diagnosis.curves import Array
from wellfit.monitor.history import History, Series
from wellfit.records import Cause, Change, Finding

FEWEST = 80
"""Losses: sixteen parts of five, the least in which a wave differs from the noise of its parts."""
EVALUATIONS = 6
SCATTER = 0.12
"""Validation sets of a few dozen texts scatter by up to 7 %, and most by far less than 3 %."""
SCATTER_NATS = 0.03
TURNS = 3
"""Times the loss turns from up to down or back."""
PARTS = 40
SWING = 0.08
"""A swing under 8 % to either side of the course is a ripple."""
NOISE = 5.0
"""Standard deviations of one part, from the spread inside the parts."""
SWINGS = 5
"""Half-waves to either side in turn: one bump and its recovery make two or three."""
BEGIN = 0.2
"""The first fifth bends too much to have a course."""
PHASES = 8
"""Parts of an epoch that are compared over all epochs."""
ALIKE = 0.6
"""Correlation of the pattern in odd and in even epochs."""


def oscillation(history: History) -> list[Finding] | NotAssessed:
    """A history → a finding where the training loss swings about a falling course.

    *By epoch*: the same pattern in every pass over the data, ≥ 8 % from its highest to its lowest
    part, alike in odd and even epochs, and more than what the epochs gain: the data come in a
    fixed order (D14). *Waves*: five swings or more, each ≥ 8 % and ≥ 5 standard deviations to the
    other side of the best falling course: steps too large (O02). *Evaluations* that scatter by
    12 % and more about a straight course, six of them (information from 6 %): steps too large, or
    a validation set too small (E01). Scatter from row to row, however
    large, is no oscillation: its parts have one level. Planned restarts of the rate are left
    alone.
    """
    if not curves.loss_is_likelihood(history):
        return NotAssessed(
            "oscillation", "This loss is no likelihood.", "the reward of reinforcement learning"
        )
    steps, losses = curves.finite(history.train_loss)
    swings = _validation(history)
    if swings is not None and swings.severity != "info":
        return [swings]
    if len(losses) < FEWEST:
        if swings is not None:
            return [swings]
        return NotAssessed(
            "oscillation",
            f"{len(losses)} training losses do not tell waves from noise.",
            f"at least {FEWEST} training losses",
        )
    if curves.restarted(history, float(steps[0]), float(steps[-1])):
        return [swings] if swings is not None else []
    logs = curves.scaled(losses)
    found = _by_epoch(history, steps, logs)
    if found is None:
        found = _waves(history, steps, logs) or swings
    return [found] if found else []


def _validation(history: History) -> Finding | None:
    """The scatter of the main validation loss over the last three quarters of the evaluations."""
    steps, losses = curves.finite(history.validation_loss.get("validation", Series()))
    begin = len(losses) // 4
    losses = losses[begin:]
    if len(losses) < EVALUATIONS:
        return None
    scatter = curves.noise(curves.scaled(losses))
    nats = scatter * curves.middle(losses)
    if scatter < SCATTER / 2 or nats < SCATTER_NATS:
        return None
    # A steep course bends between neighbours too, but only ever downwards.
    moves = np.diff(curves.scaled(losses))
    moves = np.sign(moves[np.abs(moves) >= scatter / 2])
    if int(np.sum(moves[1:] != moves[:-1])) < TURNS:
        return None
    if curves.restarted(history, float(steps[begin]), float(steps[-1])):
        return None
    levels = curves.levels(history.train_loss)
    calm = levels is not None and levels.noise < scatter / 3
    return Finding(
        kind="oscillation",
        severity="warning" if scatter >= SCATTER else "info",
        certainty="possible",
        since_step=int(steps[begin]),
        evidence=(
            f"For: from one evaluation to the next the validation loss scatters by {scatter:.0%} "
            f"({nats:.2g} nats).",
            "Against: the levels of the training loss are steady, so the validation set may be "
            "small or drawn anew each time."
            if calm
            else "For: the training loss is unsteady as well.",
        ),
        causes=(
            Cause("E01", 0.6, "a validation set of few texts, or other ones each time"),
            Cause("O02", 0.4, "steps so large that the model changes with each"),
        )
        if calm
        else (
            Cause("O02", 0.6, "steps so large that the model changes with each"),
            Cause("E01", 0.3, "a validation set of few texts, or other ones each time"),
        ),
        change=Change("Score the same, larger part of the held-out text at every evaluation.")
        if calm
        else scale_rate(history, 1 / 3, "the scores jump from one evaluation to the next."),
    )


def _by_epoch(history: History, steps: Array, logs: Array) -> Finding | None:
    at, epochs = curves.finite(history.epoch)
    if history.axis == "epoch" or len(at) < 2 or np.any(np.diff(epochs) < 0):
        return None
    epoch = np.interp(steps, at, epochs)
    passes = int(epoch[-1])
    if passes < 4 or len(steps) < 4 * PHASES * passes:
        return None
    cell = np.minimum((epoch * PHASES).astype(int), passes * PHASES - 1)
    level = np.array(
        [
            curves.middle(logs[cell == k]) if np.any(cell == k) else np.nan
            for k in range(passes * PHASES)
        ]
    ).reshape(passes, PHASES)[1:]
    if not np.isfinite(level).all():
        return None
    pattern = level - level.mean(axis=1, keepdims=True)
    # What every epoch gains on its way is course, not pattern.
    odd, even = pattern[::2].mean(axis=0), pattern[1::2].mean(axis=0)
    mean = pattern.mean(axis=0)
    height = float(np.ptp(mean))
    gain = float(np.median(-np.diff(level.mean(axis=1))))
    spread = float(np.std(pattern - mean)) / np.sqrt(len(level))
    if height < max(SWING, 2 * abs(gain), NOISE * spread) or np.std(odd) == 0:
        return None
    if float(np.corrcoef(odd, even)[0, 1]) < ALIKE:
        return None
    return Finding(
        kind="oscillation",
        severity="warning",
        certainty="likely",
        since_step=int(steps[0]),
        evidence=(
            f"For: in each of {passes} passes the loss runs through the same pattern, "
            f"{np.expm1(height):.0%} from its lowest to its highest part.",
            f"For: from one pass to the next the loss gains {-np.expm1(-gain):.1%} only.",
        ),
        causes=(
            Cause("D14", 0.8, "the data come in the same order every time, sorted or in blocks"),
        ),
        change=Change("Shuffle the data anew in every pass, over all sources and lengths."),
    )


def _waves(history: History, steps: Array, logs: Array) -> Finding | None:
    keep = steps >= steps[0] + BEGIN * (steps[-1] - steps[0])
    steps, logs = steps[keep], logs[keep]
    parts = min(PARTS, len(logs) // 5)
    if parts < 12:
        return None
    cuts = np.linspace(0, len(logs), parts + 1).astype(int)
    pieces = [logs[a:b] for a, b in pairwise(cuts)]
    level = np.array([curves.middle(piece) for piece in pieces])
    inside = np.array(
        [
            curves.MAD_TO_SD
            * 1.2533
            * curves.middle(np.abs(piece - curves.middle(piece)))
            / np.sqrt(len(piece))
            for piece in pieces
        ]
    )
    distance = level - curves.falling(level)
    needed = max(float(np.log1p(SWING)), NOISE * float(np.median(inside)))
    side, swings, since = 0, 0, 0
    for place, value in enumerate(distance):
        if abs(value) >= needed and int(np.sign(value)) != side:
            side = int(np.sign(value))
            swings += 1
            since = since or int(steps[cuts[place]])
    if swings < SWINGS:
        return None
    height = float(np.percentile(distance, 95) - np.percentile(distance, 5))
    zero = curves.rate_is_zero(history)
    return Finding(
        kind="oscillation",
        severity="warning",
        certainty="likely" if swings >= 2 * SWINGS else "possible",
        since_step=since,
        evidence=(
            f"For: the loss swings {swings} times to the other side of its course, "
            f"{np.expm1(height):.0%} from low to high.",
            f"For: one part of the curve scatters by {float(np.median(inside)):.1%} only.",
            "Against: sources of unequal difficulty that take turns look the same.",
        ),
        causes=(
            Cause("O02", 0.5, "steps too large: the weights jump across the valley"),
            Cause("D14", 0.4, "blocks of unequal data take turns"),
        ),
        change=None if zero else scale_rate(history, 1 / 3, "the loss swings about its course."),
    )
