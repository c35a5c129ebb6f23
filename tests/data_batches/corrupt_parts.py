"""Rows of documents as `Rows` packs them, made from a seed."""

from __future__ import annotations

import numpy as np

from wellfit.data.batches import Batch

SEPARATOR, SIZE = 0, 300


def packed(rows: int, context: int, ends: float, seed: int = 0, padding: int = 0) -> Batch:
    """Rows of `context` tokens, a share `ends` of them separators; padding behind the last row."""
    draw = np.random.RandomState(seed)
    tokens = draw.randint(1, SIZE, (rows, context))
    tokens[draw.random_sample(tokens.shape) < ends] = SEPARATOR
    begins = tokens == SEPARATOR
    padded = np.zeros(tokens.shape, bool)
    if padding:
        padded[-1, -padding:] = True
        tokens[-1, -padding:] = SEPARATOR
        begins[-1, -padding:] = False
        begins[-1, -padding] = True
    begins[:, 0] = True
    segments = begins.cumsum(axis=1) - 1
    columns = np.arange(context)
    positions = columns - np.maximum.accumulate(np.where(begins, columns, 0), axis=1)
    documents = np.where(padded, -1, segments + 7)
    return Batch(tokens, tokens.copy(), positions, segments, documents)
