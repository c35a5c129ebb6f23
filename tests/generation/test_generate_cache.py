"""Cached generation equals the cache-free one: tokens and logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wellfit.errors import RunError
from wellfit.generation.generate import generate, next_logits, window_start
from wellfit.generation.sample import sample
from wellfit.recipe.schema import Sampling

KINDS: list[dict[str, Any]] = [
    {},
    {"position": "learned", "norm": "layernorm", "bias": True, "activation": "gelu"},
    {"kv_heads": 4, "tie_embeddings": True, "qk_norm": False, "logit_soft_cap": 5.0},
]


def without_cache(model: Any, prompt: list[int], section: Sampling) -> list[int]:
    """The same window of tokens, read anew for every token."""
    ids, generator = list(prompt), torch.Generator().manual_seed(section.seed)
    for _ in range(section.tokens):
        window = ids[window_start(len(ids), model.model.context) :]
        with torch.no_grad():
            logits = model.logits(model.hidden(torch.tensor([window])))[0, -1]
        ids.append(sample(logits, section, generator))
    return ids[len(prompt) :]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("prompt", [[7], [3, 1, 4, 1, 5], list(range(40))])
def test_same_tokens(make_model: Any, kind: Any, temperature: float, prompt: list[int]) -> None:
    """50 tokens in a context of 16. Breaks when the cache is not cleared as the window moves."""
    model = make_model(**kind)
    section = Sampling(tokens=50, temperature=temperature, seed=3)
    found = list(generate(model, prompt, section))
    assert found == without_cache(model, prompt, section)
    assert len(set(found)) > 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pieces", [[16], [1] * 16, [5, 1, 1, 7, 2]])
def test_same_logits(make_model: Any, kind: Any, pieces: list[int]) -> None:
    """Any pieces, ≤ 1e-4. Breaks when positions restart at 0 behind a cache."""
    model = make_model(**kind)
    ids = torch.randint(0, 61, (1, 16), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        whole = model.logits(model.hidden(ids))
        cache = model.new_cache()
        parts = [model.logits(model.hidden(part, cache=cache)) for part in ids.split(pieces, 1)]
    assert cache.length == 16
    assert float((torch.cat(parts, 1) - whole).abs().max()) <= 1e-4
    assert float(whole.std()) > 0.3


def test_a_full_cache_is_refused(make_model: Any) -> None:
    model = make_model()
    cache = model.new_cache()
    with torch.no_grad():
        model.hidden(torch.zeros(1, 16, dtype=torch.long), cache=cache)
        with pytest.raises(AssertionError, match="17 tokens do not fit into a cache of 16"):
            model.hidden(torch.zeros(1, 1, dtype=torch.long), cache=cache)


@pytest.mark.parametrize("context", [8, 9, 16, 255])
def test_the_window_never_exceeds_the_context(context: int) -> None:
    """And holds at least half of it. Breaks when it moves one token too late."""
    for length in range(1, 5 * context):
        held = length - window_start(length, context)
        assert held <= context
        assert held == length or held > context // 2
        assert window_start(length + 1, context) >= window_start(length, context)


def test_stop_ids_end_the_stream_unseen(make_model: Any) -> None:
    model = make_model()
    section = Sampling(tokens=30, temperature=1.0)
    whole = list(generate(model, [1], section))
    stop = whole[5]
    assert list(generate(model, [1], section, stop_ids=[stop])) == whole[: whole.index(stop)]


def test_seeds_decide_and_global_state_does_not(make_model: Any) -> None:
    """Breaks when the draw uses torch's own generator."""
    model = make_model()
    first = list(generate(model, [1], Sampling(tokens=20, seed=0)))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert list(generate(model, [1], Sampling(tokens=20, seed=0))) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert list(generate(model, [1], Sampling(tokens=20, seed=1))) != first


def test_dropout_is_off_and_the_mode_restored_between_tokens(make_model: Any) -> None:
    """Breaks when the model stays in evaluation mode while the consumer trains it."""
    model, plain = make_model(dropout=0.5), make_model()
    model.train()
    section = Sampling(tokens=8)
    stream = generate(model, [1], section)
    found = [next(stream)]
    assert model.training
    found += stream
    assert model.training
    assert found == list(generate(plain, [1], section))


def test_the_stream_makes_one_token_at_a_time(make_model: Any) -> None:
    """Breaks when all tokens are made before the first is given out."""
    model = make_model()
    seen = []
    hidden = model.hidden
    model.hidden = lambda ids, **rest: (seen.append(ids.shape[1]), hidden(ids, **rest))[1]
    stream = generate(model, [1, 2, 3], Sampling(tokens=10))
    assert seen == []
    next(stream)
    next(stream)
    assert seen == [3, 1]


def test_bf16_generates(make_model: Any) -> None:
    model = make_model()
    model.compute_dtype = torch.bfloat16
    assert len(list(generate(model, [1], Sampling(tokens=20)))) == 20


def test_next_logits_see_the_last_context(make_model: Any) -> None:
    """Breaks when the first tokens of a long prompt are taken instead of the last."""
    model = make_model()
    ids = list(range(40))
    with torch.no_grad():
        expected = model.logits(model.hidden(torch.tensor([ids[-16:]])))[0, -1]
    torch.testing.assert_close(next_logits(model, ids), expected)


def test_broken_weights_are_told(make_model: Any) -> None:
    model = make_model()
    with torch.no_grad():
        model.final_norm.weight.fill_(torch.nan)
    with pytest.raises(RunError) as error:
        next(generate(model, [1], Sampling()))
    assert str(error.value) == (
        "generate: the model's logits are not finite\n  Its weights are broken, most likely by a "
        "diverged training: take an earlier checkpoint."
    )


def test_an_empty_prompt_is_a_mistake_of_the_caller(make_model: Any) -> None:
    with pytest.raises(AssertionError, match="at least one token, such as the separator"):
        next(generate(make_model(), [], Sampling()))
