"""Which checkpoint is tested, evaluated and generated from: the best, the last, or any."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from wellfit.errors import CheckpointError, WellfitError
from wellfit.model.transformer import Transformer
from wellfit.monitor.folder import RunFolder, read_history
from wellfit.recipe.load import load_recipe
from wellfit.recipe.schema import Recipe
from wellfit.records import Event
from wellfit.run.conclude import settle_weights
from wellfit.run.weights import choose_checkpoint, open_run
from wellfit.training import checkpoint
from wellfit.training.retention import Score

LOSS = "validation.loss"


def rewrite(run: Path, values: dict[int, float], average: bool = False) -> None:
    """The run's two checkpoints, of steps 16 and 24, as written with these scores.

    The weights of step 16 are all 16ths, those of step 24 all 24ths; averages are negative.
    """
    folder = run / "checkpoints"
    for step in (16, 24):
        path = checkpoint.at(folder, step)
        state = checkpoint.read_state(path)
        weights = {
            n: torch.full_like(t, 1 / step)
            for n, t in load_file(path / "model.safetensors").items()
        }
        moments = load_file(path / "optimizer.safetensors")
        averages = {name: -tensor for name, tensor in weights.items()} if average else None
        found = tuple(Score(s, LOSS, value) for s, value in values.items() if s <= step)
        checkpoint._remove(path)
        checkpoint.save(folder, replace(state, scores=found), weights, moments, averages, keep=9)


def recipe_of(run: Path, **settings: object) -> Recipe:
    recipe = load_recipe(run / "recipe.yaml")
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=settings)})


def weight_of(model: Any) -> float:
    """The one value of all weights."""
    return float(next(iter(dict(model.named_parameters()).values())).detach().flatten()[0])


@pytest.fixture
def run(own_home: Path) -> Path:
    return own_home / "runs" / "tiny"


def test_the_best_by_default_where_the_recipe_keeps_and_restores_it(run: Path) -> None:
    """Break: always the newest; the best though `restore_best` is off."""
    rewrite(run, {8: 1.0, 16: 2.0, 24: 3.0})  # the best of all does not stand any more

    def chosen(which: str = "", **settings: object) -> str:
        return choose_checkpoint(run, recipe_of(run, **settings), which).name

    assert chosen() == "step-000024"
    assert chosen(keep_best=1) == "step-000016"
    assert chosen(keep_best=1, restore_best=False) == "step-000024"
    assert chosen("last", keep_best=1) == "step-000024"
    assert chosen("best") == "step-000016"
    assert chosen("24") == chosen("000024") == "step-000024"
    assert chosen(keep_best=1, best_by="validation.accuracy") == "step-000024", "no such score"


def test_a_checkpoint_that_is_not_there_is_refused_with_those_that_are(run: Path) -> None:
    rewrite(run, {})
    recipe = recipe_of(run)
    with pytest.raises(CheckpointError, match="no checkpoint of step 8 stands, only of 16, 24"):
        choose_checkpoint(run, recipe, "8")
    with pytest.raises(CheckpointError) as error:
        choose_checkpoint(run, recipe, "best")
    assert "(of steps 16, 24) was scored by validation.loss" in str(error.value)
    assert "Give `last` or a step" in str(error.value)
    for which in ("newest", "-1", "²"):
        with pytest.raises(WellfitError, match="is neither best, nor last, nor the number"):
            choose_checkpoint(run, recipe, which)


@pytest.mark.parametrize(("average", "sign"), [(False, 1), (True, -1)])
def test_the_averages_are_taken_where_they_are_kept(run: Path, average: bool, sign: int) -> None:
    """Break: loading model.safetensors whatever else stands there."""
    rewrite(run, {16: 2.0, 24: 3.0}, average)
    for which, step in (("", 24), ("best", 16), ("16", 16)):
        trained = open_run(run, which)
        assert trained.step == step and weight_of(trained.model) == pytest.approx(sign / step)


@pytest.mark.parametrize("average", [False, True])
def test_a_finished_training_takes_its_best_weights_and_says_so(run: Path, average: bool) -> None:
    """Break: scoring the test split on the last weights; no event; averages forgotten."""
    rewrite(run, {16: 2.0, 24: 3.0}, average)
    model = Transformer(
        load_recipe(run / "recipe.yaml").model, open_run(run).corpus.vocabulary_size
    )
    sign = -1 if average else 1
    with RunFolder.open(run) as folder:
        folder.write(Event(24, "finished", "24 steps"))
        assert settle_weights(recipe_of(run), model, folder, 24) == 24
        if average:
            assert weight_of(model) == pytest.approx(-1 / 24)
        assert settle_weights(recipe_of(run, keep_best=1), model, folder, 24) == 16
    assert weight_of(model) == pytest.approx(sign / 16)
    history = read_history(run)
    (event,) = [event for event in history.events if event.kind == "restored_best"]
    assert event.step == 24 and event.text == (
        "the best checkpoint is that of step 16: validation.loss 2"
    )
    assert event.data == {"step": 16, "by": LOSS, "score": 2.0, "average": average}
    assert history.status == "finished", "an event of another kind does not unsay the end"


def test_from_the_command_line(own_home: Path, run: Path, inside: Callable[..., Any]) -> None:
    """Break: not passing `--checkpoint` on."""
    for which, step in (("16", 16), ("last", 24)):
        done = inside(own_home, "evaluate", "runs/tiny", "--checkpoint", which, "--json")
        assert done.status == 0 and json.loads(done.out)["step"] == step
    done = inside(own_home, "generate", "runs/tiny", "--prompt", "x", "--checkpoint", "7")
    assert done.status == 2 and "no checkpoint of step 7 stands, only of 16, 24" in done.error
    said = [
        inside(own_home, "generate", "runs/tiny", "--prompt", "The ", "--checkpoint", which).out
        for which in ("16", "24", "")
    ]
    assert said[1] == said[2] != said[0]


def test_what_was_trained_in_fp8_is_scored_on_any_device(
    own_home: Path, inside: Callable[..., Any]
) -> None:
    """In bf16, here on a CPU. Break tried: the recipe's own precision, which is refused here."""
    run = own_home / "runs" / "tiny"
    told = (run / "recipe.yaml").read_text()
    assert "precision: fp32" in told
    (run / "recipe.yaml").write_text(told.replace("precision: fp32", "precision: fp8"))
    done = inside(own_home, "evaluate", "runs/tiny")
    assert done.status == 0, done.error
    refused = inside(own_home, "train", "tiny.yaml", "train.precision=fp8", "--out", "eight")
    assert refused.status == 2
    assert "the cpu device does not multiply fp8" in refused.error
