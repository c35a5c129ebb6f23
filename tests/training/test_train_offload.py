"""Activations in another memory: the same gradients, each memory once, and never a weight."""

from __future__ import annotations

import pytest
import torch

from wellfit.errors import RunError
from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import Model
from wellfit.training.offload import courier_for, offloaded


class Copies:
    """Takes memory away by copying it; remembers what it carried."""

    def __init__(self):
        self.taken, self.brought = [], []

    def away(self, memory):
        self.taken.append(memory.clone())
        return self.taken[-1]

    def back(self, parcel):
        self.brought.append(len(parcel))
        return parcel.clone()


def model_of(dtype, activation="swiglu"):
    shape = Model(
        context=16, layers=2, width=32, heads=2, kv_heads=1, hidden=48, activation=activation
    )
    model = Transformer(shape, 31)
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            drawn = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
            parameter.copy_(drawn * 0.3)
    model.compute_dtype = dtype
    return model


def gradients(model, courier=None, smallest=2048):
    row = torch.randint(0, 31, (2, 16), generator=torch.Generator().manual_seed(0))
    if courier is None:
        loss = model.token_loss(model.hidden(row), row.roll(-1, 1)).mean()
    else:
        with offloaded(courier, model.parameters(), smallest=smallest):
            loss = model.token_loss(model.hidden(row), row.roll(-1, 1)).mean()
    return torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("activation", ["swiglu", "relu2"])
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_keep_their_bits(dtype, recompute, activation):
    """Break: bringing a view back without its offset, or without its strides."""
    model = model_of(dtype, activation)
    model.recompute = recompute
    courier = Copies()
    wanted, found = gradients(model), gradients(model, courier, smallest=64)
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))
    assert courier.taken and len(courier.brought) <= len(courier.taken)


def test_each_memory_goes_once_and_weights_stay():
    """With whole blocks recomputed, only what goes into each block is left to carry, and the end.

    Breaks when casts of weights are carried, and when each view of a memory is.
    """
    model = model_of(torch.bfloat16)
    model.recompute = "full"
    courier = Copies()
    gradients(model, courier)
    features = 2 * 16 * 32 * 2
    # Into two blocks; the last norm's units; the loss's features. The mask is small.
    assert [len(memory) for memory in courier.taken] == [features] * 4
    model.recompute = "none"
    courier = Copies()
    gradients(model, courier)
    seen = [bytes(memory.numpy()) for memory in courier.taken]
    weights = [
        bytes(parameter.detach().bfloat16().view(torch.uint8).numpy())
        for parameter in model.parameters()
        if parameter.ndim == 2 and parameter is not model.head.weight
    ]
    assert len(seen) > 8 and not set(weights) & set(seen)


def test_views_of_one_memory_travel_once_and_come_back_as_they_lay():
    """A part from the middle and a transpose. Break: no offset; a parcel for each view."""
    weight = torch.arange(1.0, 1001).requires_grad_()
    fixed = torch.arange(1000.0).flip(0)
    courier = Copies()
    with offloaded(courier, [], smallest=64):
        part = (weight[:500] * fixed[300:800]).sum()
        turned = (weight.view(100, 10) * fixed.view(10, 100).t()).sum()
    found = torch.autograd.grad(part + turned, weight)
    wanted = fixed.view(10, 100).t().reshape(-1)
    wanted[:500] += fixed[300:800]
    assert torch.equal(found[0], wanted)
    assert courier.brought == [4000]
    assert [len(memory) for memory in courier.taken] == [4000]


def test_a_memory_that_was_written_to_is_another():
    """Two saves around an in-place change. Break: leaving the version out of the key."""
    x = torch.arange(1.0, 1001).requires_grad_()
    courier = Copies()
    with offloaded(courier, [], smallest=64):
        y = x * 1
        first = (y.detach() * x).sum()
        with torch.no_grad():
            z = y.detach()
            z.add_(1)
        second = (z * x).sum()
    (grad,) = torch.autograd.grad(first + second, x)
    torch.testing.assert_close(grad, (2 * x + 1).detach())


def test_small_tensors_stay_and_a_new_tensor_at_an_old_address_is_new():
    """Break: keying by the address alone (the memory of a freed tensor is used again)."""
    courier = Copies()
    x = torch.ones(1000, requires_grad=True)
    total = torch.zeros(())
    with offloaded(courier, [], smallest=2048):
        for number in range(1, 6):
            total = total + (x * torch.full((1000,), float(number))).sum()
        total = total + (x[:10] * torch.ones(10)).sum()
    (grad,) = torch.autograd.grad(total, x)
    assert grad[-1] == 15 and grad[0] == 16
    assert sorted({float(memory.view(torch.float32)[0]) for memory in courier.taken}) == [
        1.0, 2.0, 3.0, 4.0, 5.0,
    ]  # fmt: skip


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_where_there_is_nothing_to_gain_it_is_refused(device):
    with pytest.raises(RunError) as error:
        courier_for(torch.device(device))
    assert str(error.value) == (
        f"train.activation_offload=true: on {device} activations are in the host's memory "
        "already: there is nowhere to take them\n"
        "  Set train.activation_offload=false; train.activation_checkpointing=full needs the "
        "least memory."
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_the_bits_are_the_same():
    device = torch.device("cuda")
    model = model_of(torch.bfloat16).to(device)
    row = torch.randint(0, 31, (64, 16), device=device)

    def gradients_there(courier=None):
        if courier is None:
            loss = model.token_loss(model.hidden(row), row.roll(-1, 1)).mean()
        else:
            with offloaded(courier, model.parameters(), smallest=1024):
                loss = model.token_loss(model.hidden(row), row.roll(-1, 1)).mean()
        return torch.autograd.grad(loss, list(model.parameters()))

    found = gradients_there(courier_for(device))
    assert all(torch.equal(a, b) for a, b in zip(gradients_there(), found, strict=True))
