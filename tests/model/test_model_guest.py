"""Modules of somebody's own: wrapped as a language model, or refused with the way out."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wellfit.errors import RunError
from wellfit.generation.generate import generate
from wellfit.model.guest import Guest, document_mask, made, refuse_unfit
from wellfit.model.logits_loss import logits_objective
from wellfit.model.seeded import seeded
from wellfit.recipe.schema import Sampling

V, C = 23, 16
CPU = torch.device("cpu")


class Plain(nn.Module):
    """An embedding, a recurrent layer with dropout, and a head."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed = nn.Embedding(V, 8)
        self.place = nn.Embedding(C, 8)
        self.mix = nn.GRU(8, 8, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(8, V)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1])
        x = self.mix(self.embed(tokens) + self.place(places))[0]
        return self.head(self.drop(self.norm(x)))


def guest(module: nn.Module | None = None) -> Guest:
    with seeded("weights", CPU):
        module = module or Plain()
    return Guest(module, context=C, vocabulary_size=V)


def some(rows: int = 2, length: int = C, seed: int = 0) -> Tensor:
    return torch.randint(0, V, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("smoothing", "z_loss"), [(0.0, 0.0), (0.1, 0.0), (0.2, 0.01)])
def test_the_loss_from_logits_is_that_of_autograd(
    smoothing: float, z_loss: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, extra and gradient in float64, in chunks of two tokens, some of them ignored.

    Breaks tried: the extra's gradient without 2·ln Z; an ignored label that keeps a gradient."""
    monkeypatch.setattr("wellfit.model.kernels.CHUNK_LOGITS", 2 * V)
    logits = torch.randn(7, V, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = some(1, 7)[0]
    labels[3] = -100
    weights = torch.rand(7, dtype=torch.float64)
    one, two = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    losses, extra = logits_objective(one, labels, label_smoothing=smoothing, z_loss=z_loss)
    ((losses + extra) * weights).sum().backward()
    plain = cross_entropy(two, labels, reduction="none")
    whole = cross_entropy(two, labels, reduction="none", label_smoothing=smoothing)
    whole = whole + z_loss * two.logsumexp(1).square() * (labels >= 0)
    (whole * weights).sum().backward()
    torch.testing.assert_close(losses, plain.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(losses + extra, whole.detach(), rtol=1e-12, atol=1e-12)
    assert one.grad is not None
    assert two.grad is not None
    torch.testing.assert_close(one.grad, two.grad, rtol=1e-10, atol=1e-12)
    assert not one.grad[3].any()


def test_roles_are_guessed_and_tied_weights_come_once() -> None:
    """Breaks when the head is taken for a matrix, or positions for the embedding (both tried)."""
    model = guest()
    assert model.roles() == {
        "embed.weight": "embedding",
        "place.weight": "position",
        "mix.weight_ih_l0": "matrix",
        "mix.weight_hh_l0": "matrix",
        "mix.bias_ih_l0": "bias",
        "mix.bias_hh_l0": "bias",
        "norm.weight": "norm",
        "norm.bias": "bias",
        "head.weight": "head",
        "head.bias": "bias",
    }
    assert list(model.roles()) == [name for name, _ in model.named_parameters()]
    tied = Plain()
    tied.head.weight = tied.embed.weight
    assert "head.weight" not in guest(tied).roles()
    own = Plain()
    own.roles = lambda: dict.fromkeys(dict(own.named_parameters()), "norm")  # type: ignore[assignment]
    assert set(guest(own).roles().values()) == {"norm"}
    convolution = guest(nn.Sequential(nn.Conv1d(2, 2, 3), nn.Linear(2, 2)))
    assert list(convolution.roles().values()) == ["norm", "bias", "matrix", "bias"]


def test_dropout_is_a_function_of_its_key_and_of_nothing_else() -> None:
    """Breaks when the generator is not seeded, or not put back."""
    model = guest(Plain(dropout=0.5)).train()

    def read(*key: int) -> Tensor:
        model.dropout_key(*key)  # type: ignore[arg-type]
        return model.hidden(some()).detach()

    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    first = read(0, 1, 0)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
    torch.manual_seed(6)
    assert torch.equal(first, read(0, 1, 0))
    for other in ((1, 1, 0), (0, 2, 0), (0, 1, 2)):
        assert not torch.equal(first, read(*other))
    model.train(False)
    assert torch.equal(read(0, 1, 0), read(0, 2, 0))


def test_what_a_document_mask_shows() -> None:
    """Breaks when later tokens are shown."""
    mask = document_mask(torch.tensor([[0, 0, 1]]), torch.float32)
    assert mask.shape == (1, 1, 3, 3)
    assert (mask[0, 0] == 0).tolist() == [[True, False, False], [True, True, False],
                                          [False, False, True]]  # fmt: skip


def test_forward_gets_what_its_parameters_are_called() -> None:
    """Breaks when positions are dropped."""
    got: dict[str, Any] = {}

    class Named(Plain):
        def forward(
            self,
            input_ids: Tensor,
            segments: Tensor | None = None,
            position_ids: Tensor | None = None,
            use_cache: bool = True,
        ) -> Any:
            got.update(segments=segments, position_ids=position_ids, use_cache=use_cache)
            return type("Output", (), {"logits": super().forward(input_ids)})()

    model, places = guest(Named()), torch.arange(C).expand(2, C)
    assert model.hidden(some(), places, places // 8).shape == (2, C, V)
    assert torch.equal(got["segments"], places // 8)
    assert torch.equal(got["position_ids"], places)
    assert got["use_cache"] is False
    model.hidden(some())
    assert got["segments"] is None
    assert guest().hidden(some(), places, places).shape == (2, C, V)


def test_sixteen_bits_come_from_autocast_and_weights_stay() -> None:
    """Breaks when autocast is not entered."""
    model = guest()
    model.compute_dtype = torch.bfloat16
    hidden = model.hidden(some())
    assert hidden.dtype == torch.bfloat16
    assert model.logits(hidden).dtype == model.token_loss(hidden, some()).dtype == torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model.compute_dtype = torch.float32
    assert model.hidden(some()).dtype == torch.float32


def test_generation_reads_the_window_anew() -> None:
    """Greedy tokens past the context are those of plain passes over the window.

    Breaks when the window forgets what was read, or the last logits are not taken."""
    model = guest()
    ids = list(some(1, 5)[0])
    found = list(generate(model, [int(i) for i in ids], Sampling(tokens=20, temperature=0)))
    whole = [int(i) for i in ids]
    start = 0
    for _ in range(20):
        if len(whole) - start > C:
            start += C - C // 2
        with torch.no_grad():
            whole.append(int(model.module(torch.tensor([whole[start:]]))[0, -1].argmax()))
    assert found == whole[5:]
    with pytest.raises(AssertionError, match="do not fit"):
        model.hidden(some(1, C + 1), cache=model.new_cache())


class Running(Plain):
    """A norm with running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.running = nn.BatchNorm1d(V)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.running(super().forward(tokens).transpose(1, 2)).transpose(1, 2)


class Short(Plain):
    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens)[..., :-1]


class Pooled(Plain):
    def forward(self, tokens: Tensor) -> str:  # type: ignore[override]
        return "pooled"


class Broken(Plain):
    def forward(self, tokens: Tensor) -> Tensor:
        raise ValueError("no such layer")


UNFIT: dict[str, tuple[Callable[[], nn.Module], bool, str, str]] = {
    "nothing": (nn.Identity, False, "has no parameters to train", "Register its layers"),
    "half": (lambda: Plain().half(), False, "10 parameters are not float32, such as embed.weight",
             r"\(torch.float16\)"),
    "mask": (Plain, True, "neither `segments` nor `attention_mask`", "train.document_mask=false"),
    "buffer": (Running, False, "running.running_mean changes in a forward pass", "LayerNorm"),
    "logits": (Short, False, r"gave \(2, 8, 22\) for tokens \(2, 8\), not logits \(2, 8, 23\)",
               "a score for every entry"),
    "no tensor": (Pooled, False, "gave str for tokens", "as `.logits`"),
    "raises": (Broken, False, "its forward raised ValueError for tokens .*: no such layer",
               "int64 tokens"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_what_would_not_train_as_it_should_is_refused(name: str) -> None:
    """Breaks when a check is left out; tried with those of types, masks and buffers."""
    make, masked, what, way_out = UNFIT[name]
    model = guest(make())
    state = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(RunError, match=what) as refused:
        refuse_unfit(model, document_mask=masked)
    refused.match(way_out)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_a_function_that_gives_no_module_is_named() -> None:
    def fails(model: object, size: int) -> nn.Module:
        raise KeyError("width")

    with pytest.raises(RunError, match=r"my:fails raised KeyError: 'width'") as refused:
        made(fails, "my:fails", None, V)
    refused.match("called as function")
    with pytest.raises(RunError, match=r"my:number gave a int, not a torch.nn.Module"):
        made(lambda model, size: 3, "my:number", None, V)
