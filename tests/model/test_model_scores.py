"""Attention by blocks of queries: against finite differences and against torch's own."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from wellfit.model.scores import score_attention


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three queries a block, so that eight of them end in a shorter one."""
    monkeypatch.setattr("wellfit.model.scores.BLOCK", 3)


def heads(tokens: int, keys: int, groups: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 4, tokens, 6), (2, groups, keys, 6), (2, groups, keys, 6)]
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    ]


def hidden(tokens: int, keys: int) -> torch.Tensor:
    """Causal, and in the second row the first two keys are another document's."""
    later = torch.full((tokens, keys), -torch.inf, dtype=torch.float64).triu(1 + keys - tokens)
    mask = later.repeat(2, 1, 1)[:, None]
    mask[1, :, 2 - (keys - tokens) :, :2] = -torch.inf
    return mask


@pytest.mark.parametrize("masked", [False, True])
def test_gradient(masked: bool) -> None:
    """Breaks when a block overwrites the gradient of the keys before it."""
    arguments = heads(8, 8)
    mask = hidden(8, 8) if masked else None
    assert torch.autograd.gradcheck(lambda *parts: score_attention(*parts, mask), arguments)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("masked", [False, True])
def test_equals_torch(groups: int, masked: bool) -> None:
    """Breaks when a block sees one key too many, or the mask of another block is taken."""
    parts = heads(8, 8, groups)
    mask = hidden(8, 8) if masked else None
    expected = functional.scaled_dot_product_attention(
        *parts, attn_mask=mask, is_causal=not masked, enable_gqa=True
    )
    torch.testing.assert_close(score_attention(*parts, mask), expected)


@pytest.mark.parametrize("tokens", [1, 5])
def test_queries_behind_keys_already_read(tokens: int) -> None:
    """The last queries of eight tokens see those before. Breaks when keys count from query 0."""
    parts = heads(tokens, 8)
    later = torch.full((tokens, 8), -torch.inf, dtype=torch.float64).triu(1 + 8 - tokens)
    expected = functional.scaled_dot_product_attention(*parts, attn_mask=later, enable_gqa=True)
    torch.testing.assert_close(score_attention(*parts, None), expected)


def test_joined_heads_are_a_view() -> None:
    """Breaks when what was read lies in memory head by head: joining would copy it."""
    read = score_attention(*heads(8, 8), None)
    assert read.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize(("tokens", "keys"), [(200, 200), (150, 300), (300, 40), (1, 7)])
def test_without_causality_every_query_sees_every_key(tokens: int, keys: int) -> None:
    """Values and gradients, masked and not, over several blocks, against the plain formula.

    Breaks tried: let the backward pass take the blocks of a causal one; cut the mask's keys.
    """
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)

    query, key, value = drawn(2, 4, tokens, 8), drawn(2, 2, keys, 8), drawn(2, 2, keys, 8)
    hidden = torch.rand(2, 1, tokens, keys, generator=generator) < 0.3
    hidden[..., 0] = False
    mask = torch.zeros(hidden.shape, dtype=torch.float64).masked_fill(hidden, -torch.inf)
    for added in (None, mask):
        read = score_attention(query, key, value, added, causal=False)
        scores = query @ key.repeat_interleave(2, 1).transpose(-1, -2) / 8**0.5
        shares = (scores if added is None else scores + added).softmax(-1)
        expected = shares @ value.repeat_interleave(2, 1)
        torch.testing.assert_close(read, expected)
        slope = torch.randn(read.shape, generator=generator, dtype=torch.float64)
        found = torch.autograd.grad(read, (query, key, value), slope)
        wanted = torch.autograd.grad(expected, (query, key, value), slope)
        torch.testing.assert_close(found, wanted)
