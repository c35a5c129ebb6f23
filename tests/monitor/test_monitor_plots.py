"""The two pictures: what is in them, read from the figure and from the pixels."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from wellfit.monitor import plots
from wellfit.monitor.history import History, Series

BLUE, RED, GREEN = (0x1F, 0x77, 0xB4), (0xD6, 0x27, 0x28), (0x2C, 0xA0, 0x2C)


def history(losses: list[float], rates: list[float] | None = None, **more: Any) -> History:
    steps = tuple(range(1, len(losses) + 1))
    rates = [1e-3] * len(losses) if rates is None else rates
    return History(
        "a $x$ run",
        "run folder",
        Series(steps, tuple(losses)),
        learning_rate=Series(steps, tuple(rates)),
        epoch=Series(steps, tuple(step / 4 for step in steps)),
        **more,
    )


def colours(path: Path, rows: tuple[float, float]) -> set[tuple[int, int, int]]:
    """The colours of a horizontal part of a picture, as shares of its height."""
    from PIL import Image

    with Image.open(path) as image:
        width, height = image.size
        part = image.convert("RGB").crop((0, int(rows[0] * height), width, int(rows[1] * height)))
        found = part.getcolors(maxcolors=1_000_000)
    assert found is not None
    return {colour for _, colour in found}  # type: ignore[misc]


def test_training_is_blue_validation_red_and_the_rate_green_below(tmp_path: Path) -> None:
    """Fails if the colours of the two losses change places, or the rate is drawn above (tried)."""
    validation = {"validation": Series((4, 8), (3.2, 2.8))}
    run = history([4.0, 3.5, 3.2, 3.0, 2.9, 2.8, 2.7, 2.6], validation_loss=validation)
    written = plots.write_plots(run, tmp_path)
    assert [path.name for path in written] == ["training_curve.png", "loss_by_epoch.png"]
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in written}
    above, below = colours(written[0], (0, 0.6)), colours(written[0], (0.68, 1))
    assert {BLUE, RED} <= above and GREEN not in above
    assert GREEN in below and not {BLUE, RED} & below
    assert {BLUE, RED} <= colours(written[1], (0, 1))
    figure = plots._training_curve(run)
    losses, rates = figure.axes
    assert losses.get_yscale() == "linear" and rates.get_yscale() == "log"
    training, measured = losses.lines
    assert training.get_color() == "tab:blue" and measured.get_color() == "tab:red"
    assert list(training.get_xdata()) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert list(measured.get_ydata()) == [3.2, 2.8]


def test_without_validation_nothing_is_red(tmp_path: Path) -> None:
    written = plots.write_plots(history([4.0, 3.5, 3.2]), tmp_path)
    assert all(RED not in colours(path, (0, 1)) for path in written)


def test_one_point_per_epoch() -> None:
    figure = plots._loss_by_epoch(history([4.0, 3.0, 2.0, 1.0, 0.5, 0.5]))
    (axes,) = figure.axes
    assert list(axes.lines[0].get_xdata()) == [1, 2]
    assert list(axes.lines[0].get_ydata()) == [2.5, 0.5]
    assert axes.get_xlabel() == "epoch (the last one: 50% of a pass so far)"


def test_losses_that_are_not_finite_are_marked(tmp_path: Path) -> None:
    """Fails if `_curve` leaves out the crosses (tried)."""
    run = history([4.0, math.nan, 3.0, math.inf, 2.0])
    axes = plots._training_curve(run).axes[0]
    line, crosses = axes.lines
    assert [math.isnan(value) for value in line.get_ydata()] == [False, True, False, True, False]
    assert crosses.get_marker() == "x" and list(crosses.get_xdata()) == [2, 4]
    assert crosses.get_label() == "training loss: 2 not finite"
    plots.write_plots(run, tmp_path)


def test_a_spike_beyond_the_axis_is_said() -> None:
    axes = plots._training_curve(history([2.0 + 0.01 * step for step in range(200)] + [900.0])).axes
    assert axes[0].get_ylim()[1] < 10
    assert "highest loss 900, beyond this axis" in [text.get_text() for text in axes[0].texts]


def test_a_rate_of_zero_leaves_a_gap_and_is_said() -> None:
    axes = plots._training_curve(history([3.0, 2.0, 1.0], [1e-3, 5e-4, 0.0])).axes[1]
    assert axes.get_yscale() == "log"
    assert [math.isnan(value) for value in axes.lines[0].get_ydata()] == [False, False, True]
    assert [text.get_text() for text in axes.texts] == ["1 step with rate 0 not shown"]
    still = plots._training_curve(history([3.0, 2.0], [0.0, 0.0])).axes[1]
    assert [text.get_text() for text in still.texts] == ["learning rate 0 throughout"]


def test_many_steps_get_their_median_beside_them() -> None:
    run = history([2.0 + (step % 7) / 10 for step in range(1000)])
    raw, calm = plots._training_curve(run).axes[0].lines
    assert len(raw.get_xdata()) == 1000 and len(calm.get_xdata()) == 100
    assert calm.get_label() == "training loss, median of 10 steps"


@pytest.mark.parametrize(
    "losses", [[4.0], [math.nan], [math.nan] * 5, [math.inf, 1e300], [2.0] * 300, [-1.0, 0.0]]
)
def test_odd_runs_are_drawn_without_a_warning(losses: list[float], tmp_path: Path) -> None:
    written = plots.write_plots(history(losses), tmp_path)
    assert len(written) == 2
    assert all(path.stat().st_size > 5000 for path in written)


def test_without_steps_there_is_no_picture(tmp_path: Path) -> None:
    assert plots.write_plots(History("a", "run folder"), tmp_path) == ()
    assert not list(tmp_path.iterdir())
