"""Which tokens may be drawn, and how often they are."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wellfit.generation.sample import probabilities, sample
from wellfit.recipe.schema import Sampling

LOGITS = torch.log(torch.tensor([0.1, 0.4, 0.2, 0.3]))


def shares(**changes: float) -> list[float]:
    section = Sampling(**{"temperature": 1.0, "top_p": 1.0, **changes})  # type: ignore[arg-type]
    return [round(share, 6) for share in probabilities(LOGITS, section).tolist()]


def test_all_stay_by_default() -> None:
    assert shares() == [0.1, 0.4, 0.2, 0.3]


def test_temperature_is_a_power() -> None:
    """p^(1/2) renormalised. Breaks when logits are multiplied by the temperature."""
    roots = [math.sqrt(p) for p in (0.1, 0.4, 0.2, 0.3)]
    assert shares(temperature=2.0) == [round(root / sum(roots), 6) for root in roots]


def test_top_k_keeps_the_k_most_probable() -> None:
    assert shares(top_k=2) == [0, round(4 / 7, 6), 0, round(3 / 7, 6)]
    assert shares(top_k=1) == [0, 1, 0, 0]
    assert shares(top_k=99) == shares()


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    """Breaks when the token that crosses the border is left out."""
    assert shares(top_p=0.5) == [0, round(4 / 7, 6), 0, round(3 / 7, 6)]
    assert shares(top_p=0.35) == [0, 1, 0, 0]
    assert shares(top_p=1e-9) == [0, 1, 0, 0]
    assert shares(top_p=0.75) == [0, round(4 / 9, 6), round(2 / 9, 6), round(3 / 9, 6)]


def test_top_p_measures_what_top_k_left() -> None:
    """4/7 reaches 0.55 alone. Breaks when the shares are not renormalised between the two."""
    assert shares(top_k=2, top_p=0.55) == [0, 1, 0, 0]


@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=20),
    st.floats(0, 100),
    st.integers(0, 25),
    st.floats(1e-6, 1),
)
@settings(max_examples=200, deadline=None)
def test_always_a_distribution_with_the_most_probable(
    logits: list[float], temperature: float, top_k: int, top_p: float
) -> None:
    """Breaks when a tiny temperature overflows."""
    section = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
    found = probabilities(torch.tensor(logits, dtype=torch.float64), section)
    assert found.sum().item() == pytest.approx(1)
    assert (found >= 0).all()
    kept = [logit for logit, share in zip(logits, found.tolist(), strict=True) if share > 0]
    assert max(kept) >= max(logits) - 1e-9  # nearer ones round to the same share
    if top_k:
        assert int((found > 0).sum()) <= top_k


def test_draws_follow_the_probabilities() -> None:
    """5,000 draws, four standard errors. Breaks when the sums run over sorted shares."""
    section = Sampling(temperature=1.0, top_p=1.0)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.tensor([sample(LOGITS, section, generator) for _ in range(5_000)])
    for token, share in enumerate([0.1, 0.4, 0.2, 0.3]):
        error = math.sqrt(share * (1 - share) / len(drawn))
        assert abs((drawn == token).double().mean().item() - share) < 4 * error


@pytest.mark.parametrize("point", [None, 0.0, 1.0])
def test_an_impossible_token_is_never_drawn(
    monkeypatch: pytest.MonkeyPatch, point: float | None
) -> None:
    """−∞ at either end, and the rarest points. Breaks when the sums are searched from the left."""
    if point is not None:
        monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(point).double())
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf])
    generator = torch.Generator().manual_seed(0)
    section = Sampling(temperature=1.0, top_p=1.0)
    drawn = {sample(logits, section, generator) for _ in range(300)}
    assert drawn == {None: {1, 3}, 0.0: {1}, 1.0: {3}}[point]


def test_greedy_takes_the_first_of_equals_and_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert sample(torch.tensor([1.0, 3.0, 3.0]), Sampling(temperature=0), generator) == 1
    assert torch.equal(generator.get_state(), before)
