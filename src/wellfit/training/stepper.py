"""Batches in, updates out: what takes the steps of one training and remembers between them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from wellfit.training import own_loss
from wellfit.training.gate import Gate
from wellfit.training.loss_scale import LossScale
from wellfit.training.offload import courier_for, offloaded
from wellfit.training.out_of_memory import in_smaller_pieces
from wellfit.training.step import Measured, Objective, accumulate, clip, gradients

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.nn import Parameter

    from wellfit.data.batches import Batch
    from wellfit.model.protocol import LanguageModel
    from wellfit.recipe import schema
    from wellfit.training.optimizers import Optimizers


class Stepper:
    """Takes steps; between them it holds the gate, the loss scale and the safe micro-batch."""

    def __init__(
        self,
        section: schema.Train,
        model: LanguageModel,
        optimizers: Optimizers,
        parameters: Sequence[Parameter],
        *,
        precision: str,
        device: torch.device,
        seed: int,
    ) -> None:
        """A recipe's `train` section, a model and its optimizer; nothing is computed yet."""
        self.micro_batch = section.micro_batch
        self.objective = Objective(
            document_mask=section.document_mask,
            label_smoothing=section.label_smoothing,
            z_loss=section.z_loss,
            loss=own_loss.resolved(section.loss),
            clip_norm=section.clip_norm,
            clip_value=section.clip_value,
        )
        self._model, self._optimizers, self._parameters = model, optimizers, list(parameters)
        self._device, self._seed = device, seed
        self._gate = Gate(
            device,
            deviation=section.safety.spike_deviation,
            holds_back=section.safety.spike != "warn",
        )
        self._scale = LossScale(device) if precision == "fp16" else None
        self._courier = courier_for(device) if section.activation_offload else None

    def take(self, step: int, batch: Batch) -> Measured:
        """A step and its batch in; one update at the rates that are set, and what was measured.

        Where memory runs out, the same rows go through in smaller micro-batches, now and in all
        later steps: sums are over the whole batch, so the update is the same up to rounding.
        """
        import torch

        factor = None if self._scale is None else self._scale.factor
        (loss, count), self.micro_batch = in_smaller_pieces(
            lambda rows: self._gradients(step, batch, rows),
            self.micro_batch,
            self._optimizers.zero_grad,
        )
        grads = gradients(self._parameters)
        if factor is not None:
            torch._foreach_mul_(grads, 1 / factor)
        norm, clipped = clip(grads, self.objective)
        judged = self._gate.judge(loss, norm)
        overflow = torch.zeros_like(judged.finite)
        if self._scale is not None:
            overflow = (torch.isfinite(loss) & ~torch.isfinite(norm)).float()
            self._scale.update(overflow)
        self._update(judged.apply)
        self._optimizers.zero_grad()
        return Measured(loss, norm, clipped, count, judged.apply, judged.spike, overflow)

    def rehearse(self, batch: Batch) -> None:
        """A batch in; every shape that training has was passed through once, and left no trace."""
        self._gradients(1, batch, self.micro_batch)
        self._optimizers.zero_grad()

    def _gradients(self, step: int, batch: Batch, rows: int) -> tuple[Tensor, int]:
        return accumulate(
            self._model,
            batch,
            self.objective,
            micro_batch=rows,
            device=self._device,
            key=(self._seed, step),
            scale=None if self._scale is None else self._scale.factor,
            keeping=self._keeping,
        )

    def _keeping(self) -> AbstractContextManager[object]:
        """What surrounds a forward pass: activations that go to the host, where asked for."""
        if self._courier is None:
            return nullcontext()
        return offloaded(self._courier, self._parameters)

    def _update(self, apply: Tensor) -> None:
        # On a CPU nothing is waited for, and a plain step is a plain step.
        if self._device.type != "cpu":
            self._optimizers.step(apply)
        elif bool(apply):
            self._optimizers.step()

    def state(self) -> dict[str, Any]:
        """Nothing in; what the next step depends on beside weights and moments, as plain values."""
        scale = None if self._scale is None else self._scale.state()
        return {"micro_batch": self.micro_batch, "gate": self._gate.state(), "loss_scale": scale}

    def load(self, state: dict[str, Any], *, safe_size: bool = True) -> None:
        """What `state` gave in; the next step is as it would have been.

        Without `safe_size` the micro-batch stays what the recipe says.
        """
        if safe_size:
            self.micro_batch = min(self.micro_batch, state["micro_batch"])
        self._gate.load(state["gate"])
        if self._scale is not None and state["loss_scale"] is not None:
            self._scale.load(state["loss_scale"])
