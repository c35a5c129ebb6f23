"""Each piece of advice is given for its bad value, and none for what we hand out ourselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wellfit.plan.advice import RULES, Facts, advise
from wellfit.plan.length import Counts, length
from wellfit.recipe.load import load_recipe, parse_recipe
from wellfit.recipe.shapes import parameter_count
from wellfit.recipe.sizes import DIALS

ROOT = Path(__file__).resolve().parents[2]
BUILT_IN = [
    *sorted((ROOT / "recipes").glob("*.yaml")),
    *sorted((ROOT / "src/wellfit/run/recipes").glob("*.yaml")),
]
PLENTY = Counts(
    train_tokens=10**9,
    validation_tokens=10**6,
    train_documents=10**5,
    median_document_tokens=1000,
)
BASE = {
    "name": "x",
    "data": {"sources": [{"path": "texts"}]},
    "model": {"size": "nano"},
    "train": {"budget": {"steps": 2000}},
}
ADAMW = "train.optimizer.kind=adamw"
# What is wrong → (changes, counts, the setting that the advice names).
BAD = {
    "AdamW's rate": ((ADAMW, "train.optimizer.learning_rate=0.1"), None, "optimizer.learning_rate"),
    "a tiny rate": ((ADAMW, "train.optimizer.learning_rate=1e-7"), None, "optimizer.learning_rate"),
    "a rate for another width": (
        ("model.size=7b", "train.optimizer.matrix_learning_rate=0.1"),
        None,
        "matrix_learning_rate",
    ),
    "an adapter's rate": (
        ("model.adapter={rank: 16}", "train.optimizer.learning_rate=0.01"),
        None,
        "optimizer.learning_rate",
    ),
    "a low rank": (("model.adapter={rank: 4}",), None, "adapter.rank"),
    "a large alpha": (("model.adapter={rank: 8, alpha: 500}",), None, "adapter.alpha"),
    "a base that knows nothing": (("model.adapter={rank: 16}",), None, "model.adapter"),
    "a long warm-up": (("train.schedule.warmup=0.5",), None, "schedule.warmup"),
    "a long warm-up in steps": (("train.schedule.warmup=900",), None, "schedule.warmup"),
    "no warm-up": (("train.schedule.warmup=0",), None, "schedule.warmup"),
    "a batch beyond the data": (
        ("train.batch_tokens=262144",),
        Counts(200_000, 20_000),
        "batch_tokens",
    ),
    "few updates": (
        ("train.budget={tokens: 100_000}", "train.batch_tokens=65536"),
        PLENTY,
        "batch_tokens",
    ),
    "many passes": (("train.budget={epochs: 100}",), None, "budget"),
    "many passes in steps": ((), Counts(300_000, 20_000), "budget"),
    "little data": (("model.size=small",), Counts(1_000_000, 20_000), "model.size"),
    "much decay": (("train.optimizer.weight_decay=1",), None, "weight_decay"),
    "beta1 of 0": (("train.optimizer.beta1=0",), None, "beta1"),
    "beta2 of a half": (("train.optimizer.beta2=0.5",), None, "beta2"),
    "a memory beyond the run": (
        ("train.optimizer.beta2=0.9995", "train.budget.steps=500"),
        None,
        "beta2",
    ),
    "no clipping": (("train.clip_norm=0",), None, "clip_norm"),
    "a norm nothing reaches": (("train.clip_norm=500",), None, "clip_norm"),
    "a context beyond the documents": (
        ("model.context=4096",),
        Counts(10**9, 10**6, median_document_tokens=60),
        "model.context",
    ),
    "nothing held out": (("data.split.validation=0",), None, "split.validation"),
    "few tokens scored": (("evaluate.tokens=500",), None, "evaluate.tokens"),
    "little held out": ((), Counts(10**8, 300), "split.validation"),
    "dropout on one pass": (
        ("model.dropout=0.1", "train.budget={epochs: 1}"),
        None,
        "model.dropout",
    ),
    "dropout of most": (("model.dropout=0.8",), None, "model.dropout"),
}


@pytest.mark.parametrize("name", BAD)
def test_advice_for_a_bad_value(name: str) -> None:
    """It names the setting, what is usual and why; its patch can be applied and ends the advice.

    Break: return nothing from any one of the rules.
    """
    changes, counts, setting = BAD[name]
    recipe = parse_recipe(BASE, changes=changes)
    found = [one for one in advise(recipe, 4096, counts) if one.setting.endswith(setting)]
    assert found, name
    advice = found[0]
    assert advice.usual in str(advice) and advice.why in str(advice)
    # What the corpus itself has too little of only another build can mend.
    if advice.patch and name != "little held out":
        keys = {advice.patch.partition("=")[0]}
        if advice.patch.startswith("train.budget"):
            keys.add("train.budget")
        others = [c for c in changes if c.partition("=")[0] not in keys]
        mended = parse_recipe(BASE, changes=[*others, advice.patch])
        same = [one for one in advise(mended, 4096, counts) if one == advice]
        assert not same, advice


@pytest.mark.parametrize(
    ("origin", "held", "setting", "patch"),
    [
        ("examples: {train: [a.jsonl]}", 0, "data.examples.validation_share", "0.05"),
        ("examples: {train: [a.jsonl], validation_share: 0.1}", 50, "data.examples.", "0.2"),
        ("examples: {train: [a.jsonl], validation: [b.jsonl]}", 50, "data.examples.", None),
        ("tokens: {train: [a.bin], vocabulary_size: 9, separator: 0}", 0, "data.tokens.", "0.05"),
    ],
)
def test_advice_names_the_setting_that_this_recipe_has(
    origin: str, held: int, setting: str, patch: str | None
) -> None:
    """And its patch is one that the recipe takes. Break: name `data.split` in any case."""
    raw: dict[str, Any] = {
        "name": "x", "model": {"context": 64}, "train": {"budget": {"steps": 9}},
    }  # fmt: skip
    changes = (f"data={{{origin}}}",)
    recipe = parse_recipe({**raw, "data": {}}, changes=changes)
    told = [a for a in advise(recipe, 500, Counts(10**6, held)) if "validation" in a.setting]
    assert [one.setting.startswith(setting) for one in told] == [True]
    if patch is None:
        assert told[0].patch == ""
        return
    assert told[0].patch.endswith(f"={patch}")
    parse_recipe({**raw, "data": {}}, changes=(*changes, told[0].patch))


def test_every_rule_has_a_bad_value() -> None:
    """Break: add a rule without one."""
    for name, rule in RULES.items():
        given = []
        for changes, counts, _ in BAD.values():
            recipe = parse_recipe(BASE, changes=changes)
            parameters = parameter_count(recipe.model, 4096)
            given += rule(recipe, Facts(parameters, length(recipe, 4096, counts), counts))
        assert given, name


@pytest.mark.parametrize("path", BUILT_IN, ids=lambda path: path.stem)
def test_no_advice_on_our_own_recipes(path: Path) -> None:
    """Break: halve the range of the rates."""
    recipe = load_recipe(path)
    for counts in (None, Counts(3_000_000, 200_000, median_document_tokens=1500)):
        assert advise(recipe, recipe.data.tokenizer.vocabulary_size, counts) == []


@pytest.mark.parametrize("size", DIALS)
@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_no_advice_on_the_dial(size: str, kind: str) -> None:
    """Whatever size and optimizer. Break: call a warm-up of 2 % long."""
    recipe = parse_recipe(BASE, changes=[f"model.size={size}", f"train.optimizer.kind={kind}"])
    assert advise(recipe, 32_000) == []
    counts = Counts(20 * 10**10, 10**8, median_document_tokens=800)
    assert advise(recipe, 32_000, counts) == []
