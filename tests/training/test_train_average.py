"""The average of the weights against torch's, skipped steps, and lending without a trace."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from train_parts import Tiny

from wellfit.training.average import Average, decay_at


def moved(model, seed):
    """The model after some update."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))


def bits(tensors):
    return {name: tensor.detach().clone().view(torch.int32) for name, tensor in tensors.items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.999])
def test_step_by_step_as_torchs_own(decay):
    """torch.optim.swa_utils with the decay of each step, bit for bit over 30 steps.

    Break: swapping the two shares; counting steps from 0; no warm-up of the decay.
    """
    model = Tiny()
    average = Average(dict(model.named_parameters()), decay)
    reference = AveragedModel(model)
    reference.n_averaged.fill_(1)  # it too begins at the initial weights
    for step in range(1, 31):
        moved(model, step)
        average.update(step)
        reference.multi_avg_fn = get_ema_multi_avg_fn(min(decay, (1 + step) / (10 + step)))
        reference.update_parameters(model)
        assert same(bits(average.state()), bits(dict(reference.module.named_parameters())))


def test_the_decay_warms_up_and_ends_where_it_was_told():
    assert decay_at(1, 0.99) == 2 / 11 and decay_at(8, 0.99) == 0.5
    assert decay_at(889, 0.99) < 0.99 == decay_at(890, 0.99)
    assert decay_at(5, 0.0) == 0.0


@pytest.mark.parametrize("kind", [torch.float32, torch.bool])
def test_a_step_that_was_not_applied_leaves_no_trace_and_needs_no_answer(kind):
    """`applied` as a tensor is never read on the host. Break: `if applied`; adding regardless."""
    model = Tiny()
    told, known = (Average(dict(model.named_parameters()), 0.9) for _ in range(2))
    for step in range(1, 12):
        applied = step % 3 != 0
        if applied:
            moved(model, step)
        tensor = torch.tensor(applied, dtype=kind)
        with _NoReading():
            told.update(step, tensor)
        known.update(step, applied)
        assert same(bits(told.state()), bits(known.state()))


class _NoReading(torch.overrides.TorchFunctionMode):
    """Refuses whatever would wait for a device: turning a tensor into a number or a truth."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        assert name not in ("__bool__", "__float__", "__int__", "item", "cpu", "tolist"), name
        return function(*args, **(kwargs or {}))


def test_lending_the_averages_and_back_bit_for_bit():
    """In place: whoever holds the tensors still holds them. Break: lending copies; no way back."""
    model = Tiny()
    average = Average(dict(model.named_parameters()), 0.9)
    moved(model, 1)
    with torch.no_grad():
        model.bias[0], model.bias[1] = float("nan"), -0.0
    average.update(1)
    weights, averages = bits(dict(model.named_parameters())), bits(average.state())
    places = [parameter.data_ptr() for parameter in model.parameters()]
    with average.swapped():
        assert same(bits(dict(model.named_parameters())), averages)
        assert [parameter.data_ptr() for parameter in model.parameters()] == places
    assert same(bits(dict(model.named_parameters())), weights)
    assert same(bits(average.state()), averages)
    with pytest.raises(ZeroDivisionError), average.swapped():
        1 / 0  # noqa: B018
    assert same(bits(dict(model.named_parameters())), weights)


def test_taken_up_again_it_goes_on_bit_for_bit():
    """Break: loading into copies that are never looked at."""
    model = Tiny()
    average = Average(dict(model.named_parameters()), 0.95)
    for step in range(1, 6):
        moved(model, step)
        average.update(step)
    kept = copy.deepcopy(average.state())
    again = Average(dict(model.named_parameters()), 0.95)
    again.load(kept)
    for step in range(6, 9):
        moved(model, step)
        average.update(step)
        again.update(step)
    assert same(bits(average.state()), bits(again.state()))
    assert not any(one.requires_grad for one in average.state().values())
