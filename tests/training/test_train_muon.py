"""Muon, batched: the published algorithm, torch's own step by step, and what batches together."""

from __future__ import annotations

import pytest
import torch
from optimizer_parts import ROLES, built, steep, weights
from train_parts import filled

from wellfit.training.optimizers import muon

MATRICES = [name for name, role in ROLES.items() if role == "matrix"]


def by_hand(weight, gradient, momentum, *, rate, decay, beta):
    """The post's algorithm, one matrix at a time, in the arithmetic of what it is given."""
    momentum.mul_(beta).add_(gradient, alpha=1 - beta)
    X = (1 - beta) * gradient + beta * momentum
    turned = X.shape[0] > X.shape[1]
    X = X.T if turned else X
    X = X / X.norm()
    for _ in range(5):
        A = X @ X.T
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    X = X.T if turned else X
    ratio = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
    return weight * (1 - rate * decay) - rate * ratio * X


def test_every_matrix_follows_the_published_algorithm(monkeypatch):
    """In float32 against float64, ten steps, square and tall and wide.

    Break: one norm for the whole batch; a tall matrix stacked without turning it; Nesterov off.
    """
    monkeypatch.setattr(muon, "arithmetic", lambda device: torch.float32)
    parameters = weights()
    made = built("muon", parameters)
    expected = {name: parameters[name].detach().double().clone() for name in MATRICES}
    momenta = {name: torch.zeros_like(one) for name, one in expected.items()}
    for step in range(1, 11):
        steep(parameters, step)
        made.set_share(1 / step)
        made.step()
        for name in MATRICES:
            expected[name] = by_hand(
                expected[name],
                parameters[name].grad.double(),
                momenta[name],
                rate=0.02 / step,
                decay=0.1,
                beta=0.95,
            )
            torch.testing.assert_close(
                parameters[name].detach().double(), expected[name], rtol=0, atol=2e-6
            )


def test_it_is_torchs_muon_up_to_the_rounding_of_bf16(monkeypatch):
    """Break: the momentum a plain sum; √(rows / columns) below 1; a decay not times the rate.

    An entry of a direction is about 0.1; bf16 has 8 bits, rounded differently in a batch in each
    of five iterations.
    """
    monkeypatch.setattr(muon, "arithmetic", lambda device: torch.bfloat16)
    ours, theirs = weights(), weights()
    made = built("muon", ours)
    reference = torch.optim.Muon(
        [theirs[name] for name in MATRICES], lr=0.02, weight_decay=0.1, momentum=0.95
    )
    for step in range(1, 11):
        steep(ours, step)
        steep(theirs, step)
        before = {name: (ours[name].detach().clone(), theirs[name].clone()) for name in MATRICES}
        made.step()
        reference.step()
        for name in MATRICES:
            own = (ours[name] - before[name][0] * 0.998).detach() / 0.02
            other = (theirs[name] - before[name][1] * 0.998).detach() / 0.02
            # Direction by direction: as near as two roundings of the same to bf16.
            assert (own - other).norm() < 0.02 * other.norm(), (step, name)
            torch.testing.assert_close(
                made.state()[f"{name}/momentum_buffer"],
                reference.state[theirs[name]]["momentum_buffer"],
                rtol=1e-6,
                atol=1e-7,
            )


def test_directions_are_nearly_orthogonal():
    """Singular values from 1 to 1/300 come out near 1.

    Break: four iterations, or a coefficient wrong: small singular values stay small.
    """
    left = torch.linalg.qr(filled(48, 48, seed=1))[0]
    right = torch.linalg.qr(filled(96, 48, seed=2))[0].T
    X = (left * torch.logspace(0, -2.5, 48)) @ right
    values = torch.linalg.svdvals(muon.newton_schulz(torch.stack([X, -X])))
    assert values.min() > 0.6 and values.max() < 1.25


def test_same_shapes_are_orthogonalised_in_one_batch(monkeypatch):
    """Break: grouping by rows and columns as they stand makes three batches of these."""
    batches = []
    real = muon.newton_schulz
    monkeypatch.setattr(muon, "newton_schulz", lambda X: batches.append(X.shape) or real(X))
    parameters = weights()
    made = built("muon", parameters)
    steep(parameters, 1)
    made.step()
    assert sorted(batches) == [(2, 48, 96), (2, 66, 66)]


def test_a_batch_holds_a_bounded_number_of_numbers(monkeypatch):
    """Break: all matrices of a 7B model in one stack take more memory than the weights."""
    monkeypatch.setattr("wellfit.training.optimizers.assemble.RUN", 3 * 66 * 66)
    parameters = weights()
    made = built("muon", parameters)
    sizes = [sum(p.numel() for p in run.values()) for group in made.groups for run in group.runs]
    assert max(sizes) <= 3 * 66 * 66
    assert sum(sizes) == sum(p.numel() for p in parameters.values())


@pytest.mark.parametrize(
    ("flags", "expected"),
    [({"avx2"}, torch.float32), ({"avx512_bf16"}, torch.bfloat16), ({"amx_bf16"}, torch.bfloat16)],
)
def test_bf16_only_where_the_processor_multiplies_it(flags, expected, monkeypatch):
    """Break: bf16 everywhere; emulated, it is slower than float32."""
    monkeypatch.setattr("wellfit.training.precision.cpu_flags", lambda: frozenset(flags))
    muon.arithmetic.cache_clear()
    assert muon.arithmetic(torch.device("cpu")) is expected
    muon.arithmetic.cache_clear()
