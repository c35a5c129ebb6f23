"""Every planted fault is caught by its own proof and named; healthy models of every kind pass."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from proof_parts import (
    CPU,
    SEPARATOR,
    VOCABULARY,
    faults,
    optimizer,
    packed,
    proofs,
    prove_variant,
    small,
    variants,
)
from torch import nn
from torch.nn import functional
from train_parts import Tiny

from wellfit.data.batches import Batch
from wellfit.model import transformer
from wellfit.recipe.schema import AdamW
from wellfit.records import IGNORED
from wellfit.training.proofs.isolation import borders_stand
from wellfit.training.proofs.labels import match_shares
from wellfit.training.proofs.prove import AFTER_RESUME, PROOFS

SEEDS = (0, 1, 2)


# ── healthy ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", range(3))
def test_healthy_models_of_every_kind_pass(number: int) -> None:
    """No false alarm, and nothing but what cannot be asked stays open.

    Breaks when zero projections are not filled (`awake` that yields at once): gradients of what
    feeds them are zero. Breaks when the tolerance for another shape is 1e-8.
    """
    for shape, run, seed in variants(12, seed=number):
        found = prove_variant(shape, run, seed)
        assert not faults(found), (found, shape, run)
        wanted = set(PROOFS) if run["step"] == 0 else AFTER_RESUME
        assert set(found) == wanted
        for name, proof in found.items():
            if proof.state == "not_assessed":
                asked = {
                    "packing_isolation": not run["document_mask"],
                    "batch_versus_single": run["micro_batch"] == 1,
                }
                assert asked[name], (proof, shape, run)


def test_a_wide_tied_model_that_begins_high_is_no_false_alarm() -> None:
    """zero_projections begin with each token expecting itself (model/init.py), by 0.02·width nats.

    Breaks when `first_loss` judges the plain loss.
    """
    model = small(width=512, heads=8, hidden=64, tie_embeddings=True)
    found = proofs(model)
    assert not faults(found)
    assert found["first_loss"].data["loss"] > math.log(VOCABULARY) + 1.5


@pytest.mark.parametrize("steps", [3, 120])
def test_trained_weights_pass(steps: int) -> None:
    """After some real updates, and with the offset scan once there are enough of them.

    Breaks when the scan looks for the lowest offset among 0 and 2 only.
    """
    from train_parts import section

    from wellfit.training.stepper import Stepper

    model = small()
    made = optimizer(model, AdamW(learning_rate=3e-3))
    batch = packed(1)
    stepper = Stepper(
        section(), model, made, list(model.parameters()), precision="fp32", device=CPU, seed=0
    )
    for step in range(1, steps + 1):
        stepper.take(step, batch)
    found = proofs(model, [batch, packed(2)], made, step=steps)
    assert not faults(found)
    scan = found["label_offset"].data.get("scan")
    assert (scan is None) == (steps < 100)
    if scan is not None:
        assert min(scan, key=scan.__getitem__) == "1"
    assert not faults(proofs(model, [batch, packed(2)], made, pretrained=True))


# ── causality, rows, documents ─────────────────────────────────────────────────────────────


def leaking(seen: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Any:
    """Which keys a query sees besides its own past → masks that let it."""

    def masks(
        model: Any,
        segments: Any,
        tokens: int,
        before: int,
        dtype: Any,
        device: Any,
        *,
        causal: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        keys = torch.arange(before + tokens)
        visible = (keys <= keys[before:, None]) | seen(keys[before:, None], keys[None])
        visible = visible[None, None]
        if segments is not None:
            visible = visible & (segments[:, None, :, None] == segments[:, None, None, :])
        made = torch.zeros((), dtype=dtype).masked_fill(~visible, -torch.inf)
        return made, made

    return masks


LEAKS = {
    "no mask": lambda query, key: key >= 0,
    "one token": lambda query, key: key == query + 1,
    "far tokens": lambda query, key: key >= query + 9,
    "first query": lambda query, key: (query == 0) & (key == 1),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("leak", LEAKS)
def test_a_look_ahead_is_a_causal_leak(
    leak: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks when the proof compares only the last place, or changes only the last token."""
    monkeypatch.setattr(transformer, "attention_masks", leaking(LEAKS[leak]))
    for seed in SEEDS:
        for changes in ({}, {"init": "scaled_normal", "tie_embeddings": True}):
            model = small(seed=seed, **changes)
            model.compute_dtype = dtype
            found = proofs(model, seed=seed)
            assert faults(found)["causality"] == "causal_leak"
            assert "must predict" in found["causality"].text


