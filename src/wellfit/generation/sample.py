"""Logits → one token.

Axes: B rows, V vocabulary entries.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wellfit.errors import RunError
from wellfit.recipe.schema import Sampling

# A nucleus seldom has more tokens than this; finding so many of the largest is quicker than
# sorting all of them.
NUCLEUS = 512


def penalised(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Logits [V], which ids have stood so far [V], a penalty → logits [V].

    A positive logit of an id that stood is divided by the penalty and a negative one multiplied
    by it (arXiv 1909.05858, section 4.1, and for negative ones as in `transformers`).

    >>> penalised(torch.tensor([2.0, -2.0, 2.0]), torch.tensor([True, True, False]), 2.0).tolist()
    [1.0, -4.0, 2.0]
    """
    less = torch.where(logits < 0, logits * penalty, logits / penalty)
    return torch.where(seen, less, logits)


def greedy(logits: Tensor) -> list[int]:
    """Logits [B, V] → the id of the largest of each row, the first of equals.

    Raises RunError where that is not a finite number, as with any NaN in the row.

    >>> greedy(torch.tensor([[0.0, 1.0, 1.0]]))
    [1]
    """
    best = logits.argmax(dim=-1, keepdim=True)
    if not all(map(math.isfinite, logits.gather(-1, best)[:, 0].tolist())):
        _refuse()
    found: list[int] = best[:, 0].tolist()
    return found


def probabilities(logits: Tensor, section: Sampling) -> Tensor:
    """Logits [V] → probabilities [V] in float64 that a token is drawn with; they sum to 1.

    Temperature first, then the `top_k` most probable, then the smallest set of those whose mass
    reaches `top_p` (nucleus sampling, arXiv 1904.09751), then those of it at least `min_p` times
    as probable as the likeliest (arXiv 2407.01082). Temperature 0 puts all on the largest logit,
    the first of equals. Raises RunError where a logit is NaN or +∞.

    >>> probabilities(torch.tensor([0.0, 1.0, 1.0]), Sampling(temperature=0)).tolist()
    [0.0, 1.0, 0.0]
    """
    logits = logits.detach().cpu().double()
    if torch.isnan(logits).any() or (logits == torch.inf).any():
        _refuse()
    if section.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).double()
    # Shifted first: a tiny temperature then drives the others to −∞ instead of overflowing.
    shares = torch.softmax((logits - logits.max()) / section.temperature, dim=0)
    if section.top_k or section.top_p < 1:
        shares = _largest(shares, section.top_k, section.top_p)
    if section.min_p:
        shares = shares.masked_fill(shares < section.min_p * shares.max(), 0)
        shares = shares / shares.sum()
    return shares


def _largest(shares: Tensor, top_k: int, top_p: float) -> Tensor:
    """Probabilities [V] → those of the `top_k` largest and of these the nucleus, to sum 1."""
    for count in (NUCLEUS, len(shares)):
        if count >= len(shares):
            ordered, order = shares.sort(descending=True, stable=True)
        else:
            ordered, order = _first_of_equals(*shares.topk(count))
        kept = ordered.clone()
        if top_k:
            kept[top_k:] = 0
            kept /= kept.sum()
        before = kept.cumsum(0) - kept
        # The first token always stays; `before` can exceed a tiny top_p only after it.
        kept[1:][before[1:] >= top_p] = 0
        # Of equals at the border of the largest so many, topk may have taken any.
        if count >= len(shares) or bool(ordered[kept > 0][-1] > ordered[-1]):
            break
    return torch.zeros_like(shares).scatter(0, order, kept / kept.sum())


def _first_of_equals(values: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Values in falling order and their ids → the same, ids of equal values rising."""
    by_id = ids.argsort()
    ordered, order = values[by_id].sort(descending=True, stable=True)
    return ordered, ids[by_id][order]


def sample(logits: Tensor, section: Sampling, generator: torch.Generator) -> int:
    """Logits [V] and a CPU generator → the id of one token; greedy leaves the generator alone."""
    shares = probabilities(logits, section)
    if section.temperature == 0:
        return int(shares.argmax())
    # By inversion: one uniform number a token, whatever the device and the vocabulary.
    sums = shares.cumsum(0)
    point = torch.rand((), generator=generator, dtype=torch.float64) * sums[-1]
    index = int(torch.searchsorted(sums, point, right=True))
    # Rounding may place the point on the total itself; the last possible token owns it.
    return min(index, int(shares.nonzero()[-1]))


def _refuse() -> None:
    raise RunError(
        "the model's logits are not finite",
        where="generate",
        way_out="Its weights are broken, most likely by a diverged training: "
        "take an earlier checkpoint.",
    )
