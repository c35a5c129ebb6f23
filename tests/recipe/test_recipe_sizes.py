"""The dial: sensible numbers, and the rest consistent with whatever is set."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wellfit.recipe.load import parse_recipe
from wellfit.recipe.schema import OPTIMIZERS, Muon, Recipe, Size
from wellfit.recipe.shapes import parameter_count
from wellfit.recipe.sizes import DIALS, fill, sizes_table


def recipe(model: dict[str, Any], **train: Any) -> Recipe:
    return parse_recipe(
        {
            "name": "x",
            "data": {"sources": [{"path": "p"}]},
            "model": model,
            "train": {"budget": {"steps": 1}, **train},
        }
    )


def test_the_dial_has_the_sizes_of_the_schema() -> None:
    assert tuple(DIALS) == get_args(Size)


def test_nano_is_the_quickstart_model() -> None:
    """Breaks when a number of the nano row, or a rule that derives one, changes unnoticed."""
    model, train = recipe({}).model, recipe({}).train
    assert (model.size, model.context, model.layers, model.width) == ("nano", 256, 4, 256)
    assert (model.heads, model.kv_heads, model.hidden) == (2, 2, 1024)
    assert (model.activation, model.init) == ("relu2", "zero_projections")
    assert model.qk_norm
    assert not model.tie_embeddings
    assert isinstance(train.optimizer, Muon)
    assert (train.optimizer.matrix_learning_rate, train.optimizer.learning_rate) == (0.02, 0.006)
    assert (train.batch_tokens, train.micro_batch) == (4096, 16)
    assert (train.schedule.kind, train.schedule.decay_share) == ("wsd", 0.75)


def test_7b_is_the_llama_shape() -> None:
    """6,738,415,616 parameters, as published for Llama-7B; breaks when 8/3 is rounded otherwise."""
    model = recipe({"size": "7b", "qk_norm": False}).model
    assert (model.layers, model.width, model.heads, model.kv_heads) == (32, 4096, 32, 32)
    assert (model.hidden, model.activation, model.context) == (11008, "swiglu", 4096)
    assert parameter_count(model, 32_000) == 6_738_415_616


def test_sizes_grow_and_rates_fall() -> None:
    models = [recipe({"size": size}) for size in DIALS]
    counts = [parameter_count(one.model, 32_000) for one in models]
    assert counts == sorted(counts)
    millions = dict(zip(DIALS, (count / 1e6 for count in counts), strict=True))
    assert 100 < millions["small"] < 150
    assert 320 < millions["base"] < 400
    assert 1_000 < millions["1b"] < 1_300
    assert 2_800 < millions["3b"] < 3_300
    rates = [one.train.optimizer.learning_rate for one in models]
    assert rates == sorted(rates, reverse=True)
    assert {one.model.activation for one in models[:5]} == {"relu2"}
    assert {one.model.activation for one in models[5:]} == {"swiglu"}
    assert models[5].model.kv_heads < models[5].model.heads


def test_what_is_set_is_followed() -> None:
    model = recipe({"width": 768}).model
    assert (model.heads, model.hidden) == (6, 3072)
    assert recipe({"width": 96, "activation": "swiglu"}).model.hidden == 256
    assert recipe({"heads": 8}).model.kv_heads == 8
    assert recipe({"kv_heads": 4}).model.heads == 4
    assert recipe({"size": "1b", "heads": 6, "width": 384}).model.kv_heads == 2
    long = recipe({"context": 1024}).train
    assert (long.batch_tokens, long.micro_batch) == (4096, 4)
    longer = recipe({"context": 8192}).train
    assert (longer.batch_tokens, longer.micro_batch) == (8192, 1)
    assert recipe({}, batch_tokens=512).train.micro_batch == 2
    adamw = recipe({"width": 768}, optimizer={"kind": "adamw"}).train.optimizer
    assert (adamw.kind, adamw.learning_rate) == ("adamw", 6e-4)
    assert recipe({"width": 1024}).train.optimizer.learning_rate == 0.003
    cosine = recipe({}, schedule={"kind": "cosine"})
    assert cosine.provenance["train.schedule.decay_share"] == "default"


def test_every_optimizer_has_its_rates_from_the_dial() -> None:
    """Break: AdamW's rate for Lion, or betas of a kind left to the schema without a reason."""
    rates = {
        kind: recipe({"width": 768}, optimizer={"kind": kind}).train.optimizer
        for kind in OPTIMIZERS
    }
    assert {kind: one.learning_rate for kind, one in rates.items()} == {
        "adamw": 6e-4, "adamw_8bit": 6e-4, "muon": 0.0035, "lion": 1.2e-4, "adafactor": 6e-4,
        "sgd": 0.1,
    }  # fmt: skip
    assert (rates["lion"].beta1, rates["lion"].beta2, rates["lion"].weight_decay) == (
        0.95,
        0.98,
        0.5,
    )
    scaled = recipe({}, optimizer={"kind": "adafactor", "scale_by_size": True}).train.optimizer
    assert scaled.learning_rate == 0.01
    own = {"adamw": {"beta1", "beta2"}, "lion": {"beta1", "beta2"}, "sgd": {"momentum"},
           "adamw_8bit": {"beta1", "beta2"}, "adafactor": {"decay_power"},
           "muon": {"momentum", "beta1", "beta2"}}  # fmt: skip
    for kind, keys in own.items():
        given = fill({"train": {"optimizer": {"kind": kind}}})
        assert {f"train.optimizer.{key}" for key in keys} < given.keys()
    for kind in ("lion", "adafactor", "sgd"):
        given = fill({"train": {"optimizer": {"kind": kind}}})
        assert "not measured here" in given["train.optimizer.learning_rate"][1]
    assert recipe({}, schedule={"kind": "one_cycle"}).train.schedule.warmup == 0.3


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_added_number_has_a_reason(kind: str) -> None:
    for size in DIALS:
        raw = {"model": {"size": size}, "train": {"optimizer": {"kind": kind}}}
        for path, (value, reason) in fill(raw).items():
            assert value is not None, path
            assert len(reason) > 5, path
            assert "\n" not in reason, path


