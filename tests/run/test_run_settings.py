"""Every setting of the schema does something: changed alone, it changes what can be observed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_settings import RECIPE, observe_corpus, observe_training, write_documents

from wellfit.data.corpus import Corpus
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.schema import Recipe
from wellfit.recipe.settings import settings
from wellfit.run.setting import corpus_folder

ADAMW = ("train.optimizer.kind=adamw",)
COSINE = ("train.schedule.kind=cosine",)

# Setting → (changes for both, the change, where it must show).
DATA: dict[str, tuple[tuple[str, ...], str, str]] = {
    "sources": ((), "data.sources=[{path: texts}]", "shards/train-00000.bin"),
    "sources[].path": ((), "data.sources.1.path=texts/01.txt", "shards/train-00000.bin"),
    "sources[].format": ((), "data.sources.0.format=markdown", "documents/part-00000.parquet"),
    "sources[].domain": ((), "data.sources.0.domain=poems", "shards.json"),
    "sources[].text_field": ((), "data.sources.1.text_field=title", "shards/train-00000.bin"),
    "clean": ((), "data.clean=[]", "documents/part-00000.parquet"),
    "clean[]": ((), "data.clean=[run_extensions:shout]", "documents/part-00000.parquet"),
    "filters": ((), "data.filters=[]", "decisions.parquet"),
    "filters[]": ((), "data.filters=[{too_short: {min_characters: 300}}]", "decisions.parquet"),
    "duplicates.exact": (
        ("data.duplicates.near=false",),
        "data.duplicates.exact=false",
        "decisions.parquet",
    ),
    "duplicates.near": ((), "data.duplicates.near=false", "decisions.parquet"),
    "duplicates.threshold": ((), "data.duplicates.threshold=0.99", "decisions.parquet"),
    "duplicates.shingle_words": ((), "data.duplicates.shingle_words=1", "pairs.parquet"),
    "duplicates.max_removed_share": (
        (),
        "data.duplicates.max_removed_share=0.0",
        "decisions.parquet",
    ),
    "split.validation": ((), "data.split.validation=0.4", "decisions.parquet"),
    "split.test": ((), "data.split.test=0.4", "decisions.parquet"),
    "split.family_threshold": ((), "data.split.family_threshold=1", "decisions.parquet"),
    "tokenizer.file": ((), "data.tokenizer.file=other.json", "tokenizer.json"),
    "tokenizer.vocabulary_size": ((), "data.tokenizer.vocabulary_size=310", "tokenizer.json"),
    "max_rejected_share": ((), "data.max_rejected_share=0.0", "error"),
    "workers": ((), "data.workers=2", "processes"),
}
TRAINING: dict[str, tuple[tuple[str, ...], str, str]] = {
    "seed": ((), "seed=1", "weights"),
    "model.size": ((), "model.size=7b", "weights"),
    "model.context": ((), "model.context=64", "weights"),
    "model.layers": ((), "model.layers=2", "weights"),
    "model.width": ((), "model.width=32", "weights"),
    "model.heads": ((), "model.heads=4", "weights"),
    "model.kv_heads": ((), "model.kv_heads=2", "weights"),
    "model.hidden": ((), "model.hidden=24", "weights"),
    "model.position": ((), "model.position=learned", "weights"),
    "model.rope_base": ((), "model.rope_base=50", "weights"),
    "model.norm": ((), "model.norm=layernorm", "weights"),
    "model.norm_epsilon": ((), "model.norm_epsilon=0.1", "weights"),
    "model.activation": (("model.activation=gelu",), "model.activation=relu2", "weights"),
    "model.bias": ((), "model.bias=true", "weights"),
    "model.qk_norm": ((), "model.qk_norm=false", "weights"),
    "model.tie_embeddings": ((), "model.tie_embeddings=true", "weights"),
    "model.logit_soft_cap": ((), "model.logit_soft_cap=1", "weights"),
    "model.dropout": ((), "model.dropout=0.3", "weights"),
    "model.init": ((), "model.init=scaled_normal", "weights"),
    "train.budget.steps": ((), "train.budget.steps=5", "steps"),
    "train.budget.tokens": ((), "train.budget={tokens: 512}", "steps"),
    "train.budget.epochs": ((), "train.budget={epochs: 1.5}", "steps"),
    "train.budget.minutes": ((), "train.budget={minutes: 0.00001}", "steps"),
    "train.batch_tokens": ((), "train.batch_tokens=128", "weights"),
    "train.micro_batch": (("model.dropout=0.3",), "train.micro_batch=2", "weights"),
    "train.optimizer.kind": ((), ADAMW[0], "weights"),
    "train.optimizer.matrix_learning_rate": (
        (),
        "train.optimizer.matrix_learning_rate=0.5",
        "weights",
    ),
    "train.optimizer.learning_rate": ((), "train.optimizer.learning_rate=0.5", "weights"),
    "train.optimizer.momentum": ((), "train.optimizer.momentum=0.5", "weights"),
    "train.optimizer.beta1": ((), "train.optimizer.beta1=0.5", "weights"),
    "train.optimizer.beta2": ((), "train.optimizer.beta2=0.5", "weights"),
    "train.optimizer.epsilon": ((), "train.optimizer.epsilon=0.1", "weights"),
    "train.optimizer.weight_decay": ((), "train.optimizer.weight_decay=0.5", "weights"),
    "train.optimizer.learning_rate adamw": (ADAMW, "train.optimizer.learning_rate=0.5", "weights"),
    "train.optimizer.beta1 adamw": (ADAMW, "train.optimizer.beta1=0.5", "weights"),
    "train.optimizer.beta2 adamw": (ADAMW, "train.optimizer.beta2=0.5", "weights"),
    "train.optimizer.epsilon adamw": (ADAMW, "train.optimizer.epsilon=0.1", "weights"),
    "train.optimizer.weight_decay adamw": (ADAMW, "train.optimizer.weight_decay=0.5", "weights"),
    "train.schedule.kind": ((), COSINE[0], "rates"),
    "train.schedule.warmup": ((), "train.schedule.warmup=3", "rates"),
    "train.schedule.decay_share": (
        ("train.schedule.kind=wsd", "train.schedule.decay_share=1"),
        "train.schedule.decay_share=0.5",
        "rates",
    ),
    "train.schedule.final_share": ((), "train.schedule.final_share=0.5", "rates"),
    "train.clip_norm": ((), "train.clip_norm=0.001", "weights"),
    "train.precision": ((), "train.precision=bf16", "weights"),
    "train.device": ((), "train.device=mps", "error"),
    "train.document_mask": ((), "train.document_mask=false", "losses"),
    "train.checkpoint_every": ((), "train.checkpoint_every=3", "saved"),
    "train.keep_last": ((), "train.keep_last=1", "kept"),
    "train.threads": ((), "train.threads=2", "threads"),
    "evaluate.every": ((), "evaluate.every=3", "evaluated"),
    "evaluate.tokens": ((), "evaluate.tokens=64", "evaluated tokens"),
    "monitor.sample_every": ((), "monitor.sample_every=3", "samples"),
    "monitor.prompts": ((), "monitor.prompts=[]", "samples"),
    "monitor.prompts[]": ((), "monitor.prompts=[copper]", "samples"),
    "monitor.sampling.tokens": ((), "monitor.sampling.tokens=4", "samples"),
    "monitor.sampling.temperature": ((), "monitor.sampling.temperature=0", "samples"),
    "monitor.sampling.top_k": ((), "monitor.sampling.top_k=1", "samples"),
    "monitor.sampling.top_p": ((), "monitor.sampling.top_p=0.01", "samples"),
    "monitor.sampling.seed": ((), "monitor.sampling.seed=5", "samples"),
}
# What these change is where files stand; see the last test.
PLACES = {"name", "data.folder"}
# What is decided before a training; tests/run/test_run_plan.py shows its effect.
BEFORE = {"train.memory_check"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settings")
    write_documents(folder)
    return folder


def recipe_of(*changes: str) -> Recipe:
    return parse_recipe(RECIPE, changes=changes)


@pytest.fixture(scope="module")
def corpus_of(home: Path) -> Callable[..., dict[str, Any]]:
    """Changes → what is observed of their corpus; each corpus is built once."""
    known: dict[tuple[str, ...], dict[str, Any]] = {}

    def observed(*changes: str) -> dict[str, Any]:
        if changes not in known:
            data = recipe_of(*changes).data
            known[changes] = observe_corpus(data, home / f"corpus-{len(known)}")
        return known[changes]

    return observed


@pytest.fixture(scope="module")
def training_of(
    home: Path, corpus_of: Callable[..., dict[str, Any]]
) -> Callable[..., dict[str, Any]]:
    """Changes → what is observed of their training, on the recipe's own corpus."""
    known: dict[tuple[str, ...], dict[str, Any]] = {}
    before = Path.cwd()
    os.chdir(home)
    assert "error" not in corpus_of()
    os.chdir(before)
    corpus = Corpus.open(home / "corpus-0")

    def observed(*changes: str, again: bool = False) -> dict[str, Any]:
        if again or changes not in known:
            folder = home / f"run-{len(known)}{'-again' if again else ''}"
            known[changes] = observe_training(recipe_of(*changes), corpus, folder)
        return known[changes]

    return observed


