"""Budgets: calibration leaves no trace, and resuming never asks the clock."""

from __future__ import annotations

import pytest
import torch
from train_parts import Tiny, run, section

from wellfit.errors import RunError
from wellfit.recipe.schema import Budget
from wellfit.records import Step
from wellfit.training import budget, start


def test_the_median_of_the_timed_steps_counts_without_the_warm_ones():
    """Break: counting the warm-up steps, or the mean instead of the median."""
    now = iter(range(100))
    times = iter([9.0, 9.0, 2.0, 1.0, 6.0, 50.0])
    found = budget.seconds_per_step(
        lambda: next(times), warm=2, least=3, enough_seconds=0.5, clock=lambda: next(now)
    )
    assert found == (2.0, 3)
    found = budget.seconds_per_step(
        lambda: 1.0, warm=0, least=1, most=7, enough_seconds=1e9, clock=lambda: next(now)
    )
    assert found == (1.0, 7)


@pytest.mark.parametrize(
    ("given", "steps"),
    [
        ({"steps": 17}, 17),
        ({"tokens": 1}, 1),
        ({"tokens": 96}, 1),
        ({"tokens": 97}, 2),
        ({"epochs": 0.1}, 1),
        ({"epochs": 3}, 12),
        ({"minutes": 2}, 240),
        ({"minutes": 0.001}, 1),
    ],
)
def test_every_budget_becomes_steps(given, steps):
    made = budget.plan(
        Budget(**given), rows=8, context=12, rows_per_epoch=30, measure=lambda: (0.5, 3)
    )
    assert made.steps == steps and str(steps) in made.arithmetic


def test_calibration_leaves_weights_and_moments_as_they_were(tmp_path):
    """Break: leaving restore() out of calibrate()."""
    model = Tiny(dropout=0.1)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    records = run(tmp_path, model, train_section=section(budget={"minutes": 1e-4}))
    event = next(records)
    assert event.kind == "calibrated" and event.text == event.data["arithmetic"]
    assert model.calls, "real steps were made"
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    planned = event.data["steps"]
    timed = list(records)

    plain = Tiny(dropout=0.1)
    straight = list(run(tmp_path / "s", plain, train_section=section(budget={"steps": planned})))
    losses = [[r.loss for r in side if type(r) is Step] for side in (timed, straight)]
    assert losses[0] == losses[1] and len(losses[0]) == planned
    assert all(
        torch.equal(p, dict(plain.named_parameters())[n]) for n, p in model.named_parameters()
    )


def test_resuming_a_budget_in_minutes_never_asks_the_clock(tmp_path, monkeypatch):
    """Break: writing the plan with the first checkpoint instead of before the first step."""
    minutes = section(budget={"minutes": 1e-4})
    records = run(tmp_path, train_section=minutes)
    planned = next(records).data["steps"]
    next(records)
    records.close()
    monkeypatch.setattr(start, "calibrate", lambda setup: pytest.fail("the clock was asked"))
    rest = list(run(tmp_path, train_section=minutes, resume=True))
    assert rest[0].data["planned_steps"] == planned == sum(type(r) is Step for r in rest)


def test_another_budget_at_a_resume_is_refused(tmp_path):
    list(run(tmp_path))
    with pytest.raises(RunError) as error:
        list(run(tmp_path, train_section=section(budget={"epochs": 1.5}), resume=True))
    message = str(error.value)
    assert "planned for 12 steps, the recipe now says 1.5 epochs" in message
    assert str(tmp_path / "plan.json") in message and "train into a new folder" in message


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="the plan cannot be written") as error:
        list(run(tmp_path / "file"))
    assert str(tmp_path / "file") in str(error.value) and "Make room" in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [('{"steps": 1', "not the JSON"), ('{"format_version": 9}', "format_version is unknown")],
)
def test_an_unreadable_plan_is_named(tmp_path, text, words):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(RunError, match=words) as error:
        list(run(tmp_path, resume=True))
    assert str(tmp_path / "plan.json") in str(error.value)
