"""The recipe's section `model`: tokens → logits → loss."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from wellfit.recipe.section import Section

Size = Literal["nano", "micro", "mini", "small", "base", "1b", "3b", "7b"]
Role = Literal["embedding", "position", "matrix", "norm", "bias", "head"]


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
