"""A recipe's `train` section and a run folder in; everything ready for the first step out."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from wellfit.errors import RunError
from wellfit.records import Event
from wellfit.training import (
    budget,
    checkpoint,
    compiling,
    optimizers,
    own_loss,
    precision,
    schedules,
)
from wellfit.training.allocator import keep_freed_memory
from wellfit.training.average import Average
from wellfit.training.rewind import set_aside
from wellfit.training.stepper import Stepper

if TYPE_CHECKING:
    from pathlib import Path

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
    "clip_value",
    "loss",
    "label_smoothing",
    "z_loss",
    "document_mask",
    "objective",
    "safety",
    "ema_decay",
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
    stepper: Stepper
    average: Average | None = None
    """The running average of the weights; None where `ema_decay` is 0."""

    def evaluated(self) -> AbstractContextManager[None]:
        """While inside, the model holds the weights to evaluate: the averages where there are."""
        return self.average.swapped() if self.average else nullcontext()

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    @property
    def late(self) -> bool:
        """Whether a step's numbers are read only while the next one is computed."""
        return self.device.type != "cpu"

    def take_up(self, path: Path, fresh: checkpoint.State) -> tuple[list[str], checkpoint.State]:
        """A checkpoint and the state of a fresh start in; what differs between them, and the state.

        Weights, moments and all that the next step depends on are then those of the checkpoint.
        Raises CheckpointError where it is damaged or does not fit.
        """
        shapes = {name: parameter.shape for name, parameter in self.parameters.items()}
        state, weights, moments = checkpoint.load(
            path,
            shapes,
            optimizers.moments(self.section.optimizer, self.model.roles(), shapes),
        )
        checkpoint.refuse_other_base(path, state, self.model)
        restore(self, weights, moments)
        if self.average:
            self.average.load(checkpoint.load_average(path, shapes) or weights)
        before = {**_mathematics(state.settings), **state.build, "seed": state.seed}
        now = {**_mathematics(fresh.settings), **fresh.build, "seed": fresh.seed}
        differences = [
            f"{name} was {before[name]} and is {now[name]}"
            for name in now
            if name in before and before[name] != now[name]
        ]
        if "stepper" in state.extra:
            # A micro-batch that the recipe now names is tried, whatever fitted before.
            same = "micro_batch" not in {line.partition(" ")[0] for line in differences}
            self.stepper.load(state.extra["stepper"], safe_size=same)
        return differences, replace(
            state, seed=fresh.seed, settings=fresh.settings, build=fresh.build
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
    float8_matrices = compute_in(model, how.name)
    recompute_as(model, section.activation_checkpointing)
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
        "float8_matrices": float8_matrices,
        "keeps_freed_memory": keep_freed_memory(),
        "evaluated_weights": "average" if section.ema_decay else "weights",
        "pretrained": bool(getattr(model, "pretrained", False)),
    }
    build |= own_code(section, model)
    base = getattr(model, "base_digest", "")
    build |= {"base": base} if base else {}
    made = built(section.optimizer, model)
    average = Average(parameters, section.ema_decay) if section.ema_decay else None
    stepper = Stepper(
        section,
        model,
        made,
        list(parameters.values()),
        precision=how.name,
        device=device,
        seed=seed,
    )
    return Setup(
        section,
        model,
        parameters,
        made,
        batches,
        folder,
        device,
        seed,
        facts,
        build,
        stepper,
        average,
    )


def compute_in(model: LanguageModel, name: str) -> int:
    """A model and the name of a precision in; the model keeps to it; its 8-bit matrices out.

    Raises RunError where the precision is fp8 and nothing of the model is multiplied in it.
    """
    model.compute_dtype = precision.compute_dtype(name)
    if name != "fp8":
        return 0
    taken: int = model.use_float8() if hasattr(model, "use_float8") else 0
    if not taken:
        raise RunError(
            "no matrix of the model's blocks is large enough to gain from fp8: sides are multiples "
            "of 16, with more than 1,024 inputs or more than 4,096 outputs",
            where="train.precision=fp8",
            way_out="Set train.precision=bf16.",
        )
    return taken


