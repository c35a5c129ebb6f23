"""A folder of weights fills the model of a recipe, and what contradicts it is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wellfit.errors import RecipeError
from wellfit.recipe.load import load_recipe, parse_recipe
from wellfit.recipe.schema import Recipe
from wellfit.recipe.show import recipe_text

CONFIG: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 8192,
    "rope_theta": 50_000.0, "rms_norm_eps": 1e-6, "eos_token_id": 2, "tie_word_embeddings": True,
}  # fmt: skip
TOKENIZER = {
    "model": {"vocab": {"<s>": 1, "</s>": 5, "a": 6}},
    "added_tokens": [{"id": 2, "content": "<eos>"}],
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    return tmp_path


def recipe_of(*changes: str, **model: Any) -> Recipe:
    values = {
        "name": "tune",
        "data": {"sources": [{"path": "texts"}]},
        "model": {"weights": "base", **model},
        "train": {"budget": {"steps": 4}},
    }
    return parse_recipe(values, changes=changes)


def configured(home: Path, **changes: Any) -> None:
    (home / "base" / "config.json").write_text(json.dumps(CONFIG | changes))


def faults(*changes: str, **model: Any) -> str:
    with pytest.raises(RecipeError) as error:
        recipe_of(*changes, **model)
    return str(error.value)


def test_the_folder_fills_the_model_and_says_so(home: Path) -> None:
    """Breaks tried: fill after the dial; take the context of the configuration, 8,192 tokens."""
    recipe = recipe_of()
    model = recipe.model
    assert (model.width, model.layers, model.heads, model.kv_heads, model.hidden) == (
        64, 3, 4, 2, 96,
    )  # fmt: skip
    assert (model.rope_base, model.norm_epsilon, model.tie_embeddings) == (50_000.0, 1e-6, True)
    assert (model.activation, model.qk_norm, model.vocabulary_size) == ("swiglu", False, 300)
    assert (model.context, model.architecture) == (2048, "own")
    assert recipe.provenance["model.width"] == "model.weights: base/config.json"
    assert recipe.provenance["model.architecture"] == "model.weights: base/config.json"
    assert recipe.provenance["train.micro_batch"].startswith("size nano")


def test_the_tokenizer_is_the_folder_s_and_its_separator_the_model_s(home: Path) -> None:
    """Gemma's vocabulary has an entry `</s>` too, which is no end of text there.

    Break: leave the separator to what tokenizers usually call it.
    """
    recipe = recipe_of()
    assert recipe.data.tokenizer.file == "base/tokenizer.json"
    assert recipe.data.tokenizer.separator == "<eos>"
    assert recipe.provenance["data.tokenizer.file"].startswith("model.weights: ")
    configured(home, eos_token_id=[5, 2])
    assert recipe_of().data.tokenizer.separator == "</s>", "the first of several"
    (home / "base" / "tokenizer_config.json").write_text('{"eos_token": {"content": "<|end|>"}}')
    assert recipe_of().data.tokenizer.separator == "<|end|>"
    own = recipe_of("data.tokenizer.file=other.json").data.tokenizer
    assert (own.file, own.separator) == ("other.json", "")


def test_trained_weights_are_gone_on_with_gently(home: Path) -> None:
    """AdamW at 1e-5 and 32 sequences, unless the recipe says otherwise; not the dial's first rates,
    which would undo them. Break: leave rate and batch to the size."""
    train = recipe_of(context=64).train
    assert (train.optimizer.kind, train.optimizer.learning_rate) == ("adamw", 1e-5)
    assert train.batch_tokens == 32 * 64
    assert train.optimizer.beta2 == 0.95, "the rest is AdamW's own"
    lion = recipe_of("train.optimizer.kind=lion").train.optimizer
    assert lion.learning_rate == 2e-6
    written = recipe_of("train.optimizer={kind: muon}", "train.batch_tokens=4096").train
    assert (written.optimizer.kind, written.batch_tokens) == ("muon", 4096)
    own = recipe_of("train.optimizer.learning_rate=0.001").train.optimizer
    assert (own.kind, own.learning_rate) == ("adamw", 0.001)


def test_what_contradicts_the_weights_is_refused(home: Path) -> None:
    """Each setting, where it stands, with what the file says. Break: let the written value win."""
    told = faults(layers=5, rope_base=10_000.0, rope_scaling={"kind": "linear", "factor": 2.0})
    file = "base/config.json"
    assert f"model.layers = 5 does not fit its weights, of which {file} says 3" in told
    assert f"model.rope_base = 10000.0 does not fit its weights, of which {file} says 5" in told
    assert "model.rope_scaling.kind = linear does not fit its weights" in told
    assert "3 faults" in told
    assert "model.context = 9000 does not fit" in faults(context=9000)
    assert "says at most 8192" in faults(context=9000)
    assert "model.vocabulary_size = 200 does not fit" in faults(vocabulary_size=200)
    assert "model.preset = gpt2 does not fit its weights" in faults(preset="gpt2")
    assert "model.base_width = 32" in faults(base_width=32)
    assert "model.tie_embeddings = False" in faults(tie_embeddings=False)
    same = recipe_of(layers=3, context=512, vocabulary_size=320, rope_base=50_000)
    assert (same.model.context, same.model.vocabulary_size) == (512, 320)


def test_a_resolved_recipe_loads_when_the_folder_is_gone(home: Path) -> None:
    """To the same recipe; one that leaves something open does not. Break: ask for the folder."""
    recipe = recipe_of(context=256)
    (home / "recipe.yaml").write_text(recipe_text(recipe))
    shutil.rmtree(home / "base")
    assert load_recipe(home / "recipe.yaml").model_dump() == recipe.model_dump()
    assert "model.weights = base: there is no such folder" in faults()


def test_folders_that_say_nothing_useful(home: Path) -> None:
    """Each is told in a sentence. Break: fall back on the dial."""
    (home / "base" / "tokenizer.json").unlink()
    assert "base has no tokenizer.json" in faults()
    assert "give its own as data.tokenizer.file" in faults()
    assert recipe_of("data.tokenizer.file=own.json").model.width == 64
    (home / "base" / "config.json").write_text("{")
    assert "base/config.json cannot be read as JSON" in faults()
    (home / "base" / "config.json").write_text("[]")
    assert "base/config.json holds no JSON object" in faults()
    (home / "base" / "config.json").unlink()
    assert "base has no config.json and no recipe.yaml" in faults()


def test_an_architecture_of_others_is_theirs(home: Path) -> None:
    """And its layers are no settings here. Break: fill width and layers from the dial's table."""
    configured(home, model_type="olmo2", architectures=["Olmo2ForCausalLM"])
    recipe = recipe_of(context=512)
    assert (recipe.model.architecture, recipe.model.vocabulary_size) == ("transformers", 300)
    assert recipe.model.foreign
    text = recipe_text(recipe)
    assert "layers:" not in text
    (home / "recipe.yaml").write_text(text)
    assert load_recipe(home / "recipe.yaml").model_dump() == recipe.model_dump()
    told = faults(architecture="transformers", layers=3)
    assert "model.layers does nothing beside model.architecture" in told
    assert "model_type olmo2 is none of gpt2, llama" in faults(architecture="own")
    configured(home)
    assert recipe_of(architecture="transformers").model.architecture == "transformers"
    told = faults(architecture="transformers", weights="")
    assert "architecture transformers is that of a folder of weights, and none is given" in told


