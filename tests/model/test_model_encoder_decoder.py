"""The encoder-decoder: logits equal to those of `transformers`, isolation, cache, dropout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_model_transformer import same_tensors

from wellfit.model.hub.names import BOTH_SIDES
from wellfit.model.init import initialise
from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import Model
from wellfit.recipe.shapes import flops_per_token

transformers = pytest.importorskip("transformers")

GEMMA = {
    "kind": "encoder_decoder",
    "activation": "geglu",
    "scale_embeddings": True,
    "tie_embeddings": True,
    "head_width": 8,
    "post_norm": True,
    "qk_norm": False,
    "layers": 2,
    "encoder_layers": 3,
    "window": 6,
    "global_every": 2,
    "attention_soft_cap": 2.0,
    "logit_soft_cap": 3.0,
}
NAMES = BOTH_SIDES | {
    "attention_norm": "pre_self_attn_layernorm",
    "attention_post_norm": "post_self_attn_layernorm",
    "cross_attention_norm": "pre_cross_attn_layernorm",
    "cross_attention_post_norm": "post_cross_attn_layernorm",
    "cross_attention.query": "cross_attn.q_proj",
    "cross_attention.key": "cross_attn.k_proj",
    "cross_attention.value": "cross_attn.v_proj",
    "cross_attention.output": "cross_attn.o_proj",
}


def as_t5gemma(name: str) -> str:
    outside = {
        "embedding.weight": "model.decoder.embed_tokens.weight",
        "encoder_norm.weight": "model.encoder.norm.weight",
        "final_norm.weight": "model.decoder.norm.weight",
    }
    if name in outside:
        return outside[name]
    stack, layer, rest = name.split(".", 2)
    side = "encoder" if stack == "encoder_blocks" else "decoder"
    owner, _, kind = rest.rpartition(".")
    return f"model.{side}.layers.{layer}.{NAMES[owner]}.{kind}"


def reference_of(model: Any) -> Any:
    """T5Gemma: blocks of Gemma 2, an encoder that sees both sides, and a decoder that reads it."""
    section = model.model
    values = {
        "vocab_size": 61,
        "hidden_size": section.width,
        "intermediate_size": section.hidden,
        "num_attention_heads": section.heads,
        "num_key_value_heads": section.kv_heads,
        "head_dim": section.features_per_head,
        "max_position_embeddings": section.context,
        "rms_norm_eps": section.norm_epsilon,
        "rope_parameters": {"rope_type": "default", "rope_theta": section.rope_base},
        "query_pre_attn_scalar": section.features_per_head,
        "attn_logit_softcapping": section.attention_soft_cap or None,
        "final_logit_softcapping": section.logit_soft_cap,
        "attn_implementation": "eager",
    }
    module = transformers.models.t5gemma.T5GemmaModuleConfig
    # The window of an encoder is counted to each side there.
    encoder = module(**values, num_hidden_layers=3, sliding_window=section.window // 2)
    decoder = module(**values, num_hidden_layers=2, sliding_window=section.window)
    config = transformers.T5GemmaConfig(
        encoder=encoder, decoder=decoder, vocab_size=61, attn_implementation="eager"
    )
    reference = transformers.T5GemmaForConditionalGeneration(config)
    weights = {  # Gemma's norms multiply by 1 + w
        as_t5gemma(name): weight.detach() - (1 if model.roles()[name] == "norm" else 0)
        for name, weight in model.named_parameters()
    }
    table = weights["model.decoder.embed_tokens.weight"]
    weights |= {"model.encoder.embed_tokens.weight": table, "lm_head.out_proj.weight": table}
    missing, unexpected = reference.load_state_dict(weights, strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    return reference.eval()


def ids(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(1, 61, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("whole_scores", [0, 512])
@pytest.mark.parametrize("soft_cap", [0.0, 2.0])
def test_logits_and_gradients_are_those_of_t5gemma(
    make_section: Any,
    make_model: Any,
    monkeypatch: pytest.MonkeyPatch,
    whole_scores: int,
    soft_cap: float,
) -> None:
    """Breaks tried: rotate the queries that read the source; read the source before its norm;
    a causal encoder; take the keys of the target."""
    monkeypatch.setattr("wellfit.model.attention.WHOLE_SCORES", whole_scores)
    section = make_section(**{**GEMMA, "attention_soft_cap": soft_cap})
    model = make_model(section)
    reference = reference_of(model)
    source, target = ids(2, 19), ids(2, 13, seed=1)
    labels = target.roll(-1, 1)
    hidden = model.hidden(target, source=(source, None, None))
    expected = reference(input_ids=source, decoder_input_ids=target).logits
    assert expected.std() > 0.3
    torch.testing.assert_close(model.logits(hidden), expected, atol=1e-4, rtol=1e-4)
    model.token_loss(hidden, labels).mean().backward()
    torch.nn.functional.cross_entropy(expected.flatten(0, 1), labels.flatten()).backward()
    theirs = dict(reference.named_parameters())
    for name, weight in model.named_parameters():
        if name != "embedding.weight":  # which is three tables there
            other = theirs[as_t5gemma(name)].grad
            torch.testing.assert_close(weight.grad, other, atol=1e-5, rtol=1e-3, msg=name)


@st.composite
def sections(draw: st.DrawFn) -> Model:
    flags = [draw(st.booleans()) for _ in range(4)]
    return Model(
        kind="encoder_decoder",
        context=16,
        layers=draw(st.integers(1, 2)),
        encoder_layers=draw(st.sampled_from([0, 1, 3])),
        width=16,
        heads=4,
        kv_heads=2,
        hidden=24,
        position=draw(st.sampled_from(["rotary", "learned"])),
        norm=draw(st.sampled_from(["rmsnorm", "layernorm"])),
        bias=flags[0],
        post_norm=flags[1],
        qk_norm=flags[2],
        tie_embeddings=flags[3],
        experts={"count": draw(st.sampled_from([0, 3]))},
    )


@given(sections(), st.integers(9, 80))
@settings(max_examples=30, deadline=None)
def test_tensors_are_those_of_the_shape_table(section: Model, size: int) -> None:
    """Breaks when the table forgets the encoder's norm, or what reads the source."""
    same_tensors(section, size)