def built(settings: schema.Optimizer, model: LanguageModel) -> optimizers.Optimizers:
    """An optimizer's settings and a model on its device in; the optimizer around it out.

    Rates are carried over to the model's width where it knows how many times wider than the one
    they were found at it is (`width_ratio`).
    """
    factors = optimizers.width_factors(settings, model.roles(), getattr(model, "width_ratio", 1.0))
    parameters = dict(model.named_parameters())
    return optimizers.build(settings, parameters, model.roles(), factors=factors)


def own_code(section: schema.Train, model: LanguageModel) -> dict[str, str]:
    """A section and a model on its device in; versions of the user's own loss and module out.

    The loss is tried before anything is trained with it: RunError where it gives no nats.
    """
    versions = {"module": str(getattr(model, "code_version", ""))}
    if section.loss is not None:
        own_loss.try_out(section.loss, model)
        versions["loss"] = own_loss.version(section.loss)
    return {name: version for name, version in versions.items() if version}


def recompute_as(model: LanguageModel, wanted: str) -> None:
    """A model and a recipe's `train.activation_checkpointing` in; the model keeps to it.

    Raises RunError where the model does not know how.
    """
    if hasattr(model, "recompute"):
        model.recompute = wanted
    elif wanted != "none":
        raise RunError(
            f"{type(model).__name__} cannot compute activations again",
            where=f"train.activation_checkpointing={wanted}",
            way_out="Set train.activation_checkpointing=none, or give the model an attribute "
            "`recompute` that it keeps to.",
        )


def compile_where_it_pays(
    setup: Setup, planned_steps: int | None, batch: Batch
) -> precision.Choice:
    """A setup, the planned steps (None: to be timed) and a batch in; whether to compile out."""
    section, model = setup.section, setup.model
    described = getattr(model, "model", None)
    adapter = getattr(described, "adapter", None)
    choice = compiling.decide(
        section.compile,
        device=setup.device.type,
        planned_steps=planned_steps,
        micro_batches=-(-len(batch.tokens) // setup.stepper.micro_batch),
        compiler=compiling.compiler_found(setup.device.type),
        dropout=max(getattr(part, "dropout", 0.0) for part in (described, adapter)),
        checkpointing=section.activation_checkpointing,
        offers=compiling.offers_blocks(model),
    )
    if choice.name == "on":
        reason = choice.why
        choice = compiling.compile_blocks(model, lambda: setup.stepper.rehearse(batch))
        if choice.name == "on":
            choice = replace(choice, why=reason)
    return choice


def begin(
    setup: Setup, *, resume: bool, at: int | None = None
) -> tuple[checkpoint.State, list[Event]]:
    """A setup in; the state from which the next step follows, and what to tell about it, out.

    With `at` the checkpoint of that step is taken up, later ones are set aside, and the steps
    after it take the rows that were first planned for them.

    Raises RunError where the folder holds a training and `resume` is False, was planned for
    another budget, or has no checkpoint `at` that step; CheckpointError where the checkpoint is
    damaged or does not fit.
    """
    checkpoint.clean(setup.checkpoints)
    newest = checkpoint.latest(setup.checkpoints)
    if at is not None:
        newest = set_aside(setup.checkpoints, at)
        setup.batches.restore(after_step=at)
    made = budget.read_plan(setup.folder, setup.section.budget)
    if not resume and (newest or made):
        raise RunError(
            "the folder holds a training already",
            where=str(setup.folder),
            way_out="Resume it, or train into a new folder.",
        )
    batch = setup.batches.batch(1)
    rows = len(batch.tokens)
    context = setup.section.batch_tokens // rows  # targets may be shorter than their rows
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
    timed = made.seconds_per_step is not None
    choice = compile_where_it_pays(setup, None if timed else made.steps, batch)
    setup.build["compile"] = choice.name
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
        differences, state = setup.take_up(newest, state)
    facts = {
        **setup.facts,
        "compile": choice.name,
        "compile_reason": choice.why,
        "micro_batch": setup.stepper.micro_batch,
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


def _mathematics(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in MATHEMATICS if name in settings}


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
        setup.stepper.take(step, setup.batches.batch(step)).read()
        return time.perf_counter() - started

    before = setup.stepper.state()
    result = budget.seconds_per_step(one_step)
    restore(setup, weights, {})
    setup.stepper.load({**before, "micro_batch": setup.stepper.micro_batch})
    return result
