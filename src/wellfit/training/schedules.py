"""Step number in, share of the peak learning rate out.

A schedule is a pure function of (settings, step, planned steps): nothing to save, nothing to
restore. Steps count from 1; the last one is `planned`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from wellfit.recipe.schema import Schedule


def share(schedule: Schedule, step: int, planned: int) -> float:
    """Step `step` of `planned` in, its learning rate as a share (0–1) of the peak out.

    Rises over the warm-up, whose last step has the whole rate: linearly, and for `one_cycle`
    along a cosine from a 25th of it. Reaches `final_share` at the last step, except `constant`,
    which stays at the peak, and `inverse_sqrt`, which nears it and is cut off by the end of the
    run. The first step never has rate zero: a run of one step, where both cannot hold, takes it at
    the peak.

    >>> steady = Schedule(kind="wsd", warmup=2, decay_share=0.5, final_share=0.0)
    >>> [share(steady, step, 8) for step in range(1, 9)]
    [0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    assert 1 <= step <= planned, f"step {step} is not in 1–{planned}"
    if planned == 1:
        return 1.0
    warmup = warmup_steps(schedule, planned)
    if step <= warmup:
        return RISES.get(schedule.kind, straight)(step, warmup)
    height = SHAPES[schedule.kind](schedule, step, warmup, planned)
    return schedule.final_share + (1.0 - schedule.final_share) * height


def warmup_steps(schedule: Schedule, planned: int) -> int:
    """Planned steps in, number of warm-up steps out; at least one step is left after them.

    A share of the run is rounded to the nearest step, and up to one step.

    >>> [warmup_steps(Schedule(warmup=w), 200) for w in (0, 0.001, 0.02, 30, 5000)]
    [0, 1, 4, 30, 199]
    """
    if schedule.warmup >= 1:
        wanted = round(schedule.warmup)
    else:
        wanted = max(round(schedule.warmup * planned), 1 if schedule.warmup > 0 else 0)
    return min(wanted, planned - 1)


def straight(step: int, warmup: int) -> float:
    """A step of the warm-up in, its share of the peak on a straight line from zero out.

    >>> [straight(step, 4) for step in (1, 2, 3, 4)]
    [0.25, 0.5, 0.75, 1.0]
    """
    return step / warmup


def one_cycle_rise(step: int, warmup: int) -> float:
    """A step of the warm-up in, its share of the peak on half a cosine from 1/25 out.

    >>> [round(one_cycle_rise(step, 4), 3) for step in (1, 2, 3, 4)]
    [0.04, 0.28, 0.76, 1.0]
    """
    progress = (step - 1) / (warmup - 1) if warmup > 1 else 1.0
    return ONE_CYCLE_START + (1 - ONE_CYCLE_START) * 0.5 * (1.0 - math.cos(math.pi * progress))


def linear(schedule: Schedule, step: int, warmup: int, planned: int) -> float:
    """A step after the warm-up in, the height (1 → 0) of a straight line to the last step out.

    >>> [linear(Schedule(kind="linear"), step, 0, 4) for step in (1, 2, 3, 4)]
    [0.75, 0.5, 0.25, 0.0]
    """
    return (planned - step) / (planned - warmup)


def cosine(schedule: Schedule, step: int, warmup: int, planned: int) -> float:
    """A step after the warm-up in, the height (1 → 0) of half a cosine out (arXiv 1608.03983).

    >>> [round(cosine(Schedule(kind="cosine"), step, 0, 4), 3) for step in (1, 2, 3, 4)]
    [0.854, 0.5, 0.146, 0.0]
    """
    progress = (step - warmup) / (planned - warmup)
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def wsd(schedule: Schedule, step: int, warmup: int, planned: int) -> float:
    """A step after the warm-up in, the height out: 1, then linearly to 0 (arXiv 2405.18392).

    The fall takes `decay_share` of all steps, and no more than the warm-up leaves.

    >>> [wsd(Schedule(kind="wsd", decay_share=0.5), step, 0, 4) for step in (1, 2, 3, 4)]
    [1.0, 1.0, 0.5, 0.0]
    """
    falling = min(max(1, round(schedule.decay_share * planned)), planned - warmup)
    return min(1.0, (planned - step) / falling)


def constant(schedule: Schedule, step: int, warmup: int, planned: int) -> float:
    """A step after the warm-up in, the height 1 out: the rate never falls.

    >>> constant(Schedule(kind="constant"), 4, 0, 4)
    1.0
    """
    return 1.0


def inverse_sqrt(schedule: Schedule, step: int, warmup: int, planned: int) -> float:
    """A step after the warm-up in, the height √(warm-up / step) out (arXiv 1706.03762, eq. 3).

    Without a warm-up √(10,000 / (step + 10,000)). It does not depend on the planned steps.

    >>> [inverse_sqrt(Schedule(kind="inverse_sqrt"), step, 4, 64) for step in (4, 16, 64)]
    [1.0, 0.5, 0.25]
    """
    scale = warmup or NO_WARMUP_SCALE
    return math.sqrt(scale / (step + scale - warmup))


def polynomial(schedule: Schedule, step: int, warmup: int, planned: int) -> float:
    """A step after the warm-up in, the rest of the way (1 → 0) to the power `power` out.

    >>> [polynomial(Schedule(kind="polynomial", power=2), step, 0, 4) for step in (1, 2, 3, 4)]
    [0.5625, 0.25, 0.0625, 0.0]
    """
    return math.pow((planned - step) / (planned - warmup), schedule.power)


ONE_CYCLE_START = 1 / 25
"""Share of the peak at the first step of one cycle; momentum is not cycled (arXiv 1708.07120)."""
NO_WARMUP_SCALE = 10_000
SHAPES: dict[str, Callable[[Schedule, int, int, int], float]] = {
    "wsd": wsd,
    "linear": linear,
    "cosine": cosine,
    "constant": constant,
    "inverse_sqrt": inverse_sqrt,
    "polynomial": polynomial,
    "one_cycle": cosine,
}
RISES: dict[str, Callable[[int, int], float]] = {"one_cycle": one_cycle_rise}
