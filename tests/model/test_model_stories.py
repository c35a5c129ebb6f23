"""The real checkpoint stories260K: its logits, its loss and its greedy story."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import Model

FOLDER = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "model" / "stories260K"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the shared data set")

SECTION = Model(
    context=512,
    layers=5,
    width=64,
    heads=8,
    kv_heads=4,
    hidden=172,
    qk_norm=False,
    tie_embeddings=True,
)


def neighbours_to_halves(weight: torch.Tensor, head_width: int) -> torch.Tensor:
    """llama2.c turns features 2i and 2i + 1 together; here i and i + W/2: reorder the rows."""
    paired = weight.view(-1, head_width // 2, 2, weight.shape[-1])
    return paired.transpose(1, 2).reshape(weight.shape)


@pytest.fixture(scope="module")
def model() -> Transformer:
    """Weights from the llama2.c file: seven int32, then float32 tensors, kind by kind."""
    raw = (FOLDER / "stories260K.bin").read_bytes()
    width, hidden, layers, heads, kv_heads, vocabulary, context = np.frombuffer(raw, "<i4", 7)
    assert (width, hidden, layers, heads, kv_heads, context) == (64, 172, 5, 8, 4, 512)
    numbers = torch.from_numpy(np.frombuffer(raw, "<f4", offset=28).copy())
    narrow = kv_heads * width // heads
    order = {
        "embedding.weight": (1, vocabulary, width),
        "blocks.{}.attention_norm.weight": (layers, width),
        "blocks.{}.attention.query.weight": (layers, width, width),
        "blocks.{}.attention.key.weight": (layers, narrow, width),
        "blocks.{}.attention.value.weight": (layers, narrow, width),
        "blocks.{}.attention.output.weight": (layers, width, width),
        "blocks.{}.feedforward_norm.weight": (layers, width),
        "blocks.{}.feedforward.gate.weight": (layers, hidden, width),
        "blocks.{}.feedforward.down.weight": (layers, width, hidden),
        "blocks.{}.feedforward.up.weight": (layers, hidden, width),
        "final_norm.weight": (1, width),
    }
    weights, at = {}, 0
    for name, shape in order.items():
        count = int(np.prod(shape))
        for index, weight in enumerate(numbers[at : at + count].view(*map(int, shape))):
            turns = name.endswith(("query.weight", "key.weight"))
            weights[name.format(index)] = neighbours_to_halves(weight, 8) if turns else weight
        at += count
    model = Transformer(SECTION, int(vocabulary))
    model.load_state_dict(weights)
    return model


@pytest.fixture(scope="module")
def reference() -> Any:
    return json.loads((FOLDER / "reference.json").read_text())


def test_logits_of_the_prompt(model: Transformer, reference: Any) -> None:
    """Breaks when the rows of queries and keys keep the order of the file."""
    with torch.no_grad():
        logits = model.logits(model.hidden(torch.tensor([reference["prompt_ids"]])))[0, -1]
    expected = torch.tensor(reference["last_prompt_logits"])
    assert float((logits - expected).abs().max()) <= 1e-4


def test_mean_loss_of_the_text(model: Transformer, reference: Any) -> None:
    """Breaks when labels are not shifted by one."""
    ids = torch.tensor([reference["eval_ids"]])
    with torch.no_grad():
        losses = model.token_loss(model.hidden(ids[:, :-1]), ids[:, 1:])
    assert losses.sum().item() == pytest.approx(reference["sum_nll"], abs=1e-4)
    assert losses.mean().item() == pytest.approx(reference["eval_mean_nll_nats"], abs=1e-5)


def test_greedy_story(model: Transformer, reference: Any) -> None:
    """120 tokens through the cache. Breaks when a cached key is turned by another position."""
    from wellfit.generation.generate import generate
    from wellfit.recipe.schema import Sampling

    prompt = reference["prompt_ids"]
    section = Sampling(tokens=len(reference["greedy_ids"]) - len(prompt), temperature=0)
    assert [*prompt, *generate(model, prompt, section)] == reference["greedy_ids"]
