"""Modules and losses that recipes of these tests name, and a recipe around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wellfit.model.init import initialise
from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import Model

VOCABULARY, SEPARATOR = 50, 49


def gpt2(model: Model, vocabulary_size: int, dropout: float = 0.0) -> nn.Module:
    """transformers' GPT-2, two small layers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocabulary_size, n_positions=model.context, n_embd=16, n_layer=2, n_head=2,
            attn_pdrop=dropout, embd_pdrop=dropout, resid_pdrop=dropout, bos_token_id=49,
            eos_token_id=49,
        )
    )  # fmt: skip


SHAPE = {"layers": 2, "width": 16, "heads": 2, "kv_heads": 2, "hidden": 32}


def ours(model: Model, vocabulary_size: int, seed: int = 0, dropout: float = 0.0) -> nn.Module:
    """The built-in transformer, as somebody else's module."""
    made = Transformer(model.model_copy(update=SHAPE | {"dropout": dropout}), vocabulary_size)
    initialise(made, seed)
    return made


class Recurrent(nn.Module):
    """Tokens → logits, without a mask of documents."""

    def __init__(self, model: Model, vocabulary_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary_size, 12)
        self.mix = nn.GRU(12, 12, batch_first=True)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(12, vocabulary_size)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.drop(self.mix(self.embed(tokens))[0]))


class Leaky(Recurrent):
    """Sees the next token."""

    def forward(self, tokens: Tensor) -> Tensor:
        ahead = torch.cat([tokens[:, 1:], tokens[:, :1]], dim=1)
        return self.head(self.mix(self.embed(tokens))[0] + self.embed(ahead))


class Whole(nn.Module):
    """Takes `attention_mask` by name, and does not heed it."""

    def __init__(self, model: Model, vocabulary_size: int) -> None:
        super().__init__()
        self.inner = Recurrent(model, vocabulary_size)

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.inner(tokens)


def focal(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """Tokens that are likely already count less (arXiv 1708.02002)."""
    likely = logits.log_softmax(-1).gather(-1, labels[:, None])[:, 0]
    return -((1 - likely.exp()) ** gamma) * likely


def write_tokens(home: Path) -> None:
    """Documents that count upwards, so that there is something to learn."""
    draw = np.random.default_rng(0)
    ids: list[int] = []
    for _ in range(150):
        start, length = draw.integers(0, 49), draw.integers(10, 40)
        ids += [*((start + np.arange(length)) % 49).tolist(), SEPARATOR]
    np.array(ids, "<u2").tofile(home / "train.bin")


def guest_recipe(home: Path, module: Any, **train: Any) -> dict[str, Any]:
    """A folder with tokens and what `model.module` says → a recipe."""
    return {
        "name": "guest",
        "data": {
            "tokens": {
                "train": [str(home / "train.bin")],
                "validation_share": 0.1,
                "test_share": 0.1,
                "vocabulary_size": VOCABULARY,
                "separator": SEPARATOR,
            },
            "folder": str(home / "corpus"),
        },
        "model": {
            "context": 16,
            **({"module": module} if module else {"init": "zero_projections"}),
        },
        "train": {
            "budget": {"steps": 20},
            "batch_tokens": 128,
            "micro_batch": 4,
            "checkpoint_every": 10,
            "optimizer": {"kind": "adamw", "learning_rate": 0.01, "weight_decay": 0.1},
            "schedule": {"kind": "constant", "warmup": 0},
            "precision": "fp32",
            "threads": 1,
            "compile": "off",
            **train,
        },
        "evaluate": {"every": 10},
    }
