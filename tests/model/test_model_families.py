"""Windows, soft-capped scores, slower rotary frequencies: equal to the families that have them.

Random weights, float32, logits and losses within 1e-4 of `transformers`, gradients where said.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from model_references import difference, hub_name, hub_weights, llama_config

from wellfit.generation.generate import generate
from wellfit.model.positions import rotary_angles, slowed
from wellfit.recipe.families import PRESETS, preset_model
from wellfit.recipe.model_section import RopeScaling
from wellfit.recipe.schema import Sampling

transformers = pytest.importorskip("transformers")

GEMMA = {
    "activation": "geglu",
    "scale_embeddings": True,
    "tie_embeddings": True,
    "head_width": 16,
    "qk_norm": False,
}
GEMMA_2 = {**GEMMA, "post_norm": True, "attention_soft_cap": 2.0, "logit_soft_cap": 3.0}


def loaded(kind: Any, config: Any, weights: Any) -> Any:
    reference = kind(config)
    missing, unexpected = reference.load_state_dict(weights, strict=False)
    # Only what both start with: LayerNorm biases of zero.
    assert not unexpected
    assert all(name.endswith("norm.bias") for name in missing)
    return reference


@pytest.mark.parametrize("whole_scores", [0, 512])
@pytest.mark.parametrize("window", [1, 5, 24, 100])
def test_mistral_sees_its_window(
    make_section: Any,
    make_model: Any,
    monkeypatch: pytest.MonkeyPatch,
    window: int,
    whole_scores: int,
) -> None:
    """On both of the CPU's ways of attention. Break: let the window begin one token earlier."""
    monkeypatch.setattr("wellfit.model.attention.WHOLE_SCORES", whole_scores)
    section = make_section(window=window, qk_norm=False, layers=3)
    model = make_model(section)
    config = llama_config(transformers.MistralConfig, section, 61, sliding_window=window)
    reference = loaded(transformers.MistralForCausalLM, config, hub_weights(model, "llama"))
    assert difference(model, reference, section.context) <= 1e-4
    unlimited = make_model(make_section(qk_norm=False, layers=3))
    tokens = torch.arange(24)[None]
    same = torch.equal(unlimited.hidden(tokens), model.hidden(tokens))
    assert same == (window >= 24), "the window changes what it hides, and nothing else"


def test_qwen_2_has_biases_on_queries_keys_and_values_alone(
    make_section: Any, make_model: Any
) -> None:
    """Break: leave the bias of the keys out (of the section's `qkv_bias`)."""
    section = make_section(qkv_bias=True, qk_norm=False)
    model = make_model(section)
    config = llama_config(transformers.Qwen2Config, section, 61)
    reference = loaded(transformers.Qwen2ForCausalLM, config, hub_weights(model, "llama"))
    assert difference(model, reference, section.context) <= 1e-4


def test_stablelm_turns_a_share_of_each_head(make_section: Any, make_model: Any) -> None:
    """Break: turn the last features of a head instead of the first."""
    section = make_section(rotary_share=0.5, norm="layernorm", qk_norm=False)
    model = make_model(section)
    config = llama_config(
        transformers.StableLmConfig,
        section,
        61,
        layer_norm_eps=section.norm_epsilon,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": section.rope_base,
            "partial_rotary_factor": 0.5,
        },
    )
    reference = loaded(transformers.StableLmForCausalLM, config, hub_weights(model, "llama"))
    assert difference(model, reference, section.context) <= 1e-4


def test_gemma(make_section: Any, make_model: Any) -> None:
    """Break: leave out √width on the embeddings; or the gate's GELU exact instead of tanh."""
    section = make_section(**GEMMA)
    model = make_model(section)
    config = llama_config(
        transformers.GemmaConfig, section, 61, hidden_activation="gelu_pytorch_tanh"
    )
    reference = loaded(transformers.GemmaForCausalLM, config, hub_weights(model, "gemma"))
    assert difference(model, reference, section.context) <= 1e-4


