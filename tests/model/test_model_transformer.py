"""The transformer: its tensors, who sees whom, and dropout by key."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wellfit.model.protocol import LanguageModel
from wellfit.model.transformer import Transformer
from wellfit.recipe.families import PRESETS, preset_model, preset_vocabulary
from wellfit.recipe.model_section import Experts
from wellfit.recipe.schema import Model
from wellfit.recipe.shapes import shape_table
from wellfit.recipe.sizes import DIALS, fill


@st.composite
def models(draw: st.DrawFn) -> Model:
    heads = draw(st.sampled_from([1, 2, 4, 6]))
    return Model(
        context=draw(st.integers(8, 64)),
        layers=draw(st.integers(1, 3)),
        width=heads * draw(st.sampled_from([8, 10])),
        heads=heads,
        kv_heads=draw(st.sampled_from([n for n in range(1, heads + 1) if heads % n == 0])),
        hidden=draw(st.integers(8, 80)),
        position=draw(st.sampled_from(["rotary", "learned"])),
        norm=draw(st.sampled_from(["rmsnorm", "layernorm"])),
        activation=draw(st.sampled_from(["swiglu", "geglu", "gelu", "gelu_tanh", "relu2"])),
        head_width=draw(st.sampled_from([0, 0, 6, 16])),
        experts=Experts(
            count=draw(st.sampled_from([0, 3, 5])),
            hidden=draw(st.sampled_from([0, 7])),
            shared=draw(st.sampled_from([0, 2])),
        ),
        post_norm=draw(st.booleans()),
        qkv_bias=draw(st.booleans()),
        window=draw(st.sampled_from([0, 3])),
        bias=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        tie_embeddings=draw(st.booleans()),
    )


@given(models(), st.integers(9, 300))
@settings(max_examples=60, deadline=None)
def test_tensors_are_those_of_the_shape_table(section: Model, vocabulary_size: int) -> None:
    """Names, shapes, roles. Breaks when a tensor is added, renamed or loses its bias."""
    same_tensors(section, vocabulary_size)


@pytest.mark.parametrize("name", [*PRESETS, *DIALS])
def test_tensors_of_every_preset_and_size_are_those_of_the_shape_table(name: str) -> None:
    """Built whole, on the meta device. Break: leave the query norms out of the table
    where heads have no width of their own."""
    if name in PRESETS:
        same_tensors(preset_model(name), preset_vocabulary(name))
        return
    filled = fill({"model": {"size": name}})
    values = {path[6:]: value for path, (value, _) in filled.items() if path.startswith("model.")}
    same_tensors(Model.model_validate({"size": name, **values}), 32_000)


def same_tensors(section: Model, vocabulary_size: int) -> None:
    with torch.device("meta"):
        model = Transformer(section, vocabulary_size)
    roles = model.roles()
    found = {name: (tuple(p.shape), roles[name]) for name, p in model.named_parameters()}
    table = shape_table(section, vocabulary_size)
    assert found == {entry.name: (entry.shape, entry.role) for entry in table}
    assert dict(model.named_buffers()) == {}


def test_it_is_a_language_model(make_section: Any, make_model: Any) -> None:
    assert isinstance(make_model(make_section()), LanguageModel)


def test_weights_are_nan_until_filled(make_section: Any) -> None:
    """Breaks when the constructor leaves memory as it found it."""
    model = Transformer(make_section(bias=True, norm="layernorm", position="learned"), 11)
    assert all(torch.isnan(weight).all() for weight in model.parameters())


LONG = {"context": 1200, "layers": 1, "width": 16, "heads": 2, "kv_heads": 1}


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 61, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("length", [24, 600])
def test_no_token_sees_a_later_one(make_section: Any, make_model: Any, length: int) -> None:
    """Both ways of attention. Breaks when the mask is one place too wide."""
    model = make_model(make_section(**{**LONG, "context": length}))
    first, second = tokens(1, length), tokens(1, length, seed=1)
    for place in (1, length // 2, length - 1):
        changed = torch.cat((first[:, :place], second[:, place:]), dim=1)
        same = model.logits(model.hidden(first))[:, :place]
        torch.testing.assert_close(model.logits(model.hidden(changed))[:, :place], same)


def packed(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    segments = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    return positions, segments


@pytest.mark.parametrize("lengths", [[5, 1, 12, 6], [200, 350, 50]])
@pytest.mark.parametrize("position", ["rotary", "learned"])
def test_packed_documents_are_as_if_alone(
    make_section: Any, make_model: Any, lengths: list[int], position: str
) -> None:
    """Logits of each packed document equal those of the document by itself.

    Breaks when the mask ignores segments, and when positions run on through the row.
    """
    model = make_model(make_section(**{**LONG, "context": sum(lengths), "position": position}))
    row = tokens(1, sum(lengths))
    positions, segments = packed(lengths)
    together = model.logits(model.hidden(row, positions, segments))
    alone = [model.logits(model.hidden(part)) for part in row.split(lengths, dim=1)]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), atol=2e-5, rtol=1e-4)


def test_another_document_changes_nothing_at_all(make_section: Any, make_model: Any) -> None:
    """Bit for bit. Breaks when the hidden scores are merely large instead of −∞."""
    model = make_model(make_section())
    positions, segments = packed([10, 14])
    row, other = tokens(1, 24), tokens(1, 24, seed=1)
    other[:, 10:] = row[:, 10:]
    assert not torch.equal(row, other)
    logits = [model.logits(model.hidden(x, positions, segments))[:, 10:] for x in (row, other)]
    assert torch.equal(*logits)


def test_rows_of_a_batch_do_not_meet(make_section: Any, make_model: Any) -> None:
    """Rows with different documents. Breaks when all rows get the mask of the first."""
    model = make_model(make_section())
    batch = tokens(3, 24)
    pairs = [packed(lengths) for lengths in ([24], [4, 20], [10, 9, 5])]
    positions = torch.cat([pair[0] for pair in pairs])
    segments = torch.cat([pair[1] for pair in pairs])
    whole = model.logits(model.hidden(batch, positions, segments))
    for row in range(3):
        part = slice(row, row + 1)
        single = model.logits(model.hidden(batch[part], positions[part], segments[part]))
        torch.testing.assert_close(whole[part], single, atol=1e-5, rtol=1e-5)


def test_both_ways_of_attention_agree(
    make_section: Any, make_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole score matrices against torch's kernel. Breaks when the scores are not divided by √W."""
    model = make_model(make_section(kv_heads=2))
    row = tokens(2, 24)
    positions, segments = (part.expand(2, -1) for part in packed([9, 15]))
    places = ((None, None), (positions, segments))
    whole = [model.hidden(row, *place) for place in places]
    monkeypatch.setattr("wellfit.model.attention.WHOLE_SCORES", 0)
    tiled = [model.hidden(row, *place) for place in places]
    torch.testing.assert_close(whole, tiled, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"activation": "gelu", "norm": "layernorm", "bias": True, "position": "learned"},
        {"activation": "relu2", "logit_soft_cap": 5.0, "tie_embeddings": True},
    ],
    ids=["swiglu", "gelu", "relu2"],
)
@pytest.mark.parametrize("whole_scores", [0, 512])
def test_fp16_stays_near_float32(
    make_section: Any,
    make_model: Any,
    monkeypatch: pytest.MonkeyPatch,
    whole_scores: int,
    shape: dict[str, Any],
) -> None:
    """Losses and gradients, on CPU kernels; its three more bits bring it nearer than bf16.

    Breaks when a part computes in bf16 instead.
    """
    monkeypatch.setattr("wellfit.model.attention.WHOLE_SCORES", whole_scores)
    model = make_model(make_section(**shape))
    row = tokens(2, 24)
    results = []
    for dtype in (torch.float32, torch.float16):
        model.compute_dtype = dtype
        hidden = model.hidden(row)
        assert hidden.dtype == dtype
        losses = model.token_loss(hidden, row.roll(-1, 1))
        gradient = torch.autograd.grad(losses.mean() * 64, list(model.parameters()))
        results.append((losses, torch.cat([part.flatten() for part in gradient])))
    (exact, wanted), (rounded, found) = results
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().mean() < 1e-3 * exact.mean()
    assert (found - wanted).norm() < 5e-3 * wanted.norm()


