"""A module, a loss and tokens of somebody's own go through every command as ours do."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_guests import SHAPE, guest_recipe, write_tokens
from run_kills import WELLFIT, finish, kill_at
from torch.nn.functional import cross_entropy

import wellfit
from wellfit.data.build import build_corpus
from wellfit.data.plan import DataPlan
from wellfit.errors import RecipeError, RunError, WellfitError
from wellfit.model.guest import Guest
from wellfit.monitor.folder import read_history
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.schema import Recipe
from wellfit.recipe.show import recipe_text
from wellfit.recipe.yaml_lines import read_yaml
from wellfit.records import Event, Proof, Record, Step
from wellfit.run.load import known_functions
from wellfit.run.parts import first_model, training_batches
from wellfit.run.run import run
from wellfit.training.checkpoint import latest, read_state
from wellfit.training.loop import train

GPT2 = {"run_guests:gpt2": {}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guests")
    write_tokens(folder)
    return folder


def recipe_of(home: Path, module: Any, *changes: str, **train: Any) -> Recipe:
    values = guest_recipe(home, module, **train)
    return parse_recipe(values, changes=changes, known=known_functions())


def trained(recipe: Recipe, folder: Path, **how: Any) -> tuple[list[Record], str]:
    """A recipe → what its training tells, and the digest of its last weights."""
    corpus = build_corpus(recipe.data, name="guest", folder=Path(recipe.data.folder))
    folder.mkdir(exist_ok=True)
    plan = DataPlan.open(folder / "data-plan.jsonl")
    records = train(
        recipe.train,
        first_model(recipe, corpus.vocabulary_size),
        training_batches(recipe, corpus, plan),
        folder=folder,
        seed=recipe.seed,
        evaluate_every=20,
        sample_every=20,
        **how,
    )
    return list(records), digest(folder)


def losses_of(records: list[Record]) -> list[float]:
    return [record.loss for record in records if isinstance(record, Step)]


def digest(folder: Path) -> str:
    newest = latest(folder / "checkpoints")
    assert newest is not None
    content = json.loads((newest / "state.json").read_text())
    return f"{read_state(newest).step} {content['files']['model.safetensors']['sha256']}"


def test_gpt2_trains_as_in_a_plain_loop(home: Path, tmp_path: Path) -> None:
    """transformers' GPT-2, twenty steps of torch's AdamW over the same rows, without chunks.

    Breaks tried: the mean taken over each micro-batch; weights drawn without the seed."""
    recipe = recipe_of(home, GPT2, document_mask=False)
    losses = losses_of(trained(recipe, tmp_path / "run")[0])
    corpus = build_corpus(recipe.data, name="guest", folder=home / "corpus")
    guest = first_model(recipe, corpus.vocabulary_size)
    assert isinstance(guest, Guest)
    model = guest.module.train()
    decayed = [p for n, p in model.named_parameters() if p.ndim == 2 and "wte" not in n
               and "wpe" not in n]  # fmt: skip
    others = [p for p in model.parameters() if not any(p is one for one in decayed)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=0.01, betas=(0.9, recipe.train.optimizer.beta2), eps=recipe.train.optimizer.epsilon,
    )  # fmt: skip
    batches = training_batches(recipe, corpus)
    expected = []
    for step in range(1, 21):
        batch = batches.batch(step)
        logits = model(torch.from_numpy(batch.tokens)).logits
        loss = cross_entropy(logits.flatten(0, 1), torch.from_numpy(batch.labels).flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.train.clip_norm)
        optimizer.step()
        expected.append(loss.item())
    assert losses == pytest.approx(expected, rel=1e-6)
    assert losses[-1] < losses[0] - 0.1


def test_gpt2_with_dropout_and_a_mask_resumes_bit_for_bit(home: Path, tmp_path: Path) -> None:
    """Breaks when dropout is drawn from the caller's seed, or documents are not passed on."""
    recipe = recipe_of(home, {"run_guests:gpt2": {"dropout": 0.2}})
    torch.manual_seed(1)
    records, whole = trained(recipe, tmp_path / "run")
    torch.manual_seed(2)
    again, resumed = trained(recipe, tmp_path / "run", resume=True, at=10)
    assert resumed == whole
    assert losses_of(again) == losses_of(records)[10:]
    states = {record.name: record.state for record in records if isinstance(record, Proof)}
    assert states["packing_isolation"] == states["causality"] == "passed"
    assert states["evaluation_determinism"] == states["cache_versus_full"] == "passed"


