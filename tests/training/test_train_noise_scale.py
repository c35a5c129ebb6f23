"""The gradient noise scale: exact in expectation, honest about its error, and what it advises."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from train_parts import CONTEXT, ROWS, Cycle, Tiny

from wellfit.data.batches import joined
from wellfit.errors import RunError
from wellfit.records import IGNORED
from wellfit.training.batch_advice import batch_advice
from wellfit.training.noise_scale import (
    Measurement,
    NoiseScale,
    measure,
    noise_scale,
    students_t,
)
from wellfit.training.step import Objective, accumulate

CPU = torch.device("cpu")
SIZES = (4, 16, 8, 4, 32, 16, 8, 8)  # supervised tokens of the parts of a batch


def synthetic(draw, true, deviations, sizes=SIZES):
    """One batch whose part over n tokens has the gradient true + N(0, diag(deviations²)/n)."""
    parts = [
        true + draw.standard_normal(len(true)) * deviations / math.sqrt(tokens) for tokens in sizes
    ]
    total = sum(sizes)
    whole = sum(tokens / total * part for tokens, part in zip(sizes, parts, strict=True))
    return Measurement(
        total,
        float(whole @ whole),
        tuple((tokens, float(part @ part)) for tokens, part in zip(sizes, parts, strict=True)),
    )


def planted(seed, size=50, signal=0.2):
    draw = np.random.RandomState(seed)
    true = draw.standard_normal(size)
    true *= math.sqrt(signal) / np.linalg.norm(true)
    deviations = np.exp(draw.standard_normal(size))
    return draw, true, deviations, float(deviations @ deviations), signal


def test_noise_and_signal_are_right_on_average():
    """Over 4,000 batches both means lie within four standard errors of what was planted.

    Break: dividing the scatter by the number of parts; leaving the noise in |g|².
    """
    draw, true, deviations, noise, signal = planted(1)
    pairs = np.array(
        [
            (one.noise(), one.signal())
            for one in (synthetic(draw, true, deviations) for _ in range(4000))
        ]
    )
    error = pairs.std(axis=0, ddof=1) / math.sqrt(len(pairs))
    assert np.all(np.abs(pairs.mean(axis=0) - (noise, signal)) < 4 * error)
    assert error[0] < 0.01 * noise


@pytest.mark.parametrize(("signal", "batches"), [(5.0, 8), (0.2, 8), (0.2, 20)])
def test_the_interval_holds_the_truth_as_often_as_it_says(signal, batches):
    """In 200 trials the 95 % interval holds tr Σ / |G|² in 90 to 99 %.

    Break: a normal quantile in place of Student's; an interval from the noise's error alone.
    """
    held = 0
    for trial in range(200):
        draw, true, deviations, noise, signal = planted(trial, signal=signal)
        scale = noise_scale([synthetic(draw, true, deviations) for _ in range(batches)])
        held += scale.low <= noise / signal <= scale.high
        assert scale.low <= scale.tokens <= scale.high
    assert 180 <= held <= 198


def test_without_a_gradient_the_interval_is_open():
    """Break: an interval of half to twice the estimate."""
    draw, true, deviations, _, _ = planted(3)
    opened = 0
    for _ in range(40):
        scale = noise_scale([synthetic(draw, 0 * true, deviations) for _ in range(8)])
        opened += math.isinf(scale.high)
        assert scale.low > 0 or math.isinf(scale.tokens)
    assert opened >= 34


def test_without_noise_the_scale_is_zero():
    scale = noise_scale([Measurement(8, 3.0, ((4, 3.0), (4, 3.0)))] * 4)
    assert (scale.tokens, scale.low, scale.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("micro_batch", "pieces"), [(1, 8), (3, 8), (8, 8)])
def test_measured_norms_are_those_of_autograd(micro_batch, pieces):
    """Whole and parts against gradients taken by hand, with ragged labels; nothing is left behind.

    Break: weighing every part alike; the gradient of one part left under the next.
    """
    model = Tiny()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    batch = Cycle(masked=0.6).batch(3)
    batch.labels[2] = IGNORED
    found = measure(
        model,
        list(model.parameters()),
        batch,
        micro_batch=micro_batch,
        document_mask=True,
        device=CPU,
        key=(0, 1),
    )
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(map(torch.equal, before, model.parameters()))
    expected = []
    for row in range(pieces):
        part = slice(row, row + 1)
        count = int(np.count_nonzero(batch.labels[part] != IGNORED))
        if not count:
            continue
        hidden = model.hidden(
            torch.from_numpy(batch.tokens[part]), None, torch.from_numpy(batch.segments[part])
        )
        loss = model.token_loss(hidden, torch.from_numpy(batch.labels[part])).sum() / count
        norms = [g.double().square().sum() for g in torch.autograd.grad(loss, model.parameters())]
        expected.append((count, float(sum(norms))))
    assert [tokens for tokens, _ in found.parts] == [tokens for tokens, _ in expected]
    assert len(expected) == 7
    for (_, square), (_, wanted) in zip(found.parts, expected, strict=True):
        assert square == pytest.approx(wanted, rel=1e-5)
    accumulate(model, batch, Objective(), micro_batch=8, device=CPU, key=(0, 1))
    whole = sum(float(p.grad.double().square().sum()) for p in model.parameters())
    assert found.square == pytest.approx(whole, rel=1e-5)
    assert found.tokens == sum(tokens for tokens, _ in expected)


def test_each_part_has_a_dropout_of_its_own():
    """Break: the same key for every part, whose noise would then be shared."""
    model = Tiny(dropout=0.5)
    measure(
        model,
        list(model.parameters()),
        Cycle(masked=0.0).batch(1),
        micro_batch=2,
        document_mask=True,
        device=CPU,
        key=(0, 5),
    )
    assert len({call[:3] for call in model.calls}) == 8


def test_batches_are_joined_row_by_row():
    both = joined([Cycle().batch(1), Cycle().batch(2)])
    assert both.tokens.shape == both.documents.shape == (2 * ROWS, CONTEXT)
    assert np.array_equal(both.labels[ROWS:], Cycle().batch(2).labels)


def test_too_little_is_refused():
    one = Measurement(8, 1.0, ((4, 2.0), (4, 2.0)))
    with pytest.raises(RunError, match=r"needs 3 batches.*here are 2\n  Give it more"):
        noise_scale([one, one])
    batch = Cycle().batch(1)
    batch.labels[1:] = IGNORED
    model = Tiny()
    with pytest.raises(RunError, match="fewer than two rows with supervised tokens"):
        measure(
            model,
            list(model.parameters()),
            batch,
            micro_batch=4,
            document_mask=True,
            device=CPU,
            key=(0, 1),
        )


def test_students_t_has_the_values_of_the_tables():
    """Two-sided 90, 95 and 99 % points as printed (NIST e-Handbook 1.3.6.7.2)."""
    table = {
        1: (6.314, 12.706, 63.657),
        3: (2.353, 3.182, 5.841),
        4: (2.132, 2.776, 4.604),
        7: (1.895, 2.365, 3.499),
        20: (1.725, 2.086, 2.845),
        100: (1.660, 1.984, 2.626),
    }
    for freedom, points in table.items():
        for confidence, point in zip((0.90, 0.95, 0.99), points, strict=True):
            assert students_t(freedom, confidence) == pytest.approx(point, abs=6e-4)


def scale(tokens, low, high):
    return NoiseScale(tokens, low, high, 1.0, 1.0, 8)


@pytest.mark.parametrize(
    ("found", "batch", "progress", "patch", "said"),
    [
        (scale(40e3, 30e3, 60e3), 4096, 0.1, {"train.batch_tokens": 16384}, "fewer steps"),
        (scale(40e3, 10e3, 90e3), 4096, 0.1, {}, "it may stay"),
        (scale(900.0, 700.0, 1000.0), 16384, 0.1, {}, "rises while"),
        (scale(900.0, 700.0, 1000.0), 16384, 0.8, {"train.batch_tokens": 1024}, "fewer tokens"),
        (scale(900.0, 700.0, 5000.0), 16384, 0.8, {}, "it may stay"),
        (scale(math.inf, 50e3, math.inf), 4096, 0.1, {"train.batch_tokens": 32768}, "at least"),
        (scale(math.inf, 500.0, math.inf), 4096, 0.9, {}, "too uncertain"),
        (scale(20.0, 10.0, 30.0), 1024, 0.9, {"train.batch_tokens": 256}, "fewer tokens"),
        (scale(20.0, 10.0, 30.0), 256, 0.9, {}, "rows"),
    ],
)
def test_a_patch_only_where_the_batch_is_far_off(found, batch, progress, patch, said):
    """More than four times off at both ends of the interval; smaller ones only late in a run.

    Break: comparing the estimate instead of the interval's near end.
    """
    advice = batch_advice(found, batch_tokens=batch, context=256, progress=progress)
    assert advice.patch == patch
    assert said in advice.text and f"the recipe's batch is {batch:,}" in advice.text
    assert all(value % 256 == 0 for value in advice.patch.values())


def test_what_a_batch_costs_is_told():
    """At B/4: 1.25 times the fewest tokens, 5 times the fewest steps (equation 2.11)."""
    text = batch_advice(scale(4e3, 3e3, 5e3), batch_tokens=1000, context=10, progress=0.1).text
    assert "about 1.2 times the fewest tokens and 5 times the fewest steps" in text
