"""A setup before its first step in; a learning rate with its evidence out, the setup untouched.

Three measurements, all on the recipe's own batches, model and optimizer, and all from the same
weights: a range test (the rate rises until the loss turns), short trainings at the rates that it
leaves open, and the gradient noise scale after the best of them. What is concluded from them is
in `lr_choice.py`. "Share" is a multiple of the recipe's own rates, so groups keep their ratios.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from wellfit.data.batches import joined
from wellfit.errors import RunError
from wellfit.training import schedules
from wellfit.training.lr_choice import (
    Choice,
    RangeTest,
    ShortTraining,
    Suggestion,
    Trial,
    choose,
    next_share,
    smooth,
    stop_reason,
    suggest,
)
from wellfit.training.noise_scale import (
    LEAST_BATCHES,
    Measurement,
    NoiseScale,
    measure,
    noise_scale,
)
from wellfit.training.start import restore
from wellfit.training.step import source_on

if TYPE_CHECKING:
    import torch

    from wellfit.data.batches import Batch
    from wellfit.training.start import Setup
    from wellfit.training.step import Outcome

Told = Callable[[str, int, int | None], None]
"""`told(stage, done, total)`: how far it has come."""

LOWEST, HIGHEST = 1e-3, 100.0
LEAST_STEPS = 40
LEAST_RANGE, MOST_RANGE = 30, 100
LEAST_SHORT, MOST_SHORT = 10, 500
LEAST_BATCHES_OF_EPOCH = 12
MOST_TRAININGS = 7
NOISE_BATCHES = 8


@dataclass(frozen=True, slots=True)
class Allotment:
    """How a number of steps is spent."""

    range_steps: int
    short_steps: int
    """Steps of each short training; 0 where the budget allows none."""
    repeats: int
    """Trainings at each rate, each on batches of its own."""
    scored_batches: int
    """Batches on which each training is scored: never trained on here."""


@dataclass(frozen=True, slots=True)
class Found:
    """Everything that was measured, and what follows from it."""

    range_test: RangeTest
    suggestion: Suggestion
    """What the range test alone says."""
    trainings: tuple[ShortTraining, ...]
    choice: Choice
    noise: NoiseScale | None
    noise_why_not: str
    steps: int
    """Optimizer steps that were made."""
    noise_after: int
    """Steps after which the noise scale was measured."""


def find(
    setup: Setup,
    *,
    steps: int,
    planned: int,
    first_step: int = 1,
    told: Told | None = None,
) -> Found:
    """A setup and how many steps may be spent in; what was found out.

    `planned` is the number of steps of the run it is for, `first_step` the next one it would make
    (beyond 1 from a checkpoint). Afterwards weights, moments, rates, gradients, mode and every
    random state are as before, bit for bit, also where it ends by an error or Ctrl-C.

    Raises RunError where the budget or the corpus is too small, or the optimizer has no rate.
    """
    told = told or (lambda stage, done, total: None)
    feed = Feed(setup, first_step)
    spend = allot(steps, feed.per_epoch)
    check_rates(setup)
    feed.hold_back(spend.scored_batches)
    with untouched(setup) as again:
        range_test = run_range_test(setup, feed, steps=spend.range_steps, told=told)
        suggestion = suggest(range_test)
        trainings: list[ShortTraining] = []
        made = len(range_test.trials)
        best: dict[str, Any] | None = None
        if suggestion.share is not None and spend.short_steps:
            tried: list[float] = []
            while len(tried) < MOST_TRAININGS:
                share = next_share(suggestion, trainings)
                if share is None:
                    break
                tried.append(share)
                for repeat in range(spend.repeats):
                    told("short trainings", len(trainings), MOST_TRAININGS * spend.repeats)
                    again()
                    done = train_shortly(
                        setup, feed, share=share, repeat=repeat, spend=spend, planned=planned
                    )
                    made += done.steps
                    trainings.append(done)
                    if repeat == 0 and done.loss <= min(t.loss for t in trainings):
                        best = _kept(setup)
        choice = choose(suggestion, trainings)
        again()
        if best is not None:
            restore(setup, best["weights"], best["moments"])
        after = (spend.short_steps if best is not None else 0) + first_step - 1
        noise, why_not = _noise(setup, feed, spend.repeats * spend.short_steps, told)
    return Found(range_test, suggestion, tuple(trainings), choice, noise, why_not, made, after)


class Feed:
    """The batches of a setup, some of an epoch held back from training to score with."""

    def __init__(self, setup: Setup, first_step: int) -> None:
        self.setup = setup
        self.first = first_step
        rows = setup.batches.batch(1).tokens.shape[0]
        self.per_epoch = setup.batches.rows_per_epoch // rows
        self.held = 0
        if self.per_epoch < LEAST_BATCHES_OF_EPOCH:
            raise RunError(
                f"the corpus has {self.per_epoch} batches of {rows} rows, and at least "
                f"{LEAST_BATCHES_OF_EPOCH} are needed to tell a rate from chance",
                where="train.batch_tokens",
                way_out="Lower train.batch_tokens, or add documents.",
            )

    def hold_back(self, batches: int) -> None:
        """The last so many batches of the epoch are for scoring from now on."""
        self.held = batches

    def training(self, place: int) -> tuple[int, Batch]:
        """The place in a training (from 0) in; the step it stands for and its batch out."""
        step = (self.first - 1 + place) % (self.per_epoch - self.held) + 1
        return step, self.setup.batches.batch(step)

    def scored(self) -> Iterator[Batch]:
        """The batches held back."""
        for step in range(self.per_epoch - self.held + 1, self.per_epoch + 1):
            yield self.setup.batches.batch(step)


def allot(steps: int, batches_per_epoch: int) -> Allotment:
    """Steps to spend and batches of an epoch in; how they are spent out.

    A third goes to the range test, 30 to 100 steps; the rest to short trainings at about six
    rates, twice each where every one then still has 20 steps.

    >>> allot(340, 1000)
    Allotment(range_steps=100, short_steps=20, repeats=2, scored_batches=8)

    Raises RunError for fewer than 40 steps.
    """
    if steps < LEAST_STEPS:
        raise RunError(
            f"{steps} steps are too few: a range test of {LEAST_RANGE} and anything to check it "
            f"by need {LEAST_STEPS}",
            where="--steps",
            way_out=f"Give --steps {LEAST_STEPS} or more.",
        )
    ramp = max(LEAST_RANGE, min(MOST_RANGE, steps // 3))
    left = steps - ramp
    repeats = 2 if left // 12 >= 20 else 1
    short = min(MOST_SHORT, left // (6 * repeats))
    scored = max(2, min(8, batches_per_epoch // 6))
    return Allotment(ramp, short if short >= LEAST_SHORT else 0, repeats, scored)


def check_rates(setup: Setup) -> None:
    """A setup in; raises RunError where its optimizer has no rate that could be found."""
    if not any(group.peak > 0 for group in setup.optimizers.groups):
        raise RunError(
            f"the optimizer {setup.section.optimizer.kind} has no learning rate to find",
            where="train.optimizer",
            way_out="Choose one that has, such as train.optimizer.kind=adamw.",
        )


@contextmanager
def untouched(setup: Setup) -> Iterator[Callable[[], None]]:
    """A setup in; inside, it may be trained at will, and the function given puts it back.

    Weights, buffers, moments, rates, gradients, training mode and the random states of torch (of
    every device), NumPy and Python are put back at the end, whatever happens inside.
    """
    import torch

    model = setup.model
    kept = _kept(setup)
    buffers = dict(model.named_buffers()) if isinstance(model, torch.nn.Module) else {}
    kept_buffers = {name: buffer.detach().clone() for name, buffer in buffers.items()}
    gradients = {name: parameter.grad for name, parameter in setup.parameters.items()}
    share = setup.optimizers.share
    mode, randomness = model.training, _random_states()
    stepper = setup.stepper.state()

    def again() -> None:
        # A micro-batch that memory has made smaller stays so.
        setup.stepper.load(stepper)
        restore(setup, kept["weights"], {key: m.clone() for key, m in kept["moments"].items()})
        with torch.no_grad():
            for name, buffer in buffers.items():
                buffer.copy_(kept_buffers[name])
        setup.optimizers.set_share(share)
        for parameter in setup.parameters.values():
            parameter.grad = None
        model.train(mode)
        _set_random_states(randomness)

    again()
    try:
        yield again
    finally:
        again()
        for name, parameter in setup.parameters.items():
            parameter.grad = gradients[name]


def run_range_test(
    setup: Setup,
    feed: Feed,
    *,
    steps: int,
    told: Told,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
) -> RangeTest:
    """A setup and a number of steps in; how the loss went while the rate rose exponentially out.

    Step k of n has the share lowest·(highest/lowest)^(k/(n−1)) of the recipe's rates. It ends
    early once the loss has turned for good.
    """
    import torch

    trials: list[Trial] = []
    losses: list[float] = []
    reason = ""
    parameters = list(setup.parameters.values())
    for place in range(steps):
        told("range test", place, steps)
        share = lowest * (highest / lowest) ** (place / (steps - 1))
        rate = setup.optimizers.set_share(share)
        step, batch = feed.training(place)
        before = [parameter.detach().clone() for parameter in parameters]
        outcome = one_step(setup, step, batch)
        with torch.no_grad():
            size = float(torch.nn.utils.get_total_norm(before))
            moved = [now - then for now, then in zip(parameters, before, strict=True)]
            change = float(torch.nn.utils.get_total_norm(moved))
        losses.append(outcome.loss)
        trials.append(
            Trial(
                share=share,
                learning_rate=rate,
                loss=outcome.loss,
                smoothed=smooth(losses),
                grad_norm=outcome.grad_norm,
                update_ratio=change / size if size > 0 else math.inf,
            )
        )
        reason = stop_reason(trials)
        if reason:
            break
    told("range test", steps, steps)
    return RangeTest(tuple(trials), reason)


def train_shortly(
    setup: Setup, feed: Feed, *, share: float, repeat: int, spend: Allotment, planned: int
) -> ShortTraining:
    """A share of the recipe's rates in; one short training and its loss on batches not trained on.

    It has the recipe's whole schedule in small, with a warm-up of at least a tenth. Repeat r
    trains on the r-th stretch of batches, the same for every share. A training whose loss leaves
    all bounds ends early and scores infinity.
    """
    n = spend.short_steps
    schedule = setup.section.schedule
    warmup = max(2, round(n * max(0.1, schedules.warmup_steps(schedule, planned) / planned)))
    schedule = schedule.model_copy(update={"warmup": float(warmup)})
    first = math.inf
    for place in range(n):
        setup.optimizers.set_share(share * schedules.share(schedule, place + 1, n))
        outcome = one_step(setup, *feed.training(repeat * n + place))
        first = outcome.loss if place == 0 else first
        if not outcome.applied or outcome.loss > 1.5 * first + 1.0:
            return ShortTraining(share, repeat, math.inf, place + 1)
    loss = score(setup, feed)
    return ShortTraining(share, repeat, loss if math.isfinite(loss) else math.inf, n)


def score(setup: Setup, feed: Feed) -> float:
    """A setup in; nats a supervised token over the batches held back out, without dropout."""
    import torch

    mode, total, count = setup.model.training, 0.0, 0
    setup.model.train(False)
    size = setup.section.micro_batch
    with torch.no_grad():
        for batch in feed.scored():
            for first in range(0, batch.tokens.shape[0], size):
                part = slice(first, first + size)
                places: tuple[torch.Tensor | None, torch.Tensor | None] = (None, None)
                if setup.section.document_mask:
                    places = _on(setup, batch.positions[part]), _on(setup, batch.segments[part])
                source = source_on(setup.device, batch, part)
                hidden = setup.model.hidden(_on(setup, batch.tokens[part]), *places, **source)
                losses = setup.model.token_loss(hidden, _on(setup, batch.labels[part]))
                total += float(losses.to("cpu", torch.float64).sum())
                count += int(np.count_nonzero(batch.labels[part] >= 0))
    setup.model.train(mode)
    return total / count if count else math.nan


def measure_noise(setup: Setup, feed: Feed, first: int, told: Told) -> NoiseScale:
    """A setup in; the gradient noise scale at its present weights out.

    It is measured on the batches from place `first` on: on those just trained on, the gradient
    would be smaller than on any others.

    Raises RunError where the batches are too few or have no two rows with supervised tokens.
    """
    rows = setup.batches.batch(1).tokens.shape[0]
    together = max(1, math.ceil(4 / rows))  # noise shows between rows, so there must be some
    count = min(NOISE_BATCHES, feed.per_epoch // together)
    measured: list[Measurement] = []
    for number in range(count if count >= LEAST_BATCHES else 0):
        told("noise scale", number, count)
        taken = [feed.training(first + number * together + place) for place in range(together)]
        measured.append(
            measure(
                setup.model,
                list(setup.parameters.values()),
                joined([batch for _, batch in taken]),
                micro_batch=setup.section.micro_batch,
                document_mask=setup.section.document_mask,
                device=setup.device,
                key=(setup.seed, taken[0][0]),
            )
        )
    told("noise scale", count, count)
    return noise_scale(measured)


def one_step(setup: Setup, step: int, batch: Batch) -> Outcome:
    """A step and its batch in; one update of the recipe's own at the rates that are set."""
    return setup.stepper.take(step, batch).read()


def _noise(setup: Setup, feed: Feed, first: int, told: Told) -> tuple[NoiseScale | None, str]:
    try:
        return measure_noise(setup, feed, first, told), ""
    except RunError as error:
        return None, error.what


def _on(setup: Setup, array: Any) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(setup.device)


def _kept(setup: Setup) -> dict[str, dict[str, torch.Tensor]]:
    """A copy of weights and moments; weights on the CPU, where there is more room."""
    weights = {name: p.detach().to("cpu", copy=True) for name, p in setup.parameters.items()}
    moments = {name: m.detach().clone() for name, m in setup.optimizers.state().items()}
    return {"weights": weights, "moments": moments}


def _random_states() -> tuple[Any, ...]:
    import torch

    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    return torch.get_rng_state(), cuda, mps, np.random.get_state(), random.getstate()


def _set_random_states(states: tuple[Any, ...]) -> None:
    import torch

    cpu, cuda, mps, numpy_state, python_state = states
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)
    if mps is not None:
        torch.mps.set_rng_state(mps)
    np.random.set_state(numpy_state)
    random.setstate(python_state)