def gemma_2(make_section: Any, make_model: Any, **changes: Any) -> tuple[Any, Any]:
    section = make_section(**GEMMA_2, window=7, global_every=2, layers=4, **changes)
    model = make_model(section)
    config = llama_config(
        transformers.Gemma2Config,
        section,
        61,
        hidden_activation="gelu_pytorch_tanh",
        query_pre_attn_scalar=section.head_width,
        sliding_window=section.window,
        attn_logit_softcapping=section.attention_soft_cap,
        pad_token_id=None,  # its row would get no gradient
        final_logit_softcapping=section.logit_soft_cap,
    )
    return model, loaded(transformers.Gemma2ForCausalLM, config, hub_weights(model, "gemma"))


@pytest.mark.parametrize("whole_scores", [0, 512])
def test_gemma_2_alternates_and_caps(
    make_section: Any, make_model: Any, monkeypatch: pytest.MonkeyPatch, whole_scores: int
) -> None:
    """Break: cap the scores after the mask is added; or count the layers of `global_every` from 0;
    or put the post-norms behind the addition."""
    monkeypatch.setattr("wellfit.model.attention.WHOLE_SCORES", whole_scores)
    model, reference = gemma_2(make_section, make_model)
    assert difference(model, reference, 24) <= 1e-4
    uncapped = make_model(model.model.model_copy(update={"attention_soft_cap": 0.0}))
    tokens = torch.arange(24)[None]
    assert (uncapped.hidden(tokens) - model.hidden(tokens)).abs().max() > 0.01, "the cap acts"


def test_gradients_equal_those_of_gemma_2(make_section: Any, make_model: Any) -> None:
    """Through caps, windows and post-norms. Break: detach the capped scores' tanh."""
    model, reference = gemma_2(make_section, make_model)
    tokens = torch.randint(0, 61, (2, 24), generator=torch.Generator().manual_seed(3))
    labels = tokens.roll(-1, 1)
    model.token_loss(model.hidden(tokens), labels).mean().backward()
    logits = reference(tokens).logits
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
    expected = dict(reference.named_parameters())
    for name, weight in model.named_parameters():
        other = expected[hub_name(model, "gemma2", name)].grad
        torch.testing.assert_close(weight.grad, other, atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize("scaling", [None, 4.0])
def test_gemma_3_has_two_bases(make_section: Any, make_model: Any, scaling: float | None) -> None:
    """Break: slow the local layers' frequencies too; or give them the global base."""
    changes: dict[str, Any] = {**GEMMA, "post_norm": True, "qk_norm": True, "window": 6}
    if scaling:
        changes["rope_scaling"] = {"kind": "linear", "factor": scaling}
    section = make_section(
        **changes, global_every=3, layers=4, rope_base=1000.0, rope_local_base=50.0
    )
    model = make_model(section)
    wide: dict[str, Any] = {"rope_type": "default", "rope_theta": 1000.0}
    if scaling:
        wide |= {"rope_type": "linear", "factor": scaling}
    config = llama_config(
        transformers.Gemma3TextConfig,
        section,
        61,
        hidden_activation="gelu_pytorch_tanh",
        query_pre_attn_scalar=section.head_width,
        sliding_window=section.window,
        sliding_window_pattern=3,
        rope_parameters={
            "full_attention": wide,
            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        },
    )
    reference = loaded(transformers.Gemma3ForCausalLM, config, hub_weights(model, "gemma"))
    assert difference(model, reference, section.context) <= 1e-4


SCALINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": ({"factor": 4.0}, {"factor": 4.0}),
    "llama3": (
        {"factor": 8.0, "original_context": 8192, "low_factor": 1.0, "high_factor": 4.0},
        {
            "factor": 8.0,
            "original_max_position_embeddings": 8192,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
        },
    ),
    "llama3 with other limits": (
        {"factor": 32.0, "original_context": 2048, "low_factor": 2.0, "high_factor": 16.0},
        {
            "factor": 32.0,
            "original_max_position_embeddings": 2048,
            "low_freq_factor": 2.0,
            "high_freq_factor": 16.0,
        },
    ),
    "yarn": (
        {"factor": 4.0, "original_context": 32_768},
        {"factor": 4.0, "original_max_position_embeddings": 32_768},
    ),
    "yarn with other limits": (
        {
            "factor": 16.0,
            "original_context": 512,
            "beta_fast": 8.0,
            "beta_slow": 2.0,
            "attention_factor": 1.5,
        },
        {
            "factor": 16.0,
            "original_max_position_embeddings": 512,
            "beta_fast": 8.0,
            "beta_slow": 2.0,
            "attention_factor": 1.5,
        },
    ),
}


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize(("width", "base"), [(128, 500_000.0), (64, 10_000.0), (6, 50.0)])
def test_slower_frequencies_are_those_of_transformers(name: str, width: int, base: float) -> None:
    """Frequencies and the attention factor, by the function that Llama and Qwen models call.

    Breaks: interpolate llama3 along the wavelength instead of the turns; swap yarn's kept and
    divided pairs; leave the attention factor off the sines.
    """
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    ours, theirs = SCALINGS[name]
    kind = name.split()[0]
    config = transformers.LlamaConfig(
        hidden_size=width,
        num_attention_heads=1,
        max_position_embeddings=131_072,
        rope_parameters={"rope_type": kind, "rope_theta": base, **theirs},
    )
    expected, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
    scaling = RopeScaling.model_validate({"kind": kind, **ours})
    plain = base ** (-torch.arange(0, width, 2) / width)
    frequencies, multiplied = slowed(plain, base, scaling)
    torch.testing.assert_close(frequencies, expected, atol=0, rtol=2e-6)
    assert multiplied == pytest.approx(factor, rel=1e-12)
    if width > 6:  # three pairs of base 50 all turn often
        assert not torch.allclose(frequencies, plain, atol=0)
    assert (factor > 1) == (kind == "yarn")
    cosine, sine = rotary_angles(torch.tensor([[3]]), width, base, scaling)
    torch.testing.assert_close(cosine.flatten(), (3 * expected).cos() * factor)
    torch.testing.assert_close(sine.flatten(), (3 * expected).sin() * factor)


