"""A recipe's `train` section in; a small drawing of its learning rate, as lines of text, out."""

from __future__ import annotations

from wellfit.recipe import schema
from wellfit.training.schedules import share

BARS = " ▁▂▃▄▅▆▇█"
ROWS, COLUMNS = 5, 60
# The course is drawn from this many steps where the budget does not say how many there will be.
_ANY_NUMBER = 6_000


def rate_plot(section: schema.Train) -> list[str]:
    """Eight lines out: heading, five rows of 60 bars, an axis and its labels.

    A bar is the highest rate in its sixtieth of the run. The axis counts as the budget does:
    steps, tokens (those without a label too), epochs, or shares of the minutes, since evaluation
    and saving come on top of these. Of minutes and epochs the number of steps is not known, and a
    warm-up in steps is drawn as so many of 6,000.
    """
    planned = _steps(section)
    known = planned is not None
    steps = planned or _ANY_NUMBER
    heights = [_highest(section.schedule, bar, steps) for bar in range(COLUMNS)]
    peak = section.optimizer.learning_rate
    if isinstance(section.optimizer, schema.Muon):
        heading = f"matrices {section.optimizer.matrix_learning_rate:g}, all else {peak:g}"
    else:
        heading = f"{peak:g}"
    kind = section.schedule.kind
    lines = [f"{kind}, a bar is a {COLUMNS}th of the run; at the peak: {heading}"]
    for row in range(ROWS - 1, -1, -1):
        label = {ROWS - 1: "peak", 0: ""}.get(row, "")
        lines.append(f"{label:>4} ┤{''.join(_cell(height, row) for height in heights)}".rstrip())
    lines.append(f"   0 └{'─' * (COLUMNS // 4 - 1)}" + f"┴{'─' * (COLUMNS // 4 - 1)}" * 3 + "┴")
    lines.append(_axis(section, steps if known else None))
    return lines


def _steps(section: schema.Train) -> int | None:
    """The number of steps, or None where only the corpus or the clock can tell it."""
    budget = section.budget
    if budget.steps is not None:
        return budget.steps
    if budget.tokens is not None:
        return max(1, -(-budget.tokens // section.batch_tokens))
    return None


def _highest(schedule: schema.Schedule, bar: int, steps: int) -> float:
    """The highest share of the peak in bar `bar` of the run; of a short run's nearest step."""
    first = bar * steps // COLUMNS + 1
    last = max(first, (bar + 1) * steps // COLUMNS)
    # A hundred steps of a bar show its course; a bar of a long run has many thousands.
    stride = max(1, (last - first) // 100)
    looked_at = {*range(first, last + 1, stride), last}
    return max(share(schedule, step, steps) for step in looked_at)


def _cell(height: float, row: int) -> str:
    """A share of the peak and a row, counted from below, in; the sign there out.

    >>> [_cell(0.5, row) for row in range(5)]
    ['█', '█', '▄', ' ', ' ']
    """
    eighths = round((height * ROWS - row) * 8)
    if row == 0 and height > 0:
        eighths = max(1, eighths)
    return BARS[min(8, max(0, eighths))]


def _axis(section: schema.Train, steps: int | None) -> str:
    """Five labels below the axis, in the budget's own unit."""
    budget = section.budget
    given = budget.model_dump(exclude_none=True)
    ((unit, amount),) = given.items()
    labels = [_amount(amount * quarter / 4) for quarter in range(5)]
    if unit == "minutes":
        labels, unit = [f"{25 * quarter}%" for quarter in range(5)], f"of {amount:g} minutes"
    line = [" "] * (COLUMNS + 7)
    for quarter, label in enumerate(labels):
        middle = 6 + quarter * COLUMNS // 4 - (1 if quarter else 0)
        begin = max(5, middle - len(label) // 2)
        for place, sign in enumerate(label):
            if begin + place >= len(line):
                line.append(sign)
            else:
                line[begin + place] = sign
    text = "".join(line).rstrip() + f" {unit}"
    return text if steps is None or unit == "steps" else f"{text} ({steps:,} steps)"


def _amount(amount: float) -> str:
    """An amount → a short label.

    >>> _amount(2_500_000), _amount(0.75), _amount(1_500)
    ('2.5M', '0.75', '1500')
    """
    if amount >= 10_000:
        for size, sign in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
            if amount >= size:
                return f"{amount / size:.3g}{sign}"
    return f"{amount:.4g}"
