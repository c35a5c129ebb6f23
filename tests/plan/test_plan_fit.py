"""What does not fit gets changes that make it fit; what can be pasted fits when pasted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plan_counting import BASE, recipe_of

from wellfit.errors import RunError
from wellfit.plan.devices import Machine, gpu
from wellfit.plan.fit import (
    CPU_TOKENS,
    Setting,
    applied_to,
    changes,
    largest_micro_batch,
    needed,
    rows_of_a_pass,
)
from wellfit.plan.memory import PROCESS_BYTES
from wellfit.plan.plan import plan, refuse_what_cannot_fit
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.schema import Recipe

BIG = recipe_of("layers=4 width=256 heads=4 kv_heads=4 context=512 rows=16 micro=16 V=4096")
CPU = Machine("a CPU", "cpu", None, native=("fp32", "bf16"))


def setting(room: int, machine: Machine = CPU) -> Setting:
    return Setting(replace(machine, memory=room), "fp32", 4096, room)


@pytest.mark.parametrize("share", [0.9, 0.6, 0.35, 0.2])
def test_every_change_fits_when_applied(share: float) -> None:
    """By the plan of the patched recipe. Break: let `_mildest` stop one level too early."""
    whole = needed(BIG, setting(0))
    room = int((whole - PROCESS_BYTES) * share) + PROCESS_BYTES
    found = changes(BIG, setting(room), applied_to(BIG))
    assert found
    values = BIG.model_dump(mode="json", exclude_none=True)
    for change in found:
        patched = parse_recipe(values, changes=change.patch)
        assert needed(patched, setting(room)) == change.bytes <= room < whole


def test_the_smallest_changes_come_and_in_order() -> None:
    """No change holds another, what keeps the result comes first, then what costs least.

    Break: rank by bytes; leave out the test of subsets.
    """
    room = int((needed(BIG, setting(0)) - PROCESS_BYTES) * 0.5) + PROCESS_BYTES
    found = changes(BIG, setting(room), applied_to(BIG))
    keys = [frozenset(part.partition("=")[0] for part in change.patch) for change in found]
    assert not any(a < b for a in keys for b in keys)
    ranks = [(not change.same_result, change.slowdown) for change in found]
    assert ranks == sorted(ranks) and ranks[0][0] is False


def test_a_lever_is_as_mild_as_it_can_be() -> None:
    """Twice the rows of the micro-batch that is advised do not fit. Break: take the strongest."""
    room = int((needed(BIG, setting(0)) - PROCESS_BYTES) * 0.5) + PROCESS_BYTES
    found = changes(BIG, setting(room), applied_to(BIG))
    (rows,) = [c for c in found if len(c.patch) == 1 and c.patch[0].startswith("train.micro_batch")]
    advised = int(rows.patch[0].partition("=")[2])
    assert needed(BIG, setting(room), 2 * advised) > room


@pytest.mark.parametrize("share", [0.3, 0.45, 0.6, 0.75, 0.9])
def test_the_largest_micro_batch_fits_and_the_next_does_not(share: float) -> None:
    """Break: count the middle that fits one too many."""
    room = int((needed(BIG, setting(0)) - PROCESS_BYTES) * share) + PROCESS_BYTES
    most = largest_micro_batch(BIG, setting(room))
    assert 1 <= most < 16
    assert needed(BIG, setting(room), most) <= room < needed(BIG, setting(room), most + 1)
    assert largest_micro_batch(BIG, setting(1)) == 0
    assert largest_micro_batch(BIG, setting(10**12)) == 16


def test_nothing_is_offered_where_nothing_helps() -> None:
    assert changes(BIG, setting(1000), applied_to(BIG)) == []


def test_what_cannot_fit_is_refused_with_the_way_out() -> None:
    """And tried all the same with warn, silently with off. Break: refuse what fits."""
    made = plan(BIG, replace(CPU, memory=PROCESS_BYTES + 250_000_000), "fp32", vocabulary_size=4096)
    assert made.fits is False and made.bottleneck.name == "memory"
    with pytest.raises(RunError) as told:
        refuse_what_cannot_fit(made, "refuse")
    needs = f"the plan needs {made.memory.bytes / 1e9:.2f} GB"
    assert needs in str(told.value) and "a CPU has 0.75 GB" in str(told.value)
    assert "train.micro_batch=" in str(told.value)
    assert "train.memory_check=warn tries it all the same" in str(told.value)
    assert "the plan needs" in refuse_what_cannot_fit(made, "warn")
    assert refuse_what_cannot_fit(made, "off") == ""
    enough = plan(BIG, replace(CPU, memory=10**11), "fp32", vocabulary_size=4096)
    assert refuse_what_cannot_fit(enough, "refuse") == ""
    unknown = plan(BIG, CPU, "fp32", vocabulary_size=4096)
    assert unknown.fits is None and refuse_what_cannot_fit(unknown, "refuse") == ""


def test_the_first_bottleneck_has_its_figure() -> None:
    """Compute for large products, bandwidth where hardly a token shares the weights.

    Break: compare the two the other way round.
    """
    card = gpu("L4")
    wide = {"model.width": 2048, "model.heads": 16, "model.kv_heads": 16, "model.layers": 4}
    shape = [*(f"{key}={value}" for key, value in wide.items()), "train.optimizer.kind=adamw"]
    shape.append("train.checkpoint_every=100_000")
    slow = parse_recipe(BASE, changes=[*shape, "train.micro_batch=1", "train.batch_tokens=64"])
    fast = parse_recipe(
        BASE,
        changes=[*shape, "model.context=2048", "train.micro_batch=4", "train.batch_tokens=65536"],
    )
    starved = plan(slow, card, "bf16", vocabulary_size=1000).bottleneck
    assert starved.name == "memory bandwidth" and "balanced at 403" in starved.why
    assert plan(fast, card, "bf16", vocabulary_size=1000).bottleneck.name == "compute"
    disk = plan(slow, card, "bf16", vocabulary_size=1000, measured=1e-9).bottleneck
    assert disk.name == "disk" and "MB/s" in disk.why


def open_one(changed: str = "", **more: object) -> Recipe:
    """`BIG` or other changes, its micro-batch left open."""
    found = recipe_of(changed) if changed else BIG
    return found.model_copy(
        update={"train": found.train.model_copy(update={"micro_batch": 0, **more})}
    )


@pytest.mark.parametrize("share", [0.3, 0.45, 0.6, 0.9])
def test_an_open_micro_batch_fits_with_room_to_spare(share: float) -> None:
    """On a GPU: the fewest passes that leave a tenth, and rows shared out evenly over them.

    Breaks tried: no tenth; the rows of the last pass left over.
    """
    machine, recipe = gpu("A100-40GB"), open_one()
    one, whole = (needed(recipe, setting(0, machine), rows) for rows in (1, 16))
    room = int((one + share * (whole - one)) / 0.9)
    rows = rows_of_a_pass(recipe, setting(room, machine))
    passes = -(-16 // rows)
    assert needed(recipe, setting(room, machine), rows) <= 0.9 * room
    assert rows == -(-16 // passes)
    if passes > 1:
        fewer = -(-16 // (passes - 1))
        assert needed(recipe, setting(room, machine), fewer) > 0.9 * room


def test_an_open_micro_batch_on_a_cpu_or_where_memory_is_unknown() -> None:
    """As many tokens as gain speed there; one row where nothing fits.

    Breaks tried: settings that are not counted taken as counted; no cap on a CPU.
    """
    large = 10**12
    assert rows_of_a_pass(open_one(), setting(large)) == CPU_TOKENS // 512
    assert rows_of_a_pass(open_one(), setting(large, gpu("A100-40GB"))) == 16
    assert rows_of_a_pass(open_one(), setting(0, gpu("A100-40GB"))) == CPU_TOKENS // 512
    assert rows_of_a_pass(open_one(), setting(1)) == 1
    smoothed = open_one(label_smoothing=0.1)
    assert rows_of_a_pass(smoothed, setting(large, gpu("A100-40GB"))) == CPU_TOKENS // 512
    ragged = open_one("context=512 rows=9 micro=9 V=4096")
    assert rows_of_a_pass(ragged, setting(large)) == 5
