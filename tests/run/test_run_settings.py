"""Every setting of the schema does something: changed alone, it changes what can be observed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from run_guests import VOCABULARY, guest_recipe, write_tokens
from run_settings import RECIPE, observe_corpus, observe_training, write_documents
from run_settings_adapters import ADAPTERS, LORA
from run_settings_data import DATA
from run_settings_examples import EXAMPLES
from run_settings_guests import GUESTS

from wellfit.data.corpus import Corpus
from wellfit.errors import RecipeError
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.schema import OPTIMIZERS, Recipe, Role
from wellfit.recipe.settings import settings
from wellfit.run.setting import corpus_folder

ADAMW = ("train.optimizer.kind=adamw",)
COSINE = ("train.schedule.kind=cosine",)
MIXTURE = ("model.experts.count=4", *ADAMW)
LLAMA_3 = (
    "model.rope_scaling={kind: llama3, factor: 4, original_context: 16, high_factor: 2}",
    "model.rope_base=50",
)
YARN = ("model.rope_scaling={kind: yarn, factor: 4, original_context: 1000, beta_fast: 2}",)
ENCODER = ("model.kind=encoder",)
BOTH = ("model.kind=encoder_decoder",)
WINDOW = ("model.window=4", "model.layers=2")
# The second evaluation is worse than the first, and both checkpoints stand.
WORSE = (
    "train.keep_best=1",
    "train.optimizer.learning_rate=30",
    "train.optimizer.matrix_learning_rate=30",
    "train.schedule.kind=linear",
    "evaluate.every=1",
    "train.checkpoint_every=1",
)

WILD = (
    "train.optimizer.learning_rate=1e30",
    "train.optimizer.matrix_learning_rate=1e30",
    "train.budget.steps=8",
)
# Five steps are past enough here (see `a_short_past`); the rising rate makes the loss jump.
SPIKY = (
    "train.budget.steps=24",
    "train.schedule={kind: linear, warmup: 20}",
    "train.optimizer.learning_rate=300",
    "train.safety.spike_deviation=0.5",
)

TRAINING: dict[str, tuple[tuple[str, ...], str, str]] = {
    "seed": ((), "seed=1", "weights"),
    "model.size": ((), "model.size=7b", "weights"),
    "model.preset": ((), "model.preset=llama-7b", "weights"),
    "model.vocabulary_size": ((), "model.vocabulary_size=320", "weights"),
    "model.kind": ((), "model.kind=encoder", "weights"),
    "model.encoder_layers": (BOTH, "model.encoder_layers=2", "weights"),
    "model.context": ((), "model.context=64", "weights"),
    "model.layers": ((), "model.layers=2", "weights"),
    "model.width": ((), "model.width=32", "weights"),
    "model.heads": ((), "model.heads=4", "weights"),
    "model.kv_heads": ((), "model.kv_heads=2", "weights"),
    "model.head_width": ((), "model.head_width=6", "weights"),
    "model.hidden": ((), "model.hidden=24", "weights"),
    "model.experts.count": (ADAMW, "model.experts.count=4", "weights"),
    "model.experts.active": (MIXTURE, "model.experts.active=1", "weights"),
    "model.experts.hidden": (MIXTURE, "model.experts.hidden=24", "weights"),
    "model.experts.shared": (MIXTURE, "model.experts.shared=1", "weights"),
    "model.experts.normalise": (MIXTURE, "model.experts.normalise=false", "weights"),
    "model.experts.balance_loss": (MIXTURE, "model.experts.balance_loss=1", "weights"),
    "model.experts.router_z_loss": (MIXTURE, "model.experts.router_z_loss=1", "weights"),
    "model.position": ((), "model.position=learned", "weights"),
    "model.rope_base": ((), "model.rope_base=50", "weights"),
    "model.rope_scaling.kind": (
        ("model.rope_scaling.factor=4",),
        "model.rope_scaling.kind=linear",
        "weights",
    ),
    "model.rope_scaling.factor": (LLAMA_3, "model.rope_scaling.factor=9", "weights"),
    "model.rope_scaling.original_context": (
        LLAMA_3,
        "model.rope_scaling.original_context=30",
        "weights",
    ),
    "model.rope_scaling.low_factor": (LLAMA_3, "model.rope_scaling.low_factor=0.1", "weights"),
    "model.rope_scaling.high_factor": (LLAMA_3, "model.rope_scaling.high_factor=9", "weights"),
    "model.rope_scaling.beta_fast": (YARN, "model.rope_scaling.beta_fast=20", "weights"),
    "model.rope_scaling.beta_slow": (YARN, "model.rope_scaling.beta_slow=0.01", "weights"),
    "model.rope_scaling.attention_factor": (
        YARN,
        "model.rope_scaling.attention_factor=2",
        "weights",
    ),
    "model.rope_local_base": (WINDOW, "model.rope_local_base=50", "weights"),
    "model.rotary_share": ((), "model.rotary_share=0.5", "weights"),
    "model.window": ((), "model.window=4", "weights"),
    "model.global_every": (WINDOW, "model.global_every=2", "weights"),
    "model.attention_soft_cap": ((), "model.attention_soft_cap=1", "weights"),
    "model.norm": ((), "model.norm=layernorm", "weights"),
    "model.norm_epsilon": ((), "model.norm_epsilon=0.1", "weights"),
    "model.post_norm": ((), "model.post_norm=true", "weights"),
    "model.activation": (("model.activation=gelu",), "model.activation=relu2", "weights"),
    "model.bias": ((), "model.bias=true", "weights"),
    "model.qkv_bias": ((), "model.qkv_bias=true", "weights"),
    "model.qk_norm": ((), "model.qk_norm=false", "weights"),
    "model.tie_embeddings": ((), "model.tie_embeddings=true", "weights"),
    "model.scale_embeddings": ((), "model.scale_embeddings=true", "weights"),
    "model.logit_soft_cap": ((), "model.logit_soft_cap=1", "weights"),
    "model.dropout": ((), "model.dropout=0.3", "weights"),
    "model.init": ((), "model.init=scaled_normal", "weights"),
    "model.base_width": ((), "model.base_width=8", "weights"),
    "model.base_head_width": (("model.base_width=8",), "model.base_head_width=4", "weights"),
    "train.budget.steps": ((), "train.budget.steps=5", "steps"),
    "train.budget.tokens": ((), "train.budget={tokens: 512}", "steps"),
    "train.budget.epochs": ((), "train.budget={epochs: 1.5}", "steps"),
    "train.budget.minutes": ((), "train.budget={minutes: 0.00001}", "steps"),
    "train.batch_tokens": ((), "train.batch_tokens=128", "weights"),
    "train.micro_batch": (("model.dropout=0.3",), "train.micro_batch=2", "weights"),
    "train.objective.kind": ((), "train.objective.kind=masked", "error"),
    "train.objective.share": (ENCODER, "train.objective.share=0.4", "weights"),
    "train.objective.mask_share": (ENCODER, "train.objective.mask_share=0.4", "weights"),
    "train.objective.random_share": (ENCODER, "train.objective.random_share=0.2", "weights"),
    "train.objective.span_length": (BOTH, "train.objective.span_length=8", "weights"),
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
    "train.optimizer.states": ((), "train.optimizer.states=offload", "error"),
    "train.schedule.kind": ((), COSINE[0], "rates"),
    "train.schedule.warmup": ((), "train.schedule.warmup=3", "rates"),
    "train.schedule.decay_share": (
        ("train.schedule.kind=wsd", "train.schedule.decay_share=1"),
        "train.schedule.decay_share=0.5",
        "rates",
    ),
    "train.schedule.power": (
        ("train.schedule.kind=polynomial",),
        "train.schedule.power=1",
        "rates",
    ),
    "train.schedule.final_share": ((), "train.schedule.final_share=0.5", "rates"),
    "train.clip_norm": ((), "train.clip_norm=0.001", "weights"),
    "train.clip_value": ((), "train.clip_value=0.0001", "weights"),
    "train.safety.non_finite": (WILD, "train.safety.non_finite=stop", "events"),
    "train.safety.spike": (SPIKY, "train.safety.spike=stop", "events"),
    "train.safety.spike_deviation": (SPIKY, "train.safety.spike_deviation=1e9", "events"),
    "train.safety.limit": (WILD, "train.safety.limit=2", "events"),
    "train.precision": ((), "train.precision=bf16", "weights"),
    "train.loss": ((), "train.loss=run_guests:focal", "weights"),
    "train.label_smoothing": ((), "train.label_smoothing=0.2", "weights"),
    "train.z_loss": ((), "train.z_loss=0.1", "weights"),
    "train.activation_checkpointing": ((), "train.activation_checkpointing=full", "recompute"),
    "train.activation_offload": ((), "train.activation_offload=true", "error"),
    # With dropout, so that no compiler runs: the reason still tells what was asked for.
    "train.compile": (("model.dropout=0.3",), "train.compile=on", "compile_reason"),
    "train.device": ((), "train.device=mps", "error"),
    "train.document_mask": ((), "train.document_mask=false", "losses"),
    "train.proofs": ((), "train.proofs=off", "proofs"),
    "train.checkpoint_every": ((), "train.checkpoint_every=3", "saved"),
    "train.keep_last": ((), "train.keep_last=1", "kept"),
    "train.keep_best": (
        (*WORSE[1:], "train.keep_last=1"),
        "train.keep_best=1",
        "kept",
    ),
    "train.best_by": ((), "train.best_by=validation.accuracy", "scored by"),
    "train.restore_best": (WORSE, "train.restore_best=false", "taken"),
    "train.stop_early.patience": (WORSE, "train.stop_early.patience=1", "steps"),
    "train.stop_early.min_delta": (
        ("train.stop_early.patience=1", "evaluate.every=1"),
        "train.stop_early.min_delta=1000",
        "steps",
    ),
    "train.stop_early.convergence": (
        ("evaluate.every=1", "train.stop_early.window=3"),
        "train.stop_early.convergence=1",
        "steps",
    ),
    "train.stop_early.window": (
        ("evaluate.every=1", "train.stop_early.convergence=1"),
        "train.stop_early.window=3",
        "steps",
    ),
    "train.save_in_background": ((), "train.save_in_background=false", "writers"),
    "train.ema_decay": ((), "train.ema_decay=0.9", "losses held out"),
    "train.threads": ((), "train.threads=2", "threads"),
    "data.packing": ((), "data.packing=best_fit", "weights"),
    "evaluate.every": ((), "evaluate.every=3", "evaluated"),
    "evaluate.tokens": ((), "evaluate.tokens=64", "evaluated tokens"),
    "monitor.sample_every": ((), "monitor.sample_every=3", "samples"),
    "monitor.prompts": ((), "monitor.prompts=[]", "samples"),
    "monitor.prompts[]": ((), "monitor.prompts=[copper]", "samples"),
    "monitor.sampling.tokens": ((), "monitor.sampling.tokens=4", "samples"),
    "monitor.sampling.temperature": ((), "monitor.sampling.temperature=0", "samples"),
    "monitor.sampling.top_k": ((), "monitor.sampling.top_k=1", "samples"),
    "monitor.sampling.top_p": ((), "monitor.sampling.top_p=0.01", "samples"),
    "monitor.sampling.min_p": ((), "monitor.sampling.min_p=1", "samples"),
    "monitor.sampling.repetition_penalty": (
        ("monitor.sampling.temperature=0",),
        "monitor.sampling.repetition_penalty=0.05",
        "samples",
    ),
    "monitor.sampling.stop": ((), "monitor.sampling.stop=[a, e, i, o, u, n, r]", "samples"),
    "monitor.sampling.stop[]": (
        ("monitor.sampling.stop=[a, e, i, o, u, n, r]",),
        "monitor.sampling.stop=[NOWHERE]",
        "samples",
    ),
    "monitor.sampling.seed": ((), "monitor.sampling.seed=5", "samples"),
}
# Settings of the kinds of optimizer that are not the default, as they stand in `TRAINING`.
OF_KINDS: dict[str, dict[str, str]] = {
    "adamw": {
        "learning_rate": "0.5", "beta1": "0.5", "beta2": "0.5", "epsilon": "0.1",
        "weight_decay": "0.5",
    },
    "adamw_8bit": {
        "learning_rate": "0.5", "beta1": "0.5", "beta2": "0.5", "epsilon": "0.1",
        "weight_decay": "0.5",
    },
    "adafactor": {
        "learning_rate": "0.5", "scale_by_size": "true", "decay_power": "0.3",
        "clip_threshold": "0.1", "epsilon": "0.1", "weight_decay": "0.5",
        "smallest_size": "0.5 train.optimizer.scale_by_size=true",
    },
    "lion": {"learning_rate": "0.5", "beta1": "0.1", "beta2": "0.1", "weight_decay": "0.1"},
    "sgd": {"learning_rate": "0.5", "momentum": "0.5", "nesterov": "true", "weight_decay": "0.5"},
}  # fmt: skip
for kind, changes in OF_KINDS.items():
    for name, change in changes.items():
        value, *more = change.split()
        TRAINING[f"train.optimizer.{name} {kind}"] = (
            (f"train.optimizer.kind={kind}", *more),
            f"train.optimizer.{name}={value}",
            "weights",
        )
# Groups are the same for every kind.
NEEDED = {
    "position": ("model.position=learned",),
    "bias": ("model.bias=true",),
    "router": (*MIXTURE, "train.optimizer.weight_decay=0.1"),
    "adapter": LORA,
}
for role in get_args(Role):
    for name, value in (("rate", 0.5), ("weight_decay", 0.7)):
        path = f"train.optimizer.groups.{role}.{name}"
        TRAINING[path] = (NEEDED.get(role, ()), f"{path}={value}", "weights")
TRAINING |= ADAPTERS
# What these change is where files stand; see the last test.
PLACES = {"name", "data.folder"}
# What is decided before a training; tests/run/test_run_plan.py shows its effect.
BEFORE = {"train.memory_check"}
# What begins with a folder of weights; tests/run/test_run_hub.py shows their effect.
OF_FOLDERS = {"model.weights", "model.architecture"}


@pytest.fixture(scope="module", autouse=True)
def a_short_past() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wellfit.training.gate.LEAST", 5)
        yield


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
            try:
                recipe = recipe_of(*changes)
            except RecipeError as error:
                known[changes] = {"error": str(error)}
                return known[changes]
            known[changes] = observe_training(recipe, corpus, folder)
        return known[changes]

    return observed


def test_no_setting_of_the_schema_is_left_out() -> None:
    """Break: add a setting to the schema."""
    leaves = {one.path for one in settings() if one.form != "section"}
    tested = {f"data.{path}" for path in DATA} | {path.split()[0] for path in TRAINING}
    tested |= GUESTS.keys() | EXAMPLES.keys() | PLACES | BEFORE | OF_FOLDERS
    assert leaves == tested
    for kind in OPTIMIZERS.keys() - {"muon"}:
        own = {
            one.path
            for one in settings()
            if one.when == kind
            and one.form in ("number", "true or false")
            and ".groups." not in one.path
        }
        assert own == {f"train.optimizer.{name}" for name in OF_KINDS[kind]}, kind


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
    if setting in ("tokenizer.file", "tokenizer.separator"):
        other = corpus_of("data.tokenizer.vocabulary_size=310")["folder"]
        shutil.copy(other / "tokenizer.json", "other.json")
    before = corpus_of(*both)
    assert "error" not in before, before
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


@pytest.mark.parametrize("setting", GUESTS)
def test_a_setting_of_guests_has_an_effect(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break: do not pass the setting on."""
    monkeypatch.chdir(tmp_path)
    write_tokens(tmp_path)
    ids = np.fromfile("train.bin", "<u2")
    ids[::-1].tofile("more.bin")
    (ids[40:] // 2 * 2 + 1).clip(0, VOCABULARY - 1).tofile("wide.bin")
    rows = {"input_ids": [[1, 2], [3]] * 30, "other": [[4, 5], [6]] * 30}
    pq.write_table(pa.table(rows), "rows.parquet")

    def observed(number: int, *changes: str) -> dict[str, Any]:
        module = {"run_guests:Recurrent": {}}
        values = guest_recipe(Path(), module, budget={"steps": 2}, document_mask=False)
        if any("tokenizer" in change for change in changes):  # it takes the place of the two
            del values["data"]["tokens"]["vocabulary_size"]
        recipe = parse_recipe(values, changes=changes)
        seen = observe_corpus(recipe.data, tmp_path / f"corpus-{number}")
        if setting == "model.module":
            corpus = Corpus.open(tmp_path / f"corpus-{number}")
            seen |= observe_training(recipe, corpus, tmp_path / f"run-{number}")
        return seen

    both, change, where = GUESTS[setting]
    before, after = observed(0, *both), observed(1, *changed(both, change))
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
