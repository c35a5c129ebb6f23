"""Batches with documents, small models of every kind, and one call that proves them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from wellfit.data.batches import Batch
from wellfit.model.init import initialise
from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import AdamW, Model, Muon
from wellfit.records import IGNORED, Proof
from wellfit.training.optimizers import Optimizers, build
from wellfit.training.proofs.prove import prove

VOCABULARY, SEPARATOR = 61, 0
CPU = torch.device("cpu")
CHOICES: dict[str, tuple[Any, ...]] = {
    "context": (8, 9, 24, 64),
    "layers": (1, 2, 3),
    "width": (16, 32),
    "heads": (2, 4),
    "kv_heads": (1, 2),
    "hidden": (24, 48),
    "position": ("rotary", "learned"),
    "norm": ("rmsnorm", "layernorm"),
    "activation": ("swiglu", "gelu", "gelu_tanh", "relu2"),
    "bias": (False, True),
    "qk_norm": (True, False),
    "tie_embeddings": (False, True),
    "logit_soft_cap": (0.0, 1.0, 15.0),
    "dropout": (0.0, 0.1, 0.5),
    "init": ("zero_projections", "scaled_normal"),
}
RUNS: dict[str, tuple[Any, ...]] = {
    "dtype": (torch.float32, torch.bfloat16),
    "document_mask": (True, False),
    "micro_batch": (1, 2, 4),
    "step": (0, 1),
    "masked": (0.0, 0.5),
    "optimizer": (AdamW(learning_rate=1e-3), Muon(matrix_learning_rate=0.02, learning_rate=1e-3)),
}


def packed(
    seed: int, rows: int = 4, context: int = 24, vocabulary: int = VOCABULARY, masked: float = 0.0
) -> Batch:
    """Skewed tokens in documents of some 10 tokens, packed as `data.batches.Rows` packs them."""
    draw = np.random.RandomState(seed)
    stream = 1 + draw.zipf(1.3, (rows, context + 1)) % (vocabulary - 1)
    stream[draw.random_sample(stream.shape) < 0.1] = SEPARATOR
    tokens, labels = stream[:, :-1].copy(), stream[:, 1:].copy()
    labels[draw.random_sample(labels.shape) < masked] = IGNORED
    columns = np.arange(context)
    begins = tokens == SEPARATOR
    begins[:, 0] = True
    segments = begins.cumsum(axis=1) - 1
    positions = columns - np.maximum.accumulate(np.where(begins, columns, 0), axis=1)
    arrays = (tokens, labels, positions, segments, segments)
    return Batch(*(np.ascontiguousarray(array, np.int64) for array in arrays))


def small(**changes: Any) -> Transformer:
    """A small model as it is drawn: 2 layers, width 32, context 24."""
    seed = changes.pop("seed", 0)
    values = {"context": 24, "layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "hidden": 48}
    model = Transformer(Model(**{**values, **changes}), VOCABULARY)
    initialise(model, seed)
    return model


def optimizer(model: Any, settings: AdamW | Muon | None = None) -> Optimizers:
    settings = settings or AdamW(learning_rate=1e-3)
    return build(settings, dict(model.named_parameters()), model.roles())


def proofs(
    model: Any,
    batches: list[Batch] | None = None,
    optimizers: Optimizers | None = None,
    **changes: Any,
) -> dict[str, Proof]:
    """A model in; its proofs by name, on two batches of its own unless others are given."""
    if batches is None:
        context = model.model.context if isinstance(model, Transformer) else 24
        batches = [packed(seed, context=context) for seed in (1, 2)]
    settings: dict[str, Any] = {
        "seed": 3,
        "device": CPU,
        "document_mask": True,
        "micro_batch": 4,
        "separator": SEPARATOR,
    }
    found = prove(model, batches, optimizers or optimizer(model), **{**settings, **changes})
    return {proof.name: proof for proof in found}


def faults(found: dict[str, Proof]) -> dict[str, str]:
    """Proofs in; name → fault of those that failed."""
    return {n: str(p.data["fault"]) for n, p in found.items() if p.state == "failed"}


def variants(count: int, seed: int) -> Iterator[tuple[dict[str, Any], dict[str, Any], int]]:
    """Random choices of everything at once: (model, run, seed of weights and data)."""
    draw = np.random.RandomState(seed)

    def pick(table: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
        return {name: values[draw.randint(len(values))] for name, values in table.items()}

    for number in itertools.islice(itertools.count(), count):
        yield pick(CHOICES), pick(RUNS), number


def prove_variant(shape: dict[str, Any], run: dict[str, Any], seed: int) -> dict[str, Proof]:
    """A healthy model of this kind in; its proofs."""
    model = small(**shape, seed=seed)
    model.compute_dtype = run["dtype"]
    context = shape["context"]
    batches = [
        packed(100 * seed + n, context=context, masked=run["masked"], rows=6) for n in range(2)
    ]
    # A batch in which chance hid every end is no fault, and no healthy run either.
    ends = batches[0].labels == SEPARATOR
    if not ends.any():
        labels = batches[0].labels.copy()
        there = batches[0].tokens[:, 1:] == SEPARATOR
        labels[:, :-1][there] = SEPARATOR
        batches[0] = replace(batches[0], labels=labels)
    return proofs(
        model,
        batches,
        optimizer(model, run["optimizer"]),
        document_mask=run["document_mask"],
        micro_batch=run["micro_batch"],
        step=run["step"],
        seed=seed,
    )
