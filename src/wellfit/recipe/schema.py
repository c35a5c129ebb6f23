"""What a run is: every setting with a sentence, its unit and its limits.

Each room reads only its own section: `data`, `model`, `train`, `evaluate`, `monitor`.
All values are concrete. The dial `model.size` fills what a recipe leaves out *before* these
classes see it (see `sizes.py`), so nothing here means "decide for me" except where a sentence
says so. The only library used is pydantic, and only in this room.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

Share = Annotated[float, Field(ge=0, le=1)]
Size = Literal["nano", "micro", "mini", "small", "base", "1b", "3b", "7b"]
Role = Literal["embedding", "position", "matrix", "norm", "bias", "head"]


class Section(BaseModel):
    """A part of a recipe: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Call(Section):
    """A function named in a recipe: `too_short`, `{too_short: {…}}` or `module:function`."""

    name: str = Field(description="Short name of a built-in, or package.module:function.")
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments, checked against the signature."
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and len(value) == 1 and "name" not in value:
            ((name, arguments),) = value.items()
            return {"name": name, "arguments": {} if arguments is None else arguments}
        return value


# ── data ───────────────────────────────────────────────────────────────────────────────────


class Source(Section):
    """Where documents come from."""

    path: str = Field(
        min_length=1,
        description="A file, a folder, a glob, or the built-in source `python-stdlib`.",
    )
    format: Literal["auto", "text", "markdown", "code", "jsonl", "parquet"] = Field(
        "auto", description="How files are read; `auto` decides by the file's name."
    )
    domain: str = Field("", description="Domain of its documents; empty takes the reader's guess.")
    text_field: str = Field(
        "text", min_length=1, description="Column (Parquet) or key (JSONL) that holds the text."
    )


class Duplicates(Section):
    """Which repeated documents are dropped."""

    exact: bool = Field(True, description="Drop documents whose cleaned text is the same.")
    near: bool = Field(True, description="Drop documents that are nearly the same (verified).")
    threshold: float = Field(
        0.8, gt=0, le=1, description="Jaccard similarity of word shingles from which two are near."
    )
    shingle_words: int = Field(5, ge=1, le=50, description="Words in a shingle.")
    max_removed_share: Share = Field(
        0.5, description="Largest share of one source's documents that near duplicates may remove."
    )


class Split(Section):
    """What is held out. Near-duplicate families stay on one side; the hash of the text decides."""

    validation: Share = Field(0.06, description="Share of the bytes for validation.")
    test: Share = Field(0.04, description="Share of the bytes for the final test.")
    family_threshold: float = Field(
        0.5, gt=0, le=1, description="Jaccard similarity from which documents stay together."
    )

    @model_validator(mode="after")
    def _something_left(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} + test {self.test} leave nothing to train on"
            )
        return self


class Tokenizer(Section):
    """How text becomes tokens."""

    file: str = Field(
        "",
        description="A `tokenizer.json` to use; empty trains a byte-level BPE on the train split.",
    )
    vocabulary_size: int = Field(
        4096, ge=257, le=1_000_000, description="Entries to learn; unused when `file` is given."
    )


class Data(Section):
    """Documents → shards."""

    sources: tuple[Source, ...] = Field(min_length=1, description="Where documents come from.")
    folder: str = Field(
        "", description="The corpus folder; empty means `corpora/NAME` in the current folder."
    )
    clean: tuple[Call, ...] = Field(
        (Call(name="unicode"),), description="Cleaners, applied in order; they fix the text."
    )
    filters: tuple[Call, ...] = Field(
        (Call(name="too_short"), Call(name="repetitive"), Call(name="mostly_non_text")),
        description="Filters; each gives a reason to drop a document, or none.",
    )
    duplicates: Duplicates = Field(Duplicates(), description="Which repeated documents go.")
    split: Split = Field(Split(), description="What is held out.")
    tokenizer: Tokenizer = Field(Tokenizer(), description="How text becomes tokens.")
    max_rejected_share: Share = Field(
        0.2, description="The build stops when more than this share of records cannot be read."
    )
    workers: int = Field(
        0, ge=0, le=1024, description="Processes of the build; 0 takes one a core, 1 works inline."
    )


# ── model ──────────────────────────────────────────────────────────────────────────────────


