"""What a model must offer to be trained, evaluated and sampled here.

Axes: B rows, T tokens of a row, D width, V vocabulary entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias, TypedDict, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

    from wellfit.model.cache import Cache
    from wellfit.recipe.schema import Role


Source: TypeAlias = "tuple[Tensor, Tensor | None, Tensor | None]"
"""What an encoder-decoder reads: ids [B, S], and their positions and segments [B, S] or None."""


class Beside(TypedDict, total=False):
    """What `hidden` is given beside tokens and their places: nothing, but to an encoder-decoder."""

    source: Source


@runtime_checkable
class LanguageModel(Protocol):
    """Tokens → logits → loss. All tensors are batch-first.

    `training` and `train()` are those of `torch.nn.Module`, as are the parameters. Weights stay
    in their own (master) precision; `compute_dtype` is the precision of the arithmetic.
    """

    training: bool
    compute_dtype: torch.dtype

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: Cache | None = None,
        source: Source | None = None,
    ) -> Tensor:
        """Token ids [B, T] → features [B, T, D] in `compute_dtype`.

        `positions` [B, T] count from 0 within a document; `segments` [B, T] number the documents
        of a row, and a token sees only its own. None means: each row is one document from 0 on.
        With a `cache`, the tokens follow those already in it. Only an encoder-decoder is given a
        `source`; a token reads the source's segment of its own number, and a cache keeps it.
        """
        ...

    def token_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Features [B, T, D], labels [B, T] → nats [B, T] in float32; 0 where the label is −100."""
        ...

    def token_objective(
        self,
        hidden: Tensor,
        labels: Tensor,
        *,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """Features [B, T, D], labels [B, T] → two times [B, T] in float32: losses and extra.

        The losses are those of `token_loss`, bit for bit, and are what is reported; minimised is
        their sum with the extra, which label smoothing and z-loss bring: 0 without them and where
        the label is −100.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Features [..., D] → logits [..., V] in float32, soft-capped."""
        ...

    def auxiliary_loss(self) -> Tensor:
        """What the last forward pass adds to the loss, a scalar in nats; 0 for a dense model."""
        ...

    def roles(self) -> dict[str, Role]:
        """Parameter name → role (embedding, position, matrix, router, norm, bias or head)."""
        ...

    def dropout_key(self, seed: int, step: int, first_row: int) -> None:
        """Make dropout a pure function of these three, until the next call.

        `first_row` is the place of the next rows in the batch. What a row drops should depend on
        its own place alone, so that a batch may be cut anyhow.
        """
        ...

    def new_cache(self) -> Cache:
        """An empty cache for one row; its `capacity` is the context of the model.

        Raises NotImplementedError where there is nothing to write on, as in an encoder.
        """
        ...

    def train(self, mode: bool = True) -> object:
        """Switch dropout on (True) or off."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Every trained tensor with its name; a tied matrix comes once."""
        ...
