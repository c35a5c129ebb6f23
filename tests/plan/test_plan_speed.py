"""Steps, operations, seconds, money and disk against the trainer's own and worked numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from plan_counting import BASE, layout_of, recipe_of

from wellfit.errors import WellfitError
from wellfit.plan.devices import GPUS, gpu, reported
from wellfit.plan.length import Counts, disk, length, planned_steps
from wellfit.plan.memory import memory
from wellfit.plan.plan import plan
from wellfit.plan.speed import speed, update_flops
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.schema import Budget


def recipe(*changes: str):  # type: ignore[no-untyped-def]
    return parse_recipe(BASE, changes=changes)


@pytest.mark.parametrize(
    "budget", [{"steps": 7}, {"tokens": 1000}, {"epochs": 0.1}, {"epochs": 3.0}, {"epochs": 0.07}]
)
def test_steps_are_those_the_trainer_plans(budget: dict[str, float]) -> None:
    """`training.budget` is the truth. Break: round down; 0.07 · 100 is above 7."""
    from wellfit.training.budget import plan as trainer_plan

    section = Budget.model_validate(budget)
    for rows, context, per_epoch in ((2, 64, 9), (3, 32, 30), (8, 128, 1000), (1, 8, 100)):
        truth = trainer_plan(
            section, rows=rows, context=context, rows_per_epoch=per_epoch, measure=lambda: (1, 1)
        )
        mine = planned_steps(section, batch_tokens=rows * context, rows=rows, per_epoch=per_epoch)
        assert mine == truth.steps
    assert planned_steps(Budget(minutes=1), batch_tokens=1, rows=1, per_epoch=1) is None


def test_length_with_and_without_a_corpus() -> None:
    """Unknown stays unknown. Break: count the first token of the stream as a label."""
    short = recipe("train.budget={epochs: 2}")
    assert length(short, 1000, None).steps is None
    known = length(short, 1000, Counts(train_tokens=64 * 100 + 1))
    assert (known.steps, known.steps_per_epoch, known.epochs) == (25, 12.5, 2.0)
    assert (known.rows, known.micro_batches, known.batch_tokens) == (8, 2, 512)
    assert length(short, 1000, Counts(train_tokens=64 * 100)).steps_per_epoch == 99 / 8
    timed = length(recipe("train.budget={minutes: 2}"), 1000, None, step_seconds=0.5)
    assert timed.steps == 240


def test_muon_s_operations_by_hand() -> None:
    """Five iterations of 4·m²n + 2·m³ a matrix. Break: take the longer side for m."""
    one = recipe_of("layers=1 width=64 heads=1 kv_heads=1 hidden=128 activation=relu2")
    square, oblong = 4 * 64**3 + 2 * 64**3, 4 * 64 * 64 * 128 + 2 * 64**3
    assert update_flops(one, 1000) == 5 * (4 * square + 2 * oblong)
    assert update_flops(recipe("train.optimizer.kind=adamw"), 1000) == 0


def test_time_and_money_follow_from_peak_and_utilisation() -> None:
    """Worked by hand for an H100. Break: hours from minutes; the price of the quick end twice."""
    big = recipe("train.budget={steps: 7200}", "train.optimizer.kind=adamw")
    made = plan(big, gpu("H100-80GB"), "bf16", vocabulary_size=1000, price=2.5)
    assert made.speed.step_seconds and made.hours and made.cost
    slow = made.speed.flops_per_token * 512 / (989.4e12 * 0.35)
    assert made.speed.step_seconds[1] == pytest.approx(slow)
    assert made.hours == pytest.approx([2 * seconds for seconds in made.speed.step_seconds])
    assert made.cost == pytest.approx([2.5 * hours for hours in made.hours])
    assert "llm-foundry" in made.speed.origin and "H100 datasheet" in made.speed.origin
    quick, late = made.speed.step_seconds
    assert made.speed.tokens_per_second == pytest.approx((512 / late, 512 / quick))


def test_a_measured_step_takes_the_place_of_the_range() -> None:
    """Break: keep the table's figure where a step was timed."""
    one = recipe("train.budget={steps: 3600}")
    peak = memory(one, layout_of(one)).step
    fast = speed(one, 1000, gpu("H100-80GB"), "fp32", peak, measured=0.5)
    assert fast.step_seconds == (0.5, 0.5) and fast.tokens_per_second == (1024, 1024)
    assert fast.origin.startswith("measured")


def test_an_unpublished_peak_gives_no_speed() -> None:
    """A T4 has no bf16: its speed there is unknown. Break: take another precision's peak."""
    made = plan(recipe(), gpu("T4"), "bf16", vocabulary_size=1000)
    assert made.speed.tokens_per_second is None and made.hours is None
    assert made.bottleneck.name == "unknown"


def test_unknown_devices_are_refused_with_the_nearest_name() -> None:
    """Break: fall back to an A100."""
    with pytest.raises(WellfitError, match="did you mean H100-80GB\\?") as told:
        gpu("H100-80")
    assert "Known are H100-80GB, " in str(told.value) and "--calibrate" in str(told.value)
    with pytest.raises(WellfitError, match="no device 'Voodoo'"):
        gpu("Voodoo")
    assert gpu("rtx 4090").name == "RTX-4090"


def test_every_row_of_the_table_is_whole() -> None:
    """Dense peaks fall with the bits, and each row says where it is from; names meet one row."""
    names = [name for row in GPUS.values() for name in row.reported]
    assert len(names) == len(set(names))
    for key, row in GPUS.items():
        assert row.source and row.bandwidth > 100 and row.memory >= 16, key
        assert row.peaks["fp16"] >= row.peaks.get("tf32", row.peaks["fp32"]) >= row.peaks["fp32"]
        assert all(reported(name) == key for name in row.reported)
        assert gpu(key).memory == row.memory * 2**30


def test_disk_is_what_a_checkpoint_really_takes(tmp_path: Path) -> None:
    """Within 2 % of a saved one, headers included. Break: leave the moments out."""
    import torch

    from wellfit.model.init import initialise
    from wellfit.model.transformer import Transformer
    from wellfit.training import checkpoint, optimizers

    one = recipe_of("width=128 V=2000")
    model = Transformer(one.model, 2000)
    initialise(model, 0)
    parameters = dict(model.named_parameters())
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    made = optimizers.build(one.train.optimizer, parameters, model.roles())
    made.step()
    state = checkpoint.State(1, 1, 1, 0, True, 0, {}, {})
    saved = checkpoint.save(tmp_path, state, parameters, made.state(), keep=2)
    planned = disk(one, 2000, Counts(1000, 100, 10))
    assert planned["checkpoint"] == pytest.approx(saved.bytes, rel=0.02)
    assert planned["checkpoints"] == 3 * (planned["checkpoint"] or 0)  # keep_last 2 and the new one
    assert planned["shards"] == 2 * 1110
    assert disk(one, 70_000, Counts(1000))["shards"] == 4000
    assert disk(one, 2000, None)["shards"] is None
