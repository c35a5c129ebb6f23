"""Real steps of a recipe on this machine, timed; nothing is written and no corpus is needed."""

from __future__ import annotations

import time
from itertools import count
from typing import TYPE_CHECKING

import numpy as np

from wellfit.data.batches import Batch
from wellfit.data.corrupt.marks import marks
from wellfit.recipe.schema import Recipe

if TYPE_CHECKING:
    from wellfit.data.corpus import Corpus


def calibrate(recipe: Recipe, vocabulary_size: int, corpus: Corpus | None) -> float:
    """A recipe → the median seconds of a step, as `training.budget` times them.

    The batches are the corpus's where it is built, else random tokens, two documents a row: what
    the tokens are does not change the arithmetic.
    """
    import torch

    from wellfit.run.parts import corruption, first_model, training_batches
    from wellfit.training import precision
    from wellfit.training.allocator import keep_freed_memory
    from wellfit.training.budget import seconds_per_step
    from wellfit.training.start import built, compute_in
    from wellfit.training.stepper import Stepper
    from wellfit.training.threads import threads

    where, how = precision.choose(recipe.train.device, recipe.train.precision)
    device = torch.device(where.name)
    with threads(recipe.train.threads):
        keep_freed_memory()
        model = first_model(recipe, vocabulary_size)
        compute_in(model, how.name)
        if isinstance(model, torch.nn.Module):
            model.to(device)
        model.train()
        parameters = dict(model.named_parameters())
        optimizer = built(recipe.train.optimizer, model)
        optimizer.set_share(1.0)
        real = training_batches(recipe, corpus) if corpus else None
        corrupt = None
        if real is None:
            kind = recipe.model.kind
            # Which ids stand for marks does not change the arithmetic: the last ones do.
            behind = marks(kind, {}, 0, 0).vocabulary_size
            found = marks(kind, {}, vocabulary_size - behind, 0)
            corrupt = corruption(recipe, found, ("calibration",))
        numbers = count(1)
        stepper = Stepper(
            recipe.train,
            model,
            optimizer,
            list(parameters.values()),
            precision=how.name,
            device=device,
            seed=recipe.seed,
        )

        def one_step() -> float:
            step = next(numbers)
            began = time.perf_counter()
            batch = real.batch(step) if real else random_batch(recipe, vocabulary_size, step)
            if corrupt is not None:
                batch = corrupt(batch, np.arange(len(batch.tokens)))
            stepper.take(step, batch).read()
            return time.perf_counter() - began

        seconds, _ = seconds_per_step(one_step)
        return seconds


def random_batch(recipe: Recipe, vocabulary_size: int, step: int) -> Batch:
    """A recipe and a step → a batch of its shape: random tokens, two documents a row."""
    context = recipe.model.context
    rows = recipe.train.batch_tokens // context
    draw = np.random.default_rng(step)
    stream = draw.integers(0, vocabulary_size, (rows, context + 1))
    second = np.arange(context) >= draw.integers(1, context, (rows, 1))
    columns = np.tile(np.arange(context), (rows, 1))
    return Batch(
        tokens=np.ascontiguousarray(stream[:, :-1]),
        labels=np.ascontiguousarray(stream[:, 1:]),
        positions=columns - np.where(second, second.argmax(1)[:, None], 0),
        segments=second.astype(np.int64),
        documents=np.zeros((rows, context), np.int64),
    )
