"""Batches and a model in, records out: the one training loop.

The loop yields, others listen: it does not know who reads its records. At one step the order is
Step, its Events, Evaluated, Sampled, Saved. Off the CPU a step's numbers are read while the next
one is computed, so that listening never makes the device wait.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wellfit.records import Evaluated, Event, Record, Request, Saved, Step
from wellfit.training import checkpoint, early_stopping, retention, safety
from wellfit.training.collector import between_steps
from wellfit.training.precision import float32_products
from wellfit.training.prefetch import prefetch
from wellfit.training.proofs.at_start import at_start
from wellfit.training.rewind import rewind
from wellfit.training.saving import Saver
from wellfit.training.schedules import share
from wellfit.training.start import Setup, begin, prepare
from wellfit.training.threads import threads

if TYPE_CHECKING:
    from wellfit.data.batches import Batch, Batches
    from wellfit.model.protocol import LanguageModel
    from wellfit.recipe import schema
    from wellfit.training.step import Measured, Outcome

Probe = Callable[[int], Iterable[Record]]
Feed = Generator[tuple["Batch", float], None, None]


@dataclass(frozen=True, slots=True)
class Listening:
    """Who is asked between steps, and how often."""

    probes: tuple[tuple[Probe, int], ...]
    requests: queue.SimpleQueue[Request] | None

    def due(self, step: int, planned: int) -> list[Probe]:
        """A step and the last one in; the probes that look at it out."""
        return [probe for probe, every in self.probes if _due(step, every, planned)]

    def stop_reason(self) -> str:
        """The reason of a request to stop, or nothing."""
        try:
            asked = self.requests.get_nowait() if self.requests is not None else None
        except queue.Empty:
            return ""
        return "" if asked is None else asked.reason or "asked to stop"


@dataclass(frozen=True, slots=True)
class Launched:
    """A step that was handed to the device, and what was known of it then."""

    measured: Measured
    step: int
    rate: float
    tokens: int
    seconds: float
    waited: float
    smaller: tuple[int, int] | None
    """Rows of a micro-batch before and after memory ran out."""


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
    at: int | None = None,
) -> Iterator[Record]:
    """A recipe's `train` section, an initialised model and its batches in; records out.

    `folder` is the run folder: `plan.json` and `checkpoints/` are written there. `evaluate(step)`
    and `sample(step)` give records; they are called every so many steps and at the last one. A
    `Request("stop", reason)` is acted on between two steps, before and after the probes, and
    leaves a checkpoint; so does `close()`. With `resume` the newest checkpoint is taken up (or
    the one `at` a step), and what follows is bit for bit what the undisturbed training does on
    the same build and threads.

    Raises RunError where the folder's state forbids the start, and CheckpointError where a
    checkpoint is damaged, does not fit, or cannot be written.
    """
    retention.refuse_without_scores(
        keep_best=section.keep_best,
        stops_early=early_stopping.is_on(section.stop_early),
        evaluates=evaluate is not None,
    )
    probes = ((evaluate, evaluate_every), (sample, sample_every))
    listening = Listening(
        tuple((probe, every) for probe, every in probes if probe is not None), requests
    )
    with threads(section.threads) as thread_count, between_steps() as collect:
        setup = prepare(
            section, model, batches, folder=folder, seed=seed, thread_count=thread_count
        )
        # What `auto` came to, not what was asked for: fp32 is the whole float32.
        with float32_products(setup.build["precision"]):
            state, events = begin(setup, resume=resume, at=at)
            yield from events
            if (yield from at_start(setup, state)):
                return
            with _saver(setup) as saver:
                yield from _course(setup, state, listening, saver, collect)


def _course(
    setup: Setup,
    state: checkpoint.State,
    listening: Listening,
    saver: Saver,
    collect: Callable[[], int],
) -> Iterator[Record]:
    """All steps from a state on; after a rewind they begin anew with other rows."""
    batches, planned = setup.batches, state.planned_steps
    while True:
        with closing(prefetch(batches.batch, state.step + 1, planned)) as feed:
            work = Work(setup, feed, listening, saver, collect)
            state, harmful = yield from _stretch(work, state)
        if harmful is None:
            return
        state, event = rewind(setup, state, harmful)
        yield event


@dataclass(frozen=True, slots=True)
class Work:
    """What a stretch of steps works with."""

    setup: Setup
    feed: Feed
    listening: Listening
    saver: Saver
    collect: Callable[[], int]


def _stretch(
    work: Work, state: checkpoint.State
) -> Generator[Record, None, tuple[checkpoint.State, int | None]]:
    """Steps until the training ends, or until a harmful one, whose number then comes with it."""
    setup, listening, saver = work.setup, work.listening, work.saver
    section, planned = setup.section, state.planned_steps
    waiting: deque[Launched] = deque()
    reason = ""
    try:
        while True:
            reason = reason or listening.stop_reason()
            due = listening.due(state.step, planned) if not state.probed else []
            save = _due(state.step, section.checkpoint_every, planned)
            # Whatever is decided or saved here must know all steps that were made.
            late = setup.late and not (reason or due or save)
            while len(waiting) > (late and not reason):
                launched = waiting.popleft()
                outcome = launched.measured.read()
                state = _counted(state, outcome)
                yield _step(setup, launched, outcome)
                yield from _events(launched, outcome, state)
                match safety.action(outcome, section.safety):
                    case "rewind" if not any(n < launched.step for n in saver.steps()):
                        text = "no checkpoint stands from before: training goes on without it"
                        yield Event(launched.step, "not_rewound", text)
                    case "rewind" if setup.batches.skips < section.safety.limit:
                        yield from saver.finish()
                        return state, launched.step
                    case "rewind":
                        reason = f"{section.safety.limit} rewinds are the recipe's limit"
                    case "stop":
                        reason = f"step {launched.step} is one that the recipe does not allow"
            # Asked in answer to what was just told.
            reason = reason or listening.stop_reason()
            if reason and waiting:
                continue
            if reason:
                yield from _save(saver, setup, state)
                yield from saver.finish()
                yield Event(state.step, "stopped", f"{reason}; resume goes on from here")
                return state, None
            if not state.probed:
                with setup.evaluated():
                    for probe in due:
                        for record in probe(state.step):
                            state = _scored(state, record, section.best_by)
                            yield record
                setup.model.train()
                work.collect()
                state = replace(state, probed=True)
                continue
            if state.non_finite_in_a_row >= section.safety.limit:
                yield from _save(saver, setup, state)
                yield from saver.finish()
                yield _failed(setup, state)
                return state, None
            yield from saver.poll()
            enough = _enough(section, state)
            if save or enough or _worth_saving(saver, section, state):
                yield from _save(saver, setup, state)
            if enough or state.step == planned:
                yield from saver.finish()
                if enough and state.step < planned:
                    yield Event(state.step, "stopped_early", f"step {state.step}: {enough}")
                of = f" of {planned}" if state.step < planned else ""
                yield Event(
                    state.step, "finished", f"{state.step}{of} steps, {state.tokens} tokens"
                )
                return state, None
            try:
                fetched = next(work.feed)
            except Exception:  # the weights are whole: nothing of this step was done
                yield from _save(saver, setup, state)
                yield from saver.finish()
                raise
            waiting.append(_launch(setup, state, *fetched))
            step = state.step + 1
            state = replace(
                state,
                step=step,
                tokens=waiting[-1].tokens,
                probed=not listening.due(step, planned),
            )
    except GeneratorExit:
        for launched in waiting:
            state = _counted(state, launched.measured.read())
        _save(saver, setup, state)
        saver.finish()
        raise


def _launch(setup: Setup, state: checkpoint.State, batch: Batch, waited: float) -> Launched:
    """A state, the next batch and the seconds it was waited for in; the step under way out."""
    began = time.perf_counter()
    step, before = state.step + 1, setup.stepper.micro_batch
    rate = setup.optimizers.set_share(share(setup.section.schedule, step, state.planned_steps))
    measured = setup.stepper.take(step, batch)
    if setup.average:
        setup.average.update(step, measured.applied)
    after = setup.stepper.micro_batch
    return Launched(
        measured=measured,
        step=step,
        rate=rate,
        tokens=state.tokens + measured.supervised_tokens,
        seconds=waited + time.perf_counter() - began,
        waited=waited,
        smaller=None if after == before else (before, after),
    )


def _step(setup: Setup, launched: Launched, outcome: Outcome) -> Step:
    return Step(
        step=launched.step,
        epoch=setup.batches.epoch(launched.step),
        loss=outcome.loss,
        learning_rate=launched.rate,
        grad_norm=outcome.grad_norm,
        clipped=outcome.clipped,
        supervised_tokens=outcome.supervised_tokens,
        tokens=launched.tokens,
        seconds=launched.seconds,
        wait_seconds=launched.waited,
    )


def _events(launched: Launched, outcome: Outcome, state: checkpoint.State) -> Iterator[Event]:
    if launched.smaller:
        before, after = launched.smaller
        text = (
            f"memory ran out with {before} rows in a micro-batch: the step was made again with "
            f"{after}, and so are all later ones; batch and tokens stay the same"
        )
        yield Event(launched.step, "out_of_memory", text, {"before": before, "after": after})
    yield from safety.events(launched.step, outcome, state.non_finite_in_a_row)


def _counted(state: checkpoint.State, outcome: Outcome) -> checkpoint.State:
    # An overflow of float16 is no sign against the run: the scale adapts to it.
    in_a_row = 0 if outcome.applied or outcome.overflow else state.non_finite_in_a_row + 1
    return replace(state, non_finite_in_a_row=in_a_row)


def _due(step: int, every: int, planned: int) -> bool:
    return step > 0 and (step % every == 0 or step == planned)


def _saver(setup: Setup) -> Saver:
    section = setup.section
    return Saver(
        setup.checkpoints,
        keep_last=section.keep_last,
        keep_best=section.keep_best,
        best_by=section.best_by,
        background=section.save_in_background,
    )


def _save(saver: Saver, setup: Setup, state: checkpoint.State) -> list[Saved]:
    """A state in; it will stand on disk, and records of what has come to stand, out."""
    average = setup.average.state() if setup.average else None
    whole = replace(state, extra={"stepper": setup.stepper.state()})
    return saver.start(whole, setup.parameters, setup.optimizers.state(), average)


def _scored(state: checkpoint.State, record: Record, by: str) -> checkpoint.State:
    """A state and what a probe gave in; the state with its score, if it is one, out."""
    score = retention.score_of(record, by) if isinstance(record, Evaluated) else None
    return state if score is None else replace(state, scores=(*state.scores, score))


def _enough(section: schema.Train, state: checkpoint.State) -> str:
    """Why the training need not go on after the evaluation that was just made, or nothing."""
    if not state.scores or state.scores[-1].step != state.step:
        return ""
    return early_stopping.reason_to_stop(section.stop_early, state.scores, section.best_by)


def _worth_saving(saver: Saver, section: schema.Train, state: checkpoint.State) -> bool:
    """Whether the evaluation that was just made is among the best."""
    if not state.scores or state.scores[-1].step != state.step:
        return False
    return retention.worth_saving(
        state.step,
        state.scores,
        saver.steps(),
        keep_best=section.keep_best,
        by=section.best_by,
    )


def _failed(setup: Setup, state: checkpoint.State) -> Event:
    finite = all(bool(parameter.isfinite().all()) for parameter in setup.parameters.values())
    count = state.non_finite_in_a_row
    weights = (
        f"the weights are those of step {state.step - count} and are finite"
        if finite
        else "the weights themselves are not finite: an earlier checkpoint may still be good"
    )
    text = (
        f"{count} steps in a row had no finite loss or gradient, or stood far above those before; "
        f"none of them was applied; {weights}. Lower the learning rate, or look at the batches of "
        "these steps."
    )
    data = {"in_a_row": count, "last_applied": state.step - count, "weights_finite": finite}
    return Event(state.step, "failed", text, data)
