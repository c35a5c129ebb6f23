"""An objective of the user's own: the gradient is autograd's, the report stays the label's nats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from wellfit.data.batches import Batch
from wellfit.errors import RecipeError, RunError
from wellfit.model.init import initialise
from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import Call, Model
from wellfit.training import own_loss
from wellfit.training.step import Objective, accumulate

V, T = 40, 8
CPU = torch.device("cpu")


def focal(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    likely = logits.log_softmax(-1).gather(-1, labels[:, None])[:, 0]
    return -((1 - likely.exp()) ** gamma) * likely


def small() -> Transformer:
    section = Model(context=T, layers=1, width=16, heads=2, kv_heads=2, hidden=16,
                    init="scaled_normal")  # fmt: skip
    model = Transformer(section, V)
    initialise(model, 3)
    return model


def batch(rows: int = 3) -> Batch:
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, V, (rows, T))
    labels = draw.integers(0, V, (rows, T))
    labels[-1, 5:] = -100
    places = np.tile(np.arange(T), (rows, 1))
    return Batch(tokens, labels, places, np.zeros_like(places), np.zeros_like(places))


def stepped(objective: Objective, micro_batch: int) -> tuple[float, dict[str, Tensor]]:
    model, whole = small(), batch()
    loss, count = accumulate(
        model, whole, objective, micro_batch=micro_batch, device=CPU, key=(0, 1)
    )
    assert count == int((whole.labels != -100).sum())
    return float(loss), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("micro_batch", [3, 2])
def test_the_gradient_is_that_of_plain_autograd(
    micro_batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over all tokens at once and without chunks, beside chunks of four tokens.

    Breaks tried: a chunk left out; the ignored labels passed on; the mean taken over a
    micro-batch instead of the whole batch."""
    monkeypatch.setattr("wellfit.model.kernels.CHUNK_LOGITS", 4 * V)
    loss, grads = stepped(Objective(loss=focal), micro_batch)
    model, whole = small(), batch()
    labels = torch.from_numpy(whole.labels).flatten()
    segments, places = torch.from_numpy(whole.segments), torch.from_numpy(whole.positions)
    hidden = model.hidden(torch.from_numpy(whole.tokens), places, segments)
    logits = model.logits(hidden).flatten(0, 1)
    kept = labels >= 0
    focal(logits[kept], labels[kept]).mean().backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(grads[name], parameter.grad, rtol=1e-4, atol=1e-7)
    # Reported is the cross-entropy, to the bit that of a training without an own loss.
    assert loss == stepped(Objective(), micro_batch)[0]
    nats = cross_entropy(logits[kept], labels[kept]).detach()
    assert loss == pytest.approx(float(nats), rel=1e-5)


def test_the_cross_entropy_as_an_own_loss_changes_nothing() -> None:
    """The same gradient as the built-in loss, up to rounding."""

    def nats(logits: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(logits, labels, reduction="none")

    plain, own = stepped(Objective(), 2)[1], stepped(Objective(loss=nats), 2)[1]
    for name, grad in plain.items():
        torch.testing.assert_close(own[name], grad, rtol=1e-4, atol=1e-6)


def test_logits_are_never_there_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaks when the logits of all tokens are made at once, or kept for the backward pass."""
    monkeypatch.setattr("wellfit.model.kernels.CHUNK_LOGITS", 4 * V)
    calls: list[int] = []
    kept: list[int] = []

    def watched(logits: Tensor, labels: Tensor) -> Tensor:
        calls.append(len(labels))
        return focal(logits, labels)

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor.shape[-1] if tensor.ndim == 2 and len(tensor) <= 4 else 0)
        return tensor

    model, whole = small(), batch()
    hidden = model.hidden(torch.from_numpy(whole.tokens))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        found = own_loss.own_losses(
            model, watched, hidden, torch.from_numpy(whole.labels), whole.labels
        )
    assert calls == [4, 4, 4, 4, 4, 1]
    assert V not in kept
    found.sum().backward()
    assert sorted(calls) == sorted([4, 4, 4, 4, 4, 1] * 2)


def whole_mean(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels)


def not_finite(logits: Tensor, labels: Tensor) -> Tensor:
    return focal(logits, labels) * math.inf


def counted(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(-1) != labels).float()


def whole_numbers(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.argmax(-1)


def normalised(logits: Tensor, labels: Tensor) -> Tensor:
    nats = cross_entropy(logits, labels, reduction="none")
    return nats / nats.mean()


def random_numbers(logits: Tensor, labels: Tensor) -> Tensor:
    return focal(logits, labels) * torch.rand(len(labels))


def steep(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits[:, 0] * 0).sqrt() + focal(logits, labels)


def number(logits: Tensor, labels: Tensor) -> float:
    return 1.0


def raises(logits: Tensor, labels: Tensor) -> Tensor:
    return logits[labels.float()]


FAULTS: dict[Callable[..., Any], tuple[str, str]] = {
    whole_mean: (r"gave the shape \(\) for 6 labels, not \(6,\)", "without mean"),
    not_finite: ("gave inf for random logits", "finite number"),
    counted: ("has no gradient by the logits", "without detach"),
    whole_numbers: ("gave torch.int64", "Return float32"),
    normalised: (
        "gives a token another number when other tokens stand beside it",
        "scored by itself",
    ),
    random_numbers: ("gives other numbers when it is called again", "no random numbers"),
    steep: ("has a gradient of nan", "roots and logarithms"),
    number: ("gave a float for 6 labels", "one number a token"),
    raises: ("raised IndexError: tensors used as indices", "called as loss"),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.__name__)
def test_a_loss_that_would_not_do_is_refused_before_the_first_step(
    fault: Callable[..., Any],
) -> None:
    """Breaks when a check is left out; tried: finite, repeated, alone, gradient."""
    what, way_out = FAULTS[fault]
    model = small()
    with pytest.raises(RunError, match=f"{fault.__name__} {what}") as refused:
        own_loss.try_out(Call(name=f"test_train_own_loss:{fault.__name__}"), model)
    refused.match(way_out)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_sound_loss_passes_and_its_version_follows_its_arguments() -> None:
    """Arguments reach the function and its version; a wrong one is named."""
    calls = [
        Call(name="test_train_own_loss:focal", arguments={"gamma": gamma}) for gamma in (0.0, 3.0)
    ]
    for call in calls:
        own_loss.try_out(call, small())
    assert own_loss.version(calls[0]) != own_loss.version(calls[1])
    function = own_loss.resolved(calls[0])
    assert function is not None
    logits, labels = torch.randn(4, V), torch.arange(4)
    torch.testing.assert_close(
        function(logits, labels), cross_entropy(logits, labels, reduction="none")
    )
    with pytest.raises(RecipeError, match="gama is not an argument; did you mean gamma"):
        own_loss.resolved(Call(name="test_train_own_loss:focal", arguments={"gama": 1}))
