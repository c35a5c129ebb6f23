"""Logits → one token.

Axis: V vocabulary entries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wellfit.errors import RunError
from wellfit.recipe.schema import Sampling


def probabilities(logits: Tensor, section: Sampling) -> Tensor:
    """Logits [V] → probabilities [V] in float64 that a token is drawn with; they sum to 1.

    Temperature first, then the `top_k` most probable, then the smallest set of those whose mass
    reaches `top_p` (nucleus sampling, arXiv 1904.09751). Temperature 0 puts all on the largest
    logit, the first of equals. Raises RunError where a logit is NaN or +∞.

    >>> probabilities(torch.tensor([0.0, 1.0, 1.0]), Sampling(temperature=0)).tolist()
    [0.0, 1.0, 0.0]
    """
    logits = logits.detach().cpu().double()
    if torch.isnan(logits).any() or (logits == torch.inf).any():
        raise RunError(
            "the model's logits are not finite",
            where="generate",
            way_out="Its weights are broken, most likely by a diverged training: "
            "take an earlier checkpoint.",
        )
    if section.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(), len(logits)).double()
    # Shifted first: a tiny temperature then drives the others to −∞ instead of overflowing.
    shares = torch.softmax((logits - logits.max()) / section.temperature, dim=0)
    ordered, order = shares.sort(descending=True, stable=True)
    if section.top_k:
        ordered[section.top_k :] = 0
        ordered /= ordered.sum()
    before = ordered.cumsum(0) - ordered
    # The first token always stays; `before` can exceed a tiny top_p only after it.
    ordered[1:][before[1:] >= section.top_p] = 0
    return torch.zeros_like(shares).scatter(0, order, ordered / ordered.sum())


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
