"""Proofs about encoders and encoder-decoders: sound ones pass, and faults are found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from proof_parts import SEPARATOR, VOCABULARY, faults, packed, proofs, small

from wellfit.data.batches import Batch
from wellfit.data.corrupt.denoised import denoising
from wellfit.data.corrupt.marks import Marks
from wellfit.data.corrupt.masked import masking
from wellfit.model import transformer
from wellfit.recipe.schema import Objective

MARKS = Marks(VOCABULARY, SEPARATOR, 50, mask=50, sentinels=tuple(range(51, 61)))


def batches(kind: str, objective: Objective | None = None) -> list[Batch]:
    make = masking if kind == "encoder" else denoising
    hide = make(objective or Objective(share=0.3), MARKS, ("proof",))
    return [hide(packed(seed, vocabulary=50), np.arange(4) + 10 * seed) for seed in (1, 2)]


@pytest.mark.parametrize("kind", ["encoder", "encoder_decoder"])
@pytest.mark.parametrize("position", ["rotary", "learned"])
@pytest.mark.parametrize("state", [{}, {"step": 200}, {"pretrained": True}])
def test_sound_variants_pass(kind: str, position: str, state: dict[str, Any]) -> None:
    """After a resume too. Breaks tried: scan an encoder for the next token; ask masked batches for
    ends of documents; read the last packed target with the whole source."""
    found = proofs(small(kind=kind, position=position, dropout=0.1), batches(kind), **state)
    assert not faults(found), {n: p.text for n, p in found.items() if p.state == "failed"}
    open_ones = {name for name, proof in found.items() if proof.state == "not_assessed"}
    if kind == "encoder_decoder":
        assert not open_ones
    elif "step" not in state:
        assert open_ones == {"causality", "cache_versus_full"}


def test_an_encoder_that_repeats_what_it_sees_is_sound() -> None:
    """Trained weights give a visible token back: offset 0 is right for them.

    Break tried: scan an encoder for the next token.
    """
    model = small(kind="encoder")
    with torch.no_grad():
        model.head.weight.copy_(model.embedding.weight)
    found = proofs(model, batches("encoder"), step=200)
    assert not faults(found) and "scan" not in found["label_offset"].data


def test_labels_that_stand_open_are_found() -> None:
    """Break tried: compare the labels with the tokens of the next place."""
    shown = [
        replace(batch, tokens=np.where(batch.labels >= 0, batch.labels, batch.tokens))
        for batch in batches("encoder")
    ]
    found = proofs(small(kind="encoder"), shown)
    assert faults(found) == {"label_offset": "labels_not_shifted"}
    assert "stand open in the input" in found["label_offset"].text


@pytest.mark.parametrize("kind", ["encoder", "encoder_decoder"])
def test_documents_that_see_each_other_are_found(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break tried: change nothing in the middle, and compare no document alone."""
    masks = transformer.attention_masks

    def blind(model: Any, segments: Any, *rest: Any, causal: bool) -> Any:
        return masks(model, None if not causal else segments, *rest, causal=causal)

    monkeypatch.setattr(transformer, "attention_masks", blind)
    found = proofs(small(kind=kind), batches(kind))
    assert faults(found).get("packing_isolation") == "pack_leak"


def test_a_target_that_reads_every_source_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Break tried: leave the middle source as it is, and compare no document alone."""
    monkeypatch.setattr(transformer, "source_mask", lambda *_: None)
    found = proofs(small(kind="encoder_decoder"), batches("encoder_decoder"))
    assert faults(found) == {"packing_isolation": "pack_leak"}


def test_a_decoder_that_looks_ahead_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = transformer.attention_masks

    def ahead(*given: Any, causal: bool) -> Any:
        made = masks(*given, causal=False)
        open_one = torch.zeros(1, 1, given[2], given[2])
        return tuple(open_one if one is None else one for one in made)

    monkeypatch.setattr(transformer, "attention_masks", ahead)
    found = proofs(small(kind="encoder_decoder"), batches("encoder_decoder"))
    assert faults(found).get("causality") == "causal_leak"


def test_an_encoder_that_nothing_reads_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tensors get no gradient. Break tried: prove gradients without a source."""
    read = transformer.Attention.read

    def deaf(self: Any, x: Any, source: Any, *rest: Any) -> Any:
        return read(self, x, torch.ones_like(source), *rest)

    monkeypatch.setattr(transformer.Attention, "read", deaf)
    found = proofs(small(kind="encoder_decoder"), batches("encoder_decoder"))
    assert faults(found).get("gradient_coverage") == "zero_gradient"
    assert "encoder_blocks.0" in found["gradient_coverage"].text
