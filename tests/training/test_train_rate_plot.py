"""The drawing of the learning rate: bars of the right height, an axis in the budget's own unit."""

from __future__ import annotations

import pytest
from train_parts import MUON, section
from typer.testing import CliRunner

from wellfit.cli import app
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.yaml_lines import read_yaml
from wellfit.training.rate_plot import BARS, COLUMNS, ROWS, rate_plot
from wellfit.training.schedules import SHAPES, share


def heights(lines: list[str]) -> list[float]:
    """The drawing → the height of each bar as a share of the peak, to an eighth of a row."""
    rows = [line.partition("┤")[2].ljust(COLUMNS) for line in lines[1 : 1 + ROWS]]
    return [sum(BARS.index(row[bar]) for row in rows) / (8 * ROWS) for bar in range(COLUMNS)]


@pytest.mark.parametrize("steps", [1, 7, 60, 61, 997])
@pytest.mark.parametrize("kind", SHAPES)
def test_each_bar_is_the_highest_rate_of_its_sixtieth(kind, steps):
    """Break: the rate at the first step of a bar."""
    train = section(budget={"steps": steps}, schedule={"kind": kind, "warmup": 0.2})
    lines = rate_plot(train)
    assert len(lines) == 3 + ROWS == 8
    for bar, height in enumerate(heights(lines)):
        inside = range(bar * steps // COLUMNS + 1, (bar + 1) * steps // COLUMNS + 1)
        rates = [share(train.schedule, step, steps) for step in inside or [bar * steps // 60 + 1]]
        # Half an eighth of a row; and any rate above zero shows, as the lowest of the bars.
        within = 1 / 40 if max(rates) < 1 / 40 else 1 / 80 + 1e-9
        assert height == pytest.approx(max(rates), abs=within)


def test_it_looks_like_this():
    """Looked at. Break: the axis a column off."""
    train = section(
        budget={"steps": 200},
        schedule={"kind": "wsd", "warmup": 0.1, "decay_share": 0.5},
        optimizer=MUON,
    )
    assert "\n".join(rate_plot(train)) == (
        "wsd, a bar is a 60th of the run; at the peak: matrices 0.02, all else 0.01\n"
        "peak ┤     ██████████████████████████▆▅▄▂▁\n"
        "     ┤   ▂█████████████████████████████████▆▅▄▂▁\n"
        "     ┤  ▄████████████████████████████████████████▆▅▄▂▁\n"
        "     ┤ ▄███████████████████████████████████████████████▆▅▄▂▁\n"
        "     ┤▆██████████████████████████████████████████████████████▆▅▄▂▁\n"
        "   0 └──────────────┴──────────────┴──────────────┴──────────────┴\n"
        "      0            50             100            150            200 steps"
    )


@pytest.mark.parametrize(
    ("budget", "axis"),
    [
        ({"steps": 40_000}, "0 10k 20k 30k 40k steps"),
        ({"tokens": 960_000}, "0 240k 480k 720k 960k tokens (10,000 steps)"),
        ({"epochs": 3}, "0 0.75 1.5 2.25 3 epochs"),
        ({"minutes": 2}, "0% 25% 50% 75% 100% of 2 minutes"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_the_axis_counts_as_the_budget_does(budget, axis):
    """Break: steps under a budget in minutes, whose number nobody knows before the run."""
    assert " ".join(rate_plot(section(budget=budget))[-1].split()) == axis


def test_recipe_show_draws_it_and_still_prints_yaml(tmp_path):
    """Break: the drawing printed outside the comments."""
    (tmp_path / "texts").mkdir()
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        f"name: x\ndata: {{sources: [{{path: {tmp_path}/texts}}]}}\n"
        "train: {budget: {minutes: 2}, schedule: {kind: one_cycle}}\n"
    )
    done = CliRunner().invoke(app, ["recipe", "show", str(mine)])
    assert done.exit_code == 0, done.output
    assert "    # peak ┤" in done.output
    assert "100% of 2 minutes" in done.output
    printed = read_yaml(done.output)
    assert not printed.faults
    assert parse_recipe(printed.value).train.schedule.warmup == 0.3
