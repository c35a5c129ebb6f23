"""The recipe's section `train`: batches + model → steps."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from wellfit.recipe import score_names
from wellfit.recipe.objective_section import Objective
from wellfit.recipe.optimizer_section import Optimizer, Schedule
from wellfit.recipe.section import Call, Section, Share


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


class Safety(Section):
    """What happens to a step whose update would do harm; decided on the device, told afterwards."""

    non_finite: Literal["skip", "rewind", "stop"] = Field(
        "skip",
        description="A loss or gradient that is not finite is never applied; `rewind` also goes "
        "back to the last checkpoint and on with other rows, `stop` ends the training.",
    )
    spike: Literal["warn", "skip", "rewind", "stop"] = Field(
        "warn",
        description="A loss or gradient norm far above the last steps: `warn` applies and tells "
        "it, `skip` does not apply it, `rewind` and `stop` as for what is not finite.",
    )
    spike_deviation: float = Field(
        12.0,
        gt=0,
        description="Robust standard deviations (of the logarithm, over the last 128 steps) from "
        "which a step is a spike.",
    )
    limit: int = Field(
        10,
        ge=1,
        description="The training fails after so many steps in a row that were not applied, or "
        "so many rewinds.",
    )


class StopEarly(Section):
    """When to end before the budget is spent: by patience, by convergence, by both or neither."""

    patience: int = Field(
        0, ge=0, description="Evaluations in a row without an improvement; 0 turns it off."
    )
    min_delta: float = Field(
        0.0,
        ge=0,
        description="What counts as an improvement for `patience`: at least so much, in the unit "
        "of the score.",
    )
    convergence: Share = Field(
        0.0,
        description="Stop once the newest `window` evaluations improved by less than this share "
        "of the score, even if two standard errors more are granted; 0 turns it off.",
    )
    window: int = Field(5, ge=3, description="Evaluations that `convergence` looks at.")


class Train(Section):
    """Batches + model → steps."""

    budget: Budget = Field(description="How long to train.")
    batch_tokens: int = Field(
        ge=8, description="Tokens of one step over all micro-batches; a multiple of model.context."
    )
    micro_batch: int = Field(
        ge=0,
        description="Sequences in one forward and backward pass; the last may be smaller. 0 or "
        "`auto`: as many as the plan says fit and gain speed; a run keeps what it began with.",
    )
    objective: Objective = Field(Objective(), description="What the model predicts.")
    optimizer: Optimizer = Field(description="How gradients become updates.")
    schedule: Schedule = Field(Schedule(), description="The rate over the run.")
    clip_norm: float = Field(
        1.0,
        ge=0,
        description="Gradients with a larger 2-norm are scaled down to it; 0 turns it off.",
    )
    clip_value: float = Field(
        0.0, ge=0, description="Largest size of any number of a gradient; 0 turns it off."
    )
    safety: Safety = Field(Safety(), description="What happens to steps that would do harm.")
    loss: Call | None = Field(
        None,
        description="A function of your own that is minimised in place of the cross-entropy; the "
        "reported loss stays the label's own.",
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="model.head classes: `balanced` weighs an example's loss by examples / "
        "(classes · examples of its class) of train; the reported loss stays unweighted.",
    )
    label_smoothing: Share = Field(
        0.0,
        description="Share of each label's weight that is spread evenly over the vocabulary; the "
        "reported loss stays the label's own.",
    )
    z_loss: float = Field(
        0.0,
        ge=0,
        description="Added to the objective: this times (ln Z)², which keeps logits small; "
        "1e-4 is usual, the reported loss stays without it.",
    )
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16", "fp8"] = Field(
        "auto",
        description="Arithmetic of the matrices; `auto` takes bf16 where the device multiplies it "
        "natively; `fp8`: the blocks' large matrices in 8 bits, all else in bf16.",
    )
    activation_checkpointing: Literal["none", "selective", "full"] = Field(
        "none",
        description="What the backward pass computes again instead of keeping it: nothing, "
        "everything but products and attention, or whole blocks. Same bits, less memory.",
    )
    activation_offload: bool = Field(
        False, description="Keep large activations in the host's memory (CUDA only)."
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="torch.compile for the blocks; `auto` decides from device and planned steps.",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where to train; `auto` takes cuda, then mps, then cpu."
    )
    document_mask: bool = Field(
        True, description="Tokens attend only to their own document, and positions restart there."
    )
    proofs: Literal["stop", "warn", "off"] = Field(
        "stop",
        description="Proofs before the first step, such as that no token sees what it must "
        "predict: `stop` ends the run where one fails, `warn` trains on, `off` makes none.",
    )
    checkpoint_every: int = Field(
        100, ge=1, description="Steps between checkpoints; the last step is always saved."
    )
    keep_last: int = Field(2, ge=1, description="Newest checkpoints to keep.")
    keep_best: int = Field(
        0,
        ge=0,
        description="Checkpoints with the best score to keep beside them; an evaluation that "
        "belongs to them is saved at once.",
    )
    best_by: str = Field(
        "validation.loss",
        description="The score that decides which is best and when to stop early: "
        "validation.loss, .perplexity, .bits_per_byte, .accuracy, .exact (of examples), or "
        "validation.by_domain.DOMAIN.loss.",
    )
    restore_best: bool = Field(
        True,
        description="With `keep_best`: the best checkpoint is the one tested at the end, and the "
        "one that `evaluate` and `generate` take.",
    )
    stop_early: StopEarly = Field(StopEarly(), description="When to end before the budget.")
    save_in_background: bool = Field(
        True,
        description="Copy the state into main memory and write it while training goes on; takes "
        "as much memory as weights, averages and optimizer state.",
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the average of the weights that stays at each step (less in the "
        "beginning); the average is what is evaluated. 0 turns it off.",
    )
    threads: int = Field(0, ge=0, le=4096, description="CPU threads; 0 takes one a core.")

    @model_validator(mode="after")
    def _one_objective(self) -> Train:
        beside = [name for name in ("label_smoothing", "z_loss") if getattr(self, name)]
        beside += ["class_weights"] if self.class_weights != "none" else []
        if self.loss is not None and beside:
            raise ValueError(
                f"{' and '.join(beside)} would do nothing beside loss {self.loss.name}, which "
                "takes the place of the cross-entropy; put it into that function, or leave it 0"
            )
        return self

    @field_validator("micro_batch", mode="before")
    @classmethod
    def _auto_is_zero(cls, value: object) -> object:
        return 0 if value == "auto" else value

    @field_validator("best_by")
    @classmethod
    def _is_a_score(cls, value: str) -> str:
        score_names.parse(value)
        return value

    memory_check: Literal["refuse", "warn", "off"] = Field(
        "refuse",
        description="What happens before the first step where the plan needs more memory than the "
        "device has.",
    )
