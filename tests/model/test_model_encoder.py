"""The encoder: who sees whom, and logits equal to those of `transformers`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_references import difference, hub_name, hub_weights, llama_config

from wellfit.recipe.shapes import flops_per_token, parameter_count

transformers = pytest.importorskip("transformers")

GEMMA = {
    "kind": "encoder",
    "activation": "geglu",
    "scale_embeddings": True,
    "tie_embeddings": True,
    "head_width": 16,
    "post_norm": True,
    "layers": 4,
    "window": 7,
    "global_every": 3,
    "rope_base": 1000.0,
    "rope_local_base": 50.0,
}


def reference_of(model: Any) -> Any:
    """Gemma 3 as the embedding models of its family have it: no causal mask, windows to both sides.

    A window of 7 is 3 tokens on each side there too.
    """
    section = model.model
    config = llama_config(
        transformers.Gemma3TextConfig,
        section,
        61,
        hidden_activation="gelu_pytorch_tanh",
        query_pre_attn_scalar=section.head_width,
        sliding_window=section.window,
        sliding_window_pattern=section.global_every,
        use_bidirectional_attention=True,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 1000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        },
    )
    reference = transformers.Gemma3ForCausalLM(config)
    missing, unexpected = reference.load_state_dict(hub_weights(model, "gemma3_text"), strict=False)
    assert not missing and not unexpected
    return reference


@pytest.mark.parametrize("whole_scores", [0, 512])
def test_logits_are_those_of_a_bidirectional_gemma_3(
    make_section: Any, make_model: Any, monkeypatch: pytest.MonkeyPatch, whole_scores: int
) -> None:
    """With windows and without, on both of the CPU's ways of attention.

    Breaks tried: keep the causal mask; a window of its whole width to each side; `causal` left out
    of the blocks of scores.
    """
    monkeypatch.setattr("wellfit.model.attention.WHOLE_SCORES", whole_scores)
    model = make_model(make_section(**GEMMA))
    assert difference(model, reference_of(model), 24) <= 1e-4


def test_gradients_are_those_of_a_bidirectional_gemma_3(make_section: Any, make_model: Any) -> None:
    """By the scores' own backward pass. Break tried: leave the mask of a window out of it."""
    model = make_model(make_section(**GEMMA))
    reference = reference_of(model)
    tokens = torch.randint(1, 61, (2, 24), generator=torch.Generator().manual_seed(3))
    model.token_loss(model.hidden(tokens), tokens.roll(5, 1)).mean().backward()
    logits = reference(tokens).logits
    labels = tokens.roll(5, 1).flatten()
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels).backward()
    expected = dict(reference.named_parameters())
    for name, weight in model.named_parameters():
        if name != "embedding.weight":  # the reference leaves out the row of its padding
            other = expected[hub_name(model, "gemma3_text", name)].grad
            torch.testing.assert_close(weight.grad, other, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("length", [24, 600])
@pytest.mark.parametrize("soft_cap", [0.0, 3.0])
def test_every_token_sees_every_other_of_its_document_alone(
    make_section: Any, make_model: Any, length: int, soft_cap: float
) -> None:
    """Breaks when an encoder keeps a causal mask, or its mask forgets segments."""
    section = make_section(
        kind="encoder", context=length, layers=1, attention_soft_cap=soft_cap, qk_norm=False
    )
    model = make_model(section)
    tokens = torch.randint(1, 61, (1, length), generator=torch.Generator().manual_seed(0))
    segments = (torch.arange(length) >= length // 2).long()[None]
    positions = torch.cat([torch.arange(length // 2), torch.arange(length - length // 2)])[None]
    whole = model.hidden(tokens, positions, segments)
    changed = tokens.clone()
    changed[0, -1] = (changed[0, -1] + 1) % 61
    other = model.hidden(changed, positions, segments)
    moved = (other - whole).abs().amax(-1)[0]
    assert (moved[length // 2 :] > 0).all(), "each token of the document sees its last one"
    assert (moved[: length // 2] == 0).all(), "and no other document does"
    alone = model.hidden(tokens[:, length // 2 :])
    torch.testing.assert_close(whole[:, length // 2 :], alone, atol=2e-5, rtol=1e-4)


def test_it_has_the_tensors_of_a_decoder_and_no_cache(make_section: Any, make_model: Any) -> None:
    """Break tried: give every kind a cache."""
    decoder, encoder = make_section(), make_section(kind="encoder")
    assert parameter_count(encoder, 61) == parameter_count(decoder, 61)
    assert flops_per_token(encoder, 61) == flops_per_token(decoder, 61)
    with pytest.raises(NotImplementedError, match="reads both sides"):
        make_model(encoder).new_cache()