@pytest.mark.parametrize(
    ("kind", "built"),
    [("bert", ["BertForMaskedLM"]), ("t5", ["T5ForConditionalGeneration"]), ("bert", [])],
)
def test_encoders_of_others_are_refused(home: Path, kind: str, built: list[str]) -> None:
    """They would train as decoders that see what comes. Break: take whatever transformers loads."""
    configured(home, model_type=kind, architectures=built)
    assert "is no decoder that writes text from left to right" in faults()


def test_an_unknown_rope_has_a_way_out(home: Path) -> None:
    """Break: read it as the plain one."""
    configured(home, rope_scaling={"type": "dynamic", "factor": 2.0})
    told = faults()
    assert "rope_type dynamic is none of default, linear, llama3, yarn" in told
    assert "set model.architecture to transformers" in told
    assert recipe_of(architecture="transformers").model.foreign


def test_a_head_of_classes_may_stand_on_tied_weights(home: Path) -> None:
    """The folder's tied embedding has no head of tokens then. Break: take `tie_embeddings` as it
    stands in the file."""
    values = {
        "name": "tune",
        "data": {"examples": {"train": ["a.jsonl"], "task": "classification",
                              "classes": ["no", "yes"]}},
        "model": {"weights": "base"},
        "train": {"budget": {"steps": 4}},
    }  # fmt: skip
    model = parse_recipe(values).model
    assert (model.head, model.classes, model.tie_embeddings) == ("classes", 2, False)
    with pytest.raises(RecipeError, match="architecture transformers gives tokens"):
        parse_recipe(values, changes=("model.architecture=transformers",))


def test_a_separator_needs_its_file(home: Path) -> None:
    """Break: let it stand without effect."""
    told = faults("data.tokenizer={file: '', separator: '<eos>'}")
    assert "separator <eos> is an entry of a file, and none is given" in told


def test_reading_a_folder_takes_no_torch(home: Path) -> None:
    """Break: read the configuration through transformers."""
    code = (
        "import sys; from pathlib import Path; from wellfit.run.inspect import inspect_model\n"
        "print(inspect_model(Path('base')).parameters, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["111808", "False"]
