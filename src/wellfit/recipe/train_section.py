"""The recipe's section `train`: batches + model → steps."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from wellfit.recipe.section import Section, Share


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
    keep_last: int = Field(2, ge=1, description="Newest checkpoints to keep.")
    threads: int = Field(0, ge=0, le=4096, description="CPU threads; 0 takes one a core.")
    memory_check: Literal["refuse", "warn", "off"] = Field(
        "refuse",
        description="What happens before the first step where the plan needs more memory than the "
        "device has.",
    )
