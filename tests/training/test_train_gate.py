"""What is held back: the gate against numpy, the loss scale against torch's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from wellfit.training.gate import LEAST, WINDOW, Gate
from wellfit.training.loss_scale import GROWTH_STEPS, LossScale

CPU = torch.device("cpu")


def gate(holds_back=True, deviation=12.0):
    return Gate(CPU, deviation=deviation, holds_back=holds_back)


def judged(one, loss, norm=1.0):
    found = one.judge(torch.tensor(loss), torch.tensor(norm))
    return tuple(bool(part) for part in (found.finite, found.spike, found.apply))


def curve(steps, seed=0, noise=0.05):
    """A loss as of a real training: steep, then slow, with noise."""
    draw = np.random.RandomState(seed)
    at = np.arange(1, steps + 1)
    return (2 + 6 * at**-0.5) * np.exp(noise * draw.standard_normal(steps))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_never_passes(bad):
    """From the first step on, whatever the policy. Break: `all` instead of `any` of the two."""
    for one in (gate(), gate(holds_back=False)):
        assert judged(one, bad) == (False, False, False)
        assert judged(one, 1.0, bad) == (False, False, False)
        assert judged(one, 1.0) == (True, False, True)


def test_a_spike_is_seen_where_numpy_sees_one():
    """Break: keeping values that were not applied, or the mean instead of the median."""
    one, kept = gate(), []
    draw = np.random.RandomState(1)
    losses, norms = curve(400), np.exp(0.3 * draw.standard_normal(400))
    losses[[100, 250, 399]] *= 4
    norms[[180, 181, 300]] *= 40
    losses[220] = math.nan
    seen = []
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True)):
        finite, spike, apply = judged(one, np.float32(loss), np.float32(norm))
        logs = np.log(np.array([loss, norm]))
        expected = False
        if len(kept) >= LEAST and finite:
            past = np.array(kept[-WINDOW:])
            middle = np.quantile(past, 0.5, axis=0, method="lower")
            spread = np.quantile(abs(past - middle), 0.5, axis=0, method="lower")
            over = logs - middle
            expected = bool(((0.6745 * over > 12 * spread) & (over > np.log([1.25, 4.0]))).any())
        assert spike is expected, step
        assert apply is (finite and not spike)
        if apply:
            kept.append(logs)
        if spike:
            seen.append(step)
    assert seen == [100, 180, 181, 250, 300, 399]
    state, past = one.state(), np.array(kept[-WINDOW:])
    assert state["count"] == len(kept) == 393
    for name, column in (("log_losses", 0), ("log_norms", 1)):
        np.testing.assert_allclose(sorted(state[name]), sorted(past[:, column]), atol=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_healthy_courses_have_no_spikes(seed):
    """Steep beginnings, noise up to 10 %, heavy-tailed gradient norms, resting ends."""
    one = gate()
    draw = np.random.RandomState(seed)
    losses = curve(600, seed, noise=0.02 + 0.08 * (seed % 5) / 4)
    norms = np.exp(0.4 * draw.standard_t(5, 600)) * np.linspace(3, 0.3, 600)
    for loss, norm in zip(losses, norms, strict=True):
        assert judged(one, np.float32(loss), np.float32(norm))[2]


def test_a_policy_that_only_warns_lets_spikes_pass_and_counts_them():
    one = gate(holds_back=False)
    for loss in curve(100):
        judged(one, np.float32(loss))
    assert judged(one, 50.0) == (True, True, True)
    # Spikes that passed belong to the past: when half of it is such, they are the new level.
    levels = [judged(one, 50.0 + 0.1 * n)[1] for n in range(WINDOW)]
    assert levels[0] and not levels[-1]


def test_a_gate_goes_on_from_its_state():
    """Break: leaving the count out, so that the ring is overwritten from its beginning."""
    losses = [np.float32(loss) for loss in curve(300)]
    for cut in (1, 31, 32, 127, 128, 200):
        whole, first, second = gate(), gate(), gate()
        for loss in losses[:cut]:
            judged(first, loss)
        second.load(first.state())
        assert second.state() == first.state()
        for loss in losses[:cut]:
            judged(whole, loss)
        for loss in [*losses[cut:], np.float32(60.0)]:
            assert judged(second, loss) == judged(whole, loss)
        assert second.state() == whole.state()


class NoWaiting(TorchDispatchMode):
    """Refuses what would make the host wait for a device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "is_nonzero", "equal"), name
        return function(*args, **(kwargs or {}))


def test_judging_and_scaling_never_wait_for_the_device():
    """Break: an `if` on a tensor in `judge`."""
    one, scale = gate(), LossScale(CPU)
    loss, norm = torch.tensor(2.0), torch.tensor(1.0)
    with NoWaiting():
        for _ in range(3):
            verdict = one.judge(loss, norm)
            scale.update(1 - verdict.finite)


def test_the_loss_scale_adapts_as_that_of_torch():
    """Every overflow pattern of 6,000 steps. Break: not resetting the count after an overflow."""
    draw = np.random.RandomState(0)
    mine = LossScale(CPU)
    scale, tracker = torch.full((), 2.0**16), torch.zeros((), dtype=torch.int32)
    overflows = draw.random_sample(6 * GROWTH_STEPS // 2) < 0.0006
    assert 2 < overflows.sum() < 10
    for overflow in overflows:
        found = torch.tensor(float(overflow))
        mine.update(found)
        torch._amp_update_scale_(scale, tracker, found, 2.0, 0.5, GROWTH_STEPS)
        assert (float(mine.factor), mine.state()["good_steps"]) == (float(scale), int(tracker))
    again = LossScale(CPU)
    again.load(mine.state())
    assert again.state() == mine.state()


def test_the_loss_scale_stays_between_one_and_its_largest():
    mine = LossScale(CPU)
    for _ in range(40):
        mine.update(torch.ones(()))
    assert float(mine.factor) == 1.0
    mine.load({"factor": 2.0**24, "good_steps": GROWTH_STEPS - 1})
    mine.update(torch.zeros(()))
    assert float(mine.factor) == 2.0**24