def packed_pair() -> tuple[Any, Any, Any, Any]:
    """A row of two documents: targets of 5 and 8 tokens, sources of 7 and 9, and one of padding."""
    target, source = ids(1, 14), ids(1, 17, seed=1)
    places = torch.cat([torch.arange(5), torch.arange(8), torch.arange(1)])[None]
    numbers = torch.tensor([0] * 5 + [1] * 8 + [16])[None]
    of_source = torch.cat([torch.arange(7), torch.arange(9), torch.arange(1)])[None]
    source_numbers = torch.tensor([0] * 7 + [1] * 9 + [2])[None]
    return target, (places, numbers), source, (of_source, source_numbers)


@pytest.mark.parametrize("whole_scores", [0, 512])
def test_a_target_reads_its_own_source_alone(
    make_section: Any, make_model: Any, monkeypatch: pytest.MonkeyPatch, whole_scores: int
) -> None:
    """Each packed document is as if alone; padding, which has no source, is finite.

    Breaks tried: leave the mask of the source out; compare segments with positions; let padding
    see nothing.
    """
    monkeypatch.setattr("wellfit.model.attention.WHOLE_SCORES", whole_scores)
    model = make_model(make_section(kind="encoder_decoder", encoder_layers=1))
    target, places, source, of_source = packed_pair()
    whole = model.hidden(target, *places, source=(source, *of_source))
    first = model.hidden(target[:, :5], source=(source[:, :7], None, None))
    second = model.hidden(target[:, 5:13], source=(source[:, 7:16], None, None))
    torch.testing.assert_close(whole[:, :5], first, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(whole[:, 5:13], second, atol=2e-5, rtol=1e-4)
    labels = target.clone()
    labels[:, 13:] = -100
    model.token_loss(whole, labels).sum().backward()
    assert all(bool(weight.grad.isfinite().all()) for weight in model.parameters())


def test_targets_do_not_look_ahead(make_section: Any, make_model: Any) -> None:
    """Break tried: build the decoder's blocks as the encoder's."""
    model = make_model(make_section(kind="encoder_decoder"))
    source = (ids(1, 20), None, None)
    one, other = ids(1, 12, seed=2), ids(1, 12, seed=3)
    changed = torch.cat((one[:, :7], other[:, 7:]), dim=1)
    before = model.hidden(one, source=source)[:, :7]
    torch.testing.assert_close(model.hidden(changed, source=source)[:, :7], before)
    elsewhere = model.hidden(one, source=(ids(1, 20, seed=4), None, None))
    assert (elsewhere[:, :7] - before).abs().max() > 0.01, "the source is read"


def test_reading_on_behind_a_cache_gives_what_reading_all_gives(
    make_section: Any, make_model: Any
) -> None:
    """Break tried: a cache that `clear` takes the source from; keys of another layer's source."""
    model = make_model(make_section(kind="encoder_decoder", layers=3, encoder_layers=2)).eval()
    source, target = ids(1, 20), ids(1, 12, seed=2)
    with torch.no_grad():
        whole = model.hidden(target, source=(source, None, None))
        cache = model.new_cache()
        parts = [model.hidden(target[:, :5], cache=cache, source=(source, None, None))]
        parts += [model.hidden(target[:, at : at + 1], cache=cache) for at in range(5, 12)]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=2e-5, rtol=1e-4)
        cache.clear()
        again = model.hidden(target[:, :5], cache=cache)
    torch.testing.assert_close(again, whole[:, :5], atol=2e-5, rtol=1e-4)
    with pytest.raises(AssertionError, match="no source to read"):
        model.hidden(target)