@pytest.mark.parametrize("name", SCALINGS)
def test_llama_with_slower_frequencies(make_section: Any, make_model: Any, name: str) -> None:
    """Break: do not pass the section's scaling on to the angles."""
    ours, theirs = (dict(one) for one in SCALINGS[name])
    kind = name.split()[0]
    if kind != "linear":  # so short that pairs of all kinds exist
        ours["original_context"] = theirs["original_max_position_embeddings"] = 40
    section = make_section(qk_norm=False, rope_base=50.0, rope_scaling={"kind": kind, **ours})
    model = make_model(section)
    config = llama_config(
        transformers.LlamaConfig,
        section,
        61,
        rope_parameters={"rope_type": kind, "rope_theta": 50.0, **theirs},
    )
    reference = loaded(transformers.LlamaForCausalLM, config, hub_weights(model, "llama"))
    assert difference(model, reference, section.context) <= 1e-4
    unscaled = make_model(make_section(qk_norm=False, rope_base=50.0))
    tokens = torch.arange(24)[None]
    assert (unscaled.hidden(tokens) - model.hidden(tokens)).abs().max() > 1e-3, "it acts"


def documents(lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    segments = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]
    return positions, segments


@pytest.mark.parametrize("whole_scores", [0, 512])
def test_windows_stay_within_packed_documents(
    make_section: Any, make_model: Any, monkeypatch: pytest.MonkeyPatch, whole_scores: int
) -> None:
    """Each document as if alone, with windows, caps and two bases. Break: drop the segments from
    the local mask."""
    monkeypatch.setattr("wellfit.model.attention.WHOLE_SCORES", whole_scores)
    section = make_section(
        window=4, global_every=2, layers=3, attention_soft_cap=3.0, rope_local_base=50.0
    )
    model = make_model(section)
    row = torch.randint(0, 61, (1, 24), generator=torch.Generator().manual_seed(4))
    lengths = [3, 11, 1, 9]
    together = model.logits(model.hidden(row, *documents(lengths)))
    alone = [model.logits(model.hidden(part)) for part in row.split(lengths, dim=1)]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"window": 3},
        {"window": 3, "global_every": 2, "attention_soft_cap": 2.0, "rope_local_base": 50.0},
        {"attention_soft_cap": 2.0},
        {"window": 5, "rope_scaling": {"kind": "yarn", "factor": 4.0, "original_context": 8}},
    ],
)
def test_generation_through_the_cache_is_that_without(
    make_section: Any, make_model: Any, changes: Any
) -> None:
    """40 tokens, beyond the window and the context of 24; the prompt is longer than the window.

    Break: let a single query see the whole cache in a local layer; or mask a prompt's keys by
    their place in the chunk instead of the row.
    """
    section = make_section(layers=3, **changes)
    model = make_model(section)
    prompt = [5, 60, 7, 11, 13, 2, 3, 44]
    drawn = list(generate(model, prompt, Sampling(tokens=40, temperature=0.0)))
    ids = list(prompt)
    with torch.no_grad():
        for token in drawn:
            start = max(0, -((24 - len(ids)) // 12) * 12)
            logits = model.logits(model.hidden(torch.tensor([ids[start:]])))[0, -1]
            best = logits.topk(2).values
            assert (best[0] - logits[token]).item() <= 1e-4
            ids.append(token)
        cache = model.new_cache()
        row = torch.tensor([ids[:20]])
        # A prompt in two pieces, then token by token.
        parts = [row[:, :9], row[:, 9:15], *row[:, 15:].split(1, dim=1)]
        pieces = [model.hidden(part, cache=cache) for part in parts]
        torch.testing.assert_close(
            torch.cat(pieces, dim=1), model.hidden(row), atol=1e-5, rtol=1e-4
        )


def reference_config(name: str) -> Any:
    """A preset → the configuration of `transformers` with the same numbers."""
    section, vocabulary = preset_model(name), PRESETS[name].vocabulary
    if name.startswith("gpt2"):
        return transformers.GPT2Config(
            vocab_size=vocabulary,
            n_positions=section.context,
            n_embd=section.width,
            n_layer=section.layers,
            n_head=section.heads,
            n_inner=section.hidden,
        )
    kinds = {
        "llama": transformers.LlamaConfig,
        "mistral": transformers.MistralConfig,
        "mixtral": transformers.MixtralConfig,
        "qwen2": transformers.Qwen2Config,
        "qwen3": transformers.Qwen3Config,
        "gemma": transformers.GemmaConfig,
        "gemma2": transformers.Gemma2Config,
        "gemma3": transformers.Gemma3TextConfig,
    }
    family = name.partition("-")[0].partition(".")[0]
    kind = kinds["llama" if family.startswith("llama") else family]
    more: dict[str, Any] = {"rope_parameters": None} if family == "gemma3" else {}
    if section.experts.count:
        more |= {
            "num_local_experts": section.experts.count,
            "num_experts_per_tok": section.experts.active,
        }
        if family == "qwen3":
            kind = transformers.Qwen3MoeConfig
            more |= {
                "num_experts": section.experts.count,
                "moe_intermediate_size": section.expert_hidden,
                "norm_topk_prob": True,
            }
    return llama_config(kind, section, vocabulary, **more)


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_of_every_preset_are_those_of_transformers(name: str) -> None:
    """On the meta device, where tensors have shapes and no numbers; tied matrices once.

    Break: one layer more in a row of the table.
    """
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(reference_config(name))
    assert model.num_parameters() == PRESETS[name].parameters
