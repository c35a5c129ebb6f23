"""The numbers from which every byte of a pass follows, gathered from the recipe.

Axes: B rows of a micro-batch, T tokens of a row, N = B·T, D width, H query heads, G key and value
heads, W features of a head, F hidden features, V vocabulary entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wellfit.recipe.schema import Model, Recipe

Device = Literal["cpu", "cuda", "mps"]
Precision = Literal["fp32", "bf16"]
BYTES: dict[str, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Precision of the arithmetic → bytes of a number. Masters, gradients and moments are float32."""

# As in `model/attention.py` and `model/kernels.py`; tests hold them equal.
WHOLE_SCORES = 512
CHUNK_LOGITS = 2_097_152


@dataclass(frozen=True, slots=True)
class Layout:
    """One micro-batch of one model on one kind of device."""

    model: Model
    vocabulary: int
    """Entries, V."""
    rows: int
    """Of the micro-batch, B."""
    bytes: int
    """Of a number in the arithmetic."""
    device: Device
    masked: bool
    """Rows hold several documents, so that a mask of B·T·T numbers exists."""

    @property
    def context(self) -> int:
        """Tokens of a row, T."""
        return self.model.context

    @property
    def tokens(self) -> int:
        """Tokens of the micro-batch, N."""
        return self.rows * self.model.context

    @property
    def width(self) -> int:
        """Features of a token, D."""
        return self.model.width

    @property
    def hidden(self) -> int:
        """Features inside the feed-forward, F."""
        return self.model.hidden

    @property
    def keys(self) -> int:
        """Features of all key heads, G·W."""
        return self.model.kv_heads * (self.model.width // self.model.heads)

    @property
    def casts(self) -> bool:
        """Whether weights are cast to the arithmetic."""
        return self.bytes < 4

    @property
    def promotes(self) -> bool:
        """Whether an operation on bf16 and float32 first copies to float32, as torch's CPU does."""
        return self.casts and self.device == "cpu"

    @property
    def whole_scores(self) -> bool:
        """Whether attention makes its B·H·T·T scores instead of tiling them.

        On CPUs up to `WHOLE_SCORES` keys. On CUDA no tiling kernel takes a mask together with
        grouped queries, and torch falls back to whole scores.
        """
        if self.device == "cpu":
            return self.model.context <= WHOLE_SCORES
        return self.masked and self.model.kv_heads < self.model.heads

    @property
    def mask_bytes(self) -> int:
        """Bytes of the mask that is added to the scores; 0 where the kernel is causal by itself."""
        if self.masked:
            return self.rows * self.context**2 * self.bytes
        return self.context**2 * self.bytes if self.device == "cpu" and self.whole_scores else 0

    @property
    def chunks(self) -> list[int]:
        """Rows of the first two chunks of logits; later ones need no more than these."""
        rows = max(1, CHUNK_LOGITS // self.vocabulary)
        starts = range(0, self.tokens, rows)[:2]
        return [min(rows, self.tokens - first) for first in starts]


def layout(
    recipe: Recipe, vocabulary_size: int, *, precision: Precision, device: Device, rows: int = 0
) -> Layout:
    """A recipe and what it runs on → the layout of a micro-batch of `rows` (0: the recipe's)."""
    most = recipe.train.batch_tokens // recipe.model.context
    return Layout(
        model=recipe.model,
        vocabulary=vocabulary_size,
        rows=rows or min(recipe.train.micro_batch, most),
        bytes=BYTES[precision],
        device=device,
        masked=recipe.train.document_mask,
    )
