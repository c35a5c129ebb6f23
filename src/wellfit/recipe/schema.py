"""What a run is: every setting with a sentence, its unit and its limits.

Each room reads only its own section: `data`, `model`, `train`, `evaluate`, `monitor`.
All values are concrete. The dial `model.size` fills what a recipe leaves out *before* these
classes see it (see `sizes.py`), so nothing here means "decide for me" except where a sentence
says so. The only library used is pydantic, and only in this room.
"""

from __future__ import annotations

from pydantic import Field, PrivateAttr, model_validator

from wellfit.recipe.adapter_section import Adapter, Quantize, refuse_beside
from wellfit.recipe.data_section import Data, Duplicates, Source, Split, Tokenizer, Tokens
from wellfit.recipe.examples_section import Columns, Examples
from wellfit.recipe.heads import refuse_misfits
from wellfit.recipe.model_section import Model, Role, Size
from wellfit.recipe.objective_section import (
    Objective,
    objective_kind,
    refuse_contradictions,
    target_places,
)
from wellfit.recipe.optimizer_section import (
    OPTIMIZERS,
    SGD,
    Adafactor,
    AdamW,
    AdamW8bit,
    Group,
    Groups,
    Lion,
    Muon,
    Optimizer,
    Schedule,
)
from wellfit.recipe.section import Call, Section, Share
from wellfit.recipe.train_section import Budget, Safety, StopEarly, Train

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adafactor",
    "AdamW",
    "AdamW8bit",
    "Adapter",
    "Budget",
    "Call",
    "Columns",
    "Data",
    "Duplicates",
    "Evaluate",
    "Examples",
    "Group",
    "Groups",
    "Lion",
    "Model",
    "Monitor",
    "Muon",
    "Objective",
    "Optimizer",
    "Quantize",
    "Recipe",
    "Role",
    "Safety",
    "Sampling",
    "Schedule",
    "Section",
    "Share",
    "Size",
    "Source",
    "Split",
    "StopEarly",
    "Tokenizer",
    "Tokens",
    "Train",
    "objective_kind",
    "target_share",
]


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
    min_p: float = Field(
        0.0, ge=0, le=1, description="Leave out what is less than this times the likeliest."
    )
    repetition_penalty: float = Field(
        1.0, gt=0, le=100, description="Makes tokens that stood already less likely; 1 does not."
    )
    stop: tuple[str, ...] = Field(
        (), description="Texts at which a continuation ends; they are not given out."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Same seed, same text.")

    @model_validator(mode="after")
    def _draws(self) -> Sampling:
        if not all(self.stop):
            raise ValueError("stop has an empty text, which stands everywhere; leave it out")
        if self.min_p and not self.temperature:
            raise ValueError(
                "min_p leaves out the unlikely, and temperature 0 takes the likeliest anyway; try "
                "min_p 0, or a temperature above 0"
            )
        return self


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

    @model_validator(mode="after")
    def _rates_carry_over(self) -> Recipe:
        optimizer = self.train.optimizer
        if self.model.base_width and isinstance(optimizer, Adafactor) and optimizer.scale_by_size:
            raise ValueError(
                "train.optimizer.scale_by_size measures steps by each tensor's own weights, and no "
                "rule carries such a rate over from model.base_width; try scale_by_size false"
            )
        return self

    @model_validator(mode="after")
    def _padding_stays_unseen(self) -> Recipe:
        padded = self.data.packing == "best_fit"
        if padded and self.model.kind == "encoder" and not self.train.document_mask:
            raise ValueError(
                "data.packing best_fit pads rows, and with train.document_mask false an encoder "
                "would read the padding as text; try train.document_mask true, or data.packing "
                "stream"
            )
        return self

    @model_validator(mode="after")
    def _adapter_fits(self) -> Recipe:
        refuse_beside(self.model, self.train)
        return self

    @model_validator(mode="after")
    def _examples_fit(self) -> Recipe:
        refuse_misfits(self.data, self.model, self.train)
        return self

    @model_validator(mode="after")
    def _objective_fits(self) -> Recipe:
        refuse_contradictions(
            self.model.kind,
            self.train.objective,
            context=self.model.context,
            document_mask=self.train.document_mask,
            best_by=self.train.best_by,
        )
        return self


def target_share(recipe: Recipe) -> float:
    """A recipe → places of a target for each token of a row: 1 but in an encoder_decoder."""
    if recipe.model.kind != "encoder_decoder" or recipe.data.examples is not None:
        return 1.0
    return target_places(recipe.model.context, recipe.train.objective) / recipe.model.context
