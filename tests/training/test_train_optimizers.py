"""Optimizers: step by step beside a reference, groups by role, state there and back."""

from __future__ import annotations

import pytest
import torch
from train_parts import ADAMW, MUON, Tiny, filled

from wellfit.recipe import schema
from wellfit.training import optimizers


def settings(**changes):
    kind = {"adamw": schema.AdamW, "muon": schema.Muon}[changes["kind"]]
    return kind.model_validate(changes)


def built(model, **changes):
    return optimizers.build(settings(**changes), dict(model.named_parameters()), model.roles())


def gradients(model, step):
    for number, (_, parameter) in enumerate(model.named_parameters()):
        parameter.grad = filled(*parameter.shape, seed=100 * step + number)


def adamw_by_hand(weight, gradient, moments, step, *, rate, decay, beta1, beta2, epsilon):
    """Algorithm 2 of arXiv 1711.05101, in float64."""
    mean, square = moments
    mean.mul_(beta1).add_(gradient, alpha=1 - beta1)
    square.mul_(beta2).add_(gradient.square(), alpha=1 - beta2)
    direction = (mean / (1 - beta1**step)) / ((square / (1 - beta2**step)).sqrt() + epsilon)
    return weight - rate * decay * weight - rate * direction


def muon_by_hand(weight, gradient, momentum, *, rate, decay, beta):
    """Newton-Schulz as in the Muon post, written down again; Nesterov momentum, bf16 iterations."""
    momentum.lerp_(gradient, 1 - beta)
    update = gradient.lerp(momentum, beta).bfloat16()
    turned = update.shape[0] > update.shape[1]
    X = update.T if turned else update
    X = X / X.norm().clamp(min=1e-7)
    for _ in range(5):
        A = X @ X.T
        X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
    update = X.T if turned else X
    ratio = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
    return weight * (1 - rate * decay) - rate * ratio * update


def test_adamw_follows_the_paper_and_decays_only_matrices_and_the_head():
    """Break: weight decay on every group, or the betas swapped."""
    model = Tiny()
    made = built(model, **ADAMW, weight_decay=0.3, beta1=0.8, beta2=0.97)
    expected = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in expected.items()}
    for step in range(1, 16):
        gradients(model, step)
        made.set_share(1 / step)
        made.step()
        for name, parameter in model.named_parameters():
            expected[name] = adamw_by_hand(
                expected[name],
                parameter.grad.double(),
                moments[name],
                step,
                rate=0.01 / step,
                decay=0.3 if name in ("matrix", "head") else 0.0,
                beta1=0.8,
                beta2=0.97,
                epsilon=1e-8,
            )
            torch.testing.assert_close(
                parameter.detach().double(), expected[name], rtol=2e-6, atol=2e-6
            )


def test_muon_turns_matrices_and_adamw_all_else():
    """Break: the head among Muon's matrices, or Nesterov off."""
    model = Tiny()
    made = built(model, **MUON, weight_decay=0.1)
    plain = Tiny()
    others = {name: p for name, p in plain.named_parameters() if name != "matrix"}
    roles = {name: role for name, role in plain.roles().items() if name != "matrix"}
    reference = optimizers.build(settings(**ADAMW, weight_decay=0.1, epsilon=1e-10), others, roles)
    matrix, momentum = plain.matrix.detach().clone(), torch.zeros_like(plain.matrix)
    for step in range(1, 11):
        gradients(model, step)
        gradients(plain, step)
        made.step()
        reference.step()
        matrix = muon_by_hand(matrix, model.matrix.grad, momentum, rate=0.02, decay=0.1, beta=0.95)
        # The iterations are in bf16, in another order of operations: a tenth of an entry of about
        # 1, times the rate, each step.
        torch.testing.assert_close(model.matrix.detach(), matrix, rtol=0, atol=step * 0.1 * 0.02)
        for name, parameter in others.items():
            assert torch.equal(parameter, dict(model.named_parameters())[name])


@pytest.mark.parametrize("kind", [ADAMW, MUON])
def test_state_there_and_back_goes_on_bit_for_bit(kind):
    """Break: leaving `step` out of the state changes AdamW's bias correction."""
    straight, stopped = Tiny(), Tiny()
    first, second = built(straight, **kind), built(stopped, **kind)
    for step in range(1, 9):
        gradients(straight, step)
        first.step()
        if step == 5:
            state = {key: value.clone() for key, value in second.state().items()}
            weights = {key: value.clone() for key, value in stopped.state_dict().items()}
            stopped = Tiny()
            stopped.load_state_dict(weights)
            second = built(stopped, **kind)
            second.load(state)
        gradients(stopped, step)
        second.step()
    for name, parameter in straight.named_parameters():
        assert torch.equal(parameter, dict(stopped.named_parameters())[name])
    assert first.state().keys() == optimizers.moments(settings(**kind), straight.roles()).keys()


def test_rates_are_each_groups_peak_times_the_share():
    made = built(Tiny(), **MUON)
    assert made.set_share(0.5) == 0.01
    rates = sorted({group["lr"] for part in made.parts for group in part.param_groups})
    assert rates == [0.005, 0.01]
