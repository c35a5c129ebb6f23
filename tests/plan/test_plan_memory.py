"""The plan's bytes against a real step's, counted; and every part of the ledger on its own."""

from __future__ import annotations

import pytest
import torch
from plan_counting import counted_peak, layout_of, recipe_of

from wellfit.evaluation import loss as evaluation_loss
from wellfit.model import attention, kernels
from wellfit.model.transformer import Transformer
from wellfit.plan import layout as plan_layout
from wellfit.plan import memory as plan_memory
from wellfit.plan.memory import memory
from wellfit.plan.step import play_step
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.shapes import parameter_count
from wellfit.recipe.sizes import DIALS

# Chosen before the ledger was written, and not looked at while it was; no constant was fitted.
HELD_OUT = {
    "as the quickstart": "layers=4 width=256 heads=2 context=256 micro=4 rows=8 V=4096 "
    "precision=bf16 optimizer=muon",
    "grouped swiglu tied": "width=128 heads=4 kv_heads=2 activation=swiglu tie_embeddings=true "
    "context=128 micro=8 rows=8 optimizer=adamw",
    "as GPT-2": "layers=3 width=192 heads=6 kv_heads=6 activation=gelu norm=layernorm bias=true "
    "position=learned qk_norm=false tie_embeddings=true dropout=0.1 context=256 micro=2 rows=8 "
    "V=2048 precision=bf16 optimizer=adamw",
    "long, one key head": "width=256 heads=4 kv_heads=1 activation=swiglu context=1024 micro=1 "
    "rows=1 V=512 optimizer=muon",
    "long, no mask": "width=128 heads=4 kv_heads=4 activation=swiglu context=640 micro=2 rows=4 "
    "V=8192 document_mask=false precision=bf16 optimizer=adamw",
    "deep and narrow": "layers=8 width=64 V=300 micro=16 rows=16 activation=relu2 optimizer=adamw",
    "capped logits": "layers=6 width=128 heads=8 kv_heads=2 activation=gelu_tanh norm=layernorm "
    "logit_soft_cap=30 context=512 micro=2 rows=4 V=6000 precision=bf16 optimizer=muon",
    "mostly weights": "layers=1 width=512 heads=8 kv_heads=8 hidden=512 activation=swiglu "
    "context=32 micro=2 rows=2 V=16000 optimizer=adamw",
    "dropout, no mask": "width=320 heads=5 kv_heads=5 activation=swiglu dropout=0.2 "
    "tie_embeddings=true context=200 micro=6 rows=6 V=3000 document_mask=false precision=bf16 "
    "optimizer=adamw",
    "learned, long": "width=96 heads=3 kv_heads=3 position=learned norm=layernorm activation=gelu "
    "bias=true context=600 micro=2 rows=6 optimizer=muon",
    "mostly update": "width=512 hidden=2048 heads=4 kv_heads=4 activation=relu2 micro=1 rows=2 "
    "V=1024 precision=bf16 optimizer=muon",
    "uneven": "layers=4 width=128 heads=1 kv_heads=1 activation=swiglu logit_soft_cap=15 "
    "tie_embeddings=true clip_norm=0 context=384 micro=3 rows=5 V=5000 optimizer=adamw",
}


@pytest.mark.parametrize("name", HELD_OUT)
def test_the_peak_is_that_of_a_real_step(name: str) -> None:
    """Within 5 % of every allocation counted.

    Breaks tried: RMSNorm keeps its input too (up to +8 %); the loss makes one chunk (fails on
    "capped logits"); Muon's look-ahead left out (fails on "mostly update").
    """
    recipe = recipe_of(HELD_OUT[name])
    ledger = play_step(layout_of(recipe), recipe.train.optimizer, _rows(recipe))
    counted = counted_peak(recipe)
    assert ledger.peak().bytes == pytest.approx(counted, rel=0.05), (name, counted)


def _rows(recipe) -> int:  # type: ignore[no-untyped-def]
    return recipe.train.batch_tokens // recipe.model.context
