"""Batches and a model in, records out: the one training loop.

The loop yields, others listen: it does not know who reads its records. At one step the order is
Step, Evaluated, Sampled, Saved, Event.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from wellfit.records import Event, Record, Request, Saved, Step
from wellfit.training import checkpoint
from wellfit.training.prefetch import prefetch
from wellfit.training.schedules import share
from wellfit.training.start import Setup, begin, prepare
from wellfit.training.threads import threads

if TYPE_CHECKING:
    from wellfit.data.batches import Batches
    from wellfit.model.protocol import LanguageModel
    from wellfit.recipe import schema

Probe = Callable[[int], Iterable[Record]]

# One bad batch can make one such step; this many in a row are the run's own fault.
NON_FINITE_LIMIT = 10


def train(
    section: schema.Train,
    model: LanguageModel,
    batches: Batches,
    *,
    folder: Path,
    seed: int,
    evaluate: Probe | None = None,
    sample: Probe | None = None,
    evaluate_every: int,
    sample_every: int,
    requests: queue.SimpleQueue[Request] | None = None,
    resume: bool = False,
) -> Iterator[Record]:
    """A recipe's `train` section, an initialised model and its batches in; records out.

    `folder` is the run folder: `plan.json` and `checkpoints/` are written there. `evaluate(step)`
    and `sample(step)` give records; they are called every so many steps and at the last one. A
    `Request("stop", reason)` is acted on between two steps, before and after the probes, and
    leaves a checkpoint; so does `close()`. With `resume` the newest checkpoint is taken up, and
    what follows is bit for bit what the undisturbed training does on the same build and threads.

    Raises RunError where the folder's state forbids the start, and CheckpointError where a
    checkpoint is damaged, does not fit, or cannot be written.
    """
    with threads(section.threads) as thread_count:
        setup = prepare(
            section, model, batches, folder=folder, seed=seed, thread_count=thread_count
        )
        state, events = begin(setup, resume=resume)
        yield from events
        probes = [
            (probe, every)
            for probe, every in ((evaluate, evaluate_every), (sample, sample_every))
            if probe is not None
        ]
        planned = state.planned_steps
        with closing(prefetch(batches.batch, state.step + 1, planned)) as feed:
            try:
                while True:
                    if reason := _stop_reason(requests):
                        yield from _save(setup, state)
                        yield Event(state.step, "stopped", f"{reason}; resume goes on from here")
                        return
                    if not state.probed:
                        for probe, every in probes:
                            if _due(state.step, every, planned):
                                yield from probe(state.step)
                        model.train()
                        state = replace(state, probed=True)
                        continue
                    if state.non_finite_in_a_row >= NON_FINITE_LIMIT:
                        yield from _save(setup, state)
                        yield _failed(setup, state)
                        return
                    if _due(state.step, section.checkpoint_every, planned):
                        yield from _save(setup, state)
                    if state.step == planned:
                        yield Event(planned, "finished", f"{planned} steps, {state.tokens} tokens")
                        return

                    began = time.perf_counter()
                    batch, waited = next(feed)
                    step = state.step + 1
                    rate = setup.optimizers.set_share(share(section.schedule, step, planned))
                    outcome = setup.take_step(step, batch)
                    seconds = time.perf_counter() - began
                    state = replace(
                        state,
                        step=step,
                        tokens=state.tokens + outcome.supervised_tokens,
                        probed=not any(_due(step, every, planned) for _, every in probes),
                        non_finite_in_a_row=0 if outcome.applied else state.non_finite_in_a_row + 1,
                    )
                    yield Step(
                        step=step,
                        epoch=batches.epoch(step),
                        loss=outcome.loss,
                        learning_rate=rate,
                        grad_norm=outcome.grad_norm,
                        clipped=outcome.clipped,
                        supervised_tokens=outcome.supervised_tokens,
                        tokens=state.tokens,
                        seconds=seconds,
                        wait_seconds=waited,
                    )
                    if not outcome.applied:
                        text = "loss or gradient is not finite: the update was not applied"
                        if not outcome.supervised_tokens:
                            text = "no token of the batch has a label: no update was made"
                        yield Event(
                            step, "non_finite", text, {"in_a_row": state.non_finite_in_a_row}
                        )
            except GeneratorExit:
                _save(setup, state)
                raise


def _due(step: int, every: int, planned: int) -> bool:
    return step > 0 and (step % every == 0 or step == planned)


def _stop_reason(requests: queue.SimpleQueue[Request] | None) -> str:
    """The queue in; the reason of a request to stop, or nothing, out."""
    try:
        return requests.get_nowait().reason or "asked to stop" if requests is not None else ""
    except queue.Empty:
        return ""


def _save(setup: Setup, state: checkpoint.State) -> list[Saved]:
    """A state in; its record out, or none: before the first step, or where it stands on disk."""
    if not state.step or checkpoint.exists(setup.checkpoints, state.step):
        return []
    return [
        checkpoint.save(
            setup.checkpoints,
            state,
            setup.parameters,
            setup.optimizers.state(),
            keep=setup.section.keep_last,
        )
    ]


def _failed(setup: Setup, state: checkpoint.State) -> Event:
    finite = all(bool(parameter.isfinite().all()) for parameter in setup.parameters.values())
    count = state.non_finite_in_a_row
    weights = (
        f"the weights are those of step {state.step - count} and are finite"
        if finite
        else "the weights themselves are not finite: an earlier checkpoint may still be good"
    )
    text = (
        f"{count} steps in a row had no finite loss or gradient, none of them was applied; "
        f"{weights}. Lower the learning rate, or look at the batches of these steps."
    )
    data = {"in_a_row": count, "last_applied": state.step - count, "weights_finite": finite}
    return Event(state.step, "failed", text, data)
