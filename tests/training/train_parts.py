"""A small language model, seeded batches and short recipes that the tests of this room share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from wellfit.data.batches import Batch
from wellfit.data.plan import DataPlan
from wellfit.recipe import schema
from wellfit.records import IGNORED

VOCABULARY, WIDTH, CONTEXT, ROWS = 31, 16, 12, 8


class Tiny(nn.Module):
    """Each token sees the mean of its document up to itself; one matrix, one norm, dropout."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.compute_dtype = torch.float32
        self.dropout = dropout
        self.key = (0, 0, 0)
        self.calls: list[tuple[int, int, int, int, bool]] = []
        self.embedding = nn.Parameter(filled(VOCABULARY, WIDTH, seed=1))
        self.matrix = nn.Parameter(filled(WIDTH, WIDTH, seed=2))
        self.norm = nn.Parameter(torch.ones(WIDTH))
        self.bias = nn.Parameter(torch.zeros(WIDTH))
        self.head = nn.Parameter(filled(VOCABULARY, WIDTH, seed=3))

    def hidden(self, tokens, positions=None, segments=None, cache=None):
        self.calls.append((*self.key, tokens.shape[0], segments is not None))
        if segments is None:
            segments = torch.zeros_like(tokens)
        dtype = self.compute_dtype
        causal = torch.ones(tokens.shape[1], tokens.shape[1]).tril()
        seen = (segments[:, :, None] == segments[:, None, :]) * causal
        x = self.embedding[tokens].to(dtype)
        x = (seen / seen.sum(-1, keepdim=True)).to(dtype) @ x
        x = torch.tanh(x @ self.matrix.to(dtype).T + self.bias.to(dtype))
        if self.training and self.dropout:
            seed = (self.key[0] * 1_000_003 + self.key[1]) * 1_000_003 + self.key[2]
            rows = [torch.Generator().manual_seed((seed + r) % 2**62) for r in range(len(x))]
            kept = torch.stack([torch.rand(x.shape[1:], generator=r) for r in rows]) >= self.dropout
            x = x * kept.to(dtype) / (1 - self.dropout)
        return x * self.norm.to(dtype)

    def token_loss(self, hidden, labels):
        logits = (hidden @ self.head.to(hidden.dtype).T).float()
        losses = nn.functional.cross_entropy(
            logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
        )
        return losses.view(labels.shape)

    def logits(self, hidden):
        return (hidden @ self.head.to(hidden.dtype).T).float()

    def auxiliary_loss(self):
        return torch.zeros(())

    def roles(self):
        names = ("embedding", "matrix", "norm", "bias", "head")
        return dict(zip(names, names, strict=True))

    def dropout_key(self, seed, step, first_row):
        self.key = (seed, step, first_row)

    def new_cache(self):
        raise NotImplementedError


def filled(*shape: int, seed: int) -> torch.Tensor:
    """The same values on every platform and with every version."""
    values = np.random.RandomState(seed).standard_normal(shape) / np.sqrt(shape[-1])
    return torch.from_numpy(values.astype(np.float32))


class Cycle:
    """Batches of a learnable pattern with random masks, each a pure function of its step."""

    def __init__(self, rows: int = ROWS, masked: float = 0.3, bad: tuple[int, ...] = ()) -> None:
        self.rows, self.masked, self.bad = rows, masked, bad
        self.rows_per_epoch = 20
        self.asked: list[int] = []
        self.plan = DataPlan()
        self.plan.begin({}, batch_rows=rows)

    def batch(self, step: int) -> Batch:
        self.asked.append(step)
        step = 1 + self.plan.rows(step)[0] // self.rows if step else 0
        draw = np.random.RandomState(step)
        start = draw.randint(0, VOCABULARY, (self.rows, 1))
        stream = (start + 3 * np.arange(CONTEXT + 1)) % VOCABULARY
        labels = stream[:, 1:].copy()
        labels[draw.random_sample(labels.shape) < self.masked] = IGNORED
        if step in self.bad:
            labels[:] = IGNORED
        second = np.arange(CONTEXT) >= draw.randint(1, CONTEXT, (self.rows, 1))
        columns = np.tile(np.arange(CONTEXT), (self.rows, 1))
        positions = columns - np.where(second, second.argmax(1)[:, None], 0)
        tokens = np.ascontiguousarray(stream[:, :-1])
        return Batch(tokens, labels, positions, second.astype(np.int64), np.zeros_like(tokens))

    def skip(self, *, after_step: int, through_step: int) -> int:
        return self.plan.skip(after_step=after_step, through_step=through_step)

    def restore(self, *, after_step: int) -> None:
        self.plan.restore(after_step=after_step)

    @property
    def skips(self) -> int:
        return self.plan.skips

    def epoch(self, step: int) -> float:
        return step * self.rows / self.rows_per_epoch


ADAMW = {"kind": "adamw", "learning_rate": 0.01}
MUON = {"kind": "muon", "matrix_learning_rate": 0.02, "learning_rate": 0.01}


def section(**changes: object) -> schema.Train:
    """A short training on one thread in float32."""
    settings = {
        "budget": {"steps": 12},
        "batch_tokens": ROWS * CONTEXT,
        "micro_batch": 3,
        "optimizer": ADAMW,
        "precision": "fp32",
        "device": "cpu",
        "checkpoint_every": 5,
        "save_in_background": False,
        "threads": 1,
        "proofs": "off",
    }
    return schema.Train.model_validate(settings | changes)


def run(folder: Path, model=None, batches=None, *, every: int = 5, train_section=None, **more):
    """Starts a training of the small model; its records, lazily."""
    from wellfit.training.loop import train

    return train(
        train_section or section(),
        model if model is not None else Tiny(),
        batches if batches is not None else Cycle(),
        folder=folder,
        seed=more.pop("seed", 7),
        evaluate_every=every,
        sample_every=every,
        **more,
    )
