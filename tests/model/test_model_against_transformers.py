"""Logits equal those of `transformers` with the same random weights (float32, ≤ 1e-4)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_references import difference, hub_name, hub_weights, llama_config

from wellfit.model.init import initialise

transformers = pytest.importorskip("transformers")


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("tied", [False, True])
def test_llama(make_section: Any, make_model: Any, kv_heads: int, tied: bool) -> None:
    """Breaks when `rotate` pairs neighbouring features, or queries meet the wrong key head."""
    section = make_section(kv_heads=kv_heads, tie_embeddings=tied, qk_norm=False, rope_base=500.0)
    model = make_model(section)
    config = llama_config(transformers.LlamaConfig, section, model.vocabulary_size)
    reference = transformers.LlamaForCausalLM(config)
    reference.load_state_dict(hub_weights(model, "llama"))
    assert difference(model, reference, section.context) <= 1e-4


def test_qwen3_has_the_same_query_and_key_norms(make_section: Any, make_model: Any) -> None:
    """Breaks when the norms come after the rotation (their weights then meet turned features)."""
    section = make_section(qk_norm=True)
    model = make_model(section)
    config = llama_config(transformers.Qwen3Config, section, model.vocabulary_size)
    reference = transformers.Qwen3ForCausalLM(config)
    reference.load_state_dict(hub_weights(model, "llama"))
    assert difference(model, reference, section.context) <= 1e-4


@pytest.mark.parametrize(("activation", "name"), [("gelu_tanh", "gelu_new"), ("gelu", "gelu")])
@pytest.mark.parametrize("tied", [False, True])
def test_gpt2(make_section: Any, make_model: Any, activation: str, name: str, tied: bool) -> None:
    """Breaks when a bias is left out, the two GELUs are swapped or positions are not added."""
    section = make_section(
        kv_heads=4,
        qk_norm=False,
        norm="layernorm",
        activation=activation,
        position="learned",
        bias=True,
        tie_embeddings=tied,
    )
    model = make_model(section)
    config = transformers.GPT2Config(
        vocab_size=model.vocabulary_size,
        n_positions=section.context,
        n_embd=section.width,
        n_layer=section.layers,
        n_head=section.heads,
        n_inner=section.hidden,
        activation_function=name,
        layer_norm_epsilon=section.norm_epsilon,
        tie_word_embeddings=tied,
        attn_implementation="eager",
    )
    reference = transformers.GPT2LMHeadModel(config)
    reference.load_state_dict(hub_weights(model, "gpt2"))
    assert difference(model, reference, section.context) <= 1e-4


def test_scaled_normal_is_the_initialisation_of_gpt2(make_section: Any, make_model: Any) -> None:
    """Each tensor's deviation within a tenth, its zeros and ones exactly.

    Breaks when the projections into the residual stream are not divided by √(2·layers).
    """
    section = make_section(
        layers=3,
        width=64,
        kv_heads=4,
        hidden=256,
        qk_norm=False,
        norm="layernorm",
        activation="gelu_tanh",
        position="learned",
        bias=True,
        tie_embeddings=True,
        init="scaled_normal",
    )
    model = make_model(section)
    initialise(model, seed=1)
    config = transformers.GPT2Config(
        vocab_size=model.vocabulary_size,
        n_positions=section.context,
        n_embd=section.width,
        n_layer=section.layers,
        n_head=section.heads,
        n_inner=section.hidden,
    )
    torch.manual_seed(2)
    expected = transformers.GPT2LMHeadModel(config).state_dict()
    for name, weight in hub_weights(model, "gpt2").items():
        if expected[name].std() == 0:
            torch.testing.assert_close(weight, expected[name], msg=name)
        else:
            ratio = (weight.std() / expected[name].std()).item()
            assert ratio == pytest.approx(1, abs=0.1), name


def test_gradients_equal_those_of_llama(make_section: Any, make_model: Any) -> None:
    """Breaks when a hand-written gradient in `kernels.py` drops a term."""
    section = make_section(qk_norm=False)
    model = make_model(section)
    config = llama_config(transformers.LlamaConfig, section, model.vocabulary_size)
    reference = transformers.LlamaForCausalLM(config)
    reference.load_state_dict(hub_weights(model, "llama"))
    tokens = torch.randint(0, 61, (2, 24), generator=torch.Generator().manual_seed(3))
    labels = tokens.roll(-1, 1)
    model.token_loss(model.hidden(tokens), labels).mean().backward()
    logits = reference(tokens).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
    expected = dict(reference.named_parameters())
    for name, weight in model.named_parameters():
        torch.testing.assert_close(
            weight.grad, expected[hub_name(model, "llama", name)].grad, atol=2e-6, rtol=1e-4
        )


def test_soft_cap_equals_that_of_gemma_2(make_section: Any, make_model: Any) -> None:
    """Gemma 2 without blocks, given our normalised features: its head, its cap, its loss.

    Breaks when the logits are divided by the cap but not multiplied, or the loss leaves it out.
    """
    section = make_section(logit_soft_cap=3.0)
    model = make_model(section)
    with torch.no_grad():
        model.final_norm.weight.fill_(1.0)
    config = transformers.Gemma2Config(
        vocab_size=model.vocabulary_size,
        hidden_size=section.width,
        num_hidden_layers=0,
        num_attention_heads=section.heads,
        num_key_value_heads=section.kv_heads,
        rms_norm_eps=1e-12,
        final_logit_softcapping=3.0,
        tie_word_embeddings=False,
    )
    reference = transformers.Gemma2ForCausalLM(config).eval()
    reference.lm_head.weight = model.head.weight
    tokens = torch.randint(0, 61, (2, 24), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        hidden = model.hidden(tokens)
        expected = reference(inputs_embeds=hidden).logits
        assert torch.nn.functional.linear(hidden, model.head.weight).abs().max().item() > 3
        assert (model.logits(hidden) - expected).abs().max().item() <= 1e-4
        losses = torch.nn.functional.cross_entropy(
            expected.transpose(1, 2), tokens, reduction="none"
        )
        assert (model.token_loss(hidden, tokens) - losses).abs().max().item() <= 1e-4
