"""Adapter runs through every command: training, resuming, scoring, writing, planning."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_guests import guest_recipe, write_tokens
from safetensors import safe_open

from wellfit.data.build import build_corpus
from wellfit.data.plan import DataPlan
from wellfit.errors import CheckpointError, RunError
from wellfit.model.adapters.frozen import FrozenLinear, kept_bytes
from wellfit.plan.optimizers import state_bytes
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.schema import Recipe
from wellfit.recipe.show import recipe_text
from wellfit.records import Event, Proof, Record, Step
from wellfit.run.load import known_functions
from wellfit.run.parts import first_model, frozen_bytes, model_shapes, training_batches
from wellfit.run.plan import plan_file
from wellfit.run.run import run
from wellfit.run.weights import open_run
from wellfit.training.checkpoint import latest, read_state
from wellfit.training.loop import train

GPT2 = {"run_guests:gpt2": {"dropout": 0.1}}
OURS = {
    "layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "hidden": 48, "init": "scaled_normal",
}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    write_tokens(folder)
    return folder


def recipe_of(home: Path, module: Any, *changes: str, **train: Any) -> Recipe:
    values = guest_recipe(home, module, **train)
    values["model"] |= {} if module else OURS
    values["model"]["adapter"] = {"rank": 4, "dropout": 0.1}
    return parse_recipe(values, changes=changes, known=known_functions())


def trained(recipe: Recipe, folder: Path, **how: Any) -> tuple[list[Record], Any]:
    corpus = build_corpus(recipe.data, name="guest", folder=Path(recipe.data.folder))
    folder.mkdir(exist_ok=True)
    plan = DataPlan.open(folder / "data-plan.jsonl")
    model = first_model(recipe, corpus.vocabulary_size)
    records = train(
        recipe.train, model, training_batches(recipe, corpus, plan), folder=folder,
        seed=recipe.seed, evaluate_every=20, sample_every=20, **how,
    )  # fmt: skip
    return list(records), model


def newest(folder: Path) -> Path:
    found = latest(folder / "checkpoints")
    assert found is not None
    return found


@pytest.mark.parametrize(("module", "kept"), [(GPT2, "nf4"), (None, "none"), (None, "int8")])
def test_a_run_resumes_bit_for_bit_and_leaves_its_base(
    module: Any, kept: str, home: Path, tmp_path: Path
) -> None:
    """With dropout. Breaks when an adapter's first values, or masks of ours, come from torch's
    global generator; when the base is in the checkpoint."""
    recipe = recipe_of(
        home, module, f"model.quantize.kind={kept}", "model.adapter.kind=dora", budget={"steps": 8},
        checkpoint_every=4,
    )  # fmt: skip
    torch.manual_seed(1)
    base = dict(first_model(recipe, 50).named_buffers())
    records, model = trained(recipe, tmp_path / "run")
    assert all(torch.equal(base[name], now) for name, now in model.named_buffers())
    states = [record.state for record in records if isinstance(record, Proof)]
    assert set(states) == {"passed"}
    whole = json.loads((newest(tmp_path / "run") / "state.json").read_text())["files"]
    with safe_open(newest(tmp_path / "run") / "model.safetensors", "pt") as file:
        assert set(file.keys()) == {name for name, _ in model.named_parameters()}
    torch.manual_seed(2)
    again, _ = trained(recipe, tmp_path / "run", resume=True, at=4)
    resumed = json.loads((newest(tmp_path / "run") / "state.json").read_text())["files"]
    assert resumed == whole
    losses = [record.loss for record in records if isinstance(record, Step)]
    assert [record.loss for record in again if isinstance(record, Step)] == losses[4:]
    assert losses[-1] < losses[0]


def test_another_base_is_refused(home: Path, tmp_path: Path) -> None:
    """Breaks when the digest is only told and not compared: on resume, and on scoring."""
    recipe = recipe_of(home, None, budget={"steps": 2}, checkpoint_every=2)
    run(recipe, tmp_path / "run")
    state = read_state(newest(tmp_path / "run"))
    assert state.build["base"] == first_model(recipe, 50).base_digest  # type: ignore[attr-defined]
    other = recipe_of(home, None, "model.init=xavier", budget={"steps": 2}, checkpoint_every=2)
    with pytest.raises(CheckpointError, match=r"trained on base \w{12}, and the model has base"):
        trained(other, tmp_path / "run", resume=True)
    file = tmp_path / "run" / "recipe.yaml"
    text = file.read_text()
    file.write_text(text.replace("init: scaled_normal", "init: xavier"))
    with pytest.raises(CheckpointError, match="Put back the weights that it was trained on"):
        open_run(tmp_path / "run")
    file.write_text(text)
    assert open_run(tmp_path / "run").step == 2


def test_another_adapter_is_refused_by_the_setting_that_differs(home: Path, tmp_path: Path) -> None:
    """Breaks when a guest's adapter is not compared."""
    run(recipe_of(home, GPT2, budget={"steps": 2}), tmp_path / "run")
    other = recipe_of(home, GPT2, "model.adapter.rank=5", budget={"steps": 2})
    with pytest.raises(RunError, match=r"trains: model\.adapter\.rank was 4 and is 5\n"):
        run(other, tmp_path / "run", resume=True)


