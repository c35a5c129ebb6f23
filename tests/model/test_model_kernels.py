"""The hand-written gradients: against finite differences in float64, and against torch."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wellfit.model.kernels import linear_cross_entropy, rms_norm, rotate, squared_relu
from wellfit.model.positions import rotary_angles


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def leaf(*shape: int, seed: int = 0) -> torch.Tensor:
    return normal(*shape, seed=seed).requires_grad_()


def test_rms_norm_gradient() -> None:
    """Breaks when the term along the features (`along`) is dropped from the gradient."""
    arguments = (leaf(2, 3, 8), leaf(8, seed=1), 1e-3)
    assert torch.autograd.gradcheck(rms_norm, arguments)


def test_rms_norm_equals_torch() -> None:
    """Breaks when ε is added to the root instead of the mean square."""
    x, weight = normal(4, 8) * 1e-2, normal(8, seed=1)
    expected = functional.rms_norm(x, (8,), weight, 1e-3)
    torch.testing.assert_close(rms_norm(x, weight, 1e-3), expected)


def test_rms_norm_of_large_float16() -> None:
    """A norm of 80,000 is above float16's end. Breaks when the norm is given in float16: zeros."""
    x = torch.full((2, 400), 4000.0, dtype=torch.float16)
    assert rms_norm(x, torch.ones(400), 1e-5).eq(1).all()


def test_squared_relu_gradient() -> None:
    """Breaks when the factor 2 is dropped."""
    x = leaf(5, 7)
    assert torch.autograd.gradcheck(squared_relu, (x,))
    torch.testing.assert_close(squared_relu(x), torch.relu(x) ** 2)


def test_rotation_gradient() -> None:
    """Breaks when the gradient turns forward instead of back."""
    cosine, sine = rotary_angles(torch.tensor([[0, 1, 5]]), 6, 100.0)
    arguments = (leaf(2, 3, 2, 6), cosine.double(), sine.double())
    assert torch.autograd.gradcheck(rotate, arguments)


def test_rotation_is_a_product_of_complex_numbers() -> None:
    """(x_i + j·x_{i+W/2})·e^{j·angle}. Breaks when sine changes its sign."""
    cosine, sine = rotary_angles(torch.tensor([[0, 1, 5]]), 6, 100.0)
    x = normal(1, 3, 2, 6)
    turned = torch.complex(x[..., :3], x[..., 3:]) * torch.complex(cosine, sine)
    expected = torch.cat((turned.real, turned.imag), -1).transpose(1, 2)
    actual = rotate(x, cosine.double(), sine.double())
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("soft_cap", [0.0, 1.5])
@pytest.mark.parametrize("chunk", [2, 5, 100])
def test_loss_gradient(soft_cap: float, chunk: int) -> None:
    """Breaks when chunks overwrite the matrix's gradient, or the cap has no slope."""
    labels = torch.tensor([0, 3, -100, 6, 2])

    def losses(hidden: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        return linear_cross_entropy(hidden, matrix, labels, soft_cap, chunk)

    assert torch.autograd.gradcheck(losses, (leaf(5, 4), leaf(7, 4, seed=1)))


@pytest.mark.parametrize("soft_cap", [0.0, 3.0])
def test_loss_equals_torch_with_any_weights_of_tokens(soft_cap: float) -> None:
    """Float32, weighted tokens. Breaks when `factor` is left out of one of the two gradients."""
    hidden = (normal(50, 16) * 2).float().requires_grad_()
    matrix = normal(31, 16, seed=1).float().requires_grad_()
    labels = torch.randint(0, 31, (50,), generator=torch.Generator().manual_seed(2))
    labels[::7] = -100
    weights = normal(50, seed=3).float()
    logits = hidden @ matrix.T
    logits = soft_cap * torch.tanh(logits / soft_cap) if soft_cap else logits
    expected = functional.cross_entropy(logits, labels, reduction="none")
    wanted = torch.autograd.grad((expected * weights).sum(), (hidden, matrix))
    actual = linear_cross_entropy(hidden, matrix, labels, soft_cap, chunk=8)
    found = torch.autograd.grad((actual * weights).sum(), (hidden, matrix))
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert actual[labels < 0].eq(0).all() and found[0][labels < 0].eq(0).all()


@pytest.mark.parametrize("soft_cap", [0.0, 3.0])
def test_loss_equals_torch_with_one_weight_for_all_tokens(soft_cap: float) -> None:
    """The way of training: one factor, and a second pass through the same graph.

    Breaks when places without a label pull on the matrix, when the factor is not applied, and
    when the second pass scales what the first one scaled.
    """
    hidden = (normal(50, 16) * 2).float().requires_grad_()
    matrix = normal(31, 16, seed=1).float().requires_grad_()
    labels = torch.randint(0, 31, (50,), generator=torch.Generator().manual_seed(2))
    labels[::7] = -100
    logits = hidden @ matrix.T
    logits = soft_cap * torch.tanh(logits / soft_cap) if soft_cap else logits
    expected = functional.cross_entropy(logits, labels, reduction="none").sum() / 7
    wanted = torch.autograd.grad(expected, (hidden, matrix))
    actual = linear_cross_entropy(hidden, matrix, labels, soft_cap, chunk=8).sum() / 7
    found = torch.autograd.grad(actual, (hidden, matrix), retain_graph=True)
    again = torch.autograd.grad(actual, (hidden, matrix))
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again, wanted, atol=1e-5, rtol=1e-5)
    assert found[0][labels < 0].eq(0).all()


def test_without_a_label_nothing_pulls() -> None:
    hidden, matrix = leaf(5, 4), leaf(7, 4, seed=1)
    losses = linear_cross_entropy(hidden, matrix, torch.full((5,), -100))
    found = torch.autograd.grad(losses.sum(), (hidden, matrix))
    assert losses.eq(0).all() and all(gradient.eq(0).all() for gradient in found)


def test_loss_is_float32_in_bf16_arithmetic() -> None:
    """Within bf16's rounding of the exact loss. Breaks when log-softmax is taken in bf16."""
    hidden, matrix = normal(400, 64).bfloat16(), (normal(300, 64, seed=1) / 8).bfloat16()
    labels = torch.randint(0, 300, (400,), generator=torch.Generator().manual_seed(2))
    exact = functional.cross_entropy(hidden.double() @ matrix.double().T, labels, reduction="none")
    actual = linear_cross_entropy(hidden, matrix, labels)
    assert actual.dtype == torch.float32
    assert (actual - exact).abs().mean() < 2e-3
    assert len(actual.unique()) > 395  # bf16 losses near 6 would share few dozen values