def test_what_is_written_is_never_replaced() -> None:
    written = {"model": {"layers": "x", "width": None}, "train": {"optimizer": 3}}
    assert not {"model.layers", "model.width"} & set(fill(written))
    assert fill({"model": 3, "train": [1]})["model.width"][0] == 256


MODEL = {
    "size": st.sampled_from(list(DIALS)),
    "context": st.integers(8, 4096),
    "layers": st.integers(1, 512),
    "width": st.integers(4, 4096).map(lambda half: 2 * half),
    "kv_heads": st.sampled_from([1, 2, 4]),
    "activation": st.sampled_from(["swiglu", "gelu", "gelu_tanh", "relu2"]),
    "position": st.sampled_from(["rotary", "learned"]),
}


@given(
    st.fixed_dictionaries({}, optional=MODEL),
    st.sampled_from([None, *OPTIMIZERS]),
    st.sampled_from([None, 1, 3, 64]),
)
@settings(deadline=None, max_examples=300)
def test_any_choice_gives_a_sound_whole(
    model: dict[str, Any], kind: str | None, micro_batch: int | None
) -> None:
    """Breaks when heads ignore kv_heads or the width, or when the batch ignores the context."""
    if model.get("kv_heads", 1) > 1 and "width" in model:
        model["width"] *= model["kv_heads"]
    train: dict[str, Any] = {"optimizer": {"kind": kind}} if kind else {}
    if micro_batch:
        train["micro_batch"] = micro_batch
    whole = recipe(model, **train)
    assert all(getattr(whole.model, key) == value for key, value in model.items())
    assert whole.train.batch_tokens % whole.model.context == 0
    rows = whole.train.batch_tokens // whole.model.context
    assert micro_batch or whole.train.micro_batch <= rows
    assert 0 < whole.train.optimizer.learning_rate <= 0.1
    head_width = whole.model.width / whole.model.heads
    if whole.model.width % 256 == 0 and "kv_heads" not in model:
        assert math.isclose(head_width, 128)


def test_heads_may_be_asked_for() -> None:
    with pytest.raises(Exception, match="try heads 2"):
        recipe({"heads": 3})


def test_the_table_of_sizes_names_each() -> None:
    lines = sizes_table().splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == list(DIALS)
    assert "6738.4" in lines[-2]