@pytest.mark.parametrize("module", [GPT2, None])
def test_the_commands_take_an_adapter_run(
    module: Any, home: Path, tmp_path: Path, inside: Callable[..., Any]
) -> None:
    recipe = recipe_of(home, module, "model.quantize.kind=nf4", budget={"steps": 4})
    (tmp_path / "a.yaml").write_text(recipe_text(recipe))
    checked = inside(tmp_path, "check", "a.yaml")
    assert checked.status == 0, checked
    assert "trained parameters beside the frozen base" in checked.out
    assert "not counted: activations of model.adapter" in checked.out
    done = inside(tmp_path, "train", "a.yaml", "--out", "run")
    assert done.status == 0, done
    scored = inside(tmp_path, "evaluate", "run")
    assert scored.status == 0 and "loss" in scored.out, scored
    written = inside(tmp_path, "generate", "run", "--prompt", "1 2 3")
    assert written.status == 0, written
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"{sum(s.parameters for s in model_shapes(recipe, 50) or ()):,}" in page


@pytest.mark.parametrize("kept", ["none", "int8", "nf4"])
@pytest.mark.parametrize("module", [GPT2, None])
def test_the_plan_counts_the_tensors_that_are_really_made(
    module: Any, kept: str, home: Path, tmp_path: Path
) -> None:
    """Breaks when the base is counted as if it were float32, or moments for it."""
    recipe = recipe_of(home, module, f"model.quantize.kind={kept}")
    model: Any = first_model(recipe, 50)
    shapes = model_shapes(recipe, 50)
    assert shapes is not None
    own = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert {shape.name: shape.shape for shape in shapes} == own
    assert {shape.name: shape.role for shape in shapes} == model.roles()
    trained_bytes = sum(p.numel() * 4 for p in dict(model.named_parameters()).values())
    assert frozen_bytes(recipe, 50) == kept_bytes(model) - trained_bytes
    (tmp_path / "a.yaml").write_text(recipe_text(recipe))
    made = plan_file(tmp_path / "a.yaml")
    held = dict(made.memory.step.by_kind)
    assert held["frozen base"] == frozen_bytes(recipe, 50)
    assert held["weights"] == held["gradients"] == trained_bytes
    assert held["optimizer"] == state_bytes(recipe.train.optimizer, shapes)
    assert made.fits is None and made.uncounted[0] == "activations of model.adapter"
    if not module:
        assert any(isinstance(one, FrozenLinear) for one in model.modules()) == (kept != "none")
        assert "a trained base" in " ".join(str(one) for one in made.advice)


def test_dropout_of_an_adapter_keeps_the_compiler_away(home: Path, tmp_path: Path) -> None:
    """Breaks when only the model's own dropout is looked at."""
    recipe = recipe_of(home, None, budget={"steps": 1}, compile="on")
    records, _ = trained(recipe, tmp_path / "run")
    told = next(r for r in records if isinstance(r, Event) and r.kind == "started").data
    assert told["compile"] == "off" and "dropout draws" in told["compile_reason"]