def test_bf16_stays_near_float32(make_section: Any, make_model: Any) -> None:
    """And features are bf16, gradients float32. Breaks when a part falls back to float32."""
    model = make_model(make_section(activation="relu2"))
    row = tokens(2, 24)
    exact = model.token_loss(model.hidden(row), row.roll(-1, 1))
    model.compute_dtype = torch.bfloat16
    hidden = model.hidden(row)
    assert hidden.dtype == torch.bfloat16
    rounded = model.token_loss(hidden, row.roll(-1, 1))
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().mean() < 0.05 * exact.mean()
    rounded.mean().backward()
    assert all(weight.grad.dtype == torch.float32 for weight in model.parameters())


def losses(model: Any, key: tuple[int, int, int]) -> torch.Tensor:
    model.dropout_key(*key)
    row = tokens(2, 24)
    with torch.no_grad():
        return model.token_loss(model.hidden(row), row.roll(-1, 1))


def test_dropout_is_a_function_of_its_key(make_section: Any, make_model: Any) -> None:
    """Not of torch's global state. Breaks when the generator outlives a forward pass."""
    model = make_model(make_section(dropout=0.3))
    first = losses(model, (1, 2, 3))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(losses(model, (1, 2, 3)), first)
    assert torch.equal(torch.get_rng_state(), state)
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0), (2, 1, 3)):
        assert not torch.equal(losses(model, other), first)


