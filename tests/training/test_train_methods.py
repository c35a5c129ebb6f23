"""Adafactor, Lion, SGD and 8-bit AdamW: each step by step beside a reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from optimizer_parts import ROLES, built, settings, steep, weights
from train_parts import filled

from wellfit.training import optimizers
from wellfit.training.optimizers import blockwise

DECAYED = ("matrix", "head")


def against(kind, reference, *, steps=12, rtol=2e-6, atol=2e-6, **changes):
    """Trains by ours and by `reference(name, weight, gradient, memory, step, decay)`."""
    parameters = weights()
    made = built(kind, parameters, **changes)
    expected = {name: one.detach().double().clone() for name, one in parameters.items()}
    memory = {name: {} for name in expected}
    for step in range(1, steps + 1):
        steep(parameters, step)
        made.set_share(1 / step)
        made.step()
        for name, parameter in parameters.items():
            decay = 0.1 if ROLES[name] in DECAYED else 0.0
            expected[name] = reference(
                expected[name], parameter.grad.double(), memory[name], step, decay
            )
            torch.testing.assert_close(
                parameter.detach().double(), expected[name], rtol=rtol, atol=atol
            )


def test_lion_follows_the_paper():
    """Break: the sign of the new momentum instead of the interpolation; the betas swapped."""

    def lion(weight, gradient, memory, step, decay):
        momentum = memory.get("m", torch.zeros_like(weight))
        c = 0.9 * momentum + 0.1 * gradient
        memory["m"] = 0.99 * momentum + 0.01 * gradient
        return weight - 0.003 / step * (torch.sign(c) + decay * weight)

    against("lion", lion)


@pytest.mark.parametrize("scale", [False, True], ids=["plain", "by size"])
def test_adafactor_follows_the_paper(scale):
    """Algorithm 4 written down again.

    Break: rows not divided by their mean; no clipping; a scale that also multiplies the decay.
    """

    def adafactor(weight, gradient, memory, step, decay):
        beta = 1 - step**-0.8
        square = gradient**2 + 1e-30
        if weight.ndim == 2:
            row = beta * memory.get("r", 0) + (1 - beta) * square.mean(1)
            column = beta * memory.get("c", 0) + (1 - beta) * square.mean(0)
            memory.update(r=row, c=column)
            mean = torch.outer(row, column) / row.mean()
        else:
            mean = memory["v"] = beta * memory.get("v", 0) + (1 - beta) * square
        update = gradient / mean.sqrt()
        update = update / max(1.0, math.sqrt((update**2).mean()) / 1.0)
        rate = 0.01 / step
        size = max(1e-3, math.sqrt((weight**2).mean())) if scale else 1.0
        return weight * (1 - rate * decay) - rate * size * update

    against("adafactor", adafactor, scale_by_size=scale)


def test_adafactor_is_that_of_transformers():
    """Break: ε₁ added to the mean instead of the square; β₂ from t + 1."""
    from transformers.optimization import Adafactor

    ours, theirs = weights(), weights()
    made = built(
        "adafactor", ours, weight_decay=0.0, scale_by_size=True, clip_threshold=0.5, epsilon=0.01
    )
    reference = Adafactor(
        list(theirs.values()),
        lr=0.01,
        eps=(0.01, 1e-3),
        scale_parameter=True,
        relative_step=False,
        warmup_init=False,
        clip_threshold=0.5,
    )
    for step in range(1, 9):
        steep(ours, step)
        steep(theirs, step)
        made.step()
        reference.step()
        for name in ours:
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=1e-6)


def test_adafactor_keeps_rows_and_columns_only():
    parameters = weights()
    made = built("adafactor", parameters)
    steep(parameters, 1)
    made.step()
    kept = sum(one.numel() for key, one in made.state().items() if key.startswith("wide/"))
    assert kept == 48 + 96 + 1


@pytest.mark.parametrize(
    ("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)], ids=str
)
def test_sgd_is_torchs(momentum, nesterov):
    """Break: dampened gradients, or Nesterov along the old momentum."""
    ours, theirs = weights(), weights()
    made = built("sgd", ours, weight_decay=0.0, momentum=momentum, nesterov=nesterov)
    reference = torch.optim.SGD(list(theirs.values()), lr=0.1, momentum=momentum, nesterov=nesterov)
    for step in range(1, 7):
        steep(ours, step)
        steep(theirs, step)
        made.step()
        reference.step()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-6, atol=1e-7)


def test_sgd_decays_apart_from_its_momentum():
    """Break: the decay added to the gradient, as torch's SGD has it."""

    def sgd(weight, gradient, memory, step, decay):
        memory["b"] = 0.9 * memory.get("b", 0) + gradient
        return weight * (1 - 0.1 / step * decay) - 0.1 / step * memory["b"]

    against("sgd", sgd)


# ── 8-bit ──


def tree_map(*, signed: bool) -> np.ndarray:
    """The dynamic tree from its bit patterns: leading zeros, an indicator, linear fraction bits.

    Figure 2 of arXiv 2110.02861, written bit by bit: the first bit is the sign where there is one;
    each zero before the indicator bit divides by ten; the bits behind it count up linearly
    between 0.1 and 1. Without a sign the fraction has one bit more.
    """
    numbers = {0.0, 1.0}
    for zeros in range(7):
        bits = 6 - zeros + (0 if signed else 1)
        for count in range(2**bits):
            low, high = 0.1 + 0.9 * count / 2**bits, 0.1 + 0.9 * (count + 1) / 2**bits
            value = (low + high) / 2 * 10.0**-zeros
            numbers |= {value, -value} if signed else {value}
    return np.array(sorted(numbers))


