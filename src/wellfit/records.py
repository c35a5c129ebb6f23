"""What flows between the rooms: small frozen records, standard library only.

    Document ─▶ Shard ─▶ (batches) ─▶ Proof · Step · Evaluated · Saved · Sampled · Event ─▶ Finding

A `step` is one optimizer step everywhere. Losses are in nats per supervised token.
Non-finite numbers are allowed in a record: hiding a NaN would be the first lie.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

# ── labels ─────────────────────────────────────────────────────────────────────────────────

# What is asked at a place: from 0 on a token, a class, or a side of a span; below 0 nothing.

IGNORED = -100
"""Label of a place that is not supervised, and so not scored."""
CANDIDATE = -1
"""Label of a place where a span might begin or end: one to choose from, no answer by itself."""

# ── documents ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a document stands: a file of a source, and the bytes or the row inside it."""

    path: str
    """Path relative to the root of its source, with forward slashes."""
    start: int
    """First byte in the file (in the decompressed stream for .gz and .zst)."""
    end: int
    """One past the last byte."""
    row: int | None = None
    """Row (Parquet) or line (JSONL), from 0; None where the whole byte range is the document."""
    member: str = ""
    """The column or key that holds the text, or the name of a part of the file."""
    encoding: str = "utf-8"


@dataclass(frozen=True, slots=True)
class Document:
    """One text with its provenance. The `id` depends on source, path and place, never on order."""

    id: str
    text: str
    source: str
    domain: str
    content_type: str
    """`text`, `markdown` or `code`."""
    language: str
    """A natural language (ISO 639-1), or a programming language; `und` where unknown."""
    origin: Origin


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that could not become a document: file, position and reason."""

    source: str
    path: str
    position: str
    """For a person: `line 12`, `byte 4096`, `row 7`."""
    reason: str


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of tokens: `documents[i]` starts at `starts[i]`, counted in tokens of this shard."""

    name: str
    split: str
    tokens: int
    documents: int
    sha256: str


# ── what a training yields ─────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step: loss over all supervised tokens of the global batch."""

    step: int
    """From 1; the record describes the update that was just made."""
    epoch: float
    """Passes over the training rows finished after this step."""
    loss: float
    learning_rate: float
    """The largest rate of any parameter group at this step."""
    grad_norm: float
    """2-norm of the whole gradient before clipping."""
    clipped: bool
    supervised_tokens: int
    """Tokens with a label in this step's batch."""
    tokens: int
    """Supervised tokens since the beginning of the run, this step included."""
    seconds: float
    """Wall time of the step, data included, evaluation and saving excluded."""
    wait_seconds: float
    """Part of `seconds` spent waiting for the batch."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Held-out scores at one step, with standard errors over documents (ratio estimator)."""

    step: int
    split: str
    loss: float
    loss_se: float
    perplexity: float
    bits_per_byte: float | None
    """None where the model predicts only some tokens of a text, or the bytes are unknown: tokens
    made elsewhere without a tokenizer."""
    bits_per_byte_se: float | None
    accuracy: float
    """Share of tokens whose most probable prediction is right."""
    accuracy_se: float
    tokens: int
    bytes: int
    """0 where they are unknown; `bits_per_byte` is then None."""
    documents: int
    seconds: float
    by_domain: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """domain → {loss, bits_per_byte, accuracy, tokens, bytes}"""
    exact: float | None = None
    """Share of examples whose every label is the model's first guess; None for plain texts."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint stands on disk; `sha256` is the digest of the model's weights."""

    step: int
    path: str
    sha256: str
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Sampled:
    """What the model says at this step: a continuation, and its next-token guesses."""

    step: int
    prompt: str
    text: str
    predictions: tuple[tuple[str, float], ...] = ()
    """The most probable next tokens after the prompt, with their probabilities."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the run, such as `started`, `resumed`, `stopped`, `failed`."""

    step: int
    kind: str
    text: str
    data: dict[str, Any] = field(default_factory=dict)


ProofState = Literal["passed", "failed", "not_assessed"]


@dataclass(frozen=True, slots=True)
class Proof:
    """One property of model, batches or optimizer, tested before the step that comes next."""

    step: int
    """Steps made when it was tested; 0 before the first."""
    name: str
    """What is proved, such as `causality`."""
    state: ProofState
    text: str
    """What was found, or why it could not be assessed."""
    data: dict[str, Any] = field(default_factory=dict)
    """What was measured; where it failed also `fault`, the kind of the finding."""


Record = Step | Evaluated | Saved | Sampled | Event | Proof


@dataclass(frozen=True, slots=True)
class Request:
    """What a listener asks of the loop; acted on at the next step boundary."""

    kind: Literal["stop"]
    reason: str


# ── findings ───────────────────────────────────────────────────────────────────────────────

Severity = Literal["info", "warning", "critical"]
Certainty = Literal["certain", "likely", "possible"]


@dataclass(frozen=True, slots=True)
class Cause:
    """A possible cause by catalogue id (such as `O01`), with a likelihood in 0–1 and the reason."""

    id: str
    likelihood: float
    why: str


@dataclass(frozen=True, slots=True)
class Change:
    """One concrete change: a sentence, and a recipe patch `{"train.clip_norm": 1.0}`."""

    text: str
    patch: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """What a rule saw, since when, how sure it is, why it thinks so, and what to change."""

    kind: str
    severity: Severity
    certainty: Certainty
    since_step: int | None
    evidence: tuple[str, ...]
    causes: tuple[Cause, ...] = ()
    change: Change | None = None
