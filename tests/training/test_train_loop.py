"""The loop: order of records, requests, exact resume, steps that are not finite, messages."""

from __future__ import annotations

import json
import math
import queue
from dataclasses import asdict

import pytest
import torch
from train_parts import ADAMW, CONTEXT, MUON, ROWS, Cycle, Tiny, run, section

from wellfit.errors import CheckpointError, RunError
from wellfit.records import Event, Request, Sampled, Saved, Step
from wellfit.training import checkpoint


def sample(step):
    return [Sampled(step, "prompt", "text")]


def evaluate(step):
    return [Event(step, "evaluated", "")]


def kinds(records):
    return [(r.kind if isinstance(r, Event) else type(r).__name__, r.step) for r in records]


def steps(records):
    """The Step records without their clock readings."""
    return [{**asdict(r), "seconds": 0, "wait_seconds": 0} for r in records if type(r) is Step]


def bits(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_records_come_in_their_order(tmp_path):
    """Break: saving before the probes, or leaving the last step out of `_due`."""
    records = list(run(tmp_path, every=4, evaluate=evaluate, sample=sample))
    expected = [("started", 0)]
    for step in range(1, 13):
        expected.append(("Step", step))
        if step % 4 == 0:
            expected += [("evaluated", step), ("Sampled", step)]
        if step % 5 == 0 or step == 12:
            expected.append(("Saved", step))
    assert kinds(records) == [*expected, ("finished", 12)]
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == [
        "step-000010",
        "step-000012",
    ]


def test_steps_tell_the_truth(tmp_path):
    records = [r for r in run(tmp_path) if type(r) is Step]
    batches = Cycle()
    labels = [int((batches.batch(step).labels != -100).sum()) for step in range(1, 13)]
    assert [r.supervised_tokens for r in records] == labels
    assert [r.tokens for r in records] == [sum(labels[:n]) for n in range(1, 13)]
    assert [r.epoch for r in records] == [step * ROWS / 20 for step in range(1, 13)]
    assert records[-1].loss < records[0].loss and records[-1].learning_rate == 0.0
    assert max(r.learning_rate for r in records) == ADAMW["learning_rate"]
    assert all(0 <= r.wait_seconds <= r.seconds for r in records)


def test_batches_are_fetched_once_each_and_never_past_the_end(tmp_path):
    batches = Cycle()
    list(run(tmp_path, batches=batches))
    assert batches.asked == [1, *range(1, 13)]


@pytest.mark.parametrize("optimizer", [ADAMW, MUON])
@pytest.mark.parametrize("stop_at", [1, 4, 5, 9, 11])
def test_stop_and_resume_equal_an_undisturbed_training(tmp_path, stop_at, optimizer):
    """Mid-epoch, with accumulation and dropout. Break: not restoring the optimizer's moments."""
    recipe = section(optimizer=optimizer)
    straight = Tiny(dropout=0.2)
    whole = list(run(tmp_path / "whole", straight, train_section=recipe))
    requests = queue.SimpleQueue()
    first = []
    for record in run(tmp_path / "cut", Tiny(0.2), train_section=recipe, requests=requests):
        first.append(record)
        if type(record) is Step and record.step == stop_at:
            requests.put(Request("stop", "Ctrl-C"))
    assert kinds(first)[-2:] == [("Saved", stop_at), ("stopped", stop_at)]
    assert "Ctrl-C" in first[-1].text
    model = Tiny(0.2)
    second = list(run(tmp_path / "cut", model, train_section=recipe, resume=True))
    assert kinds(second)[0] == ("resumed", stop_at) and second[0].data["step"] == stop_at
    assert second[0].text == f"from step-{stop_at:06d}"
    assert steps(first) + steps(second) == steps(whole)
    assert equal(bits(model), bits(straight))


def test_close_leaves_a_checkpoint_and_the_due_probes_are_made_up_for(tmp_path):
    """Break: marking the probes as made before they are."""
    records = run(tmp_path, every=4, evaluate=evaluate, sample=sample)
    for record in records:
        if record.step == 4 and isinstance(record, Event):
            records.close()  # evaluated, not yet sampled
    assert checkpoint.latest(tmp_path / "checkpoints").name == "step-000004"
    rest = list(run(tmp_path, every=4, evaluate=evaluate, sample=sample, resume=True))
    assert kinds(rest)[:4] == [("resumed", 4), ("evaluated", 4), ("Sampled", 4), ("Step", 5)]


def test_a_stop_before_the_first_step_leaves_nothing_and_resumes(tmp_path):
    requests = queue.SimpleQueue()
    requests.put(Request("stop", "SIGTERM"))
    assert kinds(run(tmp_path, requests=requests)) == [("started", 0), ("stopped", 0)]
    assert not (tmp_path / "checkpoints").exists()
    rest = list(run(tmp_path, resume=True))
    assert rest[0].text == "from the beginning: no checkpoint was written"
    assert rest[0].data["step"] == 0
    assert kinds(rest)[-1] == ("finished", 12)


def test_a_finished_training_resumes_to_its_end(tmp_path):
    list(run(tmp_path))
    assert kinds(run(tmp_path, resume=True)) == [("resumed", 12), ("finished", 12)]


def test_a_folder_in_use_is_refused(tmp_path):
    list(run(tmp_path))
    with pytest.raises(RunError) as error:
        list(run(tmp_path))
    assert str(error.value).startswith(f"{tmp_path}: the folder holds a training already")
    assert "Resume it, or train into a new folder" in str(error.value)


def test_a_damaged_checkpoint_is_named_and_the_older_one_serves(tmp_path):
    """As a user would: read the message, remove the folder, resume."""
    straight, model = Tiny(), Tiny()
    list(run(tmp_path, straight))
    newest = checkpoint.latest(tmp_path / "checkpoints")
    file = newest / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="Remove the folder step-000012 and resume"):
        list(run(tmp_path, model, resume=True))
    for part in newest.iterdir():
        part.unlink()
    newest.rmdir()
    assert kinds(run(tmp_path, model, resume=True))[0] == ("resumed", 10)
    assert equal(bits(model), bits(straight))


