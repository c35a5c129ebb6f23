"""One step: the same mathematics however the batch is cut, clipping, updates not applied."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from train_parts import ADAMW, CONTEXT, ROWS, Cycle, Tiny, section

from wellfit.recipe import schema
from wellfit.records import IGNORED
from wellfit.training import optimizers
from wellfit.training.step import Objective, accumulate, clip, gradients
from wellfit.training.stepper import Stepper

CPU = torch.device("cpu")


def ragged(seed):
    """A batch whose rows have from none to all of their labels."""
    batch = Cycle(masked=0.0).batch(seed)
    kept = np.random.RandomState(seed).random_sample((ROWS, 1)) ** 2
    kept[0] = 0.0
    batch.labels[np.random.RandomState(seed + 1).random_sample((ROWS, CONTEXT)) > kept] = IGNORED
    return batch


def gradient(micro_batch, seed, document_mask=True, dropout=0.0):
    model = Tiny(dropout)
    loss, count = accumulate(
        model,
        ragged(seed),
        Objective(document_mask=document_mask),
        micro_batch=micro_batch,
        device=CPU,
        key=(0, 1),
    )
    return model, loss, count, torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("micro_batch", [1, 2, 3, 5])
def test_gradient_and_loss_do_not_depend_on_the_cut(micro_batch, seed, dropout):
    """1×8 = 2×4 = 8×1 = 3+3+2 = 5+3. Break: dividing each micro-batch by its own labels."""
    _, whole_loss, whole_count, whole = gradient(ROWS, seed, dropout=dropout)
    _, loss, count, parts = gradient(micro_batch, seed, dropout=dropout)
    assert count == whole_count == np.count_nonzero(ragged(seed).labels != IGNORED)
    assert float(loss) == pytest.approx(float(whole_loss), rel=1e-6)
    assert (parts - whole).norm() <= 1e-6 * whole.norm()


def test_loss_is_the_mean_over_all_labels():
    """Break: accumulating the reported loss in float32, or over rows first."""
    model, loss, count, _ = gradient(3, seed=0)
    batch = ragged(0)
    with torch.no_grad():
        hidden = model.hidden(
            torch.from_numpy(batch.tokens), None, torch.from_numpy(batch.segments)
        )
        logits = model.logits(hidden).double()
    labels = torch.from_numpy(batch.labels)
    nats = -torch.log_softmax(logits, -1)
    kept = labels != IGNORED
    expected = nats[kept].gather(1, labels[kept][:, None]).sum() / count
    assert float(loss) == pytest.approx(expected.item(), rel=1e-7)


def test_document_mask_off_lets_a_row_be_one_document():
    model, *_ = gradient(8, seed=0, document_mask=False)
    assert [call[-1] for call in model.calls] == [False]
    model, *_ = gradient(8, seed=0)
    assert [call[-1] for call in model.calls] == [True]


def test_each_micro_batch_is_told_the_place_of_its_rows():
    model, *_ = gradient(3, seed=0)
    assert [call[:4] for call in model.calls] == [(0, 1, 0, 3), (0, 1, 3, 3), (0, 1, 6, 2)]


@pytest.mark.parametrize("limit", [0.0, 0.01, 1e9])
def test_clipping_equals_that_of_torch(limit):
    """Break: a norm over tensors one by one, or clipping at limit 0."""
    model, *_ = gradient(8, seed=0)
    plain, *_ = gradient(8, seed=0)
    norm, clipped = clip(gradients(list(model.parameters())), Objective(clip_norm=limit))
    expected = torch.nn.utils.clip_grad_norm_(plain.parameters(), limit or math.inf)
    assert float(norm) == pytest.approx(expected.item(), rel=1e-6)
    assert bool(clipped) is (limit == 0.01)
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        # torch divides by norm + 1e-6, so that a norm of zero is no division by zero.
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=2e-5, atol=1e-9)


def test_values_are_clamped_before_the_norm():
    """As torch's two functions one after the other. Break: the norm told after the clamping."""
    model, *_ = gradient(8, seed=0)
    plain, *_ = gradient(8, seed=0)
    before = float(torch.nn.utils.get_total_norm(gradients(list(plain.parameters()))))
    objective = Objective(clip_value=0.01, clip_norm=0.05)
    norm, clipped = clip(gradients(list(model.parameters())), objective)
    assert float(norm) == pytest.approx(before, rel=1e-6) and bool(clipped)
    torch.nn.utils.clip_grad_value_(plain.parameters(), 0.01)
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.05)
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-9)
    _, clipped = clip(gradients(list(model.parameters())), Objective(clip_value=0.01))
    assert not bool(clipped)


def one_step(batch, spoil=None):
    model = Tiny()
    made = optimizers.build(
        schema.AdamW.model_validate(ADAMW), dict(model.named_parameters()), model.roles()
    )
    if spoil:
        spoil(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    stepper = Stepper(
        section(), model, made, list(model.parameters()), precision="fp32", device=CPU, seed=0
    )
    outcome = stepper.take(1, batch).read()
    moved = any(not torch.equal(p, before[name]) for name, p in model.named_parameters())
    return outcome, moved, made


def test_a_step_moves_the_weights_and_drops_the_gradients():
    outcome, moved, made = one_step(ragged(0))
    assert outcome.applied and moved and len(made.state()) == 15
    assert all(p.grad is None for group in made.groups for run in group.runs for p in run.values())


def test_an_update_that_is_not_finite_is_not_applied():
    """Break: stepping whatever the norm says fills all weights with NaN."""

    def overflow(model):
        model.bias.register_hook(lambda gradient: gradient * math.inf)

    outcome, moved, made = one_step(ragged(0), overflow)
    assert math.isfinite(outcome.loss) and not math.isfinite(outcome.grad_norm)
    assert not outcome.applied and not moved and not made.state()


def test_a_batch_without_labels_has_no_loss_and_no_update():
    batch = ragged(0)
    batch.labels[:] = IGNORED
    outcome, moved, _ = one_step(batch)
    assert math.isnan(outcome.loss) and outcome.supervised_tokens == 0
    assert not outcome.applied and not moved
