"""What is drawn from, where text ends and what is written: as `transformers` has them."""

from __future__ import annotations

import string
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from wellfit.generation.generate import generate_rows
from wellfit.generation.prompts import Prompt
from wellfit.generation.sample import penalised, probabilities
from wellfit.generation.write import Ended, Piece, write_rows
from wellfit.model.decoding import decoding
from wellfit.recipe.schema import Sampling

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
from model_references import hub_weights, llama_config

SETTINGS: list[dict[str, Any]] = [
    {"top_p": 1.0},
    {"temperature": 0.4, "top_k": 7},
    {"top_p": 0.6},
    {"top_p": 0.999},
    {"top_k": 40, "top_p": 0.5, "temperature": 1.7},
    {"min_p": 0.2, "top_p": 1.0},
    {"min_p": 0.05, "top_k": 30, "top_p": 0.8, "temperature": 3.0},
    {"repetition_penalty": 1.4, "top_p": 0.9},
    {"repetition_penalty": 0.7, "min_p": 0.1, "temperature": 0.5},
]


@pytest.mark.parametrize("values", SETTINGS)
@pytest.mark.parametrize("vocabulary_size", [61, 2_000])
def test_probabilities_of_random_logits(values: Any, vocabulary_size: int) -> None:
    """Twenty rows of logits and of ids that stood, within 1e-9; more and fewer than `NUCLEUS`.

    Breaks tried: the penalty divides negative logits too; min_p of all instead of the likeliest;
    min_p before the temperature; a nucleus cut at the 512 largest without looking further.
    """
    from transformers import generation as reference

    section = Sampling(**{"temperature": 1.0, **values})
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(20, vocabulary_size, generator=generator).double() * 2
    ids = torch.randint(0, vocabulary_size, (20, 30), generator=generator)
    steps = [
        reference.RepetitionPenaltyLogitsProcessor(section.repetition_penalty),
        reference.TemperatureLogitsWarper(section.temperature),
        reference.TopKLogitsWarper(section.top_k or vocabulary_size),
        reference.TopPLogitsWarper(section.top_p),
        reference.MinPLogitsWarper(section.min_p),
    ]
    expected = logits
    for step in steps:
        expected = step(ids, expected)
    expected = expected.softmax(-1)
    several = 0
    for row, stood, wanted in zip(logits, ids, expected, strict=True):
        seen = torch.zeros(vocabulary_size, dtype=torch.bool)
        seen[stood] = True
        found = probabilities(penalised(row, seen, section.repetition_penalty), section)
        assert ((found > 0) == (wanted > 0)).all()
        assert float((found - wanted).abs().max()) < 1e-9
        several += int((found > 0).sum() > 1)
    assert several >= 5


