"""The loop with the best kept, early stops, averages and saves behind it: all resume exactly."""

from __future__ import annotations

import queue
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from train_parts import ADAMW, Cycle, Tiny, run, section

from wellfit.errors import CheckpointError, DataError, RunError
from wellfit.records import Evaluated, Event, Request, Saved, Step
from wellfit.training import checkpoint
from wellfit.training.average import Average

EVALUATED = Evaluated(
    step=0, split="validation", loss=0.0, loss_se=0.1, perplexity=1.0, bits_per_byte=1.0,
    bits_per_byte_se=0.1, accuracy=0.5, accuracy_se=0.1, tokens=1, bytes=1, documents=1,
    seconds=0.0,
)  # fmt: skip


def losses(*values):
    """A probe that finds these losses at its steps 1, 2, …"""
    return lambda step: [replace(EVALUATED, step=step, loss=values[step - 1])]


def kinds(records):
    return [(r.kind if isinstance(r, Event) else type(r).__name__, r.step) for r in records]


def digests(folder):
    """Steps of the checkpoints that stand → digests of their files."""
    return {
        path.name: sorted((file.name, file.read_bytes()) for file in path.glob("*.safetensors"))
        for path in (folder / "checkpoints").iterdir()
    }


EVERYTHING = {"save_in_background": True, "ema_decay": 0.9, "keep_best": 2, "keep_last": 1}
COURSE = (3.0, 2.0, 2.5, 1.0, 2.0, 3.0, 0.5, 4.0, 4.0, 4.0, 4.0, 4.0)


def test_the_best_are_saved_when_they_are_found_and_stay(tmp_path):
    """checkpoint_every is 5. Break: saving the best only when a checkpoint is due."""
    settings = section(keep_best=2, keep_last=1)
    records = list(run(tmp_path, every=1, evaluate=losses(*COURSE), train_section=settings))
    saved = [record.step for record in records if isinstance(record, Saved)]
    assert saved == [1, 2, 3, 4, 5, 7, 10, 12]
    assert checkpoint.steps(tmp_path / "checkpoints") == [4, 7, 12]


@pytest.mark.parametrize("stop", range(1, 12))
def test_stopped_anywhere_and_resumed_it_ends_the_same(tmp_path, stop):
    """Weights, moments, averages, and which checkpoints stand. Break: averages or scores that
    begin anew at a resume.
    """
    probe = losses(*COURSE)
    settings = section(**EVERYTHING)
    whole = list(run(tmp_path / "whole", every=1, evaluate=probe, train_section=settings))
    requests = queue.SimpleQueue()
    first = []
    for record in run(
        tmp_path / "cut", every=1, evaluate=probe, train_section=settings, requests=requests
    ):
        first.append(record)
        if isinstance(record, Step) and record.step == stop:
            requests.put(Request("stop", "for the test"))
    assert kinds(first)[-1] == ("stopped", stop)
    again = list(
        run(tmp_path / "cut", every=1, evaluate=probe, train_section=settings, resume=True)
    )
    assert kinds(whole)[-1] == kinds(again)[-1] == ("finished", 12)
    one, other = digests(tmp_path / "whole"), digests(tmp_path / "cut")
    assert one == other and "average.safetensors" in dict(one["step-000012"])
    newest = tmp_path / "cut" / "checkpoints" / "step-000012"
    assert [score.value for score in checkpoint.verify(newest).scores] == list(COURSE)


def test_saved_in_the_background_the_training_is_the_same(tmp_path):
    """Records but for the Saved ones, and every byte. Break: `start` hands over live tensors."""
    found = {}
    for name, behind in (("behind", True), ("before", False)):
        settings = section(**EVERYTHING | {"save_in_background": behind})
        records = list(
            run(tmp_path / name, every=1, evaluate=losses(*COURSE), train_section=settings)
        )
        steps = [(r.step, r.loss, r.grad_norm) for r in records if isinstance(r, Step)]
        saved = [r for r in records if isinstance(r, Saved)]
        assert [r.step for r in saved] == [1, 2, 3, 4, 5, 7, 10, 12]
        found[name] = (steps, [r.sha256 for r in saved], digests(tmp_path / name))
    assert found["behind"] == found["before"]


