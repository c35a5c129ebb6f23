"""The feed-forward's inner features made again in the backward pass: the same bits, kept less."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from wellfit.model.feedforward import FeedForward, inner_features
from wellfit.recipe.schema import Model


def feed_forward(activation: Any, bias: bool = False) -> FeedForward:
    section = Model(
        context=8, layers=1, width=64, heads=2, kv_heads=2, hidden=96, activation=activation,
        bias=bias,
    )  # fmt: skip
    made = FeedForward(section)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return made


def passed(made: FeedForward, x: Tensor, plain: bool) -> list[Tensor]:
    """Result and gradients, by our functions or by autograd alone."""
    made.zero_grad()
    x = x.clone().requires_grad_()
    if plain:
        gate = made.gate(x) if hasattr(made, "gate") else None
        inner = inner_features(made.activation, made.up(x), gate)
        bias = None if made.down.bias is None else made.down.bias.to(x.dtype)
        out = functional.linear(inner, made.down.weight.to(x.dtype), bias)
    else:
        out = made(x)
    out.float().square().sum().backward()
    grads = [p.grad for p in made.parameters()]
    return [out.detach(), *(g.clone() for g in [x.grad, *grads] if g is not None)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", ["swiglu", "relu2", "geglu", "gelu"])
def test_values_and_gradients_are_autograds(
    activation: str, bias: bool, dtype: torch.dtype
) -> None:
    """Bit for bit, up to how a library multiplies float32. Breaks when the gradient of up is
    multiplied by gate instead of silu(gate), when the 2 of the square is lost, and when a bias is
    added behind the rounding of bf16."""
    made = feed_forward(activation, bias)
    x = torch.randn(4, 40, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    ours, plain = passed(made, x, plain=False), passed(made, x, plain=True)
    assert len(ours) == len(plain)
    for one, other in zip(ours, plain, strict=True):
        if dtype == torch.bfloat16:
            assert torch.equal(one, other)
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-6 * float(other.abs().max()))


@pytest.mark.parametrize(("activation", "kept"), [("swiglu", 2), ("relu2", 1)])
def test_inner_features_are_not_kept(activation: str, kept: int) -> None:
    """Tensors of all inner features that wait for the backward pass, counted. Break: save the
    inner features too."""
    made = feed_forward(activation)
    x = torch.randn(3, 40, 64)
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.numel() == 3 * 40 * 96:
            saved[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        made(x)
    assert len(saved) == kept


def test_a_frozen_matrix_costs_no_gradient() -> None:
    """Break: make it in any case."""
    made = feed_forward("swiglu")
    made.down.weight.requires_grad_(False)
    made(torch.randn(2, 8, 64, requires_grad=True)).sum().backward()
    assert made.down.weight.grad is None and made.up.weight.grad is not None


def test_another_layer_behind_it_is_called() -> None:
    """Such as one with an adapter. Break: multiply by its weight all the same."""
    made = feed_forward("swiglu")

    class Other(type(made.down)):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.weight) * 2

    x = torch.randn(2, 8, 64)
    before = made(x)
    made.down.__class__ = Other
    assert torch.allclose(made(x), 2 * before, rtol=1e-4, atol=1e-4)
