"""A recipe in, the bytes that a real step held at its fullest out, every allocation counted.

torch's profiler reports each allocation and each release of the CPU allocator, those inside
kernels too; their running sum, over what was held before the step, is the truth.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from wellfit.model.init import initialise
from wellfit.model.transformer import Transformer
from wellfit.plan.layout import Layout, layout
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.schema import Recipe
from wellfit.run.calibrate import random_batch
from wellfit.training import optimizers
from wellfit.training.precision import choose_precision, compute_dtype, cpu_flags
from wellfit.training.stepper import Stepper

BASE: dict[str, Any] = {
    "name": "counted",
    "data": {"sources": [{"path": "texts"}], "tokenizer": {"vocabulary_size": 1000}},
    "model": {"context": 64, "layers": 2, "width": 64, "heads": 2, "kv_heads": 2},
    "train": {
        "budget": {"steps": 4},
        "batch_tokens": 512,
        "micro_batch": 4,
        "precision": "fp32",
        "device": "cpu",
    },
}


def recipe_of(changes: str = "") -> Recipe:
    """Changes as one line of `key=value` → the recipe; `V=`, `rows=` and `micro=` are short forms.

    `rows` are those of a step.
    """
    given = dict(change.split("=", 1) for change in changes.split())
    context = int(given.get("context", 64))
    long = {
        "V": "data.tokenizer.vocabulary_size",
        "micro": "train.micro_batch",
        "optimizer": "train.optimizer.kind",
    }
    train = {"precision", "document_mask", "clip_norm", "activation_checkpointing"}
    rows = int(given.pop("rows", 8))
    full = [f"train.batch_tokens={rows * context}"]
    for key, value in given.items():
        section = "train" if key in train else "model"
        full.append(f"{long.get(key, f'{section}.{key}')}={value}")
    return parse_recipe(BASE, changes=full)


def layout_of(recipe: Recipe) -> Layout:
    """A recipe of this file → its layout on a CPU."""
    precision = "bf16" if recipe.train.precision == "bf16" else "fp32"
    size = recipe.data.tokenizer.vocabulary_size
    native = (
        choose_precision("auto", "cpu", cpu_flags=cpu_flags(), capability=(0, 0)).name == "bf16"
    )
    return layout(recipe, size, precision=precision, device="cpu", native=native)


def counted_peak(recipe: Recipe) -> int:
    """A recipe → bytes of tensors at the fullest moment of its second step, on the CPU."""
    size = recipe.data.tokenizer.vocabulary_size
    model = Transformer(recipe.model, size)
    initialise(model, 0)
    model.compute_dtype = compute_dtype(recipe.train.precision)
    model.train()
    parameters = dict(model.named_parameters())
    optimizer = optimizers.build(recipe.train.optimizer, parameters, model.roles())
    optimizer.set_share(1.0)

    model.recompute = recipe.train.activation_checkpointing
    stepper = Stepper(
        recipe.train,
        model,
        optimizer,
        list(parameters.values()),
        precision=recipe.train.precision,
        device=torch.device("cpu"),
        seed=0,
    )

    def step(number: int) -> None:
        assert stepper.take(number, random_batch(recipe, size, number)).read().applied

    step(1)  # makes the moments
    held = sum(tensor.nbytes for tensor in [*parameters.values(), *optimizer.state().values()])
    return held + counted(lambda: step(2))


def counted(work: Callable[[], object]) -> int:
    """Some work → bytes at its fullest moment above those before it, every allocation counted."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
            work()
    events = watched.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    fullest = now = 0
    for _, change in changes:
        now += change
        fullest = max(fullest, now)
    return fullest
