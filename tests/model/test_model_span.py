"""A span's loss and guesses, against plain cross-entropy over the places of each text."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from wellfit.model.span import best_span, choices, span_guesses, span_losses
from wellfit.records import CANDIDATE, IGNORED


def some_rows(seed: int) -> tuple[Tensor, list[tuple[int, slice, int, int]]]:
    """Labels [3, 60] and their choices: row, places, and the asked places within them."""
    draw = random.Random(seed)
    labels = torch.full((3, 60), IGNORED)
    told = []
    for row in range(3):
        place = draw.randint(1, 4)
        while place < 50:
            count = draw.randint(2, 12)
            here = slice(place, min(60, place + count))
            labels[row, here] = CANDIDATE
            if draw.random() < 0.8:
                begin, end = sorted(draw.sample(range(here.stop - place), 2))
                labels[row, place + begin], labels[row, place + end] = 0, 1
                told.append((row, here, begin, end))
            place = here.stop + draw.randint(1, 5)
    return labels, told


@pytest.mark.parametrize("seed", range(5))
def test_losses_and_gradients_are_cross_entropies(seed: int) -> None:
    """Choices of all lengths in packed rows, some to a row's end, some without a question, with
    scores up to 1e4. Breaks when runs of two rows are one choice, when the largest score is taken
    over the whole batch (small ones then underflow), and when ends are read from the scores of
    beginnings."""
    labels, told = some_rows(seed)
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(3, 60, 2, generator=generator) * 3
    scores[0] *= 1e4
    ours, plain = scores.clone().requires_grad_(), scores.clone().double().requires_grad_()
    losses = span_losses(ours, labels)
    expected = torch.zeros(3, 60, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for row, here, begin, end in told:
        for kind, place in enumerate((begin, end)):
            one = cross_entropy(plain[row, here, kind][None], torch.tensor([place]))
            expected[row, here.start + place] = one.detach()
            total = total + one
    assert torch.allclose(losses.double(), expected, rtol=1e-5, atol=1e-5)
    losses.sum().backward()
    total.backward()
    assert ours.grad is not None and plain.grad is not None
    assert torch.allclose(ours.grad.double(), plain.grad, atol=1e-5)


def test_guesses_are_the_highest_of_their_choice() -> None:
    """Break: compare beginnings with the scores of ends."""
    labels, told = some_rows(7)
    scores = torch.randn(3, 60, 2, generator=torch.Generator().manual_seed(7))
    right = span_guesses(scores, labels) == labels
    for row, here, begin, end in told:
        for kind, place in enumerate((begin, end)):
            best = int(scores[row, here, kind].argmax()) == place
            assert bool(right[row, here.start + place]) == best
    for kind in (0, 1):
        scores[..., kind][labels == kind] += 100
    assert bool((span_guesses(scores, labels) == labels).all())


def test_a_row_without_a_question_costs_nothing() -> None:
    """Not a number, once. Break: do not mask what is infinite."""
    scores = torch.randn(2, 5, 2, requires_grad=True)
    losses = span_losses(scores, torch.full((2, 5), IGNORED))
    losses.sum().backward()
    assert losses.abs().sum() == 0 and scores.grad is not None and not scores.grad.any()


def test_runs_are_numbered_through_the_batch() -> None:
    """Break: begin anew in each row."""
    C, X = CANDIDATE, IGNORED
    labels = torch.tensor([[X, C, 0, X, C, 1], [C, 0, X, X, C, C]])
    inside = labels != X
    assert choices(labels)[inside].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_best_span_ends_behind_its_beginning() -> None:
    """Against all pairs. Break: take both maxima."""
    for seed in range(20):
        scores = torch.randn(9, 2, generator=torch.Generator().manual_seed(seed))
        pairs = [(b, e) for b in range(9) for e in range(b + 1, 9)]
        assert best_span(scores) == max(
            pairs, key=lambda pair: float(scores[pair[0], 0] + scores[pair[1], 1])
        )
