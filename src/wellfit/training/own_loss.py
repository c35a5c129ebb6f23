"""A loss of the user's own, called on a few tokens at a time so that logits never fill memory.

It is `loss(logits [N, V], labels [N], **arguments) -> [N]`, float32: what is minimised, in nats,
for each of N supervised tokens by itself. Axes: N tokens, V vocabulary entries, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from wellfit.errors import RunError
from wellfit.recipe.callables import resolve, version_of
from wellfit.recipe.schema import Call

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from wellfit.model.protocol import LanguageModel

OwnLoss = Callable[["Tensor", "Tensor"], "Tensor"]
WHERE = "train.loss"
TRIED = 6
"""Tokens that a loss is tried on."""


def resolved(call: Call | None) -> OwnLoss | None:
    """What `train.loss` names in; the function with its arguments, or None, out.

    Raises RecipeError where there is no such function, or its arguments do not fit.
    """
    return None if call is None else resolve(call, {}, "loss")


def version(call: Call) -> str:
    """What `train.loss` names in; digits that change with its source or arguments out."""
    return version_of(resolve(call, {}, "loss"))


def own_losses(
    model: LanguageModel,
    loss: OwnLoss,
    hidden: Tensor,
    labels: Tensor,
    host_labels: NDArray[np.int64],
) -> Tensor:
    """Features [B, T, D] and labels [B, T], twice, in; what is minimised for each label, [N], out.

    `host_labels` are the same labels where they can be looked at without waiting for the device.
    Of each chunk only the features are kept; its logits are made again in the backward pass.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    from wellfit.model.kernels import loss_chunk

    flat, wanted = hidden.reshape(-1, hidden.shape[-1]), labels.reshape(-1)
    places = np.flatnonzero(host_labels >= 0)
    if len(places) < len(wanted):
        chosen = torch.from_numpy(places).to(labels.device)
        flat, wanted = flat[chosen], wanted[chosen]
    if not len(wanted):
        return flat.sum(1) * 0.0

    def run(features: Tensor, targets: Tensor) -> Tensor:
        return loss(model.logits(features), targets)

    size = loss_chunk(entries(model, hidden))
    parts = [slice(at, at + size) for at in range(0, len(wanted), size)]
    return torch.cat(
        [
            cast(
                "Tensor",
                checkpoint(
                    run, flat[part], wanted[part], use_reentrant=False, preserve_rng_state=False
                ),
            )
            for part in parts
        ]
    )


def entries(model: LanguageModel, hidden: Tensor) -> int:
    """A model and features [B, T, D] in; the entries of its vocabulary, V, out."""
    import torch

    with torch.no_grad():
        return int(model.logits(hidden[:1, :1]).shape[-1])


def try_out(call: Call, model: LanguageModel) -> None:
    """What `train.loss` names and a model on its device in; RunError where it would not do.

    A few random logits go through it: one finite number a token must come out, a function of that
    token alone, the same each time, with a finite gradient that is not zero.
    """
    import torch

    loss, name = resolved(call), call.name
    assert loss is not None
    device = next(iter(model.named_parameters()))[1].device
    training = model.training
    model.train(False)
    with torch.no_grad():
        hidden = model.hidden(torch.zeros((1, 1), dtype=torch.long, device=device))
    model.train(training)
    generator = torch.Generator().manual_seed(0)
    size = entries(model, hidden)
    logits = torch.randn((TRIED, size), generator=generator).to(device).requires_grad_()
    labels = torch.randint(0, size, (TRIED,), generator=generator).to(device)
    found = _called(loss, name, logits, labels)
    if not bool(found.isfinite().all()):
        raise _refused(
            f"{name} gave {_first(found)} for random logits and labels",
            "Every token needs a finite number; look at its constants and at logarithms of 0.",
        )
    again, part = (_called(loss, name, logits, labels), _called(loss, name, logits[:2], labels[:2]))
    if not torch.equal(again, found):
        raise _refused(
            f"{name} gives other numbers when it is called again with the same",
            "It must be a function of logits and labels alone: no random numbers, no memory.",
        )
    if not torch.allclose(part, found[:2], rtol=1e-3, atol=1e-5):
        raise _refused(
            f"{name} gives a token another number when other tokens stand beside it",
            "It is called with a few tokens at a time, so each must be scored by itself; the mean "
            "over all of them is taken here.",
        )
    if found.requires_grad:
        found.sum().backward()  # type: ignore[no-untyped-call]
    gradient = logits.grad
    if gradient is None or not bool(gradient.any()):
        raise _refused(
            f"{name} has no gradient by the logits",
            "Compute it from the logits with torch, without detach(), item() or argmax().",
        )
    if not bool(gradient.isfinite().all()):
        raise _refused(
            f"{name} has a gradient of {_first(gradient)} by random logits",
            "Look for roots and logarithms whose slope is infinite.",
        )


def _called(loss: OwnLoss, name: str, logits: Tensor, labels: Tensor) -> Tensor:
    import torch

    try:
        found: Any = loss(logits, labels)
    except Exception as fault:  # the user's own code: anything can happen there
        said = " ".join(str(fault).split())[:300]
        raise _refused(
            f"{name} raised {type(fault).__name__}: {said}",
            f"It is called as loss(logits {tuple(logits.shape)}, labels {tuple(labels.shape)}, "
            "**arguments).",
        ) from fault
    if not isinstance(found, torch.Tensor) or found.shape != labels.shape:
        what = (
            f"the shape {tuple(found.shape)}"
            if isinstance(found, torch.Tensor)
            else f"a {type(found).__name__}"
        )
        raise _refused(
            f"{name} gave {what} for {len(labels)} labels, not {tuple(labels.shape)}",
            "Return one number a token, without mean() or sum() over them.",
        )
    if not found.is_floating_point():
        raise _refused(f"{name} gave {found.dtype}", "Return float32.")
    return found


def _first(values: Tensor) -> float:
    return float(values.detach()[~values.isfinite()][0])


def _refused(what: str, way_out: str) -> RunError:
    return RunError(what, where=WHERE, way_out=way_out)
