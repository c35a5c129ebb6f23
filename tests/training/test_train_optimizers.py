"""Optimizers: step by step beside a reference, groups by role, state there and back."""

from __future__ import annotations

import optimizer_parts as parts
import pytest
import torch
from optimizer_parts import KINDS
from train_parts import ADAMW, MUON, Tiny, filled, run, section

from wellfit.recipe import schema
from wellfit.records import Saved
from wellfit.training import checkpoint, optimizers
from wellfit.training.checkpoint import State


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
    """Break: the head among Muon's matrices."""
    parameters, plain = parts.weights(), parts.weights()
    made = parts.built("muon", parameters)
    roles = {name: role for name, role in parts.ROLES.items() if role != "matrix"}
    others = {name: plain[name] for name in roles}
    reference = optimizers.build(parts.settings("adamw", epsilon=1e-10), others, roles)
    for step in range(1, 6):
        parts.steep(parameters, step)
        parts.steep(plain, step)
        made.step()
        reference.step()
    for name in others:
        assert torch.equal(parameters[name], plain[name])
    turned = {key for key in made.state() if key.endswith("/momentum_buffer")}
    assert turned == {f"{name}/momentum_buffer" for name in parts.ROLES.keys() - roles.keys()}


@pytest.mark.parametrize("states", ["device", "paged"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_optimizer_goes_on_bit_for_bit(kind, states, tmp_path):
    """Through the files of a checkpoint.

    Break: leaving the step counter or the scales of blocks out of `state`, or names of moments out
    of `moments`.
    """
    straight = parts.weights()
    first = parts.built(kind, straight, states=states)
    stopped = parts.weights()
    second = parts.built(kind, stopped, states=states)
    for step in range(1, 9):
        parts.steep(straight, step)
        first.step()
        if step == 5:
            state = State(4, 8, 0, 0, True, 0, {}, {})
            checkpoint.save(tmp_path, state, stopped, second.state(), keep=1)
            shapes = {name: one.shape for name, one in stopped.items()}
            expected = optimizers.moments(parts.settings(kind), parts.ROLES, shapes)
            _, weights, moments = checkpoint.load(tmp_path / "step-000004", shapes, expected)
            assert moments.keys() == expected.keys()
            stopped = {name: torch.nn.Parameter(weights[name]) for name in straight}
            second = parts.built(kind, stopped, states=states)
            second.load(moments)
        parts.steep(stopped, step)
        second.step()
    assert parts.differing(parts.copies(first, straight), parts.copies(second, stopped)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_cleared_optimizer_begins_anew(kind):
    """Break: paged moments that keep what stood in the file."""
    parameters = parts.weights()
    made = parts.built(kind, parameters, states="paged")
    parts.steep(parameters, 1)
    made.step()
    once = parts.copies(made, parameters)
    made.load({})
    assert made.state() == {}
    with torch.no_grad():
        for name, one in parts.weights().items():
            parameters[name].copy_(one)
    parts.steep(parameters, 1)
    made.step()
    assert parts.differing(once, parts.copies(made, parameters)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_parameter_without_a_gradient_is_left_out(kind):
    parameters = parts.weights()
    made = parts.built(kind, parameters)
    parts.steep(parameters, 1)
    for name in ("tall", "gain"):
        parameters[name].grad = None
    made.step()
    for name, one in parts.weights().items():
        assert torch.equal(parameters[name], one) is (name in ("tall", "gain"))
    assert not any(key.startswith(("tall/", "gain/")) for key in made.state())
    made.zero_grad()
    assert all(one.grad is None for one in parameters.values())


def moved(kind, **changes):
    """Parameter → how far one update moved it along a gradient, and how far decay shrank it."""
    plain = {name: one.detach() for name, one in parts.weights().items()}
    factors = changes.pop("factors", None)
    found = {}
    for decay in (True, False):
        own = parts.settings(kind, **changes)
        if not decay:
            without = {
                role: {"rate": getattr(own.groups, role).rate, "weight_decay": 0.0}
                for role in parts.SHAPES
                if getattr(own.groups, role, None)
            }
            own = parts.settings(kind, **{**changes, "weight_decay": 0.0, "groups": without})
        parameters = parts.weights()
        made = optimizers.build(own, parameters, parts.ROLES, factors=factors)
        parts.steep(parameters, 1)
        made.step()
        found[decay] = {name: one.detach() for name, one in parameters.items()}
    return {
        name: (
            float((found[False][name] - plain[name]).norm()),
            float(((found[False][name] - found[True][name]) / plain[name]).mean()),
        )
        for name in plain
    }


@pytest.mark.parametrize("kind", KINDS)
def test_groups_give_a_role_its_own_rate_and_decay(kind):
    """Break: a role's decay added to the optimizer's instead of replacing it, or its rate taken
    for the peak itself."""
    rate = parts.KINDS[kind]["learning_rate"]
    matrix_rate = parts.KINDS[kind].get("matrix_learning_rate", rate)
    usual = moved(kind)
    groups = {
        "embedding": {"rate": 0.5, "weight_decay": 0.3},
        "matrix": {"rate": 2.0},
        "head": {"weight_decay": 0.0},
        "bias": {"rate": 0.0},
    }
    own = moved(kind, groups=groups)
    expected = {"embedding": (0.5, rate * 0.5 * 0.3), "matrix": (2.0, matrix_rate * 2 * 0.1),
                "head": (1.0, 0.0), "bias": (0.0, 0.0), "norm": (1.0, 0.0),
                "position": (1.0, 0.0)}  # fmt: skip
    for name, role in parts.ROLES.items():
        times, shrunk = expected[role]
        assert own[name][0] == pytest.approx(times * usual[name][0], rel=1e-4, abs=1e-12), name
        assert own[name][1] == pytest.approx(shrunk, rel=2e-2, abs=1e-5), name
        if role in ("matrix", "head"):
            peak = matrix_rate if role == "matrix" else rate
            assert usual[name][1] == pytest.approx(peak * 0.1, rel=2e-2, abs=1e-5)


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_factors_multiply_the_rates_of_single_parameters(kind):
    """Break: a factor given to the whole role."""
    usual, own = moved(kind), moved(kind, factors={"wide": 0.25, "gain": 3.0})
    for name in parts.ROLES:
        times = {"wide": 0.25, "gain": 3.0}.get(name, 1.0)
        assert own[name][0] == pytest.approx(times * usual[name][0], rel=1e-4), name


def test_parameters_of_equal_rate_and_decay_share_a_group():
    """Break: a group for each parameter makes an update of many small kernels."""
    factors = {name: 0.5 for name, role in parts.ROLES.items() if role == "matrix"}
    made = optimizers.build(parts.settings("adamw"), parts.weights(), parts.ROLES, factors=factors)
    assert sorted((group.peak, group.weight_decay) for group in made.groups) == [
        (0.005, 0.2),  # rate · decay, what a step takes off a weight, does not follow the factor
        (0.01, 0.0),
        (0.01, 0.1),
    ]
    assert all(len(group.runs) == 1 for group in made.groups)


def test_rates_are_each_groups_peak_times_the_share():
    made = built(Tiny(), **MUON)
    assert made.set_share(0.5) == 0.01
    assert sorted({group.peak * made.share for group in made.groups}) == [0.005, 0.01]


def test_moments_that_depend_on_shapes_want_them():
    with pytest.raises(AssertionError, match="the moments of adamw_8bit depend on shapes"):
        optimizers.moments(parts.settings("adamw_8bit"), parts.ROLES)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("adamw", "muon")])
def test_a_training_resumes_with_every_optimizer(kind, tmp_path):
    """Break: expecting moments by role alone, where the shape decides what they are."""
    recipe = section(
        budget={"steps": 4}, checkpoint_every=2, optimizer={"kind": kind, **KINDS[kind]}
    )
    straight, cut = Tiny(), Tiny()
    list(run(tmp_path / "whole", straight, train_section=recipe))
    records = run(tmp_path / "cut", Tiny(), train_section=recipe)
    for record in records:
        if type(record) is Saved:
            records.close()
    rest = list(run(tmp_path / "cut", cut, train_section=recipe, resume=True))
    assert rest[0].kind == "resumed" and rest[0].step == 2
    for name, parameter in straight.named_parameters():
        assert torch.equal(parameter, dict(cut.named_parameters())[name])
