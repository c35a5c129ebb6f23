"""8-bit products against float64: what rounding may cost, what it may never do, who takes part."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wellfit.model import float8
from wellfit.model.float8 import BACKWARD, FORWARD, float8_linear, rounded
from wellfit.model.init import initialise
from wellfit.model.linear import Linear
from wellfit.model.transformer import Transformer

# Of a number in the normal range: half a unit in the last place of 3 and of 2 bits.
SHARE = {FORWARD: 2.0**-4, BACKWARD: 2.0**-3}
# Below it: half the distance of two neighbours, in units of the scale.
LEAST = {FORWARD: 2.0**-10, BACKWARD: 2.0**-17}


def drawn(*shape: int, seed: int = 0, spread: float = 1.0) -> torch.Tensor:
    """Normal numbers whose sizes differ by e^±spread from row to row."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.exp(spread * torch.randn(shape[0], 1, generator=generator))
    return torch.randn(*shape, generator=generator) * sizes


def error(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """What rounding may take off each number, from the bits of the format."""
    scale = x.abs().max().double() / torch.finfo(dtype).max
    return x.abs().double() * SHARE[dtype] * (1 + 1e-6) + LEAST[dtype] * scale


@pytest.mark.parametrize("dtype", [FORWARD, BACKWARD])
@pytest.mark.parametrize("times", [1e-30, 1.0, 1e30])
def test_rounding_is_as_exact_as_the_format_and_never_overflows(
    dtype: torch.dtype, times: float
) -> None:
    """The largest number becomes the format's largest; all others stay within half a unit.

    Breaks tried: a scale of 1; four times the mean size in place of the largest; numbers 1.13
    times too large; e4m3's end for e5m2.
    """
    for seed in range(20):
        x = drawn(24, 40, seed=seed, spread=2.0) * times
        values, scale = rounded(x, dtype)
        assert values.float().isfinite().all()
        assert values.float().abs().max() == torch.finfo(dtype).max
        back = values.double() * scale.double()
        assert (back - x.double()).abs().le(error(x, dtype)).all()
        largest = x.abs().max().double()
        assert (back.abs().max() - largest).abs() <= 3e-7 * largest


@pytest.mark.parametrize("dtype", [FORWARD, BACKWARD])
def test_zeros_stay_zeros_and_bad_numbers_stay_seen(dtype: torch.dtype) -> None:
    """Breaks tried: a scale of 0, which makes NaN; the scale from finite numbers alone."""
    values, scale = rounded(torch.zeros(4, 4), dtype)
    assert values.float().eq(0).all() and scale > 0
    for bad in (torch.inf, -torch.inf, torch.nan):
        x = torch.ones(16, 16)
        x[3, 4] = bad
        values, scale = rounded(x, dtype)
        assert not (values.float() * scale).isfinite().all()


def exact_and_allowed(
    left: torch.Tensor, right: torch.Tensor, kinds: tuple[torch.dtype, torch.dtype], sum_: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """left · rightᵀ in float64, and how far the rounded product may be from it."""
    one, other = left.double(), right.double()
    first, second = error(left, kinds[0]), error(right, kinds[1])
    allowed = first @ other.abs().T + one.abs() @ second.T + first @ second.T
    exact = one @ other.T
    # The sum itself and the type of the result round as well.
    return exact, allowed + sum_ * (one.abs() @ other.abs().T)


@pytest.mark.parametrize("times", [1.0, 1e-6, 1e4])
def test_all_three_products_are_within_what_rounding_allows(times: float) -> None:
    """Result and both gradients, number by number, from the mantissas of the formats.

    Breaks tried: weights' scale left out; scales swapped in the weight's gradient; gradients in
    e4m3 (seen below); the features' gradient from the matrix not turned.
    """
    x = drawn(32, 64, seed=1).bfloat16().requires_grad_()
    weight = (drawn(48, 64, seed=2) * 0.05 * times).requires_grad_()
    pull = (drawn(32, 48, seed=3, spread=2.0) * 1e-4).bfloat16()
    out = float8_linear(x, weight)
    assert out.dtype == torch.bfloat16
    out.backward(pull)
    assert x.grad is not None and weight.grad is not None
    assert (x.grad.dtype, weight.grad.dtype) == (torch.bfloat16, torch.float32)
    features, matrix = x.detach().float(), weight.detach()
    for found, left, right, kinds, sums in (
        (out.detach(), features, matrix, (FORWARD, FORWARD), 2.0**-8),
        (x.grad, pull.float(), matrix.T, (BACKWARD, FORWARD), 2.0**-8),
        (weight.grad, pull.float().T, features.T, (BACKWARD, FORWARD), 1e-5),
    ):
        exact, allowed = exact_and_allowed(left, right, kinds, sums)
        assert (found.double() - exact).abs().le(allowed).all()
        # And not by chance far better: the bound is no more than some times what happens.
        assert (found.double() - exact).norm() > 0.01 * allowed.norm()


def test_gradients_have_the_range_of_e5m2() -> None:
    """A row of gradients 10⁶ times smaller than another keeps its direction in the features'.

    Break tried: e4m3 for gradients, which makes zeros of it.
    """
    x = drawn(16, 32, seed=1, spread=0).bfloat16().requires_grad_()
    weight = drawn(16, 32, seed=2, spread=0).requires_grad_()
    pull = drawn(16, 16, seed=3, spread=0)
    pull[5] *= 1e-6
    float8_linear(x, weight).backward(pull.bfloat16())
    assert x.grad is not None
    expected = pull[5].bfloat16().float() @ weight.detach()
    likeness = torch.cosine_similarity(x.grad[5].float(), expected, dim=0)
    assert likeness > 0.98


def test_zero_features_and_gradients_pass() -> None:
    """Zeros give zeros, and no NaN. Break tried: a scale of 0."""
    x = torch.zeros(16, 32, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.zeros(16, 32, requires_grad=True)
    out = float8_linear(x, weight)
    out.backward(torch.zeros_like(out))
    for tensor in (out, x.grad, weight.grad):
        assert tensor is not None and tensor.eq(0).all()


def test_only_large_matrices_of_the_blocks_in_training(
    make_section: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is multiplied in 8 bits, by name; evaluation and float32 are as ever.

    Breaks tried: the head taken; the router taken; small matrices taken; evaluation in 8 bits.
    """
    monkeypatch.setattr(float8, "SMALL_OUTPUTS", 48)
    monkeypatch.setattr(float8, "SMALL_INPUTS", 48)
    section = make_section(
        width=64, hidden=72, heads=2, kv_heads=1, experts={"count": 16, "shared": 1}
    )
    model = Transformer(section, 64)
    initialise(model, 0)
    assert model.use_float8() == 2 * 4
    taken = {name for name, part in model.named_modules() if getattr(part, "float8", False)}
    parts = ("query", "key", "value", "output")
    # 72 is no multiple of 16, and experts and router stay as they are.
    assert taken == {f"blocks.{n}.attention.{part}" for n in range(2) for part in parts}

    linear = Linear(64, 32, bias=True)
    with torch.no_grad():
        linear.weight.copy_(drawn(32, 64))
        linear.bias.fill_(0.5)
    x = drawn(16, 64).bfloat16()
    plain = linear(x)
    linear.float8 = True
    assert not torch.equal(linear(x), plain)
    assert torch.equal(linear(x), float8_linear(x, linear.weight) + 0.5)
    for same in (x[:15], x.float()):
        assert torch.equal(
            linear(same),
            torch.nn.functional.linear(
                same, linear.weight.to(same.dtype), linear.bias.to(same.dtype)
            ),
        )
    linear.eval()
    assert torch.equal(linear(x), plain)


def test_recomputed_blocks_have_the_same_bits(
    make_section: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With activations computed again, gradients are those of one pass. Break: none was found."""
    monkeypatch.setattr(float8, "SMALL_INPUTS", 16)
    seen = []
    for how in ("none", "selective", "full"):
        model = Transformer(make_section(init="scaled_normal"), 61)
        initialise(model, 0)
        model.compute_dtype, model.recompute = torch.bfloat16, how
        assert model.use_float8()
        tokens = torch.randint(0, 61, (2, 24), generator=torch.Generator().manual_seed(0))
        model.token_loss(model.hidden(tokens), tokens).sum().backward()
        seen.append([weight.grad for weight in model.parameters()])
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))
