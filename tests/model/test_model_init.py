"""First weights: their deviations, their zeros, and that they depend on seed and name alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from wellfit.model.init import initialise
from wellfit.model.transformer import Transformer


def initialised(section: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    model = Transformer(section, 301)
    initialise(model, seed)
    return {name: weight.detach() for name, weight in model.named_parameters()}


@pytest.fixture
def wide(make_section: Any) -> Any:
    return lambda **changes: make_section(
        **{"width": 128, "hidden": 256, "layers": 2, "position": "learned", **changes}
    )


def test_same_seed_same_weights_whatever_else_the_model_has(wide: Any) -> None:
    """Breaks when all tensors share one generator, or all start from the same seed."""
    small, large = initialised(wide(layers=1)), initialised(wide(layers=3))
    for name, weight in small.items():
        assert torch.equal(weight, large[name])
    other = initialised(wide(layers=1), seed=1)
    query = "blocks.0.attention.query.weight"
    assert not torch.equal(small[query], other[query])
    first_rows = (small[query][0], small["blocks.0.attention.key.weight"][0])
    assert not torch.equal(*first_rows)


def test_global_random_state_is_left_alone(wide: Any) -> None:
    state = torch.get_rng_state()
    initialised(wide())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("changes", "deviations"),
    [
        (
            {"init": "scaled_normal"},
            {
                "embedding.weight": 0.02,
                "positions.weight": 0.02,
                "head.weight": 0.02,
                "blocks.1.attention.query.weight": 0.02,
                "blocks.1.feedforward.up.weight": 0.02,
                "blocks.1.attention.output.weight": 0.01,  # 0.02 / √(2 · 2 layers)
                "blocks.1.feedforward.down.weight": 0.01,
            },
        ),
        (
            {"init": "zero_projections"},
            {
                "embedding.weight": 1.0,
                "positions.weight": 1.0,
                "head.weight": 0.0,
                "blocks.1.attention.query.weight": 0.85 / math.sqrt(128),
                "blocks.1.feedforward.up.weight": 0.85 / math.sqrt(128),
                "blocks.1.attention.output.weight": 0.0,
                "blocks.1.feedforward.down.weight": 0.0,
            },
        ),
        (
            {"init": "zero_projections", "tie_embeddings": True},
            {"embedding.weight": 0.02, "positions.weight": 0.02},
        ),
    ],
)
def test_deviations(wide: Any, changes: Any, deviations: dict[str, float]) -> None:
    """Breaks when the projections are not divided by √(2·layers), or one of them is not zero."""
    weights = initialised(wide(**changes))
    for name, deviation in deviations.items():
        assert weights[name].std().item() == pytest.approx(deviation, rel=0.05)
        assert abs(weights[name].mean().item()) <= 0.05 * deviation


def test_norms_are_one_and_biases_zero(wide: Any) -> None:
    weights = initialised(wide(bias=True, norm="layernorm"))
    for name, weight in weights.items():
        if "norm" in name and name.endswith("weight"):
            assert weight.eq(1).all()
        elif name.endswith("bias"):
            assert weight.eq(0).all()


def test_post_norms_start_at_zero_in_place_of_projections(wide: Any) -> None:
    """Blocks add nothing at first, and yet every tensor but the projections' own can learn.

    Break: leave the projections at zero behind a norm, which makes anything else full size.
    """
    section = wide(post_norm=True, scale_embeddings=True, position="rotary")
    weights = initialised(section)
    assert weights["blocks.0.attention_post_norm.weight"].eq(0).all()
    assert weights["blocks.0.attention_norm.weight"].eq(1).all()
    output = weights["blocks.1.attention.output.weight"].std().item()
    assert output == pytest.approx(0.85 / math.sqrt(128), rel=0.05)
    embedding = weights["embedding.weight"].std().item()
    assert embedding == pytest.approx(1 / math.sqrt(128), rel=0.05)
    scaled = initialised(wide(post_norm=True, init="scaled_normal"))
    assert scaled["blocks.0.feedforward_post_norm.weight"].eq(1).all()
    model = Transformer(section, 301)
    initialise(model, 0)
    tokens = torch.arange(24)[None]
    losses = model.token_loss(model.hidden(tokens), tokens)
    torch.testing.assert_close(losses, torch.full((1, 24), math.log(301)))


def test_first_loss_of_zero_projections_is_that_of_guessing(wide: Any) -> None:
    """Exactly ln V. Breaks when the head does not start at zero."""
    model = Transformer(wide(), 301)
    initialise(model, 0)
    tokens = torch.arange(24)[None]
    losses = model.token_loss(model.hidden(tokens), tokens)
    torch.testing.assert_close(losses, torch.full((1, 24), math.log(301)))


def test_tied_zero_projections_starts_near_guessing(wide: Any) -> None:
    """Random labels cost about ln V. Breaks when the tied table is drawn with deviation 1."""
    model = Transformer(wide(tie_embeddings=True), 301)
    initialise(model, 0)
    generator = torch.Generator().manual_seed(0)
    tokens, labels = (torch.randint(0, 301, (8, 24), generator=generator) for _ in range(2))
    loss = model.token_loss(model.hidden(tokens), labels).mean().item()
    assert math.log(301) - 0.1 < loss < math.log(301) + 0.3
