"""A recipe's `train` section and a run folder in; everything ready for the first step out."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wellfit.errors import RunError
from wellfit.records import Event
from wellfit.training import budget, checkpoint, optimizers, precision, schedules
from wellfit.training.allocator import keep_freed_memory
from wellfit.training.step import Outcome, take_step

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Parameter

    from wellfit.data.batches import Batch, Batches
    from wellfit.model.protocol import LanguageModel
    from wellfit.recipe import schema

# Settings on which the bits of the remaining steps depend; the others may change at a resume.
MATHEMATICS = (
    "batch_tokens",
    "micro_batch",
    "optimizer",
    "schedule",
    "clip_norm",
    "document_mask",
)


@dataclass(frozen=True, slots=True)
class Setup:
    """What stays the same throughout one training."""

    section: schema.Train
    model: LanguageModel
    parameters: dict[str, Parameter]
    optimizers: optimizers.Optimizers
    batches: Batches
    folder: Path
    device: torch.device
    seed: int
    facts: dict[str, Any]
    """What the first event tells about device, arithmetic and sizes."""
    build: dict[str, Any]

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    def take_step(self, step: int, batch: Batch) -> Outcome:
        """A step and its batch in; weights and moments updated, and what was measured out."""
        return take_step(
            self.model,
            self.optimizers,
            list(self.parameters.values()),
            batch,
            micro_batch=self.section.micro_batch,
            document_mask=self.section.document_mask,
            clip_norm=self.section.clip_norm,
            device=self.device,
            key=(self.seed, step),
        )


def prepare(
    section: schema.Train,
    model: LanguageModel,
    batches: Batches,
    *,
    folder: Path,
    seed: int,
    thread_count: int,
) -> Setup:
    """What `loop.train` is given in; the model on its device and an optimizer around it out."""
    import torch

    where, how = precision.choose(section.device, section.precision)
    device = torch.device(where.name)
    model.compute_dtype = precision.compute_dtype(how.name)
    if isinstance(model, torch.nn.Module):
        model.to(device)
    model.train()
    parameters = dict(model.named_parameters())
    build = {
        "torch": torch.__version__,
        "device": where.name,
        "precision": how.name,
        "threads": thread_count,
    }
    facts = {
        **build,
        "device_reason": where.why,
        "precision_reason": how.why,
        "parameters": sum(parameter.numel() for parameter in parameters.values()),
        "optimizer": section.optimizer.kind,
        "clip_norm": section.clip_norm,
        "keeps_freed_memory": keep_freed_memory(),
    }
    made = optimizers.build(section.optimizer, parameters, model.roles())
    return Setup(section, model, parameters, made, batches, folder, device, seed, facts, build)


def begin(setup: Setup, *, resume: bool) -> tuple[checkpoint.State, list[Event]]:
    """A setup in; the state from which the next step follows, and what to tell about it, out.

    Raises RunError where the folder holds a training and `resume` is False, or was planned for
    another budget; CheckpointError where the newest checkpoint is damaged or does not fit.
    """
    checkpoint.clean(setup.checkpoints)
    newest = checkpoint.latest(setup.checkpoints)
    made = budget.read_plan(setup.folder, setup.section.budget)
    if not resume and (newest or made):
        raise RunError(
            "the folder holds a training already",
            where=str(setup.folder),
            way_out="Resume it, or train into a new folder.",
        )
    rows, context = setup.batches.batch(1).tokens.shape
    assert rows * context == setup.section.batch_tokens, "the batches are the recipe's"
    events: list[Event] = []
    if made is None:
        made = budget.plan(
            setup.section.budget,
            rows=rows,
            context=context,
            rows_per_epoch=setup.batches.rows_per_epoch,
            measure=lambda: calibrate(setup),
        )
        budget.write_plan(setup.folder, made)
        if made.seconds_per_step is not None:
            events.append(Event(0, "calibrated", made.arithmetic, asdict(made)))
    state = checkpoint.State(
        step=0,
        planned_steps=made.steps,
        tokens=0,
        seed=setup.seed,
        probed=True,
        non_finite_in_a_row=0,
        settings=setup.section.model_dump(mode="json"),
        build=setup.build,
    )
    differences: list[str] = []
    if newest:
        differences, state = _take_up(setup, newest, state)
    facts = {
        **setup.facts,
        "step": state.step,
        "planned_steps": state.planned_steps,
        "arithmetic": made.arithmetic,
        "steps_per_epoch": setup.batches.rows_per_epoch / rows,
        "warmup_steps": schedules.warmup_steps(setup.section.schedule, state.planned_steps),
        "differences": differences,
    }
    kind, text = (
        "started",
        f"{made.arithmetic}; {setup.facts['device']}, {setup.facts['precision']}",
    )
    if resume:
        kind = "resumed"
        text = f"from {newest.name}" if newest else "from the beginning: no checkpoint was written"
        if differences:
            text += "; not bit for bit what it would have been, for " + ", ".join(differences)
    events.append(Event(state.step, kind, text, facts))
    return state, events


def _take_up(
    setup: Setup, path: Path, fresh: checkpoint.State
) -> tuple[list[str], checkpoint.State]:
    """A checkpoint and the state of a fresh start in; what differs between them, and the state."""
    shapes = {name: parameter.shape for name, parameter in setup.parameters.items()}
    expected = optimizers.moments(setup.section.optimizer, setup.model.roles(), shapes)
    state, weights, moments = checkpoint.load(path, shapes, expected)
    restore(setup, weights, moments)
    before = {**_mathematics(state.settings), **state.build, "seed": state.seed}
    now = {**_mathematics(fresh.settings), **fresh.build, "seed": fresh.seed}
    differences = [
        f"{name} was {before.get(name)} and is {now[name]}"
        for name in now
        if before.get(name) != now[name]
    ]
    return differences, replace(state, seed=fresh.seed, settings=fresh.settings, build=fresh.build)


def _mathematics(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in MATHEMATICS}


def restore(setup: Setup, weights: dict[str, Tensor], moments: dict[str, Tensor]) -> None:
    """Weights and moments in; the model and its optimizer hold them, bit for bit."""
    import torch

    with torch.no_grad():
        for name, parameter in setup.parameters.items():
            parameter.copy_(weights[name])
    setup.optimizers.load(moments)


def calibrate(setup: Setup) -> tuple[float, int]:
    """A setup before its first step in; median seconds of a real step, and how many were timed.

    The steps are those that training begins with, at the whole rate. Afterwards weights and
    optimizer are as they were, bit for bit.
    """
    weights = {name: p.detach().to("cpu", copy=True) for name, p in setup.parameters.items()}
    setup.optimizers.set_share(1.0)
    numbers = count(1)

    def one_step() -> float:
        started = time.perf_counter()
        step = next(numbers)
        setup.take_step(step, setup.batches.batch(step))
        return time.perf_counter() - started

    result = budget.seconds_per_step(one_step)
    restore(setup, weights, {})
    return result
