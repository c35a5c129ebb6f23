"""`base_width`: first weights, logits and attention scores of a wider model, rule by rule."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from wellfit.errors import RunError
from wellfit.model.attention import attend
from wellfit.model.init import initialise
from wellfit.model.transformer import Transformer
from wellfit.recipe.model_section import Model
from wellfit.recipe.widths import at_width, how_it_grows

SCHEMES = ("scaled_normal", "zero_projections", "xavier", "he", "small")
TOKENS = torch.randint(0, 61, (3, 24), generator=torch.Generator().manual_seed(0))
EXPERTS = {"experts": {"count": 4, "active": 2, "hidden": 40}}


def first(section: Model) -> Transformer:
    model = Transformer(section, 61)
    initialise(model, 0)
    return model


@pytest.mark.parametrize("init", SCHEMES)
@pytest.mark.parametrize(
    "changes", [{}, {"tie_embeddings": True, "scale_embeddings": True}, EXPERTS]
)
def test_at_the_base_width_every_bit_is_as_without(
    make_section: Any, init: str, changes: Any
) -> None:
    """Weights, logits and gradients. Break tried: √base_width rounded in a product of its own."""
    seen = []
    for base in ({}, {"base_width": 32}, {"base_width": 32, "base_head_width": 8}):
        model = first(make_section(init=init, attention_soft_cap=5.0, **changes, **base))
        hidden = model.hidden(TOKENS)
        loss, extra = model.token_objective(hidden, TOKENS, z_loss=0.1)
        (loss + extra).sum().backward()
        grads = [weight.grad for weight in model.parameters() if weight.grad is not None]
        weights = [weight.detach() for weight in model.parameters()]
        seen.append([*weights, *grads, model.logits(hidden).detach(), loss.detach()])
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))


@pytest.mark.parametrize("init", SCHEMES)
@pytest.mark.parametrize("changes", [{}, {"tie_embeddings": True}, EXPERTS])
def test_first_weights_are_those_of_the_base_by_role(
    make_section: Any, init: str, changes: Any
) -> None:
    """Four times wider: matrices half as large, routers a quarter, all else the same.

    Breaks tried: matrices left as at the base; by 1/m; the head by 1/√m; routers as matrices;
    `he` by the inputs of the wide matrix.
    """
    base = make_section(width=64, hidden=96, kv_heads=4, init=init, position="learned", **changes)
    wide = at_width(base, 256, "heads").model_copy(update={"base_width": 64})
    small, large = first(base), first(wide)
    times = {"matrix": 0.5, "router": 0.25}
    for name, role in large.roles().items():
        if role in ("norm", "bias"):
            continue
        one, other = small.get_parameter(name).std().item(), large.get_parameter(name).std().item()
        assert other == pytest.approx(times.get(role, 1.0) * one, rel=0.12), (name, role)


@pytest.mark.parametrize("tied", [False, True])
def test_the_output_multiplier_is_in_logits_and_losses(make_model: Any, tied: bool) -> None:
    """Logits of a model twice the base are halved, everywhere, before a soft cap.

    Breaks tried: the loss without it; the objective without it; logits without it.
    """
    changes = {
        "context": 24, "layers": 1, "width": 32, "heads": 4, "kv_heads": 4, "hidden": 48,
        "tie_embeddings": tied, "logit_soft_cap": 3.0,
    }  # fmt: skip
    plain, wide = make_model(Model(**changes)), make_model(Model(**changes, base_width=16))
    hidden = plain.hidden(TOKENS).detach()
    matrix = (plain.embedding if tied else plain.head).weight.detach()
    expected = torch.tanh(hidden @ matrix.T / 2 / 3) * 3
    torch.testing.assert_close(wide.logits(hidden), expected)
    losses = torch.nn.functional.cross_entropy(expected.mT, TOKENS, reduction="none")
    torch.testing.assert_close(wide.token_loss(hidden, TOKENS), losses)
    likely = expected.logsumexp(-1)
    loss, extra = wide.token_objective(hidden, TOKENS, z_loss=0.1)
    torch.testing.assert_close(loss, losses)
    torch.testing.assert_close(extra, 0.1 * likely.square())


def test_gradients_pass_the_multiplier(make_model: Any) -> None:
    """Of features and matrix, against autograd. Break tried: detached features multiplied."""
    section = Model(context=24, layers=1, width=32, heads=4, kv_heads=4, hidden=48, base_width=16)
    model = make_model(section)
    hidden = torch.randn(3, 24, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    model.token_loss(hidden, TOKENS).sum().backward()
    found = hidden.grad, model.head.weight.grad
    other, matrix = hidden.detach().requires_grad_(), model.head.weight.detach().requires_grad_()
    logits = (other @ matrix.T / 2).mT
    torch.nn.functional.cross_entropy(logits, TOKENS, reduction="sum").backward()
    torch.testing.assert_close(found[0], other.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1], matrix.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("soft_cap", [0.0, 2.0])
@pytest.mark.parametrize("keys", [24, 520])
def test_attention_takes_the_scale_it_is_given(soft_cap: float, keys: int) -> None:
    """On all three ways, forward and backward, against softmax by hand.

    Breaks tried: each way with 1/√W; the backward of whole scores with 1/√W.
    """
    generator = torch.Generator().manual_seed(0)
    given = [
        torch.randn(1, heads, keys, 8, generator=generator, dtype=torch.float64)
        for heads in (4, 2, 2)
    ]
    ours, theirs = ([one.clone().requires_grad_() for one in given] for _ in range(2))
    later = torch.full((keys, keys), -torch.inf, dtype=torch.float64).triu(1)
    mask = later[None, None] if soft_cap else None
    read = attend(*ours, mask, soft_cap, 0.05)
    query, key, value = theirs[0], *(one.repeat_interleave(2, 1) for one in theirs[1:])
    scores = query @ key.mT * 0.05
    scores = torch.tanh(scores / soft_cap) * soft_cap if soft_cap else scores
    expected = (scores + later).softmax(-1) @ value
    torch.testing.assert_close(read, expected)
    pull = torch.randn(read.shape, generator=generator, dtype=torch.float64)
    (read * pull).sum().backward()
    (expected * pull).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_wider_heads_have_smaller_scores(make_section: Any) -> None:
    """1/√W at the base, √W_base/W beyond: 1/W with the same value at the base.

    Break tried: 1/√W beyond too.
    """
    plain = make_section(width=64)
    wide = make_section(width=64, base_width=32, base_head_width=8)
    assert plain.score_scale == 16**-0.5
    assert wide.score_scale == pytest.approx(math.sqrt(8) / 16)
    assert Transformer(wide, 61).blocks[0].attention.scale == wide.score_scale


def test_a_base_that_cannot_be_is_refused(make_section: Any) -> None:
    """Half a head, and a head's width without a base. Break tried: both let through."""
    with pytest.raises(ValidationError, match=r"are 0.5 heads at base_width 8.*base_head_width 8"):
        make_section(width=32, heads=2, kv_heads=1, base_width=8, hidden=64, head_width=32)
    with pytest.raises(ValidationError, match="set base_width, or leave base_head_width out"):
        make_section(base_head_width=4)


