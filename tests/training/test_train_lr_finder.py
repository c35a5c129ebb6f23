"""The learning-rate finder: a planted limit is found, and nothing it touched shows it was there."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from train_parts import CONTEXT, MUON, ROWS, Cycle, Tiny, run, section

from wellfit.errors import RunError
from wellfit.records import IGNORED, Step
from wellfit.training import lr_finder
from wellfit.training.lr_finder import Allotment, Feed, allot, find, untouched
from wellfit.training.start import prepare


class Many(Cycle):
    """The pattern of `Cycle` in a corpus of 40 batches."""

    def __init__(self, **more):
        super().__init__(**more)
        self.rows_per_epoch = 40 * self.rows


class Bowl(nn.Module):
    """½·Σ λ·(w − x)² a label, where x depends on the first token of the row: a noisy bowl."""

    def __init__(self, curvatures=(1.0, 0.3, 0.05)):
        super().__init__()
        self.compute_dtype = torch.float32
        self.curvatures = torch.tensor(curvatures)
        self.weight = nn.Parameter(torch.ones(len(curvatures)))

    def hidden(self, tokens, positions=None, segments=None, cache=None):
        target = (tokens[:, :1, None] - 15) / 30
        return (self.weight - target).expand(*tokens.shape, -1)

    def token_loss(self, hidden, labels):
        return ((self.curvatures * hidden.square()).sum(-1) / 2) * (labels != IGNORED)

    def auxiliary_loss(self):
        return torch.zeros(())

    def roles(self):
        return {"weight": "matrix"}

    def dropout_key(self, seed, step, micro_batch):
        pass


def made(tmp_path, model=None, batches=None, **changes):
    return prepare(
        section(**changes),
        model or Tiny(),
        batches or Many(),
        folder=tmp_path,
        seed=7,
        thread_count=1,
    )


def descent(tmp_path, peak):
    """The bowl under plain gradient descent, whose limit is 2 / the largest curvature."""
    plain = {"kind": "sgd", "learning_rate": peak, "momentum": 0.0, "nesterov": False}
    return made(tmp_path, Bowl(), clip_norm=0.0, optimizer={**plain, "weight_decay": 0.0})


@pytest.mark.parametrize("peak", [0.05, 0.2, 1.0])
def test_a_planted_stability_limit_is_found(tmp_path, peak):
    """Plain descent diverges from 2/λ on: found within a factor of 2.5, the choice below it.

    Breaks: rates rising linearly instead of exponentially; an edge where the loss was lowest.
    """
    found = find(descent(tmp_path, peak), steps=200, planned=400)
    limit = 2.0
    assert limit / 2 < found.suggestion.edge * peak < limit * 2.5
    assert limit / 50 < found.choice.share * peak < limit
    assert found.suggestion.share * peak < limit
    for one in found.choice.tried:
        if not limit <= one.share * peak <= 2 * limit:  # a short schedule survives a little more
            assert (one.loss > 1) == (one.share * peak > limit)


def test_rates_rise_exponentially_and_keep_their_ratios(tmp_path):
    setup = made(tmp_path, optimizer=MUON)
    seen = []

    def told(stage, done, total):
        if stage == "range test" and 0 < done < total:
            seen.append(setup.optimizers.share)

    found = find(setup, steps=40, planned=100, told=told)
    trials = found.range_test.trials
    assert trials[0].share == pytest.approx(1e-3)
    ratios = [b.share / a.share for a, b in itertools.pairwise(trials)]
    assert ratios == pytest.approx([1e5 ** (1 / 29)] * len(ratios))
    for shares, trial in zip(seen, trials, strict=False):
        assert shares == pytest.approx(trial.share)
        assert trial.learning_rate == pytest.approx(trial.share * 0.02)


def everything(setup):
    """Every bit that a training could depend on, as comparable values."""
    weights = {name: p.detach().numpy().tobytes() for name, p in setup.parameters.items()}
    moments = {name: m.numpy().tobytes() for name, m in setup.optimizers.state().items()}
    gradients = {
        name: None if p.grad is None else (id(p.grad), p.grad.numpy().tobytes())
        for name, p in setup.parameters.items()
    }
    settings = setup.optimizers.share
    state = np.random.get_state()
    chance = (
        torch.get_rng_state().numpy().tobytes(),
        (state[1].tobytes(), *state[2:]),
        random.getstate(),
    )
    batches = [setup.batches.batch(step).labels.tobytes() for step in (1, 2, 30)]
    return weights, moments, settings, gradients, chance, batches, setup.model.training


class Unsteady(Tiny):
    """Draws from every global generator on each pass, as a careless model might."""

    def __init__(self):
        super().__init__(dropout=0.2)
        self.register_buffer("passes", torch.zeros(()))

    def hidden(self, tokens, positions=None, segments=None, cache=None):
        torch.rand(3), np.random.random_sample(), random.random()
        self.passes += 1
        return super().hidden(tokens, positions, segments, cache)


@pytest.mark.parametrize("optimizer", [{"kind": "adamw", "learning_rate": 0.01}, MUON])
def test_every_bit_is_as_before(tmp_path, optimizer):
    """Weights, moments of a training under way, rates, gradients, buffers, modes, random states.

    Breaks: moments handed back without a copy; rates, buffers, gradients or random states not.
    """
    setup = made(tmp_path, Unsteady(), optimizer=optimizer)
    for step in (1, 2, 3):
        setup.stepper.take(step, setup.batches.batch(step))
    setup.model.matrix.grad = torch.ones_like(setup.model.matrix)
    before, passes = everything(setup), setup.model.passes.clone()
    found = find(setup, steps=180, planned=100, first_step=4)
    assert found.trainings and found.noise is not None
    assert everything(setup) == before
    assert torch.equal(setup.model.passes, passes)


@pytest.mark.parametrize("stage", ["range test", "short trainings", "noise scale"])
def test_ctrl_c_puts_everything_back(tmp_path, stage):
    """Break: putting back only after a normal end."""
    setup = made(tmp_path, Unsteady())
    before = everything(setup)

    def told(now, done, total):
        if now == stage and done >= 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find(setup, steps=180, planned=100, told=told)
    assert everything(setup) == before


def test_a_training_begun_afterwards_is_the_same(tmp_path):
    """Break: the weights not put back."""
    plain = [r for r in run(tmp_path / "plain", Tiny(dropout=0.1), Many()) if isinstance(r, Step)]
    model, batches = Tiny(dropout=0.1), Many()
    find(made(tmp_path, model, batches), steps=100, planned=12)
    after = [r for r in run(tmp_path / "after", model, batches) if isinstance(r, Step)]
    assert [(s.loss, s.grad_norm, s.learning_rate) for s in after] == [
        (s.loss, s.grad_norm, s.learning_rate) for s in plain
    ]


def test_rates_are_compared_on_the_same_batches_and_scored_on_others(tmp_path):
    """Break: training on the batches that are held back."""
    setup = made(tmp_path)
    feed = Feed(setup, 1)
    feed.hold_back(4)
    scored = list(feed.scored())
    assert len(scored) == 4
    spend = Allotment(30, 50, 2, 4)
    steps = []
    for share in (0.5, 2.0):
        with untouched(setup):
            setup.batches.asked.clear()
            lr_finder.train_shortly(setup, feed, share=share, repeat=1, spend=spend, planned=300)
            steps.append(list(setup.batches.asked))
    assert steps[0] == steps[1]
    assert steps[0][:50] == [(50 + place) % 36 + 1 for place in range(50)]
    assert steps[0][50:] == [37, 38, 39, 40]


def test_the_short_schedule_is_the_recipes_in_small_with_a_warm_up(tmp_path):
    setup = made(tmp_path, schedule={"kind": "linear", "warmup": 0.02, "final_share": 0.5})
    feed = Feed(setup, 1)
    rates = []
    with untouched(setup):
        real = lr_finder.one_step
        try:
            lr_finder.one_step = lambda *given: (
                rates.append(0.01 * setup.optimizers.share) or real(*given)
            )
            lr_finder.train_shortly(
                setup, feed, share=3.0, repeat=0, spend=Allotment(30, 20, 1, 2), planned=1000
            )
        finally:
            lr_finder.one_step = real
    assert rates[:2] == pytest.approx([0.015, 0.03])
    assert rates[-1] == pytest.approx(0.015)
    assert len(rates) == 20


def test_a_hopeless_rate_ends_early_and_scores_infinity(tmp_path):
    setup = descent(tmp_path, 0.1)
    with untouched(setup):
        done = lr_finder.train_shortly(
            setup, Feed(setup, 1), share=80.0, repeat=0, spend=Allotment(30, 40, 1, 2), planned=40
        )
    assert done.loss == float("inf") and done.steps < 40


def test_the_score_is_the_mean_over_all_labels_without_dropout(tmp_path):
    setup = made(tmp_path, Tiny(dropout=0.5))
    feed = Feed(setup, 1)
    feed.hold_back(2)
    total = count = 0.0
    setup.model.eval()
    with torch.no_grad():
        for batch in feed.scored():
            hidden = setup.model.hidden(
                torch.from_numpy(batch.tokens), None, torch.from_numpy(batch.segments)
            )
            losses = setup.model.token_loss(hidden, torch.from_numpy(batch.labels))
            total += float(losses.double().sum())
            count += int((batch.labels != IGNORED).sum())
    setup.model.train()
    assert lr_finder.score(setup, feed) == pytest.approx(total / count, rel=1e-6)
    assert setup.model.training


def test_a_batch_of_one_row_has_its_noise_measured_over_several(tmp_path):
    setup = made(tmp_path, batches=Many(rows=1), batch_tokens=CONTEXT, micro_batch=1)
    found = find(setup, steps=40, planned=100)
    assert found.noise is not None and found.noise.batches == 8


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (40, Allotment(30, 0, 1, 8)),
        (150, Allotment(50, 16, 1, 8)),
        (3000, Allotment(100, 241, 2, 8)),
    ],
)
def test_how_steps_are_spent(steps, expected):
    assert allot(steps, 100) == expected
    assert expected.range_steps + 6 * expected.repeats * expected.short_steps <= steps


def test_what_cannot_work_is_refused(tmp_path):
    with pytest.raises(RunError, match=r"39 steps are too few.*\n  Give --steps 40 or more"):
        find(made(tmp_path), steps=39, planned=100)
    with pytest.raises(RunError, match=r"the corpus has 2 batches of 8 rows, and at least 12"):
        find(made(tmp_path, batches=Cycle()), steps=100, planned=100)
    setup = made(tmp_path)
    groups = setup.optimizers.groups
    setup.optimizers.groups = tuple(replace(group, peak=0.0) for group in groups)
    with pytest.raises(RunError, match=r"adamw has no learning rate to find\n  Choose one"):
        find(setup, steps=100, planned=100)


def test_the_rows_of_a_step_are_the_recipes():
    assert Many().batch(1).tokens.shape == (ROWS, CONTEXT)
