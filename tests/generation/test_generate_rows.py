"""Several prompts at once equal each prompt alone, whatever the model and the neighbours."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from wellfit.generation.generate import generate, generate_rows, next_logits
from wellfit.generation.prompts import Prompt
from wellfit.generation.rows import AllAtOnce
from wellfit.model.decoding import decoding
from wellfit.model.linear import Linear
from wellfit.recipe.schema import Sampling

EXPERTS = {"count": 4, "active": 2, "hidden": 24, "shared": 1}
SLOWED = {"kind": "linear", "factor": 2.0}
KINDS: list[dict[str, Any]] = [
    {},
    {"position": "learned", "norm": "layernorm", "bias": True, "activation": "gelu"},
    {"kv_heads": 4, "tie_embeddings": True, "qk_norm": False, "logit_soft_cap": 5.0},
    {"window": 4, "global_every": 2, "rope_local_base": 50.0, "attention_soft_cap": 3.0},
    {"post_norm": True, "scale_embeddings": True, "activation": "geglu", "qkv_bias": True},
    {"rotary_share": 0.5, "rope_scaling": SLOWED, "base_width": 16, "activation": "relu2"},
    {"experts": EXPERTS},
    {"kind": "encoder_decoder", "encoder_layers": 1, "window": 5},
]
IDS = [(7,), (3, 1, 4, 1, 5), tuple(range(40)), (9, 9), (3, 1, 4, 1, 5), tuple(range(14))]


STOPS = (13, 29, 31, 44)


def prompts_of(model: Any, ids: list[tuple[int, ...]] = IDS) -> list[Prompt]:
    """Prompts of unequal lengths, and for an encoder-decoder sources of unequal lengths."""
    reads = model.model.kind == "encoder_decoder"
    return [
        Prompt(one, STOPS, tuple(range(2, 4 + 5 * n)) if reads else None)
        for n, one in enumerate(ids)
    ]


def alone(model: Any, prompts: list[Prompt], section: Sampling) -> list[list[int]]:
    """Each prompt by the model's own forward pass."""
    return [
        list(generate(model, one.ids, section, stop_ids=one.stop_ids, source=one.source))
        for one in prompts
    ]


def together(ready: Any, prompts: list[Prompt], section: Sampling, **more: Any) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in prompts]
    for number, token in generate_rows(ready, prompts, section, **more):
        if token is not None:
            found[number].append(token)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_rows_are_written_as_if_alone(make_model: Any, kind: Any, temperature: float) -> None:
    """Six prompts past a context of 16, ending at unequal places.

    Breaks tried: no mask for the keys of longer rows; positions of the longest row for all; `drop`
    that leaves the last row's keys behind; a window that begins with that of the longest row; no
    mask for longer sources; `rows.read` left out as a window moves.
    """
    model = make_model(**kind)
    prompts = prompts_of(model)
    section = Sampling(tokens=40, temperature=temperature, repetition_penalty=1.3, seed=3)
    expected = alone(model, prompts, section)
    assert together(decoding(model, len(prompts)), prompts, section) == expected
    if temperature:
        assert len({len(one) for one in expected}) > 1, "the rows end at unequal places"
    assert together(decoding(model, 1), prompts[1:2], section) == expected[1:2]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("even", [True, False])
def test_logits_of_a_step_are_those_of_the_whole(make_model: Any, kind: Any, even: bool) -> None:
    """≤ 1e-5 of logits whose spread is above 0.1, one row (transposed) and four (packed).

    Breaks tried: the sine's sign of the first half; QK-norm without its weights; queries scaled
    twice.
    """
    model = make_model(**kind)
    ids = [(5, 6, 7)] * 4 if even else [(5, 6, 7), (8,), (9, 10, 11, 12, 13, 14), (3, 4)]
    for count in (1, 4):
        prompts = prompts_of(model, ids[:count])
        rows = AllAtOnce(decoding(model, count), prompts, 8)
        for number, one in enumerate(prompts):
            rows.read(number, [one.ids], [one.source and one.source[-16:]])
        written = [list(one.ids) for one in prompts]
        for step in range(6):
            tokens = [(20 + 7 * step + n) % 61 for n in range(count)]
            found = rows.step(tokens)
            for row, token, one, logits in zip(written, tokens, prompts, found, strict=True):
                row.append(token)
                expected = next_logits(model, row, one.source)
                assert float((logits - expected).abs().max()) <= 1e-5
                assert float(expected.std()) > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("rows", [1, 3])