class Mixing(Tiny):
    """The tiny model, with batch normalisation or a mean over the rows of a batch."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.normal = nn.BatchNorm1d(self.embedding.shape[1], affine=False)

    def hidden(self, tokens, positions=None, segments=None, cache=None):
        x = super().hidden(tokens, positions, segments)
        if self.how == "batch norm":
            return self.normal(x.flatten(0, 1)).view(x.shape)
        return x + 0.1 * x.mean(0, keepdim=True)


def tiny_batches(**changes: Any) -> list[Batch]:
    return [packed(seed, vocabulary=31, **changes) for seed in (1, 2)]


@pytest.mark.parametrize("how", ["batch norm", "mean of rows"])
def test_rows_that_see_each_other_are_named(how: str) -> None:
    """Breaks when every pass is made in evaluation mode (batch norm rests there)."""
    model = Mixing(how)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    found = proofs(model, tiny_batches())
    assert faults(found)["batch_versus_single"] == "row_mixing"
    assert ("causality" in faults(found)) == (how == "batch norm")
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_a_row_padded_by_its_neighbours_is_named() -> None:
    """A row alone that reads differently, though no other row's tokens matter.

    Breaks when the pass of the single row is left out.
    """

    class Padded(Tiny):
        def hidden(self, tokens, positions=None, segments=None, cache=None):
            return super().hidden(tokens, positions, segments) * (1 + 0.01 * len(tokens))

    assert faults(proofs(Padded(), tiny_batches())) == {"batch_versus_single": "row_mixing"}


class Unpacked(transformer.Transformer):
    """Sees all documents of a row, or restarts no positions."""

    forgets = "segments"

    def hidden(self, tokens, positions=None, segments=None, cache=None):
        if self.forgets == "segments":
            segments = None
        else:
            positions = None
        return super().hidden(tokens, positions, segments, cache)


def unsound(kind: type[transformer.Transformer], seed: int = 0, **changes: Any) -> Any:
    """A small model whose class is exchanged for a broken one."""
    model = small(seed=seed, **changes)
    model.__class__ = kind
    return model


@pytest.mark.parametrize("position", ["rotary", "learned"])
@pytest.mark.parametrize("seed", SEEDS)
def test_documents_that_see_each_other_are_named(seed: int, position: str) -> None:
    """Breaks when neither other documents are changed nor one is read alone."""
    model = unsound(Unpacked, seed, position=position)
    assert faults(proofs(model))["packing_isolation"] == "pack_leak"
    off = proofs(model, document_mask=False)
    assert off["packing_isolation"].state == "not_assessed"
    assert "document_mask" in off["packing_isolation"].text and not faults(off)


def test_positions_that_do_not_restart_are_named() -> None:
    """Breaks when the document is not read alone."""
    model = unsound(Unpacked, position="learned")
    model.forgets = "positions"
    assert faults(proofs(model)) == {"packing_isolation": "pack_leak"}


def test_borders_of_the_batches_are_checked() -> None:
    """Breaks when only positions are looked at."""
    batch = packed(1)
    assert borders_stand((batch,), SEPARATOR)
    one = replace(batch, segments=np.zeros_like(batch.segments))
    running = replace(batch, positions=np.tile(np.arange(24), (4, 1)))
    for wrong in (one, running):
        assert faults(proofs(small(), [wrong, batch])) == {"packing_isolation": "segments_wrong"}


def test_a_model_that_says_so_may_see_what_it_says() -> None:
    """Expert choice and batch statistics: not judged, with the model's own reason.

    Breaks when `mixes_tokens` is not asked.
    """
    model = Mixing("batch norm")
    model.mixes_tokens = "batch statistics"
    found = proofs(model, tiny_batches())
    assert not faults(found)
    for name in ("causality", "batch_versus_single", "packing_isolation"):
        assert found[name].state == "not_assessed" and "batch statistics" in found[name].text


# ── labels ─────────────────────────────────────────────────────────────────────────────────


def shifted(batch: Batch, offset: int) -> Batch:
    """A batch whose labels are the tokens at another offset."""
    labels = np.roll(batch.tokens, -offset, axis=1)
    if offset > 0:
        labels[:, -offset:] = IGNORED
    return replace(batch, labels=labels)


@pytest.mark.parametrize(
    ("offset", "fault"),
    [(0, "labels_not_shifted"), (2, "labels_double_shift"), (3, "labels_misaligned")],
)
def test_labels_at_another_offset_are_named(offset: int, fault: str) -> None:
    """Breaks when the best of the matches is not asked for, or +1 is compared with 0 only."""
    for seed in SEEDS:
        batches = [shifted(packed(seed, masked=0.2), offset), shifted(packed(seed + 9), offset)]
        found = proofs(small(seed=seed), batches, separator=None)
        assert faults(found) == {"label_offset": fault}
        assert f"offset {offset:+d}" in found["label_offset"].text


def test_labels_that_belong_to_other_rows_are_named() -> None:
    batch = packed(1)
    mixed = replace(batch, labels=batch.labels[::-1].copy())
    assert faults(proofs(small(), [mixed, mixed])) == {"label_offset": "labels_misaligned"}


def test_matches_by_hand() -> None:
    """Two documents; the label between them does not count. Breaks when segments are ignored."""
    batch = Batch(
        tokens=np.array([[1, 2, 3, 9, 5]]),
        labels=np.array([[2, 3, 8, 5, 6]]),
        positions=np.array([[0, 1, 2, 0, 1]]),
        segments=np.array([[0, 0, 0, 1, 1]]),
        documents=np.array([[0, 0, 0, 1, 1]]),
    )
    assert match_shares((batch,)) == {-1: 0, 0: 0, 1: 1.0, 2: 0, 3: 0}
    assert match_shares((replace(batch, labels=batch.labels * 0 + IGNORED),))[1] is None


class Shifting(transformer.Transformer):
    """Shifts labels once more, as models with a loss of their own do."""

    by = 1

    def token_loss(self, hidden, labels):
        return super().token_loss(hidden, torch.roll(labels, -self.by, 1))


@pytest.mark.parametrize(("by", "fault"), [(1, "labels_double_shift"), (-1, "labels_not_shifted")])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_model_that_shifts_again_is_named(by: int, fault: str, seed: int) -> None:
    """Found at initialisation, before any loss could tell. Breaks when the head stays zero."""
    model = unsound(Shifting, seed)
    model.by = by
    assert faults(proofs(model)) == {"label_offset": fault}


@pytest.mark.parametrize("scale", [0.1, 8.0])
def test_a_loss_that_is_not_cross_entropy_is_named(scale: float) -> None:
    """Breaks when the distances are compared with each other only, not with that at 0."""

    class Scaled(transformer.Transformer):
        def token_loss(self, hidden, labels):
            return super().token_loss(hidden, labels) * scale

    assert faults(proofs(unsound(Scaled)))["label_offset"] == "loss_not_cross_entropy"


def test_weights_that_learnt_the_wrong_offset_are_named() -> None:
    """A tied model whose blocks add nothing predicts its own token; sold as trained weights.

    Breaks when the scan is not made for pretrained weights.
    """
    model = small(width=512, heads=8, hidden=64, tie_embeddings=True)
    found = proofs(model, pretrained=True)
    assert faults(found) == {"label_offset": "labels_not_shifted"}
    assert "offset +0" in found["label_offset"].text


def test_batches_without_labels_are_named() -> None:
    """Breaks when the mean over both batches is asked for."""
    empty = replace(packed(2), labels=np.full_like(packed(2).labels, IGNORED))
    found = proofs(small(), [packed(1), empty])
    assert faults(found) == {"supervised_tokens": "mask_all"}
    assert "step 2" in found["supervised_tokens"].text
    both = proofs(small(), [empty, empty])
    assert faults(both) == {"supervised_tokens": "mask_all"}
    assert both["first_loss"].state == both["label_offset"].state == "not_assessed"


def test_ends_that_are_never_learnt_are_named() -> None:
    """Breaks when the inputs are counted as labels. Without a known separator nobody can tell."""

    def mask(batch: Batch) -> Batch:
        labels = np.where(batch.labels == SEPARATOR, IGNORED, batch.labels)
        return replace(batch, labels=labels)

    batches = [mask(packed(1)), mask(packed(2))]
    assert faults(proofs(small(), batches)) == {"supervised_tokens": "eos_masked"}
    assert not faults(proofs(small(), batches, separator=None))


def test_supervised_padding_is_named() -> None:
    batch = packed(1)
    documents = batch.documents.copy()
    documents[:, -3:] = -1
    padded = replace(batch, documents=documents)
    found = proofs(small(), [padded, batch])
    assert faults(found) == {"supervised_tokens": "pad_in_loss"}
    assert found["supervised_tokens"].text.startswith("12 labels")
    labels = batch.labels.copy()
    labels[:, -3:] = IGNORED
    assert not faults(proofs(small(), [replace(padded, labels=labels), batch]))


def test_ids_that_the_model_does_not_have_are_named() -> None:
    """Instead of an index error. Breaks when ids are not compared with the vocabulary."""
    batch = packed(1)
    tokens = batch.tokens.copy()
    tokens[0, 3] = VOCABULARY
    found = proofs(small(), [replace(batch, tokens=tokens), batch])
    assert faults(found) == {"supervised_tokens": "ids_outside"}
    assert {p.state for name, p in found.items() if name != "supervised_tokens"} == {"not_assessed"}


# ── gradients and optimizer ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["blocks.1.feedforward.down.weight", "head.weight"])
def test_a_tensor_outside_the_optimizer_is_named(name: str) -> None:
    """Breaks when only gradients are looked at."""
    model = small()
    made = optimizer(model)
    made.groups = tuple(
        replace(
            group, runs=tuple({n: p for n, p in run.items() if n != name} for run in group.runs)
        )
        for group in made.groups
    )
    found = proofs(model, optimizers=made)
    assert faults(found) == {"gradient_coverage": "param_missing"}
    assert found["gradient_coverage"].data["tensors"] == [name]


def test_other_faults_of_the_optimizer_are_named() -> None:
    """Breaks when entries are counted as a set, or rates by their current value."""
    model = small()
    made = optimizer(model)
    first, *others = made.groups
    made.groups = (first, replace(others[0], runs=(*others[0].runs, first.runs[0])), *others[1:])
    assert faults(proofs(model, optimizers=made)) == {"gradient_coverage": "param_twice"}
    made = optimizer(model)
    made.groups = (replace(made.groups[0], peak=0.0), *made.groups[1:])
    assert faults(proofs(model, optimizers=made)) == {"gradient_coverage": "rate_zero"}
    made = optimizer(model)
    made.set_share(0.0)  # the rate before the first step of a warm-up
    assert not faults(proofs(model, optimizers=made))
    foreign = {"foreign": nn.Parameter(torch.zeros(3))}
    first, *others = made.groups
    made.groups = (replace(first, runs=(*first.runs, foreign)), *others)
    assert faults(proofs(model, optimizers=made)) == {"gradient_coverage": "param_foreign"}


def test_a_frozen_tensor_is_named() -> None:
    model = small()
    made = optimizer(model)
    model.blocks[0].attention.query.weight.requires_grad_(False)
    found = proofs(model, optimizers=made)
    assert faults(found) == {"gradient_coverage": "frozen_tensor"}
    assert "blocks.0.attention.query.weight" in found["gradient_coverage"].text


class Detached(transformer.Transformer):
    """The embedding gets no gradient: the features are cut off behind it."""

    def hidden(self, tokens, positions=None, segments=None, cache=None):
        with torch.no_grad():
            self.embedding.weight.add_(0)
        kept = self.embedding.forward
        self.embedding.forward = lambda ids: kept(ids).detach()  # type: ignore[method-assign]
        try:
            return super().hidden(tokens, positions, segments, cache)
        finally:
            del self.embedding.forward


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tensor_without_a_gradient_is_named(dtype: torch.dtype) -> None:
    """Breaks when a gradient of None is passed over."""
    for seed in SEEDS:
        model = unsound(Detached, seed)
        model.compute_dtype = dtype
        found = proofs(model)
        assert faults(found) == {"gradient_coverage": "zero_gradient"}
        assert found["gradient_coverage"].data["tensors"] == ["embedding.weight"]


def test_experts_may_rest_where_the_model_says_so() -> None:
    """An expert that no token of the rows reaches. Breaks when `sparse_parameters` is not asked."""

    class Experts(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.expert = nn.Parameter(torch.ones(3))

        def roles(self):
            return {**super().roles(), "expert": "matrix"}

    model = Experts()
    assert faults(proofs(model, tiny_batches())) == {"gradient_coverage": "zero_gradient"}
    model.sparse_parameters = ("expert",)
    found = proofs(model, tiny_batches())
    assert not faults(found) and found["gradient_coverage"].data["resting"] == ["expert"]


def test_a_gradient_that_is_no_number_is_named() -> None:
    """√0 has a finite value and no finite slope. Breaks when only zeros are looked for."""

    class Root(Tiny):
        def token_loss(self, hidden, labels):
            return super().token_loss(hidden, labels) + (self.bias * 0).abs().sqrt().sum()

    assert faults(proofs(Root(), tiny_batches())) == {"gradient_coverage": "gradient_not_finite"}


# ── cache, evaluation, first loss ──────────────────────────────────────────────────────────


class Late(transformer.Transformer):
    """Reads on behind its cache one position too far, or forgets the last token."""

    how = "position"

    def hidden(self, tokens, positions=None, segments=None, cache=None):
        if cache is not None and cache.length and self.how == "position":
            length = tokens.shape[1]
            positions = torch.arange(cache.length + 1, cache.length + 1 + length)[None]
            positions = positions.clamp_max(self.model.context - 1)
        if cache is not None and cache.length > 1 and self.how == "stale":
            cache.keys[:, :, :, cache.length - 1] = cache.keys[:, :, :, cache.length - 2]
        return super().hidden(tokens, positions, segments, cache)


@pytest.mark.parametrize("how", ["position", "stale"])
@pytest.mark.parametrize("position", ["rotary", "learned"])
def test_a_cache_that_is_off_by_one_is_named(how: str, position: str) -> None:
    """Breaks when all tokens are read at once, or the first piece alone is compared."""
    for seed in SEEDS:
        model = unsound(Late, seed, position=position)
        model.how = how
        found = proofs(model)
        assert faults(found) == {"cache_versus_full": "kv_cache_bug"}
        assert found["cache_versus_full"].data["by_piece"]["first"] < 1e-5


class Awake(transformer.Transformer):
    """Dropout that stays on in evaluation, never comes on, or is drawn from elsewhere."""

    how = "always"

    def _dropout(self):
        before, self.training = self.training, self.how == "always"
        try:
            return super()._dropout()
        finally:
            self.training = before


def test_dropout_in_evaluation_is_named() -> None:
    """Keyed dropout gives the same twice, so another key is asked. Breaks when it is not."""
    for seed in SEEDS:
        found = proofs(unsound(Awake, seed, dropout=0.1))
        assert faults(found)["evaluation_determinism"] == "dropout_eval"


def test_dropout_that_never_comes_on_is_named() -> None:
    model = unsound(Awake, dropout=0.1)
    model.how = "never"
    assert faults(proofs(model)) == {"evaluation_determinism": "dropout_inert"}


def test_dropout_from_elsewhere_is_named() -> None:
    """torch's own dropout asks nobody's key: a resume cannot draw the same again."""

    class Elsewhere(Tiny):
        def hidden(self, tokens, positions=None, segments=None, cache=None):
            x = super().hidden(tokens, positions, segments)
            return functional.dropout(x, 0.2, self.training)

    found = faults(proofs(Elsewhere(), tiny_batches()))
    assert found["evaluation_determinism"] == "dropout_unkeyed"

    class Never(Elsewhere):
        def train(self, mode=True):
            return self

    found = faults(proofs(Never(), tiny_batches()))
    assert found["evaluation_determinism"] == "dropout_eval"


@pytest.mark.parametrize("tied", [False, True])
def test_a_head_a_hundred_times_too_large_is_named(tied: bool) -> None:
    """Breaks when the loss is compared with the spread of its own logits only."""
    for seed in SEEDS:
        model = small(seed=seed, init="scaled_normal", tie_embeddings=tied)
        with torch.no_grad():
            model._output_matrix().mul_(100)
        found = proofs(model)
        assert faults(found) == {"first_loss": "init_big"}
        assert not faults(proofs(model, step=5)), "trained weights may be large"


def test_labels_that_reach_the_logits_are_named() -> None:
    """Breaks when only losses above are looked for."""

    class Cheating(transformer.Transformer):
        def token_loss(self, hidden, labels):
            return super().token_loss(hidden, labels) * 1e-4

    found = proofs(unsound(Cheating))
    assert faults(found)["first_loss"] == "loss_too_low"
    assert faults(proofs(unsound(Cheating), step=3))["first_loss"] == "loss_too_low"


def test_weights_that_were_never_drawn_are_named() -> None:
    """NaN everywhere: the first loss says so, the others cannot tell. Breaks when NaN < limit."""
    model = small()
    with torch.no_grad():
        model.final_norm.weight.fill_(math.nan)
    found = proofs(model)
    assert faults(found)["first_loss"] == "loss_not_finite"
    assert faults(found).keys() <= {"first_loss", "gradient_coverage"}
    assert found["causality"].state == "not_assessed" and "finite" in found["causality"].text


# ── guests, and nothing moved ──────────────────────────────────────────────────────────────


def test_a_guest_is_proved_as_far_as_it_goes() -> None:
    """A module behind the protocol, without a cache and without segments; blank otherwise."""

    class Guest(Tiny):
        def hidden(self, tokens, positions=None, segments=None, cache=None):
            if segments is not None:
                raise TypeError("I know no segments")
            return super().hidden(tokens)

    found = proofs(Tiny(), tiny_batches())
    assert not faults(found)
    open_ = {n: p.text for n, p in found.items() if p.state == "not_assessed"}
    assert open_ == {"cache_versus_full": "The model has no cache (NotImplementedError)."}
    found = proofs(Guest(), tiny_batches())
    assert not faults(found)
    assert "I know no segments" in found["packing_isolation"].text
    found = proofs(Guest(), tiny_batches(), document_mask=False)
    assert {n for n, p in found.items() if p.state == "not_assessed"} == {
        "cache_versus_full",
        "packing_isolation",
    }


def test_everything_is_as_it_was_bit_for_bit() -> None:
    """Weights (a −0 among them), gradients, moments, buffers, random states, modes, precision.

    Breaks when zeros are put back as +0, when gradients are cleared, when modes are set by
    `train(True)`, when torch's random state is not put back.
    """
    import random

    class Drawing(transformer.Transformer):
        def hidden(self, tokens, positions=None, segments=None, cache=None):
            torch.rand(1), np.random.rand(), random.random()
            return super().hidden(tokens, positions, segments, cache)

    model = unsound(Drawing, dropout=0.1)
    model.compute_dtype = torch.bfloat16
    made = optimizer(model)
    weights = list(model.parameters())
    with torch.no_grad():
        model.head.weight[3, 4] = -0.0
    for weight in weights:
        weight.grad = torch.full_like(weight, 0.25)
    made.step()
    with torch.no_grad():  # and zeros again, for the optimizer has moved them
        model.head.weight.zero_()
        model.head.weight[3, 4] = -0.0
        model.blocks[0].attention.output.weight.zero_()
    model.blocks[1].eval()
    gradients = [weight.grad for weight in weights]

    def state() -> list[bytes]:
        moments = [value.numpy().tobytes() for value in made.state().values()]
        return [
            *(weight.detach().numpy().tobytes() for weight in weights),
            *(weight.grad.numpy().tobytes() for weight in weights if weight.grad is not None),
            *moments,
            torch.get_rng_state().numpy().tobytes(),
            repr(random.getstate()).encode(),
            np.random.get_state()[1].tobytes(),  # type: ignore[index, union-attr]
            repr([module.training for module in model.modules()]).encode(),
            str(model.compute_dtype).encode(),
        ]

    before = state()
    assert len(proofs(model, optimizers=made)) == len(PROOFS)
    assert state() == before
    assert all(weight.grad is kept for weight, kept in zip(weights, gradients, strict=True))


def test_nothing_moves_when_a_model_raises_or_nobody_listens() -> None:
    """Breaks when zeros are put back after the last proof instead of in any case."""

    class Raising(transformer.Transformer):
        def token_loss(self, hidden, labels):
            raise ValueError("not today")

    model = unsound(Raising)
    found = proofs(model)
    assert "ValueError: not today" in found["label_offset"].text
    assert not bool(model.head.weight.any()) and model.training
