"""History → two pictures: `training_curve.png` and `loss_by_epoch.png`.

Losses that were not finite leave a gap, and a cross at the upper edge marks where they were.
"""

from __future__ import annotations

import io
import math
import statistics
from pathlib import Path
from typing import Any

from wellfit.monitor.folder import replace_file
from wellfit.monitor.history import History, Series
from wellfit.monitor.summary import epoch_losses

CURVE_FILE = "training_curve.png"
EPOCH_FILE = "loss_by_epoch.png"

_BLUE, _RED, _GREEN = "tab:blue", "tab:red", "tab:green"
_MOST_CROSSES = 1000


def write_plots(history: History, folder: Path) -> tuple[Path, ...]:
    """Draw both pictures into the folder; gives their paths.

    Without a recorded step nothing is drawn, and without epochs no picture by epoch.
    Raises OSError where they cannot be written.
    """
    written = []
    if len(history.train_loss):
        written.append(_save(_training_curve(history), folder / CURVE_FILE))
    if epoch_losses(history):
        written.append(_save(_loss_by_epoch(history), folder / EPOCH_FILE))
    return tuple(written)


def stretch_medians(series: Series, stretches: int = 100) -> tuple[Series, int]:
    """A series → the medians of equal stretches at their middle steps, and the points in each.

    The last stretch may be shorter. A stretch with a value that is not finite has none: NaN.

    >>> stretch_medians(Series((1, 2, 3, 4, 5), (4.0, 90.0, 3.0, 1.0, 2.0)), 2)
    (Series(steps=(2, 5), values=(4.0, 1.5)), 3)
    """
    width = max(1, math.ceil(len(series) / stretches))
    starts = range(0, len(series), width)
    parts = [series.values[start : start + width] for start in starts]
    medians = [
        statistics.median(part) if all(map(math.isfinite, part)) else math.nan for part in parts
    ]
    middles = [
        series.steps[start + len(part) // 2] for start, part in zip(starts, parts, strict=True)
    ]
    return Series(tuple(middles), tuple(medians)), width


def _training_curve(history: History) -> Any:
    figure = _figure((9.0, 6.4))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.4))
    trend, width = stretch_medians(history.train_loss)
    crowded = {"linewidth": 0.7, "alpha": 0.35} if width > 1 else {}
    _curve(above, history.train_loss, _BLUE, "training loss", **crowded)
    if width > 1:
        _line(above, trend, _BLUE, f"training loss, median of {width} steps", marker="")
    validation = history.validation_loss.get("validation", Series())
    if len(validation):
        _curve(above, validation, _RED, "validation loss")
    _fit_losses(above, (history.train_loss, validation))
    above.set_ylabel("loss (nats per token)")
    above.set_title(f"{_plain(history.name)}: training curve", pad=10)
    above.legend(loc="best", framealpha=0.7, edgecolor="none")
    _rates(below, history.learning_rate)
    below.set_xlabel("step")
    below.xaxis.get_major_locator().set_params(integer=True)
    return figure


def _rates(axes: Any, rates: Series) -> None:
    axes.set_ylabel("learning rate")
    # A logarithm has no place for a rate of 0, such as that of the last step: it leaves a gap.
    positive = [value for value in rates.values if value > 0 and math.isfinite(value)]
    if not positive:
        said = "no learning rate recorded" if not len(rates) else "learning rate 0 throughout"
        axes.text(0.5, 0.5, said, transform=axes.transAxes, ha="center", va="center", color="0.4")
        axes.set_yticks([])
        return
    axes.set_yscale("log")
    shown = Series(rates.steps, tuple(value if value > 0 else math.nan for value in rates.values))
    _line(axes, shown, _GREEN, "learning rate")
    if max(positive) / min(positive) < 1.5:
        axes.set_ylim(min(positive) / 3, max(positive) * 3)
    zeros = len(rates.values) - len(positive)
    if zeros:
        steps = "1 step" if zeros == 1 else f"{zeros} steps"
        axes.text(
            0.01, 0.05, f"{steps} with rate 0 not shown",
            transform=axes.transAxes, fontsize=8, color="0.4",
        )  # fmt: skip


