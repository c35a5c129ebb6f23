"""Memory that runs out: the same update in smaller pieces, and a clear end where none fits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from train_parts import MUON, Tiny, run, section

from wellfit.errors import RunError
from wellfit.records import Event, Step
from wellfit.training import checkpoint
from wellfit.training.out_of_memory import in_smaller_pieces, ran_out


class Crowded(Tiny):
    """Has room for so many rows; from a step on, if told, for fewer."""

    def __init__(self, room, later=None, from_step=0):
        super().__init__()
        self.room, self.later, self.from_step = room, later, from_step

    def token_loss(self, hidden, labels):
        room = self.later if self.later and self.key[1] >= self.from_step else self.room
        # The first micro-batch fits: its gradients must not be counted twice.
        if hidden.shape[0] > room and (self.key[2] or hidden.shape[0] == 8):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().token_loss(hidden, labels)


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def made(records):
    return [r.loss for r in records if type(r) is Step]


@pytest.mark.parametrize("optimizer", [{"kind": "adamw", "learning_rate": 0.01}, MUON])
def test_a_planted_lack_of_memory_changes_nothing(tmp_path, optimizer):
    """Within 1e-6 of the losses. Break: keeping the gradients of the pieces that did fit."""
    recipe = section(optimizer=optimizer, micro_batch=4)
    whole, crowded = Tiny(), Crowded(8, later=2, from_step=3)
    expected = list(run(tmp_path / "whole", whole, train_section=recipe))
    records = list(run(tmp_path / "crowded", crowded, train_section=recipe))
    assert made(records) == pytest.approx(made(expected), rel=1e-6)
    assert (flat(crowded) - flat(whole)).norm() <= 1e-5 * flat(whole).norm()
    told = [r for r in records if isinstance(r, Event) and r.kind == "out_of_memory"]
    assert [(r.step, r.data) for r in told] == [(3, {"before": 4, "after": 2})]
    assert "memory ran out with 4 rows in a micro-batch" in told[0].text
    supervised = [r.supervised_tokens for r in records if type(r) is Step]
    assert supervised == [r.supervised_tokens for r in expected if type(r) is Step]


def test_the_size_that_fitted_is_remembered_by_a_resume(tmp_path):
    """Break: leaving the micro-batch out of the checkpoint."""
    recipe = section(micro_batch=8)
    first = run(tmp_path, Crowded(3), train_section=recipe)
    for record in first:
        if record.step == 4:
            first.close()
    assert (
        checkpoint.verify(checkpoint.latest(tmp_path / "checkpoints")).extra["stepper"][
            "micro_batch"
        ]
        == 2
    )
    roomy = Tiny()
    rest = list(run(tmp_path, roomy, train_section=recipe, resume=True))
    assert {call[3] for call in roomy.calls} == {2}
    assert not [r for r in rest if isinstance(r, Event) and r.kind == "out_of_memory"]
    straight = Tiny()
    list(run(tmp_path / "straight", straight, train_section=section(micro_batch=2)))
    assert torch.equal(flat(roomy), flat(straight))


def test_another_size_in_the_recipe_is_tried_again(tmp_path):
    first = run(tmp_path, Crowded(3), train_section=section(micro_batch=8))
    for record in first:
        if record.step == 4:
            first.close()
    roomy = Tiny()
    list(run(tmp_path, roomy, train_section=section(micro_batch=4), resume=True))
    assert {call[3] for call in roomy.calls} == {4}


def test_minutes_are_calibrated_with_the_size_that_fits(tmp_path):
    recipe = section(micro_batch=8, budget={"minutes": 0.001})
    records = list(run(tmp_path, Crowded(2), train_section=recipe))
    assert records[-1].kind == "finished"
    assert (
        checkpoint.verify(checkpoint.latest(tmp_path / "checkpoints")).extra["stepper"][
            "micro_batch"
        ]
        == 2
    )


def test_not_even_one_row(tmp_path):
    """Checkpoints stay, and the message names ways out."""
    with pytest.raises(RunError) as error:
        list(run(tmp_path, Crowded(8, later=0.5, from_step=8)))
    text = str(error.value)
    assert "a single row of a micro-batch does not fit in memory (CUDA out of memory." in text
    assert "Shorten model.context" in text and "train.activation_checkpointing" in text
    assert checkpoint.latest(tmp_path / "checkpoints").name == "step-000005"


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def broken(rows):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        in_smaller_pieces(broken, 8, lambda: None)
    assert ran_out(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9"))


LIMITED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from train_parts import Cycle, Tiny, run, section

class Wide(Tiny):
    def token_loss(self, hidden, labels):
        # A gigabyte a row, as a large vocabulary's logits are.
        waste = torch.ones(hidden.shape[0], 2**28)
        return super().token_loss(hidden, labels) + 0 * waste[0, 0]

records = run(__import__("pathlib").Path(sys.argv[2]), Wide(),
              train_section=section(micro_batch=8, budget={"steps": 2}))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 3 * 2**30, resource.RLIM_INFINITY))
for record in records:
    if getattr(record, "kind", "") in ("out_of_memory", "finished"):
        print(record.kind, record.data.get("after"))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits address space")
def test_main_memory_that_really_runs_out(tmp_path):
    """The error of torch's own allocator. Break: asking for its class alone."""
    here = str(Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, here, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["out_of_memory 2", "finished None"], done.stdout