def test_our_own_transformer_as_a_guest_is_the_built_in_one(home: Path, tmp_path: Path) -> None:
    """Losses and weights bit for bit, with dropout and Muon.

    Breaks when a module that offers the protocol is wrapped all the same."""
    muon = {"kind": "muon", "learning_rate": 0.003, "matrix_learning_rate": 0.01}
    module = {"run_guests:ours": {"dropout": 0.1}}
    guest = recipe_of(home, module, optimizer=muon)
    values = guest_recipe(home, None, optimizer=muon)
    values["model"] |= SHAPE | {"dropout": 0.1, "activation": guest.model.activation}
    built_in = parse_recipe(values)
    (one, weights), (two, expected) = (
        trained(guest, tmp_path / "g"),
        trained(built_in, tmp_path / "o"),
    )
    assert losses_of(one) == losses_of(two)
    assert len(losses_of(one)) == 20
    assert weights == expected


@pytest.mark.parametrize(
    ("module", "fault"), [("run_guests:Leaky", "causal_leak"), ("run_guests:Whole", "pack_leak")]
)
def test_a_guest_that_sees_too_much_is_caught_before_the_first_step(
    module: str, fault: str, home: Path, tmp_path: Path
) -> None:
    """One sees the next token, one takes the mask of documents and does not heed it."""
    masked = module.endswith("Whole")
    outcome = run(recipe_of(home, module, document_mask=masked), tmp_path / "run")
    assert outcome.exit_status == 1
    assert len(outcome.history.train_loss) == 0
    (event,) = [event for event in outcome.history.events if event.kind == "failed"]
    assert fault in event.data["faults"]


def test_an_own_loss_is_minimised_and_the_nats_are_reported(home: Path, tmp_path: Path) -> None:
    """The steps, a resume in the middle, and what a resume with another argument says."""
    plain = losses_of(trained(recipe_of(home, "run_guests:ours"), tmp_path / "plain")[0])
    loss = {"run_guests:focal": {"gamma": 0.0}}
    recipe = recipe_of(home, "run_guests:ours", loss=loss)
    same = losses_of(trained(recipe, tmp_path / "same")[0])
    # A focal loss without focus is the cross-entropy; only roundings differ.
    assert same == pytest.approx(plain, rel=1e-4)
    focused = recipe_of(home, "run_guests:ours", loss={"run_guests:focal": {"gamma": 4.0}})
    records, whole = trained(focused, tmp_path / "focal")
    losses = losses_of(records)
    assert losses[0] == plain[0]
    assert losses[1:] != pytest.approx(plain[1:], rel=1e-5)
    assert trained(focused, tmp_path / "focal", resume=True, at=10)[1] == whole
    changed = recipe_of(home, "run_guests:ours", loss={"run_guests:focal": {"gamma": 5.0}})
    records, _ = trained(changed, tmp_path / "focal", resume=True, at=10)
    (resumed,) = [r for r in records if isinstance(r, Event) and r.kind == "resumed"]
    assert "not bit for bit" in resumed.text
    assert "loss was" in resumed.text


