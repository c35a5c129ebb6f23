"""The shape table against closed formulas and published sizes."""

from __future__ import annotations

from collections import Counter
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wellfit.recipe.schema import Model
from wellfit.recipe.shapes import (
    active_parameter_count,
    flops_per_token,
    parameter_count,
    shape_table,
)

MODELS = st.builds(
    lambda heads, group, head_width, **rest: Model(
        heads=heads * group, kv_heads=heads, width=heads * group * head_width, **rest
    ),
    heads=st.integers(1, 3),
    group=st.integers(1, 3),
    head_width=st.sampled_from([8, 16]),
    context=st.integers(8, 64),
    layers=st.integers(1, 3),
    hidden=st.integers(8, 64),
    position=st.sampled_from(["rotary", "learned"]),
    norm=st.sampled_from(["rmsnorm", "layernorm"]),
    activation=st.sampled_from(["swiglu", "gelu", "relu2"]),
    bias=st.booleans(),
    qk_norm=st.booleans(),
    tie_embeddings=st.booleans(),
)


def test_gpt2_has_its_published_number_of_parameters() -> None:
    """124,439,808, the released model's count (learned positions, biases, tied, 50,257 entries).

    Breaks when a bias, a norm's bias or the position table is left out.
    """
    gpt2 = Model(
        context=1024, layers=12, width=768, heads=12, kv_heads=12, hidden=3072, position="learned",
        norm="layernorm", activation="gelu_tanh", bias=True, qk_norm=False, tie_embeddings=True,
    )  # fmt: skip
    assert parameter_count(gpt2, 50_257) == 124_439_808


def test_llama_3_8b_has_its_published_number_of_parameters() -> None:
    """8,030,261,248, with grouped queries; breaks when keys and values get the width of queries."""
    llama = Model(
        context=8192, layers=32, width=4096, heads=32, kv_heads=8, hidden=14_336, qk_norm=False,
        rope_base=500_000.0,
    )  # fmt: skip
    assert parameter_count(llama, 128_256) == 8_030_261_248


@given(MODELS, st.integers(1, 50))
@settings(deadline=None, max_examples=150)
def test_table_against_the_closed_formula(model: Model, vocabulary: int) -> None:
    width, hidden, layers = model.width, model.hidden, model.layers
    keys = width * model.kv_heads // model.heads
    matrices = 2 * width * width + 2 * keys * width
    matrices += (3 if model.activation == "swiglu" else 2) * hidden * width
    biases = 2 * width + 2 * keys + (hidden if model.activation == "swiglu" else 0) + hidden + width
    norm_biases = width if model.norm == "layernorm" else 0
    expected = {
        "matrix": layers * matrices,
        "embedding": vocabulary * width,
        "position": model.context * width if model.position == "learned" else 0,
        "head": 0 if model.tie_embeddings else vocabulary * width,
        "norm": (2 * layers + 1) * width
        + (2 * layers * width // model.heads if model.qk_norm else 0),
        "bias": layers * (biases + 2 * norm_biases) + norm_biases if model.bias else 0,
    }
    table = shape_table(model, vocabulary)
    counted: Counter[str] = Counter()
    for shape in table:
        counted[shape.role] += prod(shape.shape)
    assert {role: counted[role] for role in expected} == expected
    assert len({shape.name for shape in table}) == len(table)
    assert parameter_count(model, vocabulary) == sum(expected.values())
    head = vocabulary * width
    assert flops_per_token(model, vocabulary) == 6 * (
        expected["matrix"] + head
    ) + 12 * layers * width * (model.context)


def test_names_of_one_block() -> None:
    model = Model(context=8, layers=1, width=16, heads=2, kv_heads=1, hidden=32, bias=True,
                  norm="layernorm", position="learned")  # fmt: skip
    shapes = {shape.name: (shape.shape, shape.role) for shape in shape_table(model, 10)}
    assert shapes["positions.weight"] == ((8, 16), "position")
    assert shapes["blocks.0.attention_norm.bias"] == ((16,), "bias")
    assert shapes["blocks.0.attention.query.weight"] == ((16, 16), "matrix")
    assert shapes["blocks.0.attention.key.weight"] == ((8, 16), "matrix")
    assert shapes["blocks.0.attention.key.bias"] == ((8,), "bias")
    assert shapes["blocks.0.attention.query_norm.weight"] == ((8,), "norm")
    assert shapes["blocks.0.feedforward.gate.weight"] == ((32, 16), "matrix")
    assert shapes["blocks.0.feedforward.down.weight"] == ((16, 32), "matrix")
    assert shapes["final_norm.bias"] == ((16,), "bias")
    assert shapes["head.weight"] == ((10, 16), "head")
    assert "head.bias" not in shapes


@pytest.mark.parametrize("activation", ["gelu", "relu2", "gelu_tanh"])
def test_only_swiglu_has_a_gate(activation: str) -> None:
    model = Model.model_validate(
        {"context": 8, "layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "hidden": 32,
         "activation": activation}
    )  # fmt: skip
    assert not [shape for shape in shape_table(model, 10) if "gate" in shape.name]


def test_mixtral_has_its_published_numbers_of_parameters() -> None:
    """46,702,792,704 in all and 12.9 billion a token (arXiv 2401.04088, section 2.1).

    Breaks when the router is left out, or counted as if only some of it were used.
    """
    mixtral = Model(
        context=32_768, layers=32, width=4096, heads=32, kv_heads=8, hidden=14_336, qk_norm=False,
        experts={"count": 8, "active": 2},
    )  # fmt: skip
    assert parameter_count(mixtral, 32_000) == 46_702_792_704
    assert active_parameter_count(mixtral, 32_000) == 12_879_925_248
    dense = mixtral.model_copy(update={"experts": type(mixtral.experts)(), "hidden": 2 * 14_336})
    router = 32 * 8 * 4096
    assert flops_per_token(mixtral, 32_000) == flops_per_token(dense, 32_000) + 6 * router
    assert active_parameter_count(dense, 32_000) == parameter_count(dense, 32_000)


def test_windows_take_arithmetic_from_local_layers_only() -> None:
    """12·H·W times what is seen: 2 of 6 layers see all 64 tokens, 4 see 10.

    Break: count every layer of a model with a window as local.
    """
    changes = {"context": 64, "layers": 6, "width": 32, "heads": 2, "kv_heads": 1, "hidden": 64}
    full = Model.model_validate({**changes, "head_width": 8})
    local = full.model_copy(update={"window": 10, "global_every": 3})
    per_layer = 12 * 2 * 8
    assert flops_per_token(full, 50) - flops_per_token(local, 50) == per_layer * 4 * (64 - 10)
    wider = full.model_copy(update={"window": 100})
    assert flops_per_token(wider, 50) == flops_per_token(full, 50)
