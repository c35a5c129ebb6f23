"""The recipe's sections `train.optimizer` and `train.schedule`: how gradients become updates."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, model_validator

from wellfit.recipe.section import Section, Share


class Group(Section):
    """What one role of parameters has instead of the optimizer's own."""

    rate: float = Field(1.0, ge=0, description="Multiplies the peak rate of this role.")
    weight_decay: float | None = Field(
        None, ge=0, description="Decay of this role instead of the optimizer's."
    )


class Groups(Section):
    """Rate and decay by the role of a parameter; a role left out has the optimizer's own."""

    embedding: Group | None = Field(None, description="Token embeddings.")
    position: Group | None = Field(None, description="Learned positions.")
    matrix: Group | None = Field(None, description="Matrices inside the blocks.")
    norm: Group | None = Field(None, description="Gains of norms.")
    bias: Group | None = Field(None, description="Biases.")
    router: Group | None = Field(None, description="Routers of mixtures of experts.")
    head: Group | None = Field(None, description="The output matrix, where it is not tied.")
    adapter: Group | None = Field(None, description="The matrices A and B of an adapter.")


GroupsByRole = Annotated[
    Groups | None, Field(description="Own rate and decay for single roles of parameters.")
]
States = Annotated[
    Literal["device", "offload", "paged"],
    Field(
        description="Where moments live: beside the weights; `offload`: in the host's memory, "
        "fetched for the update; `paged`: in a nameless mapped file in the temporary folder, which "
        "the system can page out."
    ),
]
Decay = Annotated[
    float,
    Field(
        ge=0,
        description="Decoupled decay of matrices, adapters and the head; not of norms, biases, "
        "embeddings.",
    ),
]


class AdamW(Section):
    """AdamW with decoupled weight decay (arXiv 1711.05101)."""

    kind: Literal["adamw"] = Field("adamw", description="This optimizer.")
    learning_rate: float = Field(gt=0, description="Peak rate.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the mean gradient.")
    beta2: float = Field(0.95, ge=0, lt=1, description="Decay of the mean squared gradient.")
    epsilon: float = Field(1e-8, gt=0, description="Added to the root of the mean square.")
    weight_decay: Decay = 0.1
    groups: GroupsByRole = None
    states: States = "device"


class AdamW8bit(Section):
    """AdamW with moments of one byte a number, quantised by blocks of 256 (arXiv 2110.02861)."""

    kind: Literal["adamw_8bit"] = Field("adamw_8bit", description="This optimizer.")
    learning_rate: float = Field(gt=0, description="Peak rate.")
    beta1: float = Field(0.9, ge=0, lt=1, description="Decay of the mean gradient.")
    beta2: float = Field(0.95, ge=0, lt=1, description="Decay of the mean squared gradient.")
    epsilon: float = Field(1e-8, gt=0, description="Added to the root of the mean square.")
    weight_decay: Decay = 0.1
    groups: GroupsByRole = None
    states: States = "device"


class Muon(Section):
    """Muon for matrices (orthogonalised momentum); AdamW for embeddings, norms, biases and head."""

    kind: Literal["muon"] = Field("muon", description="This optimizer.")
    matrix_learning_rate: float = Field(gt=0, description="Peak rate of the matrices.")
    learning_rate: float = Field(gt=0, description="Peak rate of everything else (AdamW).")
    momentum: float = Field(0.95, ge=0, lt=1, description="Momentum of the matrices (Nesterov).")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW: decay of the mean gradient.")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW: decay of the mean squared gradient.")
    epsilon: float = Field(1e-10, gt=0, description="AdamW: added to the root of the mean square.")
    weight_decay: Decay = 0.0
    groups: GroupsByRole = None
    states: States = "device"


class Adafactor(Section):
    """Adafactor: mean squares from rows and columns, no momentum (arXiv 1804.04235)."""

    kind: Literal["adafactor"] = Field("adafactor", description="This optimizer.")
    learning_rate: float = Field(
        gt=0, description="Peak rate; with `scale_by_size` in units of each tensor's own size."
    )
    scale_by_size: bool = Field(
        False, description="Steps are multiplied by the root mean square of the tensor's weights."
    )
    smallest_size: float = Field(
        1e-3, gt=0, description="`scale_by_size`: a tensor counts as at least this large (ε₂)."
    )
    decay_power: float = Field(
        0.8, gt=0, le=1, description="Decay of the mean squares at step t is 1 - t^-this."
    )
    clip_threshold: float = Field(
        1.0, gt=0, description="Steps whose root mean square is larger are scaled down to it."
    )
    epsilon: float = Field(1e-30, gt=0, description="Added to the squared gradient (ε₁).")
    weight_decay: Decay = 0.0
    groups: GroupsByRole = None
    states: States = "device"


class Lion(Section):
    """Lion: steps by the sign of an interpolated momentum (arXiv 2302.06675)."""

    kind: Literal["lion"] = Field("lion", description="This optimizer.")
    learning_rate: float = Field(gt=0, description="Peak rate; every weight moves by just this.")
    beta1: float = Field(
        0.9, ge=0, lt=1, description="Share of the momentum in what gives the sign."
    )
    beta2: float = Field(0.99, ge=0, lt=1, description="Decay of the momentum.")
    weight_decay: Decay = 0.5
    groups: GroupsByRole = None
    states: States = "device"


class SGD(Section):
    """Stochastic gradient descent with momentum; its steps shrink with the gradient."""

    kind: Literal["sgd"] = Field("sgd", description="This optimizer.")
    learning_rate: float = Field(gt=0, description="Peak rate; a step is this times the momentum.")
    momentum: float = Field(
        0.9, ge=0, lt=1, description="Decay of the summed gradients; 0 keeps none."
    )
    nesterov: bool = Field(False, description="Looks a step ahead along the momentum.")
    weight_decay: Decay = 0.0
    groups: GroupsByRole = None
    states: States = "device"

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> SGD:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov looks ahead along the momentum, and momentum is 0")
        return self


Optimizer = Annotated[
    AdamW | Muon | Adafactor | Lion | SGD | AdamW8bit, Field(discriminator="kind")
]
OPTIMIZERS: dict[str, type[Section]] = {
    one.model_fields["kind"].default: one for one in get_args(get_args(Optimizer)[0])
}
"""The sections by their `kind`."""


class Schedule(Section):
    """The learning rate over the run, as a share of the peak."""

    kind: Literal[
        "wsd", "linear", "cosine", "constant", "inverse_sqrt", "polynomial", "one_cycle"
    ] = Field("wsd", description="Shape after warm-up; `wsd` holds the peak, then falls linearly.")
    warmup: float = Field(
        0.02, ge=0, description="Warm-up: a share of all steps if below 1, else a number of steps."
    )
    decay_share: float = Field(
        0.7, gt=0, le=1, description="wsd: share of all steps, at the end, in which the rate falls."
    )
    power: float = Field(
        2.0, gt=0, le=10, description="polynomial: the rest of the way to this power; 1 is linear."
    )
    final_share: Share = Field(
        0.0,
        description="Rate of the last step as a share of the peak; inverse_sqrt only nears it, "
        "constant has none.",
    )
