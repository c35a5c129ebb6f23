"""Activations computed again: the same bits, less memory; the bytes are counted one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wellfit.model.held import held_bytes
from wellfit.model.transformer import Transformer

WAYS = ("none", "selective", "full")


def loss(model: Transformer, micro_batch: int = 0) -> torch.Tensor:
    row = torch.randint(0, 61, (2, 24), generator=torch.Generator().manual_seed(0))
    segments = (torch.arange(24) > 10).long().expand(2, -1)
    model.dropout_key(3, 5, micro_batch)
    return model.token_loss(model.hidden(row, None, segments), row.roll(-1, 1)).mean()


def gradients(model: Transformer, how: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
    model.recompute = how
    result = loss(model)
    return result, list(torch.autograd.grad(result, list(model.parameters())))


@pytest.mark.parametrize("how", ["selective", "full"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "shape",
    [
        {"dropout": 0.3},
        {"activation": "relu2", "norm": "layernorm", "bias": True, "position": "learned"},
        {"kv_heads": 4, "qk_norm": False, "tie_embeddings": True, "dropout": 0.1},
    ],
    ids=["rotary", "learned", "tied"],
)
def test_gradients_keep_their_bits(
    make_section: Any, make_model: Any, how: str, dtype: torch.dtype, shape: dict[str, Any]
) -> None:
    """Breaks when a recomputed block goes on with the masks after those it drew before."""
    model = make_model(make_section(**shape))
    model.compute_dtype = dtype
    plain, wanted = gradients(model, "none")
    again, found = gradients(model, how)
    assert torch.equal(plain, again)
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


@pytest.mark.parametrize("how", ["selective", "full"])
def test_gradients_keep_their_bits_where_torch_tiles_attention(
    make_section: Any, make_model: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """torch's own attention kernel. Breaks when its results are kept but not its statistics."""
    monkeypatch.setattr("wellfit.model.attention.WHOLE_SCORES", 0)
    model = make_model(make_section())
    _, wanted = gradients(model, "none")
    _, found = gradients(model, how)
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_less_is_held_the_more_is_computed_again(
    make_section: Any, make_model: Any, dtype: torch.dtype
) -> None:
    """Live bytes between forward and backward pass, and what a block adds with `full`: its input.

    Breaks when `selective` also keeps the scores, and when `full` runs the blocks as they are.
    """
    held: dict[tuple[str, int], int] = {}
    for layers in (2, 6):
        model = make_model(make_section(layers=layers, context=64, hidden=128))
        model.compute_dtype = dtype
        row = torch.randint(0, 61, (8, 64), generator=torch.Generator().manual_seed(0))
        for way in WAYS:
            model.recompute = way
            held[way, layers] = held_bytes(
                lambda: model.token_loss(model.hidden(row), row.roll(-1, 1)).sum()  # noqa: B023
            )
    added = {way: (held[way, 6] - held[way, 2]) / 4 for way in WAYS}
    size = torch.finfo(dtype).bits // 8
    assert added["full"] == 8 * 64 * 32 * size
    # Results of the seven products and of attention: q, k, v, scores · v, output, gate, up, down.
    features = 32 + 16 + 16 + 32 + 32 + 128 + 128 + 32
    assert added["selective"] <= 8 * 64 * (features + 32) * size
    assert added["selective"] < 0.6 * added["none"]


def test_autograds_own_count_agrees(make_section: Any, make_model: Any) -> None:
    """Saved tensors, each memory once, are what is held. Breaks when views count twice."""
    model = make_model(make_section())
    mine = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    for way in ("none", "full"):
        model.recompute = way
        kept: dict[int, int] = {}

        def pack(tensor: torch.Tensor, kept: dict[int, int] = kept) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            result = loss(model)
        saved = sum(size for place, size in kept.items() if place not in mine)
        held = held_bytes(lambda: loss(model))
        # Beside them live the loss's two gradients, which are made with it, and what blocks are
        # called with: angles, mask, a few numbers.
        own = 4 * 32 * (61 + 2 * 24)
        assert saved + own <= held <= saved + own + 6000, (way, saved, held)
        del result


def test_held_bytes_counts_what_is_alive() -> None:
    """Analytic. Breaks when freed tensors, inputs or a second view count."""
    weight = torch.ones(1000, requires_grad=True)
    assert held_bytes(lambda: (weight * 2 + 1).view(10, 100).exp().sum()) == 4004
    assert held_bytes(lambda: weight.view(10, 100).exp().detach().sum()) == 4
    assert held_bytes(lambda: weight[10:20].square().sum()) == 4


def test_nothing_is_computed_again_without_gradients(
    make_section: Any, make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluation and generation. Breaks when the cache is filled twice."""
    model = make_model(make_section())
    model.recompute = "full"
    monkeypatch.setattr("wellfit.model.recompute.checkpoint", None)
    row = torch.randint(0, 61, (1, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model.hidden(row)
        cache = model.new_cache()
        parts = [model.hidden(row[:, :10], cache=cache), model.hidden(row[:, 10:], cache=cache)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)
    model.hidden(row, cache=model.new_cache())


def test_dropout_is_a_function_of_layer_and_key(make_section: Any, make_model: Any) -> None:
    """Each layer has its own masks. Breaks when the layer is left out of the key."""
    model = make_model(make_section(dropout=0.5))
    model.dropout_key(1, 2, 3)
    ones = torch.ones(4, 100)
    first, second = (model._dropout().of(layer)(ones) for layer in (0, 1))
    assert torch.equal(first, model._dropout().of(0)(ones)) and not torch.equal(first, second)
    assert not torch.equal(first, model._dropout()(ones))