def _loss_by_epoch(history: History) -> Any:
    epochs = epoch_losses(history)
    figure = _figure((7.5, 4.6))
    axes = figure.subplots()
    numbers = tuple(one.epoch for one in epochs)
    training = Series(numbers, tuple(one.train_loss for one in epochs))
    known = [one for one in epochs if one.validation_loss is not None]
    validation = Series(
        tuple(one.epoch for one in known), tuple(one.validation_loss or 0.0 for one in known)
    )
    marker = {"marker": "o", "markersize": 6 if len(epochs) <= 60 else 3}
    _curve(axes, training, _BLUE, "training loss, mean of the epoch", **marker)
    if len(validation):
        _curve(axes, validation, _RED, "validation loss, last of the epoch", **marker)
    _fit_losses(axes, (training, validation), robust=False)
    axes.set_ylabel("loss (nats per token)")
    axes.set_xlim(numbers[0] - 0.5, numbers[-1] + 0.5)
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    last = epochs[-1]
    share = last.end - (last.epoch - 1)
    whole = share > 1 - 1e-6
    axes.set_xlabel("epoch" if whole else f"epoch (the last one: {share:.0%} of a pass so far)")
    axes.set_title(f"{_plain(history.name)}: loss by epoch", pad=10)
    axes.legend(loc="best", framealpha=0.7, edgecolor="none")
    return figure


def _curve(axes: Any, series: Series, colour: str, label: str, **style: Any) -> None:
    """A line, and crosses at the upper edge where values were not finite."""
    _line(axes, series, colour, label, **style)
    lost = [
        step
        for step, value in zip(series.steps, series.values, strict=True)
        if not math.isfinite(value)
    ]
    if lost:
        shown = lost[:: 1 + len(lost) // _MOST_CROSSES]
        axes.plot(
            shown, [1.0] * len(shown), "x", color=colour, clip_on=False, markersize=6,
            transform=axes.get_xaxis_transform(), label=f"{label}: {len(lost)} not finite",
        )  # fmt: skip


def _line(axes: Any, series: Series, colour: str, label: str, **style: Any) -> None:
    values = [value if math.isfinite(value) else math.nan for value in series.values]
    style.setdefault("linewidth", 1.6)
    if len(series) <= 30:
        style.setdefault("marker", "o")
        style.setdefault("markersize", 4)
    axes.plot(series.steps, values, color=colour, label=label, **style)


def _fit_losses(axes: Any, curves: tuple[Series, ...], robust: bool = True) -> None:
    """Limit the axis where one spike would flatten all else, and say so."""
    axes.grid(alpha=0.25)
    axes.ticklabel_format(axis="y", useOffset=False)
    finite = sorted(value for curve in curves for value in curve.values if math.isfinite(value))
    if not finite:
        axes.text(
            0.5, 0.5, "no finite loss was recorded",
            transform=axes.transAxes, ha="center", va="center", color="0.4",
        )  # fmt: skip
        return
    low, high, usual = finite[0], finite[-1], finite[int(0.99 * (len(finite) - 1))]
    top = usual + 0.5 * (usual - low)
    if robust and len(finite) >= 20 and usual > low and high > usual + 4 * (usual - low):
        axes.set_ylim(low - 0.05 * (top - low), top)
        axes.text(
            0.01, 0.97, f"highest loss {high:.3g}, beyond this axis",
            transform=axes.transAxes, va="top", fontsize=8, color="0.4",
        )  # fmt: skip


def _figure(inches: tuple[float, float]) -> Any:
    # Agg draws without a display; a Figure of its own leaves no trace in pyplot's global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Any, path: Path) -> Path:
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    replace_file(path, drawn.getvalue())
    return path


def _plain(name: str) -> str:
    """A name that matplotlib draws as it is: no mathematics between dollar signs."""
    return name.replace("$", r"\$")
