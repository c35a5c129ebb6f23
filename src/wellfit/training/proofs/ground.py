"""What every proof works with: a few rows, ways to read them, and how far readings may differ.

Axes: R rows, T tokens of a row, D width, V vocabulary entries, K places of a row whose logits
are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wellfit.records import ProofState

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from wellfit.data.batches import Batch
    from wellfit.model.protocol import Beside, LanguageModel, Source
    from wellfit.training.optimizers import Optimizers

SAME_SHAPE = 1e-5
"""Relative difference below which two passes of the same shape count as equal. The kernels are the
same, so equal inputs give equal bits; only a sum over all tokens (a convolution by Fourier
transform) lets other tokens move the last bits: a few units of float32, 1.2e-7 each."""
OTHER_SHAPE = {"float64": 1e-9, "float32": 5e-4, "float16": 2e-2, "bfloat16": 1e-1}
"""The same for passes of another shape, by the precision of the features: another shape is summed
in another order, and every layer carries the rounding on. About 2¹² units of float32 and 2⁴ of
the 16-bit formats. A real fault moves logits by a tenth of their size and more."""
LOGIT_NUMBERS = 1 << 22
"""Most logits that a reading keeps: 16 MiB in float32."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a proof came to."""

    state: ProofState
    text: str
    data: dict[str, Any] = field(default_factory=dict)


def passed(text: str, **data: Any) -> Answer:
    """A sentence and figures in; the answer of a proof that holds out."""
    return Answer("passed", text, data)


def failed(fault: str, text: str, **data: Any) -> Answer:
    """The fault's kind (see `diagnosis.rules.failed_proof`), a sentence and figures in."""
    return Answer("failed", text, {"fault": fault, **data})


def not_assessed(text: str, **data: Any) -> Answer:
    """The reason in; the answer of a proof that could not be made out."""
    return Answer("not_assessed", text, data)


class UnsettledError(Exception):
    """A proof cannot be made; the message says why."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a model says about some rows: features [R, T, D], logits [R, K, V], both float32."""

    hidden: Tensor
    logits: Tensor
    places: Tensor
    """The K places of the logits."""
    dtype: torch.dtype
    """The precision of the features."""