@pytest.mark.parametrize("how", ["full", "selective"])
def test_recomputed_gradients_are_the_same_bits(
    make_section: Any, make_model: Any, how: str
) -> None:
    """With dropout in both stacks. Break tried: number the encoder's dropout by its calls."""
    found = []
    for recompute in ("none", how):
        model = make_model(make_section(kind="encoder_decoder", dropout=0.3))
        model.recompute = recompute
        model.dropout_key(1, 2, 0)
        hidden = model.hidden(ids(2, 9), source=(ids(2, 12, seed=1), None, None))
        model.token_loss(hidden, ids(2, 9, seed=2)).sum().backward()
        found.append([weight.grad for weight in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_dropout_belongs_to_the_row_in_both_stacks(make_section: Any, make_model: Any) -> None:
    """However a batch is cut. Break tried: drop the source by the place in its micro-batch."""
    model = make_model(make_section(kind="encoder_decoder", dropout=0.3)).train()
    target, source = ids(4, 9), ids(4, 12, seed=1)
    model.dropout_key(1, 2, 0)
    whole = model.hidden(target, source=(source, None, None))
    parts = []
    for first in (0, 3):
        rows = slice(first, first + 3)
        model.dropout_key(1, 2, first)
        parts.append(model.hidden(target[rows], source=(source[rows], None, None)))
    torch.testing.assert_close(torch.cat(parts), whole, atol=2e-5, rtol=1e-4)


def test_first_weights_of_three_writes_a_layer(make_section: Any) -> None:
    """Break tried: count the decoder's layers for the encoder's projections."""
    wide = {"width": 128, "hidden": 256, "layers": 2, "encoder_layers": 8}
    section = make_section(kind="encoder_decoder", init="scaled_normal", **wide)
    model = Transformer(section, 61)
    initialise(model, 0)
    weights = dict(model.named_parameters())
    for name, wanted in {
        "encoder_blocks.7.attention.output.weight": 0.02 / 16**0.5,
        "blocks.1.cross_attention.output.weight": 0.02 / 6**0.5,
        "blocks.1.feedforward.down.weight": 0.02 / 6**0.5,
        "blocks.1.cross_attention.query.weight": 0.02,
    }.items():
        assert float(weights[name].detach().std()) == pytest.approx(wanted, rel=0.05), name


def test_arithmetic_of_source_and_target_is_counted_apart(make_section: Any) -> None:
    """By hand, for one layer each. Break tried: count keys of the source for each target token."""
    section = make_section(
        kind="encoder_decoder", layers=1, width=8, heads=1, kv_heads=1, hidden=16, context=16,
        activation="gelu",
    )  # fmt: skip
    attention, feedforward, head = 4 * 64, 2 * 8 * 16, 61 * 8
    source = 6 * (attention + feedforward + 2 * 64) + 12 * 8 * 16
    target = 6 * (attention + feedforward + 2 * 64 + head) + 12 * 8 * 2 * 16
    assert flops_per_token(section, 61) == source + target
    assert flops_per_token(section, 61, target_share=0.25) == source + target // 4
