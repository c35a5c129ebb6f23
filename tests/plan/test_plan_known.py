"""Published figures and rules of thumb, as the plan gives them."""

from __future__ import annotations

import pytest

from wellfit.plan.known import adamw_bytes, qlora_bytes, serving_bytes, updates, weight_bytes
from wellfit.plan.layout import Layout
from wellfit.plan.ledger import Peak
from wellfit.plan.optimizers import optimizer_table
from wellfit.plan.step import play_step
from wellfit.recipe.schema import AdamW, Model
from wellfit.recipe.shapes import parameter_count, shape_table

LLAMA_7B = Model(
    size="7b",
    context=2048,
    layers=32,
    width=4096,
    heads=32,
    kv_heads=32,
    hidden=11008,
    activation="swiglu",
    qk_norm=False,
)
LLAMA_65B = LLAMA_7B.model_copy(
    update={
        "layers": 80,
        "width": 8192,
        "heads": 64,
        "kv_heads": 64,
        "hidden": 22016,
        "context": 512,
    }
)


def test_llama_7b_in_16_bits() -> None:
    """13.5 GB of weights, 16.2 GB to serve. Break: count the head twice."""
    count = parameter_count(LLAMA_7B, 32_000)
    assert round(weight_bytes(count) / 1e9, 1) == 13.5
    assert round(serving_bytes(count) / 1e9, 1) == 16.2


def test_175_billion_parameters_in_float32() -> None:
    """700 GB. Break: bytes taken for bits."""
    assert weight_bytes(175_000_000_000, bits=32) == 700e9


def test_200_samples_in_batches_of_5_for_1000_epochs() -> None:
    """40,000 updates; a short last batch is an update too. Break: round down."""
    assert updates(200, 5, 1000) == 40_000
    assert updates(201, 5, 1000) == 41_000


def test_llama_7b_fully_fine_tuned_is_160_to_192_gb_itemised() -> None:
    """The figure often quoted, as its parts: 121 GB whatever the batch, and 5 to 9 rows a pass.

    Weights, gradients and two moments in float32 and 16-bit casts of the matrices are 18 bytes a
    parameter; a row of 2,048 tokens keeps 7.8 GB of activations where only the inner features of
    the feed-forward are made again.
    Break: leave a moment out of `adamw_state`.
    """
    count = parameter_count(LLAMA_7B, 32_000)
    peaks = {rows: _fullest(rows) for rows in (1, 4, 5, 9)}
    parts = {kind: round(size / 1e9) for kind, size in peaks[4].by_kind.items()}
    assert parts["weights"] == 27 and parts["optimizer"] == 54 and parts["casts"] == 13
    assert peaks[4].by_kind["gradients"] == 4 * (count + 32_000 * 4096)  # one is being added
    assert parts["activations"] == 31 == round(4 * peaks[1].by_kind["activations"] / 1e9)
    assert peaks[4].bytes < 160e9 < peaks[5].bytes < peaks[9].bytes < 192e9


def _fullest(rows: int) -> Peak:
    """Of a step with a second micro-batch, in which gradients stand already."""
    at = Layout(LLAMA_7B, 32_000, rows, 2, "cuda", masked=False)
    return play_step(at, AdamW(learning_rate=1e-5), 2 * rows).peak()


def test_rules_of_thumb_for_adamw() -> None:
    """16 to 20 bytes a parameter, and their parts. Break: forget the masters."""
    parts = adamw_bytes(1)
    assert sum(parts.values()) == 20
    assert sum(v for k, v in parts.items() if "16-bit" not in k) == 16


def test_65b_trains_by_qlora_within_48_gb_and_not_otherwise() -> None:
    """arXiv 2305.14314: 48 GB with 4 bits, more than 780 GB in 16 bits (2 + 2 + 8 bytes).

    Break: no double quantization (4.5 bits).
    """
    count = parameter_count(LLAMA_65B, 32_000)
    assert count == pytest.approx(65.2e9, rel=0.005)
    assert 780e9 < 12 * count < 790e9
    parts = qlora_bytes(LLAMA_65B, 32_000, rank=64, rows=1)
    assert sum(parts.values()) < 48e9
    # The paper's own figure for the constants after double quantization: 0.127 bits a parameter.
    quantized = sum(s.parameters for s in shape_table(LLAMA_65B, 32_000) if s.role == "matrix")
    assert parts["4-bit base"] * 8 / quantized == pytest.approx(4.127, abs=5e-4)
    resident = qlora_bytes(LLAMA_65B, 32_000, rank=64, rows=4, paged=False)
    assert resident["moments of the adapters"] == pytest.approx(6.4e9, rel=0.01)
    assert sum(resident.values()) > 48e9  # four rows need the paging
    assert 2 * count > 48e9  # LoRA on 16-bit weights does not fit at all


def test_the_optimizer_table_against_torch() -> None:
    """AdamW's and Muon's state as torch makes it. Break: float32 momentum counted as 16-bit."""
    import torch

    from wellfit.model.init import initialise
    from wellfit.model.transformer import Transformer
    from wellfit.recipe.schema import Muon
    from wellfit.training import optimizers

    small = Model(context=8, layers=1, width=16, heads=2, kv_heads=1, hidden=24, activation="gelu")
    table = {name: size for name, size, _ in optimizer_table(shape_table(small, 50))}
    for settings in (AdamW(learning_rate=0.1), Muon(matrix_learning_rate=0.1, learning_rate=0.1)):
        model = Transformer(small, 50)
        initialise(model, 0)
        parameters = dict(model.named_parameters())
        for parameter in parameters.values():
            parameter.grad = torch.ones_like(parameter)
        made = optimizers.build(settings, parameters, model.roles())
        made.step()
        assert sum(t.nbytes for t in made.state().values()) == table[settings.kind]
    factored = torch.optim.Adafactor([torch.nn.Parameter(torch.ones(16, 24))])
    (matrix,) = factored.param_groups[0]["params"]
    matrix.grad = torch.ones_like(matrix)
    factored.step()
    state = factored.state[matrix]
    assert state["row_var"].numel() + state["col_var"].numel() == 16 + 24
