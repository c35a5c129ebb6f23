"""A run that begins with weights of others: trained, resumed, opened, exported, inspected."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from run_hub import tuning, write_base, write_texts

import wellfit
from wellfit.errors import CheckpointError, DataError, RunError
from wellfit.model.guest import Guest
from wellfit.monitor.folder import read_history
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.schema import Recipe
from wellfit.run.card import model_card
from wellfit.run.export import export
from wellfit.run.inspect import inspect_model, inspect_text
from wellfit.run.parts import first_model
from wellfit.run.plan import plan_file
from wellfit.run.run import run
from wellfit.run.weights import open_corpus, open_run
from wellfit.training.checkpoint import latest, remove_after

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts, weights, and a run of four steps that began with them."""
    home = tmp_path_factory.mktemp("hub")
    write_texts(home)
    write_base(home)
    with contextlib.chdir(home):
        outcome = run(recipe_of(), Path("runs/tune"))
    assert not outcome.stopped, outcome.history.events
    return home


@pytest.fixture
def home(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(template, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def recipe_of(*changes: str, weights: str = "base", **model: Any) -> Recipe:
    return parse_recipe(tuning(weights, **model), changes=changes)


def weights_of(folder: Path) -> dict[str, str]:
    newest = latest(folder / "checkpoints")
    assert newest is not None
    told = json.loads((newest / "state.json").read_text())
    return {name: one["sha256"] for name, one in told["files"].items()}


def logits_of(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model.hidden(ids))  # type: ignore[no-any-return]


IDS = torch.arange(3, 33)[None]


def test_from_weights_to_an_export_that_others_load(home: Path) -> None:
    """The first loss is that of the folder's own model; the export's logits are the run's.

    Breaks tried: initialise after loading; export the last weights where `checkpoint` names
    another step; write a tokenizer_config.json of our own where the base has one.
    """
    base = transformers.AutoModelForCausalLM.from_pretrained("base").eval()
    recipe = recipe_of()
    separator = open_corpus(home / "runs" / "tune").tokenizer()
    assert (separator.separator_text, separator.separator) == ("<eos>", 2)
    model = first_model(recipe, recipe.model.vocabulary_size)
    with torch.no_grad():
        assert (logits_of(model, IDS) - base(IDS).logits).abs().max() <= 1e-5
    events = read_history(home / "runs" / "tune").events
    begun = [event.text for event in events if event.kind == "weights_loaded"]
    assert begun == ["Training begins with the weights of base."]
    page = (home / "runs" / "tune" / "report.html").read_text(encoding="utf-8")
    assert "Training begins with the weights of base." in page
    shutil.rmtree(home / "base")  # neither opening nor exporting needs it
    made = export(home / "runs" / "tune", home / "out", shard_bytes=30_000)
    theirs = transformers.AutoModelForCausalLM.from_pretrained("out").eval()
    ours = open_run(home / "runs" / "tune").model
    with torch.no_grad():
        assert (logits_of(ours, IDS) - theirs(IDS).logits).abs().max() <= 1e-5
        assert (base(IDS).logits - theirs(IDS).logits).abs().max() > 0.01, "it learned something"
    assert made.family == "llama"
    assert "model.safetensors.index.json" in made.files
    earlier = export(home / "runs" / "tune", home / "two", checkpoint="2")
    assert earlier.step == 2
    second = transformers.AutoModelForCausalLM.from_pretrained("two").eval()
    assert not torch.equal(second.lm_head.weight, theirs.lm_head.weight)
    tokenizer = transformers.AutoTokenizer.from_pretrained("out")
    assert (tokenizer.eos_token, tokenizer.chat_template) == ("<eos>", "{{x}}")
    assert tokenizer("A red ball").input_ids == [1, *separator.encode("A red ball")]
    assert json.loads((home / "out" / "config.json").read_text())["max_position_embeddings"] == 64
    assert (theirs.generation_config.eos_token_id, theirs.config.bos_token_id) == (2, 1)


def test_the_card_tells_data_scores_findings_and_recipe(home: Path) -> None:
    """And no path of the machine. Breaks: take the last score whatever was exported; leave the
    paths as they are."""
    folder = home / "runs" / "tune"
    recipe = recipe_of(f"data.sources=[{{path: '{home / 'texts'}'}}]", "data.folder='~/c'")
    corpus = open_corpus(folder)
    card = model_card(folder, recipe, corpus, step=2, family="llama", parameters=1234)
    assert str(home) not in card
    assert "path: texts" in card or 'path: "texts"' in card
    table = corpus.documents("train")
    assert f"| split train | {len(table):,} | {int(table.bytes.sum()):,} " in card
    assert "1,234 parameters, architecture llama, from step 2 of a training" in card
    assert "| validation | 2 |" in card
    assert "Verdict: " in card
    assert "learning_rate: 0.003" in card
    (corpus.folder / "report.json").write_text(
        json.dumps({"by_domain": {"a|b<i>": {"documents": 3, "bytes": -1, "tokens": 9}}})
    )
    card = model_card(folder, recipe, corpus, step=2, family="llama", parameters=1234)
    assert "| domain a\\|b\\<i\\> | 3 | unknown | 9 |" in card


def test_the_plan_counts_what_is_loaded(home: Path) -> None:
    """The embedding as wide as the folder's, before a corpus and after it; of a guest its tensors.

    Break: take the vocabulary of the tokenizer.
    """
    (home / "recipe.yaml").write_text(
        "name: tune\ndata: {sources: [{path: texts}]}\n"
        "model: {weights: base, context: 32}\ntrain: {budget: {steps: 2}, batch_tokens: 128}\n"
    )
    count = inspect_model(home / "base").parameters
    for changes in (), ("data.folder=nowhere",), ("model.architecture=transformers",):
        made = plan_file(home / "recipe.yaml", changes)
        assert made.parameters == count, changes
        assert made.fits is (None if "transformers" in "".join(changes) else True)


def test_a_resumed_run_ends_with_the_same_bits(home: Path) -> None:
    """Taken back to two of its four steps, the folder's weights gone, and gone on.

    Break: load the folder again behind the checkpoint; or forget what the run keeps.
    """
    folder = home / "runs" / "tune"
    whole = weights_of(folder)
    remove_after(folder / "checkpoints", 2)
    (home / "base" / "model.safetensors").unlink()
    outcome = run(recipe_of(), folder, resume=True)
    assert weights_of(folder) == whole
    kinds = [event.kind for event in outcome.history.events]
    assert kinds.count("weights_loaded") == 1
    assert kinds.count("resumed") == 1


@pytest.mark.parametrize("kind", ["Olmo2Config", pytest.param("OPTConfig", marks=pytest.mark.slow)])
def test_an_architecture_that_is_not_ours_trains_as_a_guest(home: Path, kind: str) -> None:
    """And is opened and exported after its folder is gone. Break: build it by the config of the
    folder instead of the run's; or without float32."""
    more: dict[str, Any] = {}
    if kind == "OPTConfig":
        more = {"ffn_dim": 48, "word_embed_proj_dim": 32, "pad_token_id": 0}
    write_base(home, "other", kind, **more)
    recipe = recipe_of("train.budget.steps=2", weights="other")
    outcome = run(recipe, home / "runs" / "other")
    assert not outcome.stopped, outcome.history.events
    assert {proof.state for proof in outcome.history.proofs} <= {"passed", "not_assessed"}
    shutil.rmtree(home / "other")
    made = export(home / "runs" / "other", home / "out")
    opened = open_run(home / "runs" / "other")
    assert isinstance(opened.model, Guest)
    theirs = transformers.AutoModelForCausalLM.from_pretrained("out").eval()
    with torch.no_grad():
        assert (logits_of(opened.model, IDS) - theirs(IDS).logits).abs().max() <= 1e-5
    assert made.family == recipe.model.weights.replace("other", kind.removesuffix("Config").lower())
    found = inspect_model(home / "runs" / "other")
    assert found.parameters == sum(one.numel() for one in theirs.parameters())
    assert "q_proj" in found.targets


def test_our_own_architecture_may_be_computed_by_theirs(home: Path) -> None:
    """The same first loss either way. Break: ignore `architecture` where the family is known."""
    ours, theirs = recipe_of(), recipe_of(architecture="transformers")
    model = first_model(theirs, theirs.model.vocabulary_size)
    assert isinstance(model, Guest)
    assert model.pretrained
    other = first_model(ours, ours.model.vocabulary_size)
    assert (logits_of(model, IDS) - logits_of(other, IDS)).abs().max() <= 1e-5


def test_a_guest_s_vocabulary_grows(home: Path) -> None:
    """Embedding and head, old rows kept, new ones the mean. Break: resize the embedding alone."""
    recipe = recipe_of(architecture="transformers")
    size = recipe.model.vocabulary_size
    wider = recipe_of(f"model.vocabulary_size={size + 3}", architecture="transformers")
    model = first_model(wider, size + 3)
    assert model.told == (  # type: ignore[attr-defined]
        f"the vocabulary grows from {size} to {size + 3} entries, the new ones being the mean of "
        "the others",
    )
    narrow = first_model(recipe, size)
    assert logits_of(model, IDS).shape[-1] == size + 3
    assert (logits_of(model, IDS)[..., :size] - logits_of(narrow, IDS)).abs().max() <= 1e-6
    for name, weight in model.named_parameters():
        if "embed_tokens" in name or "lm_head" in name:
            torch.testing.assert_close(weight[size:], weight[:size].mean(0).expand(3, -1))


def test_a_run_of_ours_is_a_base_too_and_goes_out(home: Path) -> None:
    """Its chosen checkpoint, its tokenizer, its shape; and exported, a text begins behind the
    separator as in training, so that both write the same.

    Breaks tried: leave the weights as the seed draws them; export the tokenizer as it stands.
    """
    scratch = tuning("")
    del scratch["model"]["weights"]
    scratch["model"] |= {"layers": 1, "width": 16, "heads": 2, "kv_heads": 1, "hidden": 24}
    scratch["model"] |= {"activation": "swiglu", "qk_norm": False, "init": "scaled_normal"}
    scratch |= {"name": "first"}
    scratch["train"]["budget"] = {"steps": 1}
    run(parse_recipe(scratch), home / "runs" / "first")
    recipe = recipe_of("train.budget.steps=1", weights="runs/first", context=16)
    assert (recipe.model.width, recipe.model.context, recipe.model.activation) == (16, 16, "swiglu")
    assert recipe.data.tokenizer.file.endswith("corpora/first/tokenizer.json")
    model = first_model(recipe, recipe.model.vocabulary_size)
    opened = open_run(home / "runs" / "first").model
    ids = IDS[:, :16]
    assert torch.equal(logits_of(model, ids), logits_of(opened, ids))
    assert not run(recipe, home / "runs" / "other").stopped
    export(home / "runs" / "first", home / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained("out")
    separator = open_corpus(home / "runs" / "first").separator
    assert tokenizer("A red").input_ids[0] == separator == tokenizer.eos_token_id
    texts = [
        wellfit.generate(folder, "A red", tokens=8, temperature=0)
        for folder in ("runs/first", "out")
    ]
    assert texts[0] == texts[1] != ""


def test_classes_are_learned_on_the_backbone(home: Path) -> None:
    """From the folder's weights, with a head of their own, out to others and opened again.

    Break: draw all anew because the head is missing.
    """
    rows = [
        {"text": f"the {('dog' if n % 3 else 'ball')} of day {n}", "label": n % 3 > 0}
        for n in range(40)
    ]
    (home / "rows.jsonl").write_text(
        "\n".join(
            json.dumps({"text": row["text"], "label": "dog" if row["label"] else "ball"})
            for row in rows
        )
    )
    values = tuning()
    values["data"] = {
        "examples": {
            "train": ["rows.jsonl"],
            "task": "classification",
            "classes": ["ball", "dog"],
            "validation_share": 0.2,
        },
    }
    values["monitor"] = {"prompts": []}
    outcome = run(parse_recipe(values), home / "runs" / "other")
    assert not outcome.stopped, outcome.history.events
    begun = [event.text for event in outcome.history.events if event.kind == "weights_loaded"]
    assert begun == [
        "Training begins with the weights of base; the head for classes is drawn anew: the weights "
        "have none."
    ]
    export(home / "runs" / "other", home / "out")
    config = json.loads((home / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": "ball", "1": "dog"}
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained("out").eval()
    ours = open_run(home / "runs" / "other").model
    with torch.no_grad():
        distance = logits_of(ours, IDS)[:, -1] - theirs(IDS).logits
    assert distance.abs().max() <= 1e-5


def test_what_does_not_fit_is_told_before_training(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks: let the corpus's ids run past the embedding; import transformers without a word."""
    folder = write_base(home, "narrow", vocab_size=100)
    with pytest.raises(DataError) as told:
        run(recipe_of(weights="narrow"), home / "runs" / "narrow")
    assert "entries (marks included), and the model knows 100" in str(told.value)
    assert "model.vocabulary_size=" in str(told.value)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    recipe = recipe_of("model.architecture=transformers", weights="narrow")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        first_model(recipe, 100)
    shutil.rmtree("narrow")
    with pytest.raises(RunError, match="there is no such folder"):
        first_model(recipe, 100)
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    recipe = recipe_of(architecture="transformers")
    with pytest.raises(RunError) as error:
        first_model(recipe, recipe.model.vocabulary_size)
    assert "transformers is not installed" in str(error.value)
    assert "pip install 'transformers" in str(error.value)


def test_code_of_a_folder_is_never_run(home: Path) -> None:
    """The file would write another one if it were. Break: set trust_remote_code."""
    (home / "base" / "harm.py").write_text("open('witness', 'w').write('run')\n")
    config = json.loads((home / "base" / "config.json").read_text())
    config |= {
        "model_type": "harmful",
        "auto_map": {"AutoConfig": "harm.A", "AutoModelForCausalLM": "harm.B"},
    }
    (home / "base" / "config.json").write_text(json.dumps(config))
    recipe = recipe_of()
    assert recipe.model.architecture == "transformers"
    with pytest.raises(RunError) as error:
        first_model(recipe, recipe.model.vocabulary_size)
    assert "it would have to run code of the folder" in str(error.value)
    assert "never run" in str(error.value)
    assert not Path("witness").exists()


def test_documents_that_a_guest_cannot_keep_apart(home: Path) -> None:
    """BLOOM takes no mask of our kind. Break: train it with documents that read each other."""
    write_base(home, "bloom", "BloomConfig", n_layer=1, n_head=4, pad_token_id=0)
    recipe = recipe_of(weights="bloom")
    with pytest.raises(RunError) as error:
        first_model(recipe, recipe.model.vocabulary_size)
    assert "BloomForCausalLM cannot keep the documents of a row apart" in str(error.value)
    assert "train.document_mask=false" in str(error.value)
    open_rows = recipe_of("train.document_mask=false", weights="bloom")
    assert isinstance(first_model(open_rows, open_rows.model.vocabulary_size), Guest)


def test_the_doors(home: Path, inside: Callable[..., Any]) -> None:
    """export, generate from a folder and from a run, inspect: what they print and refuse.

    Break: leave the beginning of a text off that the tokenizer's template puts there.
    """
    shown = inside(home, "model", "inspect", "base").out
    assert "Names for adapters: embedding, query, key" in shown
    told = json.loads(inside(home, "model", "inspect", "base", "--json").out)
    assert told["parameters"] == inspect_model(home / "base").parameters
    assert told["family"] == "llama"
    whole = inspect_text(inspect_model(home / "base"), every=True)
    assert "blocks.1.attention.query.weight" in whole
    assert "model.layers.1.self_attn.q_proj.weight" in whole
    assert inside(home, "model", "inspect", "texts").status == 2
    text = wellfit.generate("base", "A red", tokens=8, temperature=0)
    theirs = transformers.AutoModelForCausalLM.from_pretrained("base").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained("base")
    ids = tokenizer("A red", return_tensors="pt").input_ids
    expected = theirs.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
    assert text == tokenizer.decode(expected.tolist(), skip_special_tokens=True)
    done = inside(home, "export", "runs/tune", "--out", "out", "--dtype", "bf16")
    assert (done.status, "Exported step 4 as llama to out" in done.out) == (0, True)
    assert json.loads((home / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    again = inside(home, "export", "runs/tune", "--out", "out")
    assert (again.status, "something stands there already" in again.error) == (2, True)
    nothing = inside(home, "export", "texts", "--out", "other")
    assert (nothing.status, "there is no run here" in nothing.error) == (2, True)
    write_base(home, "bert", "BertConfig")
    both = inside(home, "generate", "bert", "--prompt", "A")
    assert (both.status, "is no decoder that writes text" in both.error) == (2, True)
    (home / "base" / "tokenizer.json").unlink()
    mute = inside(home, "generate", "base", "--prompt", "A")
    assert (mute.status, "it has no tokenizer.json" in mute.error) == (2, True)
    said = inside(home, "generate", "out", "--prompt", "A red", "--tokens", "3")
    assert (said.status, said.out.startswith("A red")) == (0, True)