def test_widths_in_proportion(make_section: Any) -> None:
    """Heads become more where they can, wider where they cannot; other widths are refused.

    Breaks tried: hidden features left as they are; experts' too; fractions cut off.
    """
    small = make_section(head_width=8, experts={"count": 2, "hidden": 40})
    wide = at_width(small, 128, "heads")
    assert (wide.heads, wide.kv_heads, wide.head_width) == (16, 8, 8)
    assert (wide.hidden, wide.experts.hidden) == (192, 160)
    wider = at_width(small, 128, "head_width")
    assert (wider.heads, wider.kv_heads, wider.head_width) == (4, 2, 32)
    assert at_width(make_section(kv_heads=1), 16, "heads").kv_heads == 1
    assert how_it_grows(small, (16, 64)) == "heads"
    assert how_it_grows(make_section(heads=2), (8, 64)) == "head_width"
    wanted = make_section(base_width=16, base_head_width=4)
    assert how_it_grows(wanted, (16, 64)) == "head_width"
    with pytest.raises(
        RunError,
        match=r"hidden features at width 32 are 75|4 heads at width 32 are 6\.25 at width 50",
    ):
        at_width(make_section(), 50, "heads")
    with pytest.raises(RunError, match=r"no form of width 8: .*even head width"):
        at_width(make_section(heads=8), 8, "head_width")