class Model(Section):
    """A decoder-only transformer, from its parts."""

    size: Size = Field("nano", description="The dial: sets every number left out below.")
    context: int = Field(ge=8, le=1_048_576, description="Tokens in a training sequence.")
    layers: int = Field(ge=1, le=512, description="Blocks.")
    width: int = Field(ge=8, le=65_536, description="Features of a token between blocks.")
    heads: int = Field(ge=1, le=512, description="Query heads; `width / heads` features each.")
    kv_heads: int = Field(ge=1, le=512, description="Key and value heads; divides `heads`.")
    hidden: int = Field(ge=8, le=1_048_576, description="Features inside the feed-forward.")
    position: Literal["rotary", "learned"] = Field("rotary", description="How order is told.")
    rope_base: float = Field(10_000.0, gt=1, description="Base of the rotary frequencies.")
    norm: Literal["rmsnorm", "layernorm"] = Field("rmsnorm", description="Normalisation.")
    norm_epsilon: float = Field(1e-5, gt=0, lt=1, description="Added to the mean square.")
    activation: Literal["swiglu", "gelu", "gelu_tanh", "relu2"] = Field(
        "swiglu", description="Non-linearity of the feed-forward."
    )
    bias: bool = Field(False, description="Biases on linear layers (and LayerNorm).")
    qk_norm: bool = Field(True, description="RMSNorm on queries and keys, per head.")
    tie_embeddings: bool = Field(False, description="One matrix for embedding and head.")
    logit_soft_cap: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Logits pass cap·tanh(logit/cap); 0 leaves them as they are.",
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of activations dropped in training.")
    init: Literal["scaled_normal", "zero_projections"] = Field(
        "zero_projections",
        description="`scaled_normal`: GPT-2's 0.02, projections into the residual stream "
        "/√(2·layers); `zero_projections`: variance-preserving, those projections and the head "
        "start at zero.",
    )

    @model_validator(mode="after")
    def _shapes_fit(self) -> Model:
        if self.width % self.heads:
            near = min(
                (h for h in range(1, self.width + 1) if self.width % h == 0),
                key=lambda h: abs(h - self.heads),
            )
            raise ValueError(
                f"width {self.width} is not a multiple of heads {self.heads}; try heads {near}"
            )
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.kv_heads}")
        if self.position == "rotary" and (self.width // self.heads) % 2:
            raise ValueError(
                f"rotary positions need an even head width, not {self.width // self.heads}"
            )
        return self


# ── train ──────────────────────────────────────────────────────────────────────────────────


class Budget(Section):
    """How long to train: exactly one of the four."""

    steps: int | None = Field(None, ge=1, description="Optimizer steps.")
    tokens: int | None = Field(None, ge=1, description="Tokens, rounded up to whole steps.")
    epochs: float | None = Field(None, gt=0, description="Passes over the training rows.")
    minutes: float | None = Field(
        None, gt=0, description="Wall time of training; calibration makes it a step count."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Budget:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            listed = " and ".join(given) if given else "none"
            raise ValueError(f"give exactly one of steps, tokens, epochs, minutes; here {listed}")
        return self


class AdamW(Section):
    """AdamW with decoupled weight decay (arXiv 1711.05101)."""

    kind: Literal["adamw"] = Field("adamw", description="This optimizer.")
    learning_rate: float = Field(gt=0, description="Peak rate.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the mean gradient.")
    beta2: float = Field(0.95, ge=0, lt=1, description="Decay of the mean squared gradient.")
    epsilon: float = Field(1e-8, gt=0, description="Added to the root of the mean square.")
    weight_decay: float = Field(
        0.1,
        ge=0,
        description="Decoupled decay of matrices and the head; never norms, biases, embeddings.",
    )


class Muon(Section):
    """Muon for matrices (orthogonalised momentum); AdamW for embeddings, norms, biases and head."""

    kind: Literal["muon"] = Field("muon", description="This optimizer.")
    matrix_learning_rate: float = Field(gt=0, description="Peak rate of the matrices.")
    learning_rate: float = Field(gt=0, description="Peak rate of everything else (AdamW).")
    momentum: float = Field(0.95, ge=0, lt=1, description="Momentum of the matrices (Nesterov).")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW: decay of the mean gradient.")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW: decay of the mean squared gradient.")
    epsilon: float = Field(1e-10, gt=0, description="AdamW: added to the root of the mean square.")
    weight_decay: float = Field(0.0, ge=0, description="Decoupled decay of matrices and the head.")


Optimizer = Annotated[AdamW | Muon, Field(discriminator="kind")]


class Schedule(Section):
    """The learning rate over the run, as a share of the peak."""

    kind: Literal["linear", "cosine", "wsd"] = Field(
        "wsd", description="Shape after warm-up; `wsd` holds the peak, then falls linearly."
    )
    warmup: float = Field(
        0.02, ge=0, description="Warm-up: a share of all steps if below 1, else a number of steps."
    )
    decay_share: float = Field(
        0.7, gt=0, le=1, description="wsd: share of all steps, at the end, in which the rate falls."
    )
    final_share: Share = Field(0.0, description="Rate of the last step as a share of the peak.")


class Train(Section):
    """Batches + model → steps."""

    budget: Budget = Field(description="How long to train.")
    batch_tokens: int = Field(
        ge=8, description="Tokens of one step over all micro-batches; a multiple of model.context."
    )
    micro_batch: int = Field(
        ge=1, description="Sequences in one forward and backward pass; the last may be smaller."
    )
    optimizer: Optimizer = Field(description="How gradients become updates.")
    schedule: Schedule = Field(Schedule(), description="The rate over the run.")
    clip_norm: float = Field(
        1.0,
        ge=0,
        description="Gradients with a larger 2-norm are scaled down to it; 0 turns it off.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto",
        description="Arithmetic of the matrices; `auto` takes bf16 where the device multiplies it "
        "natively.",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where to train; `auto` takes cuda, then mps, then cpu."
    )
    document_mask: bool = Field(
        True, description="Tokens attend only to their own document, and positions restart there."
    )
    checkpoint_every: int = Field(
        100, ge=1, description="Steps between checkpoints; the last step is always saved."
    )
    keep_checkpoints: int = Field(2, ge=1, description="Newest checkpoints to keep.")
    threads: int = Field(0, ge=0, le=4096, description="CPU threads; 0 takes one a core.")


# ── evaluate and monitor ───────────────────────────────────────────────────────────────────


class Evaluate(Section):
    """Held-out scores."""

    every: int = Field(100, ge=1, description="Steps between validations; also at the last step.")
    tokens: int = Field(
        65_536, ge=0, description="Validation tokens used during training; 0 takes all of them."
    )


class Sampling(Section):
    """How a continuation is drawn."""

    tokens: int = Field(64, ge=1, le=100_000, description="New tokens.")
    temperature: float = Field(0.8, ge=0, le=100, description="Sharpness; 0 is greedy.")
    top_k: int = Field(0, ge=0, description="Draw from the k most probable; 0 takes all.")
    top_p: float = Field(0.95, gt=0, le=1, description="Draw from the smallest set with this mass.")
    seed: int = Field(0, ge=0, description="Same seed, same text.")


class Monitor(Section):
    """What is watched while training."""

    sample_every: int = Field(
        250, ge=1, description="Steps between samples; also at the last step."
    )
    prompts: tuple[str, ...] = Field(
        ("def", "The", "import"), description="Fixed prompts that the model continues."
    )
    sampling: Sampling = Field(Sampling(), description="How the samples are drawn.")


# ── the whole ──────────────────────────────────────────────────────────────────────────────


class Recipe(Section):
    """One run, wholly described."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Names the run and the corpus folder."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Source of every random choice.")
    data: Data = Field(description="Documents → shards.")
    model: Model = Field(description="Tokens → logits → loss.")
    train: Train = Field(description="Batches + model → steps.")
    evaluate: Evaluate = Field(Evaluate(), description="Held-out scores.")
    monitor: Monitor = Field(Monitor(), description="What is watched.")

    _provenance: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def provenance(self) -> dict[str, str]:
        """Dotted path → origin: `file:line`, `command line`, `size …: reason` or `default`."""
        return dict(self._provenance)

    @model_validator(mode="after")
    def _batch_fits(self) -> Recipe:
        batch, context = self.train.batch_tokens, self.model.context
        if batch % context:
            raise ValueError(
                f"train.batch_tokens {batch} is not a multiple of model.context {context}; "
                f"try {max(1, round(batch / context)) * context}"
            )
        return self
