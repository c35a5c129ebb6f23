"""The numbers from which every byte of a pass follows, gathered from the recipe.

Axes: B rows of a micro-batch, T tokens of a row, N = B·T, D width, H query heads, G key and value
heads, W features of a head, F hidden features, V vocabulary entries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wellfit.recipe.schema import Model, Recipe

Device = Literal["cpu", "cuda", "mps"]
Precision = Literal["fp32", "tf32", "bf16", "fp16", "fp8"]
BYTES: dict[str, int] = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 2}
"""Precision of the arithmetic → bytes of a number. Masters, gradients and moments are float32."""

# As in `model/attention.py`, `model/scores.py` and `model/kernels.py`; tests hold them equal.
WHOLE_SCORES = 512
BLOCK = 128
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
    recompute: str = "none"
    """Which activations the backward pass computes again, as `train.activation_checkpointing`."""
    native: bool = False
    """Whether the device multiplies bf16 natively; Muon then iterates in it."""

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
        return self.model.kv_heads * self.model.features_per_head

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
    def score_blocks(self) -> list[tuple[int, int]]:
        """Queries and keys of every block of whole scores on a CPU; none elsewhere.

        Soft-capped scores are made in one piece.
        """
        if self.device != "cpu" or not self.whole_scores or self.model.attention_soft_cap:
            return []
        firsts = range(0, self.context, BLOCK)
        ends = [min(first + BLOCK, self.context) for first in firsts]
        return [(end - first, end) for first, end in zip(firsts, ends, strict=True)]

    @property
    def grouped(self) -> bool:
        """Whether several query heads share a key head."""
        return self.model.heads > self.model.kv_heads

    @property
    def mask_bytes(self) -> int:
        """Bytes of the mask that is added to the scores; 0 where the kernel is causal by itself."""
        if self.masked:
            return self.rows * self.context**2 * self.bytes
        capped = self.whole_scores and self.model.attention_soft_cap
        return self.context**2 * self.bytes if capped else 0

    @property
    def chunks(self) -> list[int]:
        """Rows of the first two chunks of logits; later ones need no more than these."""
        rows = max(1, CHUNK_LOGITS // self.vocabulary)
        starts = range(0, self.tokens, rows)[:2]
        return [min(rows, self.tokens - first) for first in starts]


def layout(
    recipe: Recipe,
    vocabulary_size: int,
    *,
    precision: Precision,
    device: Device,
    rows: int = 0,
    native: bool | None = None,
) -> Layout:
    """A recipe and what it runs on → the layout of a micro-batch of `rows` (0: the recipe's).

    Without `native` the device is taken to multiply bf16 where the precision is bf16.
    """
    most = recipe.train.batch_tokens // recipe.model.context
    return Layout(
        model=recipe.model,
        vocabulary=vocabulary_size,
        rows=rows or max(1, min(recipe.train.micro_batch, most)),  # 0 is still open
        bytes=BYTES[precision],
        device=device,
        masked=recipe.train.document_mask,
        recompute=recipe.train.activation_checkpointing,
        native=precision == "bf16" if native is None else native,
    )


def uncounted(recipe: Recipe) -> tuple[str, ...]:
    """A recipe → its settings whose memory is not counted; the bytes are then a rough guide.

    >>> from wellfit.recipe.load import parse_recipe
    >>> plain = {"name": "x", "data": {"sources": [{"path": "t"}]}, "model": {"window": 64}}
    >>> uncounted(parse_recipe(plain | {"train": {"budget": {"steps": 1}}}))
    ('model.window',)
    """
    model, train = recipe.model, recipe.train
    ways = {
        "model.kind": model.kind != "decoder",
        "model.head": model.head != "tokens",
        "model.experts": model.experts.count > 0,
        "model.window": model.window > 0,
        "model.head_width": model.heads * model.features_per_head != model.width,
        "model.post_norm": model.post_norm,
        "model.attention_soft_cap": model.attention_soft_cap > 0,
        "model.rotary_share": model.rotary_share < 1,
        "train.precision": train.precision == "fp8",
        "train.activation_checkpointing": train.activation_checkpointing == "selective",
        "train.activation_offload": train.activation_offload,
        "train.optimizer.states": train.optimizer.states != "device",
        "train.compile": train.compile == "on",
        "train.loss": train.loss is not None,
        "train.label_smoothing": train.label_smoothing > 0,
        "train.z_loss": train.z_loss > 0,
    }
    return tuple(name for name, there in ways.items() if there)
