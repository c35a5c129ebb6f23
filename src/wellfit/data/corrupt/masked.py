"""Masked tokens: some are hidden, and the model must say what stood there (arXiv 1810.04805).

Axes: R rows of a batch, C context.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from wellfit.data.batches import Array, Batch, Corrupt
from wellfit.data.corrupt.draws import draws
from wellfit.data.corrupt.marks import Marks
from wellfit.recipe.objective_section import Objective
from wellfit.records import IGNORED


def masking(objective: Objective, marks: Marks, key: tuple[object, ...]) -> Corrupt:
    """An objective, the ids of marks and a key → the function that masks batches.

    Each token of a text is chosen with probability `share`, independently, and at least one of a
    row; separators and padding never are. Of the chosen, `mask_share` become the mask,
    `random_share` another entry of the tokenizer (never a separator or the mask), the rest stay.
    Labels are what stood at the chosen places, IGNORED elsewhere.
    """
    assert marks.mask is not None
    apart = sorted({marks.separator, marks.mask} & set(range(marks.text_size)))

    def masked(batch: Batch, visits: Array) -> Batch:
        tokens = batch.tokens.copy()
        labels = np.full_like(tokens, IGNORED)
        hidden, changed = objective.mask_share, objective.mask_share + objective.random_share
        for row, visit in enumerate(visits.tolist()):
            text = batch.tokens[row]
            can = (text != marks.separator) & (batch.documents[row] >= 0)
            if not can.any():
                continue
            which, how, other = draws("masked", *key, visit, count=3 * len(text)).reshape(3, -1)
            chosen = can & (which < objective.share)
            if not chosen.any():  # else a small batch could have no label at all
                chosen[np.where(can, which, 2.0).argmin()] = True
            labels[row, chosen] = text[chosen]
            ids = (other * (marks.text_size - len(apart))).astype(np.int64)
            for one in apart:
                ids += ids >= one
            tokens[row] = np.where(chosen & (how < hidden), marks.mask, text)
            swapped = chosen & (how >= hidden) & (how < changed)
            tokens[row, swapped] = ids[swapped]
        return replace(batch, tokens=tokens, labels=labels)

    return masked