def test_a_resume_with_other_settings_says_that_the_bits_differ(tmp_path):
    records = run(tmp_path)
    for record in records:
        if record.step == 3:
            records.close()
    changed = section(micro_batch=4, clip_norm=0.5, checkpoint_every=2)
    resumed = next(run(tmp_path, train_section=changed, resume=True))
    assert "not bit for bit" in resumed.text and "micro_batch was 3 and is 4" in resumed.text
    assert resumed.data["differences"] == [
        "micro_batch was 3 and is 4",
        "clip_norm was 1.0 and is 0.5",
    ]


def test_a_step_that_is_not_finite_is_told_and_training_goes_on(tmp_path):
    records = list(run(tmp_path, batches=Cycle(bad=(3, 4))))
    by_step = {r.step: r for r in records if type(r) is Step}
    assert math.isnan(by_step[3].loss) and math.isfinite(by_step[5].loss)
    told = [r for r in records if isinstance(r, Event) and r.kind == "non_finite"]
    assert [(r.step, r.data["in_a_row"]) for r in told] == [(3, 1), (4, 2)]
    assert "no token of the batch has a label" in told[0].text
    assert kinds(records)[-1] == ("finished", 12)


class Exploding(Tiny):
    """Its loss is infinite from step 4 on."""

    def token_loss(self, hidden, labels):
        return super().token_loss(hidden, labels) * (math.inf if self.key[1] >= 4 else 1.0)


def test_ten_steps_in_a_row_end_the_training_with_its_last_good_weights(tmp_path):
    """Break: counting over a resume anew, or saving nothing."""
    longer = section(budget={"steps": 30})
    good = Tiny()
    undisturbed = run(tmp_path / "good", good, train_section=longer)
    for record in undisturbed:
        if record.step == 3:
            undisturbed.close()
    model = Exploding()
    first = run(tmp_path / "bad", model, train_section=longer)
    for record in first:
        if isinstance(record, Event) and record.step == 8:
            first.close()
    model = Exploding()
    records = list(run(tmp_path / "bad", model, train_section=longer, resume=True))
    assert kinds(records)[-2:] == [("Saved", 13), ("failed", 13)]
    assert records[-1].data == {"in_a_row": 10, "last_applied": 3, "weights_finite": True}
    assert "10 steps in a row had no finite loss" in records[-1].text
    assert "Lower the learning rate" in records[-1].text
    assert equal(bits(model), bits(good))


def test_a_failing_batch_is_raised_and_the_checkpoints_stay(tmp_path):
    class Broken(Cycle):
        def batch(self, step):
            if step == 8:
                raise RunError("shard gone")
            return super().batch(step)

    with pytest.raises(RunError, match="shard gone"):
        list(run(tmp_path, batches=Broken()))
    assert checkpoint.latest(tmp_path / "checkpoints").name == "step-000007", "all that was done"


def test_probes_do_not_disturb_the_training(tmp_path):
    """A probe that leaves the model in evaluation mode must not switch dropout off."""

    def careless(step):
        probed.eval()
        torch.manual_seed(step)
        return []

    plain, probed = Tiny(0.3), Tiny(0.3)
    list(run(tmp_path / "a", plain))
    list(run(tmp_path / "b", probed, every=2, evaluate=careless))
    assert equal(bits(plain), bits(probed))


def test_bf16_trains_on_float32_weights(tmp_path):
    model = Tiny()
    records = list(run(tmp_path, model, train_section=section(precision="bf16")))
    assert model.compute_dtype is torch.bfloat16 and model.matrix.dtype is torch.float32
    losses = [r.loss for r in records if type(r) is Step]
    assert losses[-1] < losses[0]
    other = [r.loss for r in run(tmp_path / "fp32") if type(r) is Step]
    assert losses != other and losses == pytest.approx(other, rel=0.02)


def test_the_plan_is_written_before_the_first_step(tmp_path):
    records = run(tmp_path, train_section=section(budget={"epochs": 2}))
    assert next(records).kind == "started"
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["steps"] == 5
    assert plan["arithmetic"] == "2 epochs x 20 rows / 8 rows a step = 5, rounded up to 5 steps"
    assert len([r for r in records if type(r) is Step]) == 5


def test_a_token_budget_is_rounded_up_to_whole_steps(tmp_path):
    tokens = 2 * ROWS * CONTEXT + 1
    records = list(run(tmp_path, train_section=section(budget={"tokens": tokens})))
    assert records[0].data["planned_steps"] == 3 == sum(type(r) is Step for r in records)
    assert records[0].data["steps_per_epoch"] == 2.5
    assert [type(r) for r in records][-2:] == [Saved, Event]
