"""Examples in a recipe: what they decide elsewhere, and what contradicts them."""

from __future__ import annotations

from typing import Any

import pytest

from wellfit.errors import RecipeError
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.schema import Recipe
from wellfit.recipe.show import recipe_text
from wellfit.recipe.yaml_lines import read_yaml

CLASSES = ("data.examples.task=classification", "data.examples.classes=[a, b, c]")


def made(*changes: str) -> Recipe:
    raw: dict[str, Any] = {
        "name": "x",
        "data": {"examples": {"train": ["a.jsonl"]}},
        "model": {"context": 128},
        "train": {"budget": {"steps": 1}},
    }
    return parse_recipe(raw, changes=changes)


def test_examples_decide_what_follows_from_them() -> None:
    """Break: leave one of them to the schema's default."""
    recipe = made(*CLASSES, "model.kind=encoder", "model.preset=gemma-2b")
    assert (recipe.model.head, recipe.model.classes) == ("classes", 3)
    assert recipe.data.packing == "best_fit" and not recipe.model.tie_embeddings
    section = made("model.kind=encoder_decoder").data.examples
    assert section is not None and (section.longest, section.apart) == (128, True)
    assert recipe.provenance["model.classes"].startswith("data.examples: as many as")
    again = parse_recipe(read_yaml(recipe_text(recipe)).value)
    assert again.model == recipe.model and again.data == recipe.data


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("data.sources=[{path: b}]",), "give exactly one of sources, tokens and examples; here"),
        (("data.packing=stream",), "packing stream would cut examples in two; try packing best"),
        (("data.clean=[]",), "data.clean does nothing beside data.examples"),
        (("data.examples.task=classification",), "needs two classes or more, here none"),
        ((CLASSES[0], "data.examples.classes=[a, a]"), "classes names a twice; keep one"),
        (("data.examples.classes=[a, b]",), "classes would do nothing with task answer"),
        (("data.examples.columns.text=t",), "columns.text would do nothing with task answer"),
        ((*CLASSES, "data.examples.columns.domain=t"), "columns.domain would do nothing"),
        ((*CLASSES, "data.examples.train_on_source=true"), "train_on_source would do nothing"),
        (
            ("model.kind=encoder_decoder", "data.examples.train_on_source=true"),
            "train_on_source would do nothing with apart true",
        ),
        (
            ("data.examples.task=span", "model.kind=encoder", "data.examples.source_max_len=9"),
            "source_max_len would do nothing with task span",
        ),
        (("data.examples.test=[b]", "data.examples.test_share=0.1"), "test names files, and test_"),
        (
            ("data.examples.test_share=0.5", "data.examples.validation_share=0.5"),
            "leave nothing to train on",
        ),
        (("data.examples.apart=true",), "data.examples.apart true does not fit model.kind decoder"),
        (("data.examples.longest=129",), "data.examples.longest 129 is more than model.context"),
        (("model.kind=encoder",), "model.kind encoder writes no answers; try model.kind decoder"),
        (("model.head=span", "model.kind=encoder"), "model.head span does not fit data.examples."),
        ((*CLASSES, "model.classes=4"), "model.classes 4 is not the number of data.examples."),
        ((*CLASSES, "model.tie_embeddings=true"), "tie_embeddings true would do nothing with head"),
        (("data.examples.task=span",), "head span does not fit kind decoder; try kind encoder"),
        (("train.objective.share=0.3",), "train.objective has no effect with data.examples"),
        (("train.document_mask=false",), "train.document_mask false with data.packing best_fit"),
        (("train.best_by=validation.bits_per_byte",), "does not exist with data.examples"),
        (("train.class_weights=balanced",), "train.class_weights balanced would do nothing with"),
        (
            (*CLASSES, "train.class_weights=balanced", "train.loss=a:b"),
            "class_weights would do nothing beside loss a:b",
        ),
        (
            ("data.examples.task=span", "model.kind=encoder", "train.z_loss=0.1"),
            "train.z_loss is made for logits of tokens or classes",
        ),
    ],
)
def test_contradictions_are_refused(changes: tuple[str, ...], told: str) -> None:
    """Break: leave the check out."""
    with pytest.raises(RecipeError) as caught:
        made(*changes)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("model.head=classes",), "head classes with classes 0: head classes needs 2 or more"),
        (("model.head=classes", "model.classes=3"), "learns from data.examples, and the recipe"),
        (("data.packing=padded",), "packing padded is for data.examples"),
        (("train.best_by=validation.exact",), "is the share of examples that are answered"),
    ],
)
def test_heads_without_examples_are_refused(changes: tuple[str, ...], told: str) -> None:
    raw = {
        "name": "x",
        "data": {"sources": [{"path": "a"}]},
        "model": {},
        "train": {"budget": {"steps": 1}},
    }
    with pytest.raises(RecipeError) as caught:
        parse_recipe(raw, changes=changes)
    assert told in str(caught.value)