def test_in_16_bits_the_step_is_as_near_as_the_model(
    make_model: Any, dtype: torch.dtype, rows: int
) -> None:
    """Both are rounded differently; each is within 5 % of the float32 logits' spread.

    Break tried: the output matrix left in float32, which does not multiply.
    """
    model = make_model()
    exact = next_logits(model, [5, 6, 7, 8])
    model.compute_dtype = dtype
    prompts = prompts_of(model, [(5, 6, 7)] * rows)
    many = AllAtOnce(decoding(model, rows), prompts, 8)
    for number, one in enumerate(prompts):
        many.read(number, [one.ids], [None])
    for found in (next_logits(model, [5, 6, 7, 8]), *many.step([8] * rows)):
        assert float((found - exact).abs().max() / exact.std()) < 0.05


def test_a_prompt_s_draws_do_not_depend_on_its_neighbours(make_model: Any) -> None:
    """Break tried: one generator for all rows."""
    model = make_model()
    section = Sampling(tokens=12, temperature=1.0, top_p=1.0)
    prompts = prompts_of(model, [(7,), (3, 1), (7,), (4,)])
    found = together(decoding(model, 4), prompts, section)
    assert found[0] == found[2]
    assert together(decoding(model, 2), prompts[2:], section) == found[2:]
    seeded = together(decoding(model, 4), prompts, section, seeds=[0, 1, 2, 0])
    assert seeded[0] == found[0] and seeded[2] != found[2]
    assert seeded[2] == alone(model, prompts[2:3], section.model_copy(update={"seed": 2}))[0]


def test_finished_rows_are_not_computed(make_model: Any) -> None:
    """Break tried: rows that stay in the step after their end."""
    model = make_model()
    section = Sampling(tokens=30, temperature=0)
    prompts = prompts_of(model, [(7,), (3, 1), (8,)])
    whole = together(decoding(model, 3), prompts, section)
    ready, widths = decoding(model, 3), []
    assert ready is not None
    step = ready.logits
    ready.logits = lambda tokens, *rest: (widths.append(len(tokens)), step(tokens, *rest))[1]
    done: set[int] = set()
    found: list[list[int]] = [[], [], []]
    for number, token in generate_rows(ready, prompts, section, done=done):
        if token is not None:
            found[number].append(token)
        if len(found[number]) == 2 + 3 * number:
            done.add(number)
    assert widths == [3, 2, 2, 2, 1, 1, 1]
    assert [len(one) for one in found] == [2, 5, 8]
    assert found == [one[: 2 + 3 * n] for n, one in enumerate(whole)]


def test_other_parts_are_read_by_their_own_forward_pass(make_model: Any) -> None:
    """A linear layer of another kind, as adapters bring: nothing is made ready.

    Break tried: `isinstance` for `type(part) in KNOWN`.
    """

    class Adapted(Linear):
        pass

    model = make_model()
    prompts, section = prompts_of(model), Sampling(tokens=9, temperature=0)
    expected = together(decoding(model, 6), prompts, section)
    model.blocks[0].attention.query.__class__ = Adapted
    assert decoding(model, 6) is None
    assert together(model, prompts, section) == expected


@pytest.mark.parametrize("ready", [True, False])
def test_the_mode_is_the_former_one_between_tokens(make_model: Any, ready: bool) -> None:
    """Break tried: `evaluating` that leaves the model in evaluation mode."""
    model = make_model(dropout=0.5)
    model.train()
    prompts, section = prompts_of(model, [(7, 8), (9,)]), Sampling(tokens=5, temperature=0)
    for _ in generate_rows(decoding(model, 2) if ready else model, prompts, section):
        assert model.training