@dataclass(frozen=True)
class Ground:
    """A model and a few rows of its next batch, on its device."""

    model: LanguageModel
    optimizers: Optimizers | None
    batches: tuple[Batch, ...]
    tokens: Tensor
    """[R, T]"""
    labels: Tensor
    positions: Tensor
    segments: Tensor
    vocabulary: int
    """Entries that tokens have."""
    outputs: int
    """Logits of a place: as many, or those of a head for something else."""
    seed: int
    step: int
    fresh: bool
    """Weights are as they were drawn: no step has been made, and they come from nowhere else."""
    document_mask: bool
    separator: int | None
    separated: bool = True
    """Whether a separator stands only where a document begins."""
    source: Source | None = None
    """What the rows are made from, of an encoder-decoder: ids, positions, segments [R, S]."""
    scan: dict[int, float] = field(default_factory=dict)
    """Offset → cross-entropy of the weights' own logits against the tokens there."""
    known: dict[tuple[bool, str], Reading] = field(default_factory=dict)
    """What `trained` has read already."""

    @property
    def rows(self) -> int:
        """R"""
        return int(self.tokens.shape[0])

    @property
    def length(self) -> int:
        """T"""
        return int(self.tokens.shape[1])

    @property
    def places(self) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Positions and segments as training passes them; both None without a document mask."""
        return (self.positions, self.segments) if self.document_mask else (None, None)

    def read(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        *,
        training: bool = False,
        key: int = 0,
        source: Source | None = None,
    ) -> Reading:
        """Tokens [R, T] in; features and logits out, without gradients, in the mode asked for.

        The source is the rows' own where none is given.
        """
        import torch

        self.model.train(training)
        # Training counts its steps from 1: the key of step 0 is nobody else's.
        self.model.dropout_key(self.seed, 0, key)
        with torch.no_grad():
            more: Beside = {"source": source} if source else {}
            more = more or self.beside(tokens, packed=segments is not None)
            hidden = self.model.hidden(tokens, positions, segments, **more)
            return self.reading(hidden)

    def beside(self, tokens: Tensor, *, packed: bool) -> Beside:
        """Tokens of the first rows in; what `hidden` reads beside them out: often nothing."""
        if self.source is None:
            return {}
        rows = tokens.shape[0]
        ids, positions, segments = self.source
        if not packed or positions is None or segments is None:
            return {"source": (ids[:rows], None, None)}
        return {"source": (ids[:rows], positions[:rows], segments[:rows])}

    def losses(self, labels: Tensor) -> tuple[Reading, Tensor]:
        """Labels [R, T] in; the reading in evaluation mode and the losses [R, T], nats, out."""
        import torch

        self.model.train(False)
        self.model.dropout_key(self.seed, 0, 0)
        with torch.no_grad():
            more = self.beside(self.tokens, packed=self.document_mask)
            hidden = self.model.hidden(self.tokens, *self.places, **more)
            return self.reading(hidden), self.model.token_loss(hidden, labels).float()

    def trained(self, *, packed: bool, again: bool = False) -> Reading:
        """The rows as training reads them, with their documents or each as one, kept for all.

        `again` reads them once more, for the proofs that ask whether that gives the same.
        """
        places = (self.positions, self.segments) if packed else (None, None)
        which = packed, str(self.model.compute_dtype)
        if again or which not in self.known:
            reading = self.read(self.tokens, *places, training=True)
            if again:
                return reading
            self.known[which] = reading
        return self.known[which]

    def reading(self, hidden: Tensor) -> Reading:
        """Features [R, T, D] in; the reading with the logits of evenly spread places out."""
        import torch

        rows, length = hidden.shape[:2]
        count = max(1, min(length, LOGIT_NUMBERS // (rows * self.outputs)))
        places = torch.linspace(0, length - 1, count, device=hidden.device).round().long()
        with torch.no_grad():
            logits = self.model.logits(hidden if count == length else hidden[:, places])
        return Reading(hidden.detach().float(), logits.float(), places, hidden.dtype)

    def other_tokens(self, tokens: Tensor, salt: int) -> Tensor:
        """Tokens in; others out, each one different from the one that stood there."""
        import torch

        generator = torch.Generator().manual_seed(self.seed * 1_000_003 % 2**62 + salt)
        shift = torch.randint(1, max(2, self.vocabulary), tuple(tokens.shape), generator=generator)
        return (tokens + shift.to(tokens.device)) % self.vocabulary


def gap(one: Reading, other: Reading, where: Tensor) -> float:
    """Two readings and a mask [R, T] in; the largest difference there, relative, out.

    Features and logits are each measured by their own largest value; the larger one counts.
    Raises UnsettledError where a number is not finite.
    """
    largest = 0.0
    for left, right, mask in (
        (one.hidden, other.hidden, where),
        (one.logits, other.logits, where[:, one.places]),
    ):
        if not mask.any():
            continue
        left, right = left[mask], right[mask]
        scale = float(left.abs().max())
        difference = float((left - right).abs().max())
        if not (scale < float("inf") and difference < float("inf")):
            raise UnsettledError("features or logits are not finite")
        largest = max(largest, difference / scale if scale else float(difference > 0))
    return largest


def compared(
    ground: Ground,
    base: Callable[[bool], Reading],
    changed: Callable[[], Reading],
    where: Tensor,
) -> tuple[float, float]:
    """Two ways of reading the same shape and a mask [R, T] in; the gap there and what is allowed.

    `base(True)` reads anew. Twice the gap of such a repetition is allowed, beside SAME_SHAPE; it
    is only measured where the gap is larger than that. A gap within eight units of a 16-bit
    format is measured again in float32 before anybody is accused: one flipped last bit is worth
    0.4 % there.
    """
    import torch

    def measured() -> tuple[float, float]:
        one = base(False)
        found = gap(one, changed(), where)
        if found <= SAME_SHAPE:
            return found, SAME_SHAPE
        return found, SAME_SHAPE + 2 * gap(one, base(True), where)

    found, allowed = measured()
    dtype = base(False).dtype
    if found > allowed and found <= 8 * torch.finfo(dtype).eps and dtype != torch.float32:
        with in_float32(ground.model):
            found, allowed = measured()
    return found, allowed


def other_shape(reading: Reading) -> float:
    """A reading in; the relative difference allowed to one of another shape out."""
    import torch

    name = str(reading.dtype).removeprefix("torch.")
    loose = OTHER_SHAPE.get(name, OTHER_SHAPE["bfloat16"])
    rounded = reading.hidden.device.type == "cuda" and (
        torch.get_float32_matmul_precision() != "highest"
    )
    # TF32 keeps 10 bits of a product's factors, as float16 does.
    return max(loose, OTHER_SHAPE["float16"]) if rounded else loose


@contextmanager
def in_float32(model: LanguageModel) -> Iterator[None]:
    """A model in; within, its arithmetic is float32, where it heeds `compute_dtype`."""
    import torch

    before = model.compute_dtype
    model.compute_dtype = torch.float32
    try:
        yield
    finally:
        model.compute_dtype = before


def predicts(model: LanguageModel) -> str:
    """A model in; what its logits are of, as it says itself: tokens, classes or a span, out."""
    return str(getattr(model, "predicts", "") or "tokens")


def mixes(model: LanguageModel) -> str:
    """A model in; why its tokens legitimately see others, as it says in `mixes_tokens`, out."""
    return str(getattr(model, "mixes_tokens", "") or "")


def looks_ahead(model: LanguageModel) -> str:
    """A model in; why a token may see later ones of its document, as it says itself, out."""
    return str(getattr(model, "looks_ahead", "") or "")
