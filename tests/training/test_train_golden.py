"""Thirty steps of a small transformer on one CPU thread: the loss curve that they must give."""

from __future__ import annotations

import pytest
import torch
from train_parts import ADAMW, CONTEXT, MUON, VOCABULARY, Cycle, filled, run, section

from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import Model
from wellfit.records import Step

SCHEDULE = {"kind": "wsd", "warmup": 4, "decay_share": 0.5, "final_share": 0.1}
# Losses at steps 1, 6, 11, 16, 21, 26 and 30, written down once and looked at.
GOLDEN = {
    "adamw": [3.861539, 2.114636, 0.947699, 0.518905, 0.191984, 0.089302, 0.064687],
    "muon": [3.861539, 2.512354, 1.188278, 0.714233, 0.242535, 0.125117, 0.096991],
}


@pytest.mark.parametrize("optimizer", [ADAMW, MUON], ids=["adamw", "muon"])
def test_the_loss_curve_is_the_one_written_down(tmp_path, optimizer):
    """Break: any change of batch order, rates, clipping, decay or loss accounting moves it."""
    shape = Model(context=CONTEXT, layers=2, width=32, heads=2, kv_heads=1, hidden=48)
    model = Transformer(shape, VOCABULARY)
    with torch.no_grad():
        for seed, (_, parameter) in enumerate(sorted(model.named_parameters())):
            matrix = parameter.ndim == 2
            parameter.copy_(filled(*parameter.shape, seed=seed) if matrix else torch.tensor(1.0))
    recipe = section(
        budget={"steps": 30},
        optimizer={**optimizer, "weight_decay": 0.1},
        schedule=SCHEDULE,
        clip_norm=0.5,
    )
    losses = [
        r.loss for r in run(tmp_path, model, Cycle(), train_section=recipe) if type(r) is Step
    ]
    found = [losses[step - 1] for step in (1, 6, 11, 16, 21, 26, 30)]
    # Muon's iterations are in bf16, whose rounding differs between processors.
    assert found == pytest.approx(
        GOLDEN[optimizer["kind"]], rel=2e-2 if optimizer is MUON else 1e-3
    )
