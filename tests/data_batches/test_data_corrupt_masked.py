"""Masked tokens: how many, which, what stands there instead, and that it follows from a key."""

from __future__ import annotations

import numpy as np
import pytest
from corrupt_parts import SEPARATOR, SIZE, packed

from wellfit.data.batches import ARRAYS, Batch
from wellfit.data.corrupt.marks import Marks, marks
from wellfit.data.corrupt.masked import masking
from wellfit.recipe.schema import Objective
from wellfit.records import IGNORED

MARKS = marks("encoder", {}, SIZE, SEPARATOR)
KEY = (3, "digest")


def same(one: Batch, other: Batch) -> bool:
    return all(np.array_equal(getattr(one, n), getattr(other, n)) for n in ARRAYS)


def within(count: int, of: int, chance: float, deviations: float = 5.0) -> bool:
    """Whether a count is one that a binomial distribution gives, but once in two million cases."""
    return abs(count - of * chance) <= deviations * (of * chance * (1 - chance)) ** 0.5


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_shares_are_those_asked_for(share: float) -> None:
    """Chosen, masked, swapped and kept, each as often as a binomial draw would be.

    Breaks tried: `random_share` taken of all tokens; the draw that chooses a token used again for
    what becomes of it (all that is kept then has a high draw: none).
    """
    objective = Objective(share=share, mask_share=0.7, random_share=0.2)
    before = packed(400, 128, ends=0.02)
    after = masking(objective, MARKS, KEY)(before, np.arange(400))
    text = before.tokens != SEPARATOR
    chosen = after.labels != IGNORED
    count = int(chosen.sum())
    assert not (chosen & ~text).any(), "a separator is never chosen"
    assert within(count, int(text.sum()), share)
    assert np.array_equal(after.labels[chosen], before.tokens[chosen])
    assert np.array_equal(after.tokens[~chosen], before.tokens[~chosen])
    masked = int((after.tokens[chosen] == MARKS.mask).sum())
    kept = int((after.tokens[chosen] == before.tokens[chosen]).sum())
    assert within(masked, count, 0.7)
    # One of 299 swaps gives the same token again.
    assert within(kept, count, 0.1 + 0.2 / 299)
    swapped = after.tokens[chosen & (after.tokens != MARKS.mask) & (after.tokens != before.tokens)]
    assert SEPARATOR not in swapped and swapped.min() == 1 and swapped.max() == SIZE - 1
    assert within(int((swapped <= 149).sum()), len(swapped), 149 / 299)
    for name in ("positions", "segments", "documents"):
        assert np.array_equal(getattr(after, name), getattr(before, name))


def test_each_place_is_chosen_as_often_as_any_other() -> None:
    """And neighbours independently. Break tried: one draw for a whole row."""
    before = packed(4000, 16, ends=0.0)
    chosen = masking(Objective(), MARKS, KEY)(before, np.arange(4000)).labels != IGNORED
    # A row without any gets one, which adds 0.85¹⁶ / 16 to each place.
    chance = 0.15 + 0.85**16 / 16
    assert all(within(int(chosen[:, place].sum()), 4000, chance) for place in range(16))
    both = int((chosen[:, :-1] & chosen[:, 1:]).sum())
    assert within(both, 4000 * 15, 0.15**2)


def test_what_is_hidden_follows_from_key_visit_and_place() -> None:
    """Not from the other rows of a batch; another visit, seed or corpus hides something else.

    Breaks tried: draw by the row's place in the batch; leave the visit out of the name.
    """
    before, corrupt = packed(6, 64, ends=0.05), masking(Objective(), MARKS, KEY)
    visits = np.array([4, 9, 2, 70, 1, 5])
    whole = corrupt(before, visits)
    assert same(whole, corrupt(before, visits))
    for row in range(6):
        rows = slice(row, row + 1)
        assert same(whole.part(rows), corrupt(before.part(rows), visits[rows]))
    for other in (
        corrupt(before, visits + 100),
        masking(Objective(), MARKS, (4, "digest"))(before, visits),
        masking(Objective(), MARKS, (3, "other"))(before, visits),
    ):
        assert ((other.labels != whole.labels).sum(axis=1) > 0).all()


@pytest.mark.parametrize("padding", [0, 5, 15])
def test_every_row_with_text_has_a_label_and_padding_has_none(padding: int) -> None:
    """At a share that would leave most rows without. Break tried: choose among all places."""
    before = packed(200, 16, ends=0.3, padding=padding)
    after = masking(Objective(share=0.001), MARKS, KEY)(before, np.arange(200))
    chosen = after.labels != IGNORED
    can = (before.tokens != SEPARATOR) & (before.documents >= 0)
    assert np.array_equal(chosen.any(axis=1), can.any(axis=1))
    assert not (chosen & ~can).any()


def test_a_mask_of_the_tokenizers_own_is_never_put_in_by_chance() -> None:
    """Break tried: leave only the separator out of the swaps."""
    own = Marks(SIZE, SEPARATOR, SIZE, mask=8)
    before = packed(300, 64, ends=0.0)
    before.tokens[before.tokens == 8] = 9
    swap = masking(Objective(mask_share=0, random_share=1), own, KEY)
    after = swap(before, np.arange(300)).tokens
    assert 8 not in after and SEPARATOR not in after
    assert {7, 9, SIZE - 1} <= set(after.flatten().tolist())