def test_dropout_does_not_depend_on_how_a_batch_is_cut(make_section: Any, make_model: Any) -> None:
    """Breaks when the masks of all rows come from one stream of numbers."""
    model = make_model(make_section(dropout=0.3))
    batch = tokens(5, 24)

    def rows(first: int, end: int) -> torch.Tensor:
        model.dropout_key(1, 2, first)
        with torch.no_grad():
            return model.token_loss(model.hidden(batch[first:end]), batch[first:end])

    whole = rows(0, 5)
    torch.testing.assert_close(torch.cat([rows(0, 2), rows(2, 5)]), whole, atol=1e-5, rtol=1e-5)
    assert not torch.equal(whole[0], whole[1])


def test_dropout_keeps_the_mean_and_stops_in_evaluation(make_section: Any, make_model: Any) -> None:
    """Breaks when what is kept is not divided by the share kept."""
    from wellfit.model.dropout import Dropout

    dropped = Dropout(0.25, (0, 0, 0))(torch.ones(4, 50_000))
    assert set(dropped.unique().tolist()) == {0.0, 1 / 0.75} or dropped.unique().numel() == 2
    assert abs(dropped.mean().item() - 1) < 0.01
    assert abs((dropped == 0).float().mean().item() - 0.25) < 0.01
    model = make_model(make_section(dropout=0.3)).eval()
    plain = make_model(make_section(dropout=0.0))
    assert torch.equal(losses(model, (0, 0, 0)), losses(plain, (0, 0, 0)))


def test_dropout_without_a_key_is_refused(make_section: Any, make_model: Any) -> None:
    """Breaks when a missing key silently means no dropout."""
    model = make_model(make_section(dropout=0.3))
    with pytest.raises(AssertionError, match="call dropout_key"):
        model.hidden(tokens(1, 24))


def test_auxiliary_loss_is_zero(make_section: Any, make_model: Any) -> None:
    assert make_model(make_section()).auxiliary_loss().item() == 0
