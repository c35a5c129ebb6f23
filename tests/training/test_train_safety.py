"""Steps that would do harm: told, passed over, rewound, stopped at, and undone."""

from __future__ import annotations

import math
import queue

import pytest
import torch
from train_parts import Cycle, Tiny, run, section

from wellfit.errors import RunError
from wellfit.monitor.timeline import Timeline
from wellfit.records import Event, Request, Step
from wellfit.training import gate
from wellfit.training.start import Setup


@pytest.fixture(autouse=True)
def a_short_past(monkeypatch):
    """Twelve steps of a small model must be past enough."""
    monkeypatch.setattr(gate, "LEAST", 5)


class Hurt(Tiny):
    """The loss of the rows planned for some steps is multiplied, as a damaged document does."""

    def __init__(self, rows_of, factor, dropout=0.0):
        super().__init__(dropout)
        self.hurt = {Cycle().batch(step).tokens.tobytes() for step in rows_of}
        self.factor = factor
        self.seen = []

    def hidden(self, tokens, positions=None, segments=None, cache=None):
        self.seen.append(tokens.numpy().tobytes())
        return super().hidden(tokens, positions, segments, cache)

    def token_loss(self, hidden, labels):
        losses = super().token_loss(hidden, labels)
        return losses * self.factor if self.seen[-1] in self.hurt else losses


def told(records):
    return [(r.kind, r.step) for r in records if isinstance(r, Event)]


def bits(model):
    return [p.detach().clone() for p in model.parameters()]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def recipe(steps=12, **safety):
    return section(
        budget={"steps": steps}, micro_batch=8, checkpoint_every=3, keep_last=9, safety=safety
    )


def test_a_spike_is_told_and_applied_where_the_recipe_only_warns(tmp_path):
    model = Hurt([8], 50.0)
    records = list(run(tmp_path, model, train_section=recipe()))
    assert told(records) == [("started", 0), ("spike", 8), ("finished", 12)]
    event = next(r for r in records if isinstance(r, Event) and r.kind == "spike")
    assert event.data["applied"] and "stand far above those of the last steps" in event.text
    assert event.text.endswith("the update was applied")


def test_a_skipped_spike_changes_nothing(tmp_path):
    """Break: letting the gate judge after the update."""
    hurt, healed = Hurt([8], 50.0), Hurt([8], math.nan)
    records = list(run(tmp_path / "a", hurt, train_section=recipe(spike="skip")))
    assert told(records) == [("started", 0), ("spike", 8), ("finished", 12)]
    # A step that is not finite is passed over as well: both trainings are the same.
    list(run(tmp_path / "b", healed, train_section=recipe()))
    assert same(bits(hurt), bits(healed))


@pytest.mark.parametrize(("policy", "factor"), [("spike", 50.0), ("non_finite", math.nan)])
def test_a_rewound_training_goes_on_with_the_rows_after_the_harm(tmp_path, policy, factor):
    """Break: rewinding weights without moments, or taking the same rows again."""
    model = Hurt([8], factor, dropout=0.2)
    records = list(run(tmp_path, model, train_section=recipe(**{policy: "rewind"})))
    steps = [r.step for r in records if type(r) is Step]
    assert steps == [*range(1, 9), *range(7, 13)]
    name = "spike" if policy == "spike" else "non_finite"
    assert told(records) == [("started", 0), (name, 8), ("rewound", 6), ("finished", 12)]
    event = next(r for r in records if isinstance(r, Event) and r.kind == "rewound")
    assert event.data == {"step": 6, "bad_step": 8, "skipped_rows": 16}
    assert "back to step-000006" in event.text and "--resume --at 6" in event.text
    # The same as a training whose rows of steps 7 and 8 never existed.
    batches = Cycle()
    batches.plan.skip(after_step=6, through_step=8)
    other = Tiny(0.2)
    list(run(tmp_path / "other", other, batches, train_section=recipe()))
    assert same(bits(model), bits(other))


def test_the_history_of_a_rewound_training_holds_each_step_once(tmp_path):
    timeline = Timeline()
    for seq, record in enumerate(
        run(tmp_path, Hurt([8], 50.0), train_section=recipe(spike="rewind"))
    ):
        from dataclasses import asdict

        attempt = 2 if seq > 10 else 1
        timeline.add(type(record), {"seq": seq, "attempt": attempt, "time": "", **asdict(record)})
    assert list(timeline.columns["loss"].steps) == list(range(1, 13))
    assert timeline.superseded >= 2 and timeline.status == "finished"


