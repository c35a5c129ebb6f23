"""Schedules: their ends, their limits, and the reference library's curves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from wellfit.recipe.schema import Schedule
from wellfit.training.schedules import share, warmup_steps

schedule = some.builds(
    Schedule,
    kind=some.sampled_from(["linear", "cosine", "wsd"]),
    warmup=some.one_of(some.floats(0, 0.99), some.integers(1, 300)),
    decay_share=some.floats(0.01, 1.0),
    final_share=some.floats(0, 1),
)


@given(schedule, some.integers(2, 400))
def test_rates_rise_fall_and_end_where_the_recipe_says(settings, planned):
    """Break: `step - 1` instead of `step` in share() makes the first rate zero."""
    rates = [share(settings, step, planned) for step in range(1, planned + 1)]
    assert rates[0] > 0 or (settings.final_share == 0 and planned == 2)
    assert rates[-1] == pytest.approx(settings.final_share, abs=1e-12)
    assert max(rates) <= 1 and min(rates) >= 0
    warm = warmup_steps(settings, planned)
    assert rates[:warm] == sorted(rates[:warm])
    if warm:
        assert rates[warm - 1] == 1.0
    assert rates[max(warm - 1, 0) :] == sorted(rates[max(warm - 1, 0) :], reverse=True)


@pytest.mark.parametrize("warm", [0, 7])
@pytest.mark.parametrize("kind", ["linear", "cosine", "wsd"])
def test_curves_equal_those_of_transformers(kind, warm):
    """Break: `planned - warmup + 1` in linear() or cosine(), or a decay share off by a step.

    transformers counts from 0 and gives its first step rate zero; from there its number k is ours.
    """
    from transformers import optimization as theirs

    planned, falling = 60, 30
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    reference = {
        "linear": lambda: theirs.get_linear_schedule_with_warmup(optimizer, warm, planned),
        "cosine": lambda: theirs.get_cosine_schedule_with_warmup(optimizer, warm, planned),
        "wsd": lambda: theirs.get_wsd_schedule(
            optimizer,
            warm,
            falling,
            num_stable_steps=planned - warm - falling,
            decay_type="linear",
        ),
    }[kind]()
    settings = Schedule(kind=kind, warmup=warm, decay_share=falling / planned)
    for step in range(1, planned + 1):
        optimizer.step()
        reference.step()
        assert share(settings, step, planned) == pytest.approx(
            reference.get_last_lr()[0], abs=1e-12
        )


def test_a_run_of_one_step_learns():
    assert share(Schedule(warmup=0.5), 1, 1) == 1.0
