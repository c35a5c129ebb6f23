"""Does every tensor learn? A finite gradient that is not zero, and one place in the optimizer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING

from wellfit.records import CANDIDATE, IGNORED
from wellfit.training.proofs.ground import (
    Answer,
    Ground,
    failed,
    in_float32,
    passed,
    predicts,
)

if TYPE_CHECKING:
    from torch import Tensor

    from wellfit.training.optimizers import Optimizers

SHOWN = 5
"""Names in a sentence; all of them stand in the data."""


def gradient_coverage(ground: Ground) -> Answer:
    """Every trained tensor gets a finite gradient, and the optimizer moves it (O16, A13, O04).

    One backward pass over a few rows, each a single document whose labels are its next tokens, so
    that masks of the data hide nothing. A tensor without a gradient gets a second chance: other
    tokens, in float32. What the model names in `sparse_parameters` (experts, which only some
    tokens reach) may go without.
    """
    parameters = dict(ground.model.named_parameters())
    fault = _in_optimizer(ground, parameters)
    if fault is not None:
        return fault
    frozen = [name for name, parameter in parameters.items() if not parameter.requires_grad]
    if frozen:
        return failed(
            "frozen_tensor",
            f"{_named(frozen)}: listed for training but frozen, so it would never change.",
            tensors=frozen,
        )
    largest = _backward(ground, ground.tokens)
    broken = [name for name, value in largest.items() if not math.isfinite(value)]
    if broken:
        return failed(
            "gradient_not_finite", f"{_named(broken)}: not a finite gradient.", tensors=broken
        )
    silent = [name for name, value in largest.items() if value == 0]
    if silent:
        with in_float32(ground.model) if ground.model.compute_dtype.itemsize < 4 else nullcontext():
            again = _backward(ground, ground.other_tokens(ground.tokens, salt=21))
        silent = [name for name in silent if not math.isfinite(again[name]) or again[name] == 0]
    sparse: Collection[str] = getattr(ground.model, "sparse_parameters", ())
    resting = [name for name in silent if name in sparse]
    silent = [name for name in silent if name not in sparse]
    if silent:
        return failed(
            "zero_gradient",
            f"{_named(silent)}: the loss does not depend on it, so it would never learn.",
            tensors=silent,
        )
    text = f"All {len(parameters)} tensors get a finite gradient"
    if ground.optimizers is not None:
        text += " and stand in the optimizer once, with a rate"
    if resting:
        text += f"; {len(resting)} that only some tokens reach had none in these rows"
    return passed(f"{text}.", tensors=len(parameters), resting=resting)


def _in_optimizer(ground: Ground, parameters: Mapping[str, Tensor]) -> Answer | None:
    if ground.optimizers is None:
        return None
    names = {id(parameter): name for name, parameter in parameters.items()}
    entries = _entries(ground.optimizers)
    counts = Counter(identity for identity, _ in entries)
    missing = [name for name, p in parameters.items() if p.requires_grad and not counts[id(p)]]
    if missing:
        return failed(
            "param_missing",
            f"{_named(missing)}: not in the optimizer, so it would never change.",
            tensors=missing,
        )
    twice = [name for name, parameter in parameters.items() if counts[id(parameter)] > 1]
    if twice:
        return failed(
            "param_twice",
            f"{_named(twice)}: more than once in the optimizer, so updates are made more than "
            "once.",
            tensors=twice,
        )
    foreign = sum(1 for identity in counts if identity not in names)
    if foreign:
        return failed(
            "param_foreign",
            f"The optimizer holds {foreign} tensor{'' if foreign == 1 else 's'} that the model "
            "does not have (any more).",
            count=foreign,
        )
    still = [names[identity] for identity, rate in entries if not rate > 0]
    if still:
        return failed("rate_zero", f"{_named(still)}: its peak learning rate is 0.", tensors=still)
    return None


def _entries(optimizers: Optimizers) -> list[tuple[int, float]]:
    """An optimizer in; (identity of a tensor, peak rate of its group) for every entry out."""
    return [
        (id(parameter), group.peak)
        for group in optimizers.groups
        for run in group.runs
        for parameter in run.values()
    ]


def _backward(ground: Ground, tokens: Tensor) -> dict[str, float]:
    """Tokens [R, T] in; name → largest gradient out, 0 where there is none. Leaves no gradient."""
    import torch

    model = ground.model
    model.train(True)
    model.dropout_key(ground.seed, 0, 0)
    labels = _labels(tokens, predicts(model), ground.outputs)
    more = ground.beside(tokens, packed=False)
    losses = model.token_loss(model.hidden(tokens, **more), labels)
    objective = losses.sum() / labels.numel() + model.auxiliary_loss()
    parameters = dict(model.named_parameters())
    try:
        objective.backward()  # type: ignore[no-untyped-call]
        # The sum of squares would underflow where gradients are small.
        largest = [
            torch.zeros((), device=p.device) if p.grad is None else p.grad.detach().abs().max()
            for p in parameters.values()
        ]
        values = torch.stack([value.float() for value in largest]).tolist()
    finally:
        for parameter in parameters.values():
            parameter.grad = None
    return dict(zip(parameters, values, strict=True))


def _labels(tokens: Tensor, kind: str, outputs: int) -> Tensor:
    """Tokens [R, T], what is predicted and among how many in; labels [R, T] that ask everything.

    A row of one token still needs a label: its last place is asked for its first token.
    """
    import torch

    if kind != "span":
        return tokens.roll(-1, dims=1) % outputs
    labels = torch.full_like(tokens, CANDIDATE)
    labels[:, 0] = IGNORED  # rows are apart
    labels[:, 1:2], labels[:, -1] = 0, 1
    return labels


def _named(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