def test_patience_ends_the_training_with_its_reason_and_again_after_a_resume(tmp_path):
    """Break: counting from the resume."""
    settings = section(stop_early={"patience": 3}, keep_best=1)
    probe = losses(3.0, 2.0, 2.5, 2.5, 2.5, *[1.0] * 7)
    records = list(run(tmp_path, every=1, evaluate=probe, train_section=settings))
    assert kinds(records)[-3:] == [("Saved", 5), ("stopped_early", 5), ("finished", 5)]
    assert "no validation.loss better than 2 (step 2) in 3 evaluations" in records[-2].text
    again = list(run(tmp_path, every=1, evaluate=probe, train_section=settings, resume=True))
    assert kinds(again) == [("resumed", 5), ("stopped_early", 5), ("finished", 5)]
    requests = queue.SimpleQueue()
    cut = run(tmp_path / "cut", every=1, evaluate=probe, train_section=settings, requests=requests)
    for record in cut:
        if isinstance(record, Step) and record.step == 4:
            requests.put(Request("stop", ""))
    resumed = run(tmp_path / "cut", every=1, evaluate=probe, train_section=settings, resume=True)
    assert kinds(list(resumed))[-1] == ("finished", 5)


def test_evaluations_see_the_averages_and_training_goes_on_with_the_weights(tmp_path):
    """Beside a training without: the same steps. Break: not giving the weights back."""
    model, seen = Tiny(), {}

    def probe(step):
        seen[step] = {name: p.detach().clone() for name, p in model.named_parameters()}
        return [replace(EVALUATED, step=step)]

    settings = section(ema_decay=0.9, checkpoint_every=4)
    records = list(run(tmp_path / "on", model, every=4, evaluate=probe, train_section=settings))
    plain = Tiny()
    average = Average(dict(plain.named_parameters()), 0.9)
    without = []
    for record in run(tmp_path / "off", plain, train_section=section()):
        without.append(record)
        if isinstance(record, Step):
            average.update(record.step)
            if record.step % 4 == 0:
                assert all(torch.equal(seen[record.step][n], a) for n, a in average.state().items())
    one, other = ([r.loss for r in rs if isinstance(r, Step)] for rs in (records, without))
    assert one == other
    kept = load_file(tmp_path / "on" / "checkpoints" / "step-000012" / "average.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in average.state().items())
    assert records[0].data["evaluated_weights"] == "average"


def test_a_disk_that_fills_up_behind_the_training_ends_it_with_the_message(tmp_path, monkeypatch):
    """The first checkpoint stands, and the training goes on from it once there is room."""
    real = checkpoint.write_tensors

    def full(path, tensors):
        if "step-000010" in str(path):
            raise OSError(28, "No space left on device")
        return real(path, tensors)

    settings = section(save_in_background=True)
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_tensors", full)
        with pytest.raises(CheckpointError, match=r"step 10 cannot be written \(No space left"):
            list(run(tmp_path, train_section=settings))
    assert checkpoint.steps(tmp_path / "checkpoints") == [5]
    records = list(run(tmp_path, train_section=settings, resume=True))
    assert kinds(records)[-1] == ("finished", 12)


def test_a_shard_that_breaks_costs_not_one_step(tmp_path):
    """Break: raising without a checkpoint."""

    class Broken(Cycle):
        def batch(self, step):
            if step == 8:
                raise DataError("shard train-00000 was cut short while it was in use")
            return super().batch(step)

    settings = section(**EVERYTHING)
    probe = losses(*COURSE)
    with pytest.raises(DataError, match="cut short"):
        list(run(tmp_path / "a", Tiny(), Broken(), every=1, evaluate=probe, train_section=settings))
    assert checkpoint.steps(tmp_path / "a" / "checkpoints")[-1] == 7
    list(run(tmp_path / "a", every=1, evaluate=probe, train_section=settings, resume=True))
    list(run(tmp_path / "b", every=1, evaluate=probe, train_section=settings))
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_the_best_of_nothing_held_out_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(RunError, match="nothing is held out for validation"):
        list(run(tmp_path / "new", train_section=section(optimizer=ADAMW, keep_best=1)))
    assert not (tmp_path / "new").exists()
