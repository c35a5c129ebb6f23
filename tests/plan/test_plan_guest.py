"""The plan of a module of one's own: its tensors are counted, the rest is named as not counted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from wellfit.plan.guest import plan_guest
from wellfit.plan.plan import Plan
from wellfit.plan.text import plan_lines, plan_text
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.schema import Model, Recipe
from wellfit.run.parts import first_model, model_shapes
from wellfit.run.plan import cpu_machine
from wellfit.training import optimizers

V = 300


class Small(nn.Module):
    def __init__(self, model: Model, vocabulary_size: int, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary_size, width)
        self.inner = nn.Linear(width, 3 * width)
        self.out = nn.Linear(3 * width, vocabulary_size, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.inner(self.embed(tokens)).relu())


class Stubborn(Small):
    """Cannot be made on the device `meta`, since it looks at a number of its own."""

    def __init__(self, model: Model, vocabulary_size: int) -> None:
        super().__init__(model, vocabulary_size)
        assert float(self.embed.weight[0, 0]) == float(self.embed.weight[0, 0])


def recipe_of(name: str, **train: Any) -> Recipe:
    return parse_recipe(
        {
            "name": "guest",
            "data": {"tokens": {"train": ["x.bin"], "vocabulary_size": V, "separator": 0}},
            "model": {"context": 16, "module": f"test_plan_guest:{name}"},
            "train": {"budget": {"steps": 3}, "document_mask": False, **train},
        }
    )


def planned(recipe: Recipe) -> Plan:
    shapes = model_shapes(recipe, V)
    return plan_guest(recipe, cpu_machine(), "fp32", shapes, vocabulary_size=V)


@pytest.mark.parametrize("kind", ["muon", "adamw", "sgd"])
def test_weights_gradients_and_moments_are_those_of_the_module(kind: str) -> None:
    """Beside the tensors that are really made. Breaks when a tensor of the module is left out."""
    recipe = recipe_of("Small", optimizer={"kind": kind}, ema_decay=0.9)
    plan = planned(recipe)
    model = first_model(recipe, V)
    parameters = dict(model.named_parameters())
    count = sum(parameter.numel() for parameter in parameters.values())
    assert plan.parameters == count
    held = plan.memory.step.by_kind
    assert held["weights"] == held["gradients"] == held["average"] == 4 * count
    made = optimizers.build(recipe.train.optimizer, parameters, model.roles())
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    made.set_share(1.0)
    made.step()
    state = sum(tensor.numel() * tensor.element_size() for tensor in made.state().values())
    assert held["optimizer"] == state
    assert plan.disk["checkpoint"] == 4 * count + state


def test_what_is_not_known_is_said() -> None:
    """Breaks when the plan of the dial's transformer is shown instead, or `fits` is guessed."""
    plan = planned(recipe_of("Small", loss="test_plan_guest:loss"))
    assert plan.fits is None
    assert plan.uncounted == ("activations of model.module", "train.loss")
    text = plan_text(plan)
    assert "whether it fits is not known (not counted: activations of model.module" in text
    assert "unknown FLOP a token" in text
    blind = planned(recipe_of("Stubborn"))
    assert blind.parameters is None
    assert blind.uncounted == ("model.module",)
    assert "unknown parameters" in plan_text(blind)
    assert "a checkpoint unknown" in plan_text(blind)
    assert plan_lines(blind)
