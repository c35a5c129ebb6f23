"""The name of a score: what it names, which way is better, and what is said of a wrong one."""

from __future__ import annotations

import pytest

from wellfit.errors import RecipeError
from wellfit.recipe.load import parse_recipe
from wellfit.recipe.score_names import parse

BASE = {
    "name": "scores",
    "data": {"sources": [{"path": "texts"}]},
    "train": {"budget": {"steps": 1}},
}


def test_what_a_name_names() -> None:
    """Break: splitting at the first dot loses a domain such as `docs.python.org`."""
    named = parse("validation.by_domain.docs.python.org.bits_per_byte")
    assert (named.split, named.domain, named.score) == (
        "validation",
        "docs.python.org",
        "bits_per_byte",
    )
    better = {name: parse(f"validation.{name}").lower_is_better for name in ("loss", "accuracy")}
    assert better == {"loss": True, "accuracy": False}
    assert parse("validation.perplexity").lower_is_better


@pytest.mark.parametrize(
    "text",
    [
        "loss", "test.loss", "validation", "validation.", "validation.code.loss", ".loss",
        "validation.by_domain.loss", "validation.by_domain.code.perplexity", "validation.losses",
        "validation.by_domain..loss", "",
    ],
)  # fmt: skip
def test_what_is_no_score_is_refused_with_what_is(text: str) -> None:
    """`test` above all: it takes no part in any decision. Break: any split goes."""
    with pytest.raises(RecipeError) as error:
        parse_recipe(BASE, changes=[f'train.best_by="{text}"'])
    message = str(error.value)
    assert f"train.best_by: {text!r} is no score of an evaluation; give one of" in message
    assert "validation.loss, validation.perplexity" in message
    assert "validation.by_domain.DOMAIN.loss" in message


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("save_top_k", "train.keep_best"),
        ("metric_for_best_model", "train.best_by"),
        ("load_best_model_at_end", "train.restore_best"),
        ("early_stopping_patience", "train.stop_early.patience"),
        ("ema", "train.ema_decay"),
        ("async_mode", "train.save_in_background"),
        ("greater_is_better", "train.best_by knows which way is better"),
    ],
)
def test_other_trainers_names_lead_here(key: str, meant: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse_recipe(BASE, changes=[f"train.{key}=1"])
    assert meant in str(error.value)
