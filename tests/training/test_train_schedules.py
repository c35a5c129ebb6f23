"""Schedules: their ends, their limits, and the reference library's curves."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some

from wellfit.recipe.schema import Schedule
from wellfit.training.schedules import SHAPES, share, warmup_steps

schedule = some.builds(
    Schedule,
    kind=some.sampled_from(sorted(SHAPES)),
    warmup=some.one_of(some.floats(0, 0.99), some.integers(1, 300)),
    decay_share=some.floats(0.01, 1.0),
    power=some.floats(0.1, 9.0),
    final_share=some.floats(0, 1),
)


@given(schedule, some.integers(2, 400))
def test_rates_rise_fall_and_end_where_the_recipe_says(settings, planned):
    """Break: `step - 1` instead of `step` in share() makes the first rate zero."""
    rates = [share(settings, step, planned) for step in range(1, planned + 1)]
    assert rates[0] > 0 or (settings.final_share == 0 and planned == 2)
    if settings.kind == "constant":
        assert rates[-1] == 1.0
    elif settings.kind == "inverse_sqrt":
        assert rates[-1] >= settings.final_share
    else:
        assert rates[-1] == pytest.approx(settings.final_share, abs=1e-12)
    assert max(rates) <= 1 and min(rates) >= 0
    warm = warmup_steps(settings, planned)
    assert rates[:warm] == sorted(rates[:warm])
    if warm:
        assert rates[warm - 1] == 1.0
    assert rates[max(warm - 1, 0) :] == sorted(rates[max(warm - 1, 0) :], reverse=True)


@pytest.mark.parametrize("warm", [0, 7])
@pytest.mark.parametrize("kind", [kind for kind in SHAPES if kind != "one_cycle"])
def test_curves_equal_those_of_transformers(kind, warm):
    """Break: `planned - warmup + 1` in linear() or cosine(), or a decay share off by a step; the
    inverse square root of step + 1; the power on the way gone instead of the way left.

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
        "constant": lambda: theirs.get_constant_schedule_with_warmup(optimizer, warm),
        "inverse_sqrt": lambda: theirs.get_inverse_sqrt_schedule(optimizer, warm),
        "polynomial": lambda: theirs.get_polynomial_decay_schedule_with_warmup(
            optimizer, warm, planned, lr_end=0.1, power=1.7
        ),
    }[kind]()
    final = 0.1 if kind == "polynomial" else 0.0
    settings = Schedule(
        kind=kind, warmup=warm, decay_share=falling / planned, power=1.7, final_share=final
    )
    for step in range(1, planned + 1):
        optimizer.step()
        reference.step()
        assert share(settings, step, planned) == pytest.approx(
            reference.get_last_lr()[0], abs=1e-12
        )


@pytest.mark.parametrize("warm", [2, 15, 59])
def test_one_cycle_equals_torchs(warm):
    """Break: a rise from zero; a straight rise; the peak a step early.

    torch's first step, number 0, is ours, number 1; it ends at 1 / (25 * final_div_factor).
    """
    planned = 60
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=1.0,
        total_steps=planned,
        pct_start=warm / planned,
        div_factor=25,
        final_div_factor=4,
        cycle_momentum=False,
    )
    settings = Schedule(kind="one_cycle", warmup=warm, final_share=0.01)
    for step in range(1, planned + 1):
        assert share(settings, step, planned) == pytest.approx(
            reference.get_last_lr()[0], abs=1e-12
        )
        optimizer.step()
        if step < planned:
            reference.step()


def test_a_run_of_one_step_learns():
    assert share(Schedule(warmup=0.5), 1, 1) == 1.0
