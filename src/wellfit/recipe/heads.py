"""Examples and the head that learns from them: what the one asks for in the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wellfit.recipe.objective_section import Objective

if TYPE_CHECKING:
    from wellfit.recipe.data_section import Data
    from wellfit.recipe.model_section import Head, Model
    from wellfit.recipe.rates import Filled
    from wellfit.recipe.train_section import Train

HEADS: dict[str, Head] = {"answer": "tokens", "classification": "classes", "span": "span"}
"""The head of each task."""


def of_examples(raw: Mapping[str, Any], context: int) -> Filled:
    """A recipe as written and its context → what its examples decide in other places, and why.

    >>> told = of_examples({"data": {"examples": {"task": "span"}}}, 128)
    >>> told["model.head"][0], told["data.examples.longest"][0]
    ('span', 128)
    """
    data, model = _mapping(raw, "data"), _mapping(raw, "model")
    if not isinstance(data.get("examples"), Mapping):
        return {}
    examples = _mapping(data, "examples")
    task = examples.get("task", "answer")
    head = HEADS.get(task, "tokens") if isinstance(task, str) else "tokens"
    named = examples.get("classes")
    apart = model.get("kind") == "encoder_decoder"
    candidates: Filled = {
        "data.packing": ("best_fit", "examples stand whole in their rows"),
        "data.examples.longest": (context, "model.context"),
    }
    if head != "tokens":
        candidates["model.head"] = (head, f"data.examples.task {task}")
        candidates["model.tie_embeddings"] = (False, "its outputs are no tokens")
    if head == "classes" and isinstance(named, list | tuple) and len(named) > 1:
        candidates["model.classes"] = (len(named), "as many as data.examples.classes names")
    if apart:
        candidates["data.examples.apart"] = (True, "model.kind encoder_decoder")
    written = {"data": data, "model": model, "data.examples": examples}
    return {
        path: value
        for path, value in candidates.items()
        if path.rpartition(".")[2] not in written[path.rpartition(".")[0]]
    }


def refuse_misfits(data: Data, model: Model, train: Train) -> None:
    """Raise ValueError where examples, the model's head and the objective contradict each other."""
    examples = data.examples
    if train.class_weights != "none" and model.head != "classes":
        raise ValueError(
            f"train.class_weights {train.class_weights} would do nothing with model.head "
            f"{model.head}; leave it out"
        )
    if examples is None:
        if model.head != "tokens":
            raise ValueError(
                f"model.head {model.head} learns from data.examples, and the recipe has none; try "
                "model.head tokens"
            )
        if train.best_by.endswith(".exact"):
            raise ValueError(
                f"train.best_by {train.best_by} is the share of examples that are answered "
                "rightly, and the recipe has none; try train.best_by validation.loss"
            )
        return
    if model.head != HEADS[examples.task]:
        raise ValueError(
            f"model.head {model.head} does not fit data.examples.task {examples.task}; try "
            f"model.head {HEADS[examples.task]}"
        )
    if model.head == "classes" and model.classes != len(examples.classes):
        raise ValueError(
            f"model.classes {model.classes} is not the number of data.examples.classes, "
            f"{len(examples.classes)}; leave model.classes out"
        )
    if examples.apart != (model.kind == "encoder_decoder"):
        raise ValueError(
            f"data.examples.apart {str(examples.apart).lower()} does not fit model.kind "
            f"{model.kind}; leave it out"
        )
    if model.kind == "encoder" and model.head == "tokens":
        raise ValueError(
            "model.kind encoder writes no answers; try model.kind decoder, or data.examples.task "
            "classification"
        )
    if examples.longest > model.context:
        raise ValueError(
            f"data.examples.longest {examples.longest} is more than model.context {model.context}, "
            f"and examples stand whole in their rows; try data.examples.longest {model.context}"
        )
    if train.objective != Objective():
        raise ValueError(
            "train.objective has no effect with data.examples, whose task says what is learnt; "
            "leave it out"
        )
    mixes = model.kind == "encoder" or data.packing != "padded"
    if not train.document_mask and mixes:
        raise ValueError(
            f"train.document_mask false with data.packing {data.packing} would let examples read "
            "each other, or padding; leave it out"
        )
    if train.best_by.endswith(".bits_per_byte"):
        raise ValueError(
            f"train.best_by {train.best_by} does not exist with data.examples, where not every "
            "token is predicted; try train.best_by validation.loss"
        )
    if model.head == "span":
        beside = [name for name in ("label_smoothing", "z_loss", "loss") if getattr(train, name)]
        if beside:
            raise ValueError(
                f"train.{beside[0]} is made for logits of tokens or classes, and a span is chosen "
                "among places; leave it out"
            )


def _mapping(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = raw.get(key)
    return section if isinstance(section, Mapping) else {}