def test_without_a_checkpoint_a_rewind_is_a_step_left_out(tmp_path):
    records = list(run(tmp_path, Hurt([2], math.nan), train_section=recipe(non_finite="rewind")))
    assert told(records)[1:3] == [("non_finite", 2), ("not_rewound", 2)]
    assert "no checkpoint stands from before" in next(
        r.text for r in records if isinstance(r, Event) and r.kind == "not_rewound"
    )
    assert told(records)[-1] == ("finished", 12)


def test_rewinds_are_bounded_also_over_a_resume(tmp_path):
    """Break: counting rewinds in memory only."""
    bad = range(8, 30)
    batches = Cycle()
    train_section = recipe(non_finite="rewind", limit=2)
    records = list(run(tmp_path, Hurt(bad, math.nan), batches, train_section=train_section))
    kinds = [kind for kind, _ in told(records)]
    assert kinds.count("rewound") == 2 and kinds[-1] == "stopped"
    assert "2 rewinds are the recipe's limit" in records[-1].text
    again = list(
        run(tmp_path, Hurt(bad, math.nan), batches, train_section=train_section, resume=True)
    )
    assert [kind for kind, _ in told(again)].count("rewound") == 0


def test_a_policy_to_stop_leaves_the_weights_of_the_step_before(tmp_path):
    model, good = Hurt([8], 50.0), Tiny()
    records = list(run(tmp_path, model, train_section=recipe(spike="stop")))
    assert told(records)[-1] == ("stopped", 8)
    assert "step 8 is one that the recipe does not allow" in records[-1].text
    for record in run(tmp_path / "good", good, train_section=recipe()):
        if type(record) is Step and record.step == 7:
            break
    assert same(bits(model), bits(good))


def test_a_rewind_can_be_undone(tmp_path):
    """Break: leaving the rows passed over, or the later checkpoints, in force."""
    batches = Cycle()
    list(run(tmp_path, Hurt([8], 50.0), batches, train_section=recipe(spike="rewind")))
    assert batches.skips == 1
    undone, never = Hurt([8], 50.0), Hurt([8], 50.0)
    records = list(
        run(tmp_path, undone, batches, train_section=recipe(spike="warn"), resume=True, at=6)
    )
    assert ("spike", 8) in told(records) and records[0].step == 6
    list(run(tmp_path / "never", never, train_section=recipe()))
    assert same(bits(undone), bits(never))
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("set-aside-*"))
    assert kept == ["set-aside-step-000009", "set-aside-step-000012"]


def test_resuming_at_a_step_without_a_checkpoint_names_those_that_stand(tmp_path):
    list(run(tmp_path, train_section=recipe()))
    with pytest.raises(RunError) as error:
        list(run(tmp_path, train_section=recipe(), resume=True, at=7))
    assert "no checkpoint of step 7; those that stand: 3, 6, 9, 12" in str(error.value)
    assert "Resume at one of these steps" in str(error.value)


@pytest.mark.parametrize("stop_at", [4, 8, 9])
def test_a_stop_between_spikes_resumes_to_the_same_bits(tmp_path, stop_at):
    """The gate's past is part of a checkpoint. Break: leaving `extra` out of the state."""
    straight, model = Hurt([8], 50.0, 0.2), Hurt([8], 50.0, 0.2)
    list(run(tmp_path / "whole", straight, train_section=recipe(spike="skip")))
    requests = queue.SimpleQueue()
    first = run(tmp_path / "cut", model, train_section=recipe(spike="skip"), requests=requests)
    for record in first:
        if type(record) is Step and record.step == stop_at:
            requests.put(Request("stop", "Ctrl-C"))
    again = Hurt([8], 50.0, 0.2)
    rest = list(run(tmp_path / "cut", again, train_section=recipe(spike="skip"), resume=True))
    assert ("spike", 8) in told(rest) or stop_at >= 8
    assert same(bits(again), bits(straight))


@pytest.mark.parametrize("safety", [{"spike": "rewind"}, {"spike": "skip"}, {"spike": "stop"}])
def test_numbers_read_a_step_late_tell_the_same_story(tmp_path, monkeypatch, safety):
    """As off the CPU. Break: rewinding from the step that is newest instead of the harmful one."""

    def story(folder, late):
        monkeypatch.setattr(Setup, "late", property(lambda setup: late))
        model = Hurt([8], 50.0, 0.2)
        records = list(run(folder, model, every=5, train_section=recipe(**safety)))
        names = [
            (r.kind if isinstance(r, Event) else type(r).__name__, r.step, getattr(r, "loss", None))
            for r in records
        ]
        return names, bits(model)

    plain, late = story(tmp_path / "plain", False), story(tmp_path / "late", True)
    if safety["spike"] == "stop":  # a step more was under way, and is told
        assert late[0][-1][:2] == ("stopped", 9)
        return
    assert late[0] == plain[0] and same(late[1], plain[1])