def test_of_equals_at_the_border_the_first_are_taken() -> None:
    """Flat and stepped logits over more entries than `NUCLEUS`, as bf16 has many equal ones.

    Breaks tried: topk's own order of equals; no second look where equals reach its border.
    """
    for logits in (torch.zeros(3_000), torch.arange(3_000).flip(0) // 700 * 1.0):
        for top_p in (0.1, 0.5, 0.9):
            shares = torch.softmax(logits.double(), 0)
            ordered, order = shares.sort(descending=True, stable=True)
            kept = order[ordered.cumsum(0) - ordered < top_p]
            found = probabilities(logits, Sampling(temperature=1, top_p=top_p)).nonzero()[:, 0]
            assert abs(len(found) - len(kept)) <= 1  # sums round at the border
            assert set(found.tolist()) <= set(kept.tolist()) | {int(order[len(kept)])}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """61 tokens: letters, two signs, an end, and pieces that begin or end in other words."""
    pieces = ["the", "he", "ing", " a", "ab", "abc", "bc", "a b"]
    names = ["<end>", *string.ascii_letters[:50], " ", ".", *pieces]
    names = list(dict.fromkeys(names))
    assert len(names) == 61
    backend = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, "<end>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    return backend


@pytest.fixture(scope="module")
def wrapped(tokenizer: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<end>", eos_token="<end>")


def reference_of(model: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    found = LlamaForCausalLM(llama_config(LlamaConfig, model.model, model.vocabulary_size)).eval()
    found.load_state_dict(hub_weights(model, "llama"), strict=True)
    found.generation_config.eos_token_id = 0
    found.generation_config.pad_token_id = 0
    return found


LLAMA = {"context": 64, "qk_norm": False, "norm_epsilon": 1e-6}


@pytest.mark.parametrize("penalty", [1.0, 1.25])
def test_greedy_ids_of_a_batch(make_model: Any, penalty: float) -> None:
    """Four prompts of unequal lengths, left-padded there: the same ids, ends included.

    Breaks tried: the penalty on new ids alone; on the prompt alone.
    """
    model = make_model(**LLAMA)
    reference = reference_of(model)
    ids = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 5, 5], [3, 4]]
    # `transformers` penalises padding as if it stood in the prompt; so each stands alone there.
    batches = [ids] if penalty == 1.0 else [[one] for one in ids]
    expected = []
    for batch in batches:
        longest = max(map(len, batch))
        padded = torch.tensor([[0] * (longest - len(one)) + one for one in batch])
        mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in batch])
        out = reference.generate(
            padded, attention_mask=mask, max_new_tokens=40, do_sample=False,
            repetition_penalty=penalty,
        )  # fmt: skip
        for row in out[:, longest:].tolist():
            expected.append(row[: row.index(0)] if 0 in row else row)
    section = Sampling(tokens=40, temperature=0, repetition_penalty=penalty)
    found: list[list[int]] = [[] for _ in ids]
    prompts = [Prompt(tuple(one), (0,)) for one in ids]
    for number, token in generate_rows(decoding(model, 4), prompts, section):
        if token is not None:
            found[number].append(token)
    assert found == expected
    assert len({tuple(one) for one in found}) == 4


@pytest.mark.parametrize("stops", [["the"], ["ab", "a b"], ["hea", "X. "], ["heh"], ["nowhere"]])
def test_stop_strings_end_where_theirs_do(
    make_model: Any, tokenizer: Any, wrapped: Any, stops: Sequence[str]
) -> None:
    """Sampled texts of a model that speaks in few pieces: as many tokens as their criterion lets,
    and of the text what stands before the stop string.

    Breaks tried: looking at each token's text alone; the row goes on after its stop string.
    """
    from transformers import StopStringCriteria

    model = make_model(**LLAMA)
    criterion = StopStringCriteria(wrapped, list(stops))
    lively = [tokenizer.token_to_id(one) for one in ("a", "b", "c", "t", "h", "e", "he", "ab")]
    lively += [tokenizer.token_to_id(one) for one in (" ", "a b", "bc", "the", "X", ".", " a")]
    with torch.no_grad():
        quiet = torch.ones(61, dtype=torch.bool)
        quiet[lively] = False
        model.head.weight[quiet] = 0  # logit 0 against about ±3

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=False))

    prompts = [Prompt((51, one), ()) for one in range(1, 7)]
    section = Sampling(tokens=40, temperature=1.0, top_k=8, stop=tuple(stops))
    plain = section.model_copy(update={"stop": ()})
    ready = decoding(model, 6)
    whole: list[list[int]] = [[] for _ in prompts]
    for number, token in generate_rows(ready, prompts, plain):
        whole[number].append(token)  # type: ignore[arg-type]
    shown = ["" for _ in prompts]
    ends: dict[int, Ended] = {}
    for piece in write_rows(ready, prompts, section, decode):
        if isinstance(piece, Piece):
            shown[piece.number] += piece.text
            assert not any(stop in shown[piece.number] for stop in stops)
        else:
            ends[piece.number] = piece
    for number, ids in enumerate(whole):
        lengths = range(1, len(ids) + 1)
        met = [n for n in lengths if criterion(torch.tensor([ids[:n]]), None)[0]]
        text = decode(ids)
        end = ends[number]
        assert (end.reason, end.tokens) == (("stop", met[0]) if met else ("length", 40))
        first = min(((text.find(s) + len(s), text.find(s)) for s in stops if s in text), default=0)
        assert shown[number] == end.text == (text[: first[1]] if first else text)
    assert stops == ["nowhere"] or sum(end.reason == "stop" for end in ends.values()) > 1
