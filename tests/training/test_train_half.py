"""Training in float16: scaled gradients, overflows that are no fault, and the scale in a resume."""

from __future__ import annotations

import pytest
import torch
from train_parts import Cycle, Tiny, run, section

from wellfit.records import Event, Step
from wellfit.training import checkpoint, loss_scale

CPU = torch.device("cpu")


def made(records):
    return [r.loss for r in records if type(r) is Step]


def flat(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_fp16_trains_near_float32(tmp_path):
    """Break: unscaling after the clipping, which then bounds a gradient 65,536 times too large."""
    exact, half = Tiny(), Tiny()
    losses = made(run(tmp_path / "32", exact, train_section=section(clip_norm=0.1)))
    recipe = section(precision="fp16", clip_norm=0.1)
    records = list(run(tmp_path / "16", half, train_section=recipe))
    assert half.compute_dtype is torch.float16 and half.matrix.dtype is torch.float32
    assert made(records) == pytest.approx(losses, rel=5e-3)
    assert (flat(half) - flat(exact)).norm() < 0.01 * flat(exact).norm()
    norms = [r.grad_norm for r in records if type(r) is Step]
    assert max(norms) < 10, "norms are told without the scale"


class Steep(Tiny):
    """Its gradients are 512 times larger than they should be: they overflow at the first scales."""

    def hidden(self, tokens, positions=None, segments=None, cache=None):
        hidden = super().hidden(tokens, positions, segments, cache)
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: gradient * 2.0**9)
        return hidden


def test_overflows_halve_the_scale_and_are_no_fault_of_the_run(tmp_path):
    """Weights and moments wait until the scale fits. Break: counting overflows as not finite."""
    model = Steep()
    recipe = section(precision="fp16", budget={"steps": 30})
    records = list(run(tmp_path, model, train_section=recipe, every=30))
    told = [r for r in records if isinstance(r, Event) and r.kind == "loss_scale"]
    assert 1 <= len(told) < 15 and [r.step for r in told] == list(range(1, len(told) + 1))
    assert "float16 gradients overflowed" in told[0].text and not told[0].data["applied"]
    assert records[-1].kind == "finished"
    assert not [r for r in records if isinstance(r, Event) and r.kind == "non_finite"]
    kept = checkpoint.verify(checkpoint.latest(tmp_path / "checkpoints")).extra["stepper"]
    assert kept["loss_scale"]["factor"] == loss_scale.FIRST / 2 ** len(told)
    assert torch.isfinite(flat(model)).all()


@pytest.mark.parametrize("stop_at", [2, 7])
def test_the_scale_goes_on_after_a_resume(tmp_path, stop_at):
    """Break: a scale that begins anew, so that early overflows come again."""
    recipe = section(precision="fp16")
    straight, again = Steep(), Steep()
    whole = list(run(tmp_path / "whole", straight, train_section=recipe))
    first = run(tmp_path / "cut", Steep(), train_section=recipe)
    for record in first:
        if record.step == stop_at and type(record) is Step:
            first.close()
    rest = list(run(tmp_path / "cut", again, train_section=recipe, resume=True))
    assert torch.equal(flat(again), flat(straight))
    assert made(rest) == made(whole)[stop_at:]


def test_the_plain_loop_is_unchanged_by_a_scale_of_a_power_of_two():
    """Scaling float32 gradients by 2^16 and back changes no bit."""
    from wellfit.training.step import Objective, accumulate

    plain, scaled = Tiny(), Tiny()
    for model, scale in ((plain, None), (scaled, torch.tensor(2.0**16))):
        accumulate(
            model, Cycle().batch(1), Objective(), micro_batch=3, device=CPU, key=(0, 1), scale=scale
        )
    for one, other in zip(plain.parameters(), scaled.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad / 2.0**16)