def test_every_command_takes_a_guest(
    home: Path, tmp_path: Path, inside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """check, plan, train, evaluate, generate, the page, locate and lr-find, as a user has them."""
    recipe = recipe_of(home, {"run_guests:Recurrent": {"dropout": 0.1}}, document_mask=False)
    (tmp_path / "recipe.yaml").write_text(recipe_text(recipe))
    checked = inside(tmp_path, "check", "recipe.yaml")
    assert checked.status == 0, checked.error
    assert "Model run_guests:Recurrent: 2,186 parameters, its arithmetic unknown" in checked.out
    planned = inside(tmp_path, "plan", "recipe.yaml")
    assert "not counted: activations of model.module" in planned.out
    assert "2,186 parameters" in planned.out
    begun = inside(tmp_path, "train", "recipe.yaml", "--out", "run")
    assert begun.status == 0, begun.error
    assert "unknown: no tokenizer tells the bytes of the tokens" in begun.out
    scored = wellfit.evaluate(tmp_path / "run", "validation")
    assert scored.bits_per_byte is None
    assert scored.loss > 0
    history = read_history(tmp_path / "run")
    assert [event.kind for event in history.events].count("no_sample") == 1
    lines = (tmp_path / "run" / "records" / "evaluations-0.jsonl").read_text().splitlines()
    assert [json.loads(line)["bits_per_byte"] for line in lines] == [None, None, None]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "2,186" in page
    assert "unknown" in page
    written = inside(tmp_path, "generate", "run", "--prompt", "1 2 5", "--tokens", "4")
    assert all(word.isdecimal() for word in written.out.split())
    refused = inside(tmp_path, "generate", "run", "--prompt", "words")
    assert "a prompt is ids from 0 to 49 with spaces between them" in refused.error
    located = inside(tmp_path, "data", "locate", "run", "train-00000:3")
    assert "train.bin" in located.out
    found = inside(tmp_path, "lr-find", "recipe.yaml", "--steps", "40")
    assert found.status == 0, found.error


def test_what_a_recipe_may_not_say_beside_a_guest(home: Path, tmp_path: Path) -> None:
    """Breaks when settings without effect are taken."""
    with pytest.raises(RecipeError) as refused:
        recipe_of(home, "run_guests:Recurrent", "model.layers=3", "model.dropout=0.1",
                  "data.clean=[]", "train.loss=run_guests:focal", "train.z_loss=0.1")  # fmt: skip
    told = str(refused.value)
    assert "model.layers does nothing beside model.module" in told
    assert "model.dropout does nothing beside model.module" in told
    assert "data.clean does nothing beside data.tokens" in told
    assert "z_loss would do nothing beside loss run_guests:focal" in told
    with pytest.raises(RecipeError, match="run_guests has no Recurent; did you mean Recurrent"):
        recipe_of(home, "run_guests:Recurent")
    with pytest.raises(RecipeError, match="drop is not an argument; did you mean dropout"):
        recipe_of(home, {"run_guests:Recurrent": {"drop": 0.1}})
    with pytest.raises(RunError, match="takes neither `segments` nor `attention_mask`"):
        run(recipe_of(home, "run_guests:Recurrent"), tmp_path / "masked")
    short = {"document_mask": False, "budget": {"steps": 1}}
    run(recipe_of(home, "run_guests:Recurrent", **short), tmp_path / "run")
    with pytest.raises(WellfitError, match=r"model.module was .*Recurrent.* and is .*Leaky"):
        run(recipe_of(home, "run_guests:Leaky", **short), tmp_path / "run", resume=True)


def test_a_guest_recipe_reads_back_and_its_call_is_replaced_whole(home: Path) -> None:
    """Breaks when the dial's layers are shown, or a change merges two functions into one."""
    recipe = recipe_of(home, {"run_guests:Recurrent": {"dropout": 0.1}}, loss="run_guests:focal")
    text = recipe_text(recipe)
    assert "layers" not in text
    assert "filters" not in text
    again = parse_recipe(read_yaml(text).value)
    assert again.model_dump() == recipe.model_dump()
    other = recipe_of(home, GPT2, "model.module={run_guests:Leaky: {dropout: 0.5}}")
    assert other.model.module is not None
    assert other.model.module.name == "run_guests:Leaky"


@pytest.mark.slow  # in process it is resumed by default
def test_killed_and_resumed_by_the_command(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`kill -9` in the middle, then `--resume`: the weights of the undisturbed training.

    The same in process, and the breaks that were tried, stand above."""
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    module = {"run_guests:Recurrent": {"dropout": 0.3}}
    recipe = recipe_of(home, module, document_mask=False, checkpoint_every=5, keep_last=9)
    (tmp_path / "recipe.yaml").write_text(recipe_text(recipe))
    _, whole = trained(recipe, tmp_path / "whole")
    command = [sys.executable, "-c", "from wellfit.cli import main; main()"]
    assert Path(WELLFIT).parent == Path(sys.executable).parent
    begin = [*command, "train", "recipe.yaml", "--out", "cut", "--quiet"]
    saved = tmp_path / "cut" / "checkpoints" / "step-000005"
    assert kill_at(tmp_path, begin, saved.is_dir, 0.0) in (0, -9)
    newest = latest(tmp_path / "cut" / "checkpoints")
    assert newest is not None
    for later in (tmp_path / "cut" / "checkpoints").glob("step-*"):
        if later.name > "step-000015":  # it was too quick to be killed
            shutil.rmtree(later)
    finish(tmp_path, [*begin, "--resume"])
    assert digest(tmp_path / "cut") == whole
