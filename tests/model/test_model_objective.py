"""Label smoothing and z-loss: against torch in float64, with chunks, caps and ignored labels."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from wellfit.model.kernels import linear_cross_entropy
from wellfit.model.objective import linear_objective

LABELS = torch.tensor([0, 3, -100, 6, 2])


def leaf(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("soft_cap", [0.0, 1.5])
@pytest.mark.parametrize(("smoothing", "z"), [(0.1, 0.0), (0.0, 0.02), (0.3, 0.02)])
def test_it_is_torchs_objective(soft_cap: float, smoothing: float, z: float) -> None:
    """The sum and its gradients, from autograd's own chain in float64.

    Breaks when the uniform part is divided by V − 1, or z-loss takes ln Z without the square.
    """
    hidden, matrix = leaf(5, 4), leaf(7, 4, seed=1)
    weights = leaf(5, seed=2).detach()
    logits = hidden @ matrix.T
    logits = soft_cap * torch.tanh(logits / soft_cap) if soft_cap else logits
    smooth = functional.cross_entropy(logits, LABELS, reduction="none", label_smoothing=smoothing)
    expected = smooth + z * logits.logsumexp(1).square() * (LABELS >= 0)
    losses, extra = linear_objective(
        hidden, matrix, LABELS, soft_cap=soft_cap, chunk=2, label_smoothing=smoothing, z_loss=z
    )
    torch.testing.assert_close(losses + extra, expected, atol=1e-12, rtol=1e-12)
    wanted = torch.autograd.grad((expected * weights).sum(), (hidden, matrix))
    found = torch.autograd.grad(((losses + extra) * weights).sum(), (hidden, matrix))
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-10)
    assert extra[2] == 0 and found[0][2].eq(0).all()


@pytest.mark.parametrize("soft_cap", [0.0, 1.5])
@pytest.mark.parametrize("chunk", [2, 100])
def test_both_outputs_have_their_own_gradient(soft_cap: float, chunk: int) -> None:
    """Finite differences, losses and extra apart. Breaks when both get the gradient of the sum."""

    def both(hidden: torch.Tensor, matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return linear_objective(
            hidden, matrix, LABELS, soft_cap=soft_cap, chunk=chunk, label_smoothing=0.2, z_loss=0.05
        )

    assert torch.autograd.gradcheck(both, (leaf(5, 4), leaf(7, 4, seed=1)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_reported_loss_keeps_its_bits(dtype: torch.dtype) -> None:
    """Breaks when the smoothed loss is what is returned first."""
    hidden, matrix = leaf(5, 4).detach().to(dtype), leaf(7, 4, seed=1).detach().float()
    plain = linear_cross_entropy(hidden, matrix, LABELS, 3.0, 2)
    for smoothing, z in ((0.0, 0.0), (0.1, 0.01)):
        losses, _ = linear_objective(
            hidden, matrix, LABELS, soft_cap=3.0, chunk=2, label_smoothing=smoothing, z_loss=z
        )
        assert torch.equal(losses, plain) and losses.dtype == torch.float32


def test_without_both_it_is_the_plain_loss() -> None:
    """The same function with the same gradients. Breaks when zero settings take the longer way."""
    hidden, matrix = leaf(5, 4), leaf(7, 4, seed=1)
    losses, extra = linear_objective(hidden, matrix, LABELS)
    assert "LinearCrossEntropy" in type(losses.grad_fn).__name__
    assert not extra.requires_grad and extra.eq(0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_stay_near_float32(dtype: torch.dtype) -> None:
    """With the small weights that tokens of a large batch have, and the large ones of a scale.

    Breaks in float16 when the weight of a token multiplies its slopes instead of its features.
    """
    hidden, matrix = leaf(60, 16).detach(), (leaf(2000, 16, seed=1).detach() / 8).float()
    labels = torch.randint(0, 2000, (60,), generator=torch.Generator().manual_seed(3))
    rare = torch.ones(2000, dtype=torch.bool).index_fill(0, labels, False)
    for weight in (1e-4, 100.0):
        gradients = []
        for kind in (torch.float32, dtype):
            features = hidden.to(kind).requires_grad_()
            table = matrix.clone().requires_grad_()
            losses, extra = linear_objective(
                features, table, labels, chunk=16, label_smoothing=0.1, z_loss=1e-3
            )
            ((losses + extra) * weight).sum().backward()
            assert table.grad is not None
            gradients.append(table.grad)
        for entries in (rare, ~rare):
            exact, rounded = (gradient[entries] for gradient in gradients)
            assert (rounded - exact).norm() < 0.02 * exact.norm()


def test_the_transformer_offers_it(make_section: Any, make_model: Any) -> None:
    """Shapes, and the bits of `token_loss`. Breaks when the cap is not passed on."""
    model = make_model(make_section(logit_soft_cap=2.0))
    row = torch.randint(0, 61, (2, 24), generator=torch.Generator().manual_seed(0))
    labels = row.roll(-1, 1)
    labels[0, :5] = -100
    hidden = model.hidden(row)
    losses, extra = model.token_objective(hidden, labels, label_smoothing=0.1, z_loss=1e-4)
    assert torch.equal(losses, model.token_loss(hidden, labels)) and extra.shape == labels.shape
    expected = functional.cross_entropy(
        model.logits(hidden).flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=0.1
    )
    sizes = model.logits(hidden).logsumexp(-1).square().flatten() * (labels.flatten() >= 0)
    torch.testing.assert_close((losses + extra).flatten(), expected + 1e-4 * sizes)
