"""The recipe's section `train.objective`: what a model is asked to predict."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from wellfit.recipe.model_section import Kind
from wellfit.recipe.section import Section, Share

ObjectiveKind = Literal["next_token", "masked", "denoising"]
OF_MODEL: dict[Kind, ObjectiveKind] = {
    "decoder": "next_token",
    "encoder": "masked",
    "encoder_decoder": "denoising",
}
"""The objective of each kind of model."""


class Objective(Section):
    """What is predicted: next tokens, masked tokens, or the spans that a text lacks."""

    kind: Literal["auto", "next_token", "masked", "denoising"] = Field(
        "auto",
        description="`auto` follows model.kind: next_token for a decoder, masked for an encoder "
        "(arXiv 1810.04805), denoising for an encoder_decoder (arXiv 1910.10683).",
    )
    share: float = Field(
        0.15, gt=0, lt=1, description="masked, denoising: share of the tokens to be predicted."
    )
    mask_share: Share = Field(
        0.8, description="masked: share of those that the mask stands for in the input."
    )
    random_share: Share = Field(
        0.1,
        description="masked: share of those that another token stands for; the rest stay as they "
        "are.",
    )
    span_length: float = Field(
        3.0, ge=1, le=1000, description="denoising: mean tokens of a span that is left out."
    )

    @model_validator(mode="after")
    def _shares_fit(self) -> Objective:
        if self.mask_share + self.random_share > 1:
            raise ValueError(
                f"mask_share {self.mask_share:g} and random_share {self.random_share:g} are "
                f"together above 1; try random_share {max(0.0, 1 - self.mask_share):g}"
            )
        if self.mask_share + self.random_share == 0:
            raise ValueError(
                "mask_share 0 and random_share 0 leave every token to be seen; try mask_share 0.8"
            )
        return self


def objective_kind(model_kind: Kind, objective: Objective) -> ObjectiveKind:
    """A kind of model and its objective, as a recipe has them → the objective itself.

    >>> objective_kind("encoder", Objective())
    'masked'
    """
    return OF_MODEL[model_kind] if objective.kind == "auto" else objective.kind


def target_places(context: int, objective: Objective) -> int:
    """Tokens of a row and a denoising objective → places of its targets, a multiple of 8.

    Room for the tokens that leave, for twice the sentinels of their spans, and for a few ends.

    >>> target_places(512, Objective()), target_places(1024, Objective())
    (144, 272)
    """
    leave = int(objective.share * context) + 1
    wanted = leave + 2 * math.ceil(leave / objective.span_length) + 8
    return min(context, -(-wanted // 8) * 8)


def refuse_contradictions(
    model_kind: Kind,
    objective: Objective,
    *,
    context: int,
    document_mask: bool,
    best_by: str,
) -> None:
    """Raise ValueError where settings contradict the kind of model, or would do nothing."""
    wanted = OF_MODEL[model_kind]
    if objective.kind not in ("auto", wanted):
        other = next(kind for kind, own in OF_MODEL.items() if own == objective.kind)
        raise ValueError(
            f"train.objective.kind {objective.kind} does not fit model.kind {model_kind}, which "
            f"learns by {wanted}; try model.kind {other}, or leave train.objective.kind out"
        )
    uses: dict[str, tuple[ObjectiveKind, ...]] = {
        "share": ("masked", "denoising"),
        "mask_share": ("masked",),
        "random_share": ("masked",),
        "span_length": ("denoising",),
    }
    plain = Objective()
    for name, kinds in uses.items():
        if wanted not in kinds and getattr(objective, name) != getattr(plain, name):
            raise ValueError(
                f"train.objective.{name} has no effect with model.kind {model_kind}: it belongs "
                f"to {' and '.join(kinds)}; leave it out"
            )
    longest = int(objective.share * context) + 1
    longest += math.ceil(longest / objective.span_length) + 1
    if model_kind == "encoder_decoder" and longest > context:
        raise ValueError(
            f"train.objective.share {objective.share:g} in spans of train.objective.span_length "
            f"{objective.span_length:g} makes targets of {longest} tokens, more than model.context "
            f"{context}; try train.objective.share 0.15"
        )
    if model_kind == "encoder_decoder" and not document_mask:
        raise ValueError(
            "train.document_mask false does not fit model.kind encoder_decoder: each document "
            "numbers its own gaps; leave it out"
        )
    if model_kind != "decoder" and best_by.endswith(".bits_per_byte"):
        raise ValueError(
            f"train.best_by {best_by} does not exist with model.kind {model_kind}, which does not "
            "predict every token; try train.best_by validation.loss"
        )