@pytest.mark.parametrize("signed", [True, False])
def test_the_map_is_the_papers(signed):
    """Break: powers of two instead of ten, or the fraction bit of unsigned maps left unused."""
    np.testing.assert_allclose(blockwise.dynamic_map(signed=signed), tree_map(signed=signed))
    assert len(tree_map(signed=signed)) == 256


@pytest.mark.parametrize("count", [1, 255, 256, 257, 5000])
@pytest.mark.parametrize("signed", [True, False])
def test_each_number_becomes_the_nearest_of_its_block(count, signed):
    """Break: rounding down instead of to the nearest; one scale for two blocks."""
    numbers = filled(count, seed=3) * 10.0 ** torch.arange(count).remainder(7)
    numbers = numbers if signed else numbers.abs()
    codes, scales = blockwise.quantise(numbers, signed=signed)
    table = tree_map(signed=signed)
    assert codes.dtype is torch.uint8 and scales.shape == (-(-count // 256),)
    for place, number in enumerate(numbers.double().numpy()):
        block = numbers[place // 256 * 256 : (place // 256 + 1) * 256]
        largest = float(block.abs().max())
        best = np.abs(table - number / largest).min()
        assert abs(table[codes[place]] - number / largest) <= best + 1e-7
        assert float(scales[place // 256]) == largest
    back = blockwise.restore(codes, scales, signed=signed)
    expected = table[codes.numpy()] * np.repeat(scales.double().numpy(), 256)[:count]
    np.testing.assert_allclose(back.numpy(), expected, rtol=1e-6)


def test_zeros_stay_zeros():
    codes, scales = blockwise.zeros(300, torch.device("cpu"), signed=True)
    assert torch.equal(blockwise.quantise(torch.zeros(300), signed=True)[0], codes)
    assert torch.equal(blockwise.restore(codes, scales, signed=True), torch.zeros(300))


def test_eight_bit_adamw_is_the_papers_procedure(monkeypatch):
    """Each step simulated in float64 from the bytes before it, in slices of two blocks.

    Break: weights moved by the quantised moments; a scale of the slice; the bias correction off
    by a step.
    """
    monkeypatch.setattr("wellfit.training.optimizers.adamw_8bit.SLICE", 512)
    parameters = weights()
    made = built("adamw_8bit", parameters)
    maps = {"exp_avg": tree_map(signed=True), "exp_avg_sq": tree_map(signed=False)}
    for step in range(1, 9):
        steep(parameters, step)
        state = {key: one.clone() for key, one in made.state().items()}
        before = {name: one.detach().double().numpy().copy() for name, one in parameters.items()}
        made.step()
        after = made.state()
        for name, parameter in parameters.items():
            if parameter.numel() < 4096:
                assert f"{name}/exp_avg_absmax" not in after
                assert after[f"{name}/exp_avg"].dtype is torch.float32
                continue
            gradient = parameter.grad.double().numpy().reshape(-1)
            mean = restored(state, f"{name}/exp_avg", maps["exp_avg"], gradient.size)
            square = restored(state, f"{name}/exp_avg_sq", maps["exp_avg_sq"], gradient.size)
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.95 * square + 0.05 * gradient**2
            direction = mean / (1 - 0.9**step) / (np.sqrt(square / (1 - 0.95**step)) + 1e-8)
            decay = 0.1 if ROLES[name] in DECAYED else 0.0
            expected = before[name].reshape(-1) * (1 - 0.01 * decay) - 0.01 * direction
            found = parameter.detach().double().numpy().reshape(-1)
            np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6)
            for key, exact in (("exp_avg", mean), ("exp_avg_sq", square)):
                new = restored(after, f"{name}/{key}", maps[key], exact.size)
                largest = np.repeat(block_maxima(exact), 256)[: exact.size]
                nearest = np.abs(maps[key][None, :] - (exact / largest)[:, None]).min(1)
                np.testing.assert_array_less(
                    np.abs(new - exact) / largest, nearest + 1e-6, err_msg=f"{name}/{key}"
                )
            assert after[f"{name}/exp_avg"].dtype is torch.uint8


def block_maxima(numbers: np.ndarray) -> np.ndarray:
    return np.array([np.abs(numbers[at : at + 256]).max() for at in range(0, numbers.size, 256)])


def restored(state, key: str, table: np.ndarray, size: int) -> np.ndarray:
    if key not in state:
        return np.zeros(size)
    scales = np.repeat(state[f"{key}_absmax"].double().numpy(), 256)[:size]
    return table[state[key].reshape(-1).numpy()] * scales


def test_eight_bits_learn_as_thirty_two_do():
    """A two-layer student of a teacher, 100 steps: losses within 3 % of AdamW's, all the way.

    Break: a linear map in place of the dynamic one: losses differ by 7 %.
    """
    losses = {}
    for kind in ("adamw", "adamw_8bit"):
        student = {"first": (96, 48), "out": (48, 96)}
        student = {
            name: torch.nn.Parameter(filled(*shape, seed=number))
            for number, (name, shape) in enumerate(student.items())
        }
        made = optimizers.build(settings(kind), student, {"first": "matrix", "out": "head"})
        teacher = filled(48, 48, seed=9)
        losses[kind] = []
        for step in range(100):
            x = filled(64, 48, seed=100 + step) * 7
            out = torch.relu(x @ student["first"].T) @ student["out"].T
            loss = (out - torch.tanh(x @ teacher.T)).square().mean()
            loss.backward()
            made.step()
            made.zero_grad()
            losses[kind].append(loss.item())
    exact, short = np.array(losses["adamw"]), np.array(losses["adamw_8bit"])
    assert exact[-1] < 0.5 * exact[0]
    assert np.abs(short / exact - 1).max() < 0.03