def test_no_setting_of_the_schema_is_left_out() -> None:
    """Break: add a setting to the schema."""
    leaves = {one.path for one in settings() if one.form != "section"}
    tested = (
        {f"data.{path}" for path in DATA} | {path.split()[0] for path in TRAINING} | PLACES | BEFORE
    )
    assert leaves == tested
    both = {one.path for one in settings() if one.when == "adamw" and one.form == "number"}
    assert both == {path.split()[0] for path in TRAINING if path.endswith(" adamw")}


def changed(both: tuple[str, ...], change: str) -> tuple[str, ...]:
    """Changes and one more → all of them; the last one counts where both name a setting."""
    key = change.partition("=")[0]
    return (*(one for one in both if one.partition("=")[0] != key), change)


@pytest.mark.parametrize("setting", DATA)
def test_a_data_setting_has_an_effect(
    setting: str,
    home: Path,
    corpus_of: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Break: do not pass the setting on."""
    monkeypatch.chdir(home)
    both, change, where = DATA[setting]
    before = corpus_of(*both)
    assert "error" not in before, before
    if setting == "tokenizer.file":
        other = corpus_of("data.tokenizer.vocabulary_size=310")["folder"]
        shutil.copy(other / "tokenizer.json", "other.json")
    after = corpus_of(*changed(both, change))
    assert after.get(where) != before.get(where), after


@pytest.mark.parametrize("setting", TRAINING)
def test_a_setting_of_the_training_has_an_effect(
    setting: str, training_of: Callable[..., dict[str, Any]]
) -> None:
    """Break: do not pass the setting on."""
    both, change, where = TRAINING[setting]
    before, after = training_of(*both), training_of(*changed(both, change))
    assert "error" not in before, before
    assert after.get(where) != before.get(where), after


def test_the_same_recipe_gives_the_same_training(
    training_of: Callable[..., dict[str, Any]],
) -> None:
    """Without this the tests above would pass on chance. Break: seed dropout from the clock."""
    assert training_of("model.dropout=0.3") == training_of("model.dropout=0.3", again=True)


def test_name_and_folder_say_where_the_corpus_stands() -> None:
    assert corpus_folder(recipe_of("name=other")) == Path("corpora/other")
    assert corpus_folder(recipe_of("data.folder=elsewhere")) == Path("elsewhere")
