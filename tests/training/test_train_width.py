"""Rates at another width: factors by role and optimizer, decay apart from them, and resuming."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from wellfit.errors import RecipeError, RunError
from wellfit.model.init import initialise
from wellfit.model.transformer import Transformer
from wellfit.recipe import schema
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.show import recipe_text
from wellfit.run.setting import refuse_another_model
from wellfit.training import optimizers
from wellfit.training.optimizers.width import EXPONENTS
from wellfit.training.start import built

RECIPE = {
    "name": "wide",
    "data": {"sources": [{"path": "texts"}]},
    "model": {
        "context": 8, "layers": 1, "width": 32, "heads": 4, "kv_heads": 4, "hidden": 64,
        "base_width": 8, "init": "scaled_normal", "bias": True, "position": "learned",
        "experts": {"count": 2, "active": 1},
    },
    "train": {"budget": {"steps": 1}, "batch_tokens": 8},
}  # fmt: skip
STILL = {"embedding": 1, "position": 1, "norm": 1, "bias": 1, "head": 1}
# Table 8 of arXiv 2203.03466 at four times the base; routers by the output row of table 3.
TABLE = {
    "adamw": {**STILL, "matrix": 1 / 4, "router": 1 / 4},
    "adamw_8bit": {**STILL, "matrix": 1 / 4, "router": 1 / 4},
    "lion": {**STILL, "matrix": 1 / 4, "router": 1 / 4},
    "adafactor": {**STILL, "matrix": 1 / 4, "router": 1 / 4},
    "muon": {**STILL, "matrix": 1, "router": 1 / 4},
    "sgd": {**dict.fromkeys(STILL, 4), "matrix": 1, "router": 1 / 4},
}


def recipe_of(kind: str, *changes: str) -> schema.Recipe:
    return parse_recipe(RECIPE, changes=(f"train.optimizer.kind={kind}", *changes))


def model_of(recipe: schema.Recipe) -> Transformer:
    model = Transformer(recipe.model, 31)
    initialise(model, 0)
    return model


@pytest.mark.parametrize("kind", EXPONENTS)
def test_rates_are_those_of_the_papers_table(kind: str) -> None:
    """Every parameter's peak, as the optimizer has it.

    Breaks tried: the factor on all roles; none on routers; SGD as AdamW; Muon's matrices as AdamW.
    """
    recipe = recipe_of(kind)
    model = model_of(recipe)
    peaks = {
        name: group.peak
        for group in built(recipe.train.optimizer, model).groups
        for run in group.runs
        for name in run
    }
    settings = recipe.train.optimizer
    for name, role in model.roles().items():
        rate = settings.learning_rate
        if isinstance(settings, schema.Muon) and role == "matrix":
            rate = settings.matrix_learning_rate
        assert peaks[name] == pytest.approx(rate * TABLE[kind][role]), (name, role)


@pytest.mark.parametrize("kind", EXPONENTS)
def test_at_the_base_width_groups_are_as_without(kind: str) -> None:
    """Break tried: a ratio of 1.0001 at the base."""
    at, without = (recipe_of(kind, f"model.base_width={base}") for base in (32, 0))
    # The dial's rates are those of the base, here the width itself.
    assert at.train == without.train
    one, other = (built(r.train.optimizer, model_of(r)).groups for r in (at, without))
    assert [(g.peak, g.weight_decay, list(g.runs[0])) for g in one] == [
        (g.peak, g.weight_decay, list(g.runs[0])) for g in other
    ]


def test_the_dials_rates_are_those_of_the_base() -> None:
    """Break tried: rates of the width itself, which are then carried over a second time."""
    wide, base = recipe_of("adamw"), recipe_of("adamw", "model.base_width=0", "model.width=8")
    assert wide.train.optimizer == base.train.optimizer
    own = recipe_of("adamw", "model.base_width=0")
    assert own.train.optimizer.learning_rate < wide.train.optimizer.learning_rate


@pytest.mark.parametrize("kind", ["adamw", "lion", "adafactor", "sgd", "adamw_8bit"])
def test_what_a_step_takes_off_a_weight_does_not_follow_the_factor(kind: str) -> None:
    """Gradients of zero leave decay alone. Break tried: the factor in rate · decay."""
    recipe = recipe_of(kind)
    settings = recipe.train.optimizer.model_copy(update={"learning_rate": 0.1, "weight_decay": 0.5})
    left = {}
    for factors in ({}, {"one": 0.25}, {"one": 4.0}):
        weight = torch.nn.Parameter(torch.full((4, 4), 2.0))
        weight.grad = torch.zeros_like(weight)
        made = optimizers.build(settings, {"one": weight}, {"one": "matrix"}, factors=factors)
        made.step()
        left[factors.get("one", 1.0)] = weight[0, 0].item()
    assert left[1.0] == pytest.approx(2 * (1 - 0.1 * 0.5), rel=1e-5)
    assert left[0.25] == pytest.approx(left[1.0], rel=1e-6)
    assert left[4.0] == pytest.approx(left[1.0], rel=1e-6)


def test_steps_by_size_have_no_rule() -> None:
    with pytest.raises(RecipeError, match="scale_by_size measures steps by each tensor's own"):
        recipe_of("adafactor", "train.optimizer.scale_by_size=true")
    recipe_of("adafactor", "train.optimizer.scale_by_size=true", "model.base_width=0")


def test_a_run_goes_on_with_its_own_base_width_only(tmp_path: Path) -> None:
    """Break tried: `base_width` left out of what must be as it was."""
    recipe = recipe_of("adamw")
    (tmp_path / "recipe.yaml").write_text(recipe_text(recipe))
    (tmp_path / "checkpoints" / "step-000001").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-000001" / "state.json").write_text("{}")
    refuse_another_model(recipe, tmp_path)
    with pytest.raises(RunError, match=r"model.base_width was 8 and is 16"):
        refuse_another_model(recipe_of("adamw", "model.base_width=16"), tmp_path)
