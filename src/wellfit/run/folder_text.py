"""A folder of weights in the layout of Hugging Face, and a prompt → the text that goes on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wellfit.errors import RunError
from wellfit.recipe.base_weights import (
    CONFIG,
    TOKENIZER,
    FaultyWeightsError,
    end_ids,
    end_of_text,
    hub_base,
    read_json,
)
from wellfit.recipe.hub_config import text_config
from wellfit.recipe.schema import Sampling

if TYPE_CHECKING:
    from wellfit.data.tokens.tokenizer import Tokenizer
    from wellfit.model.protocol import LanguageModel

LONGEST = 4096
"""Tokens that are kept in view, where the model could read more."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A folder's model, ready to write."""

    model: LanguageModel
    tokenizer: Tokenizer
    begin: tuple[int, ...]
    """What the tokenizer's own settings put in front of a text."""
    stop_ids: tuple[int, ...]


def is_weights_folder(folder: Path) -> bool:
    """Whether it is in the layout of Hugging Face, and no run of ours."""
    return (folder / CONFIG).is_file() and not (folder / "recipe.yaml").is_file()


def open_folder(folder: Path) -> Opened:
    """A folder → its model and its tokenizer.

    Arithmetic is in float32 where its `config.json` says float32, else in what suits the device.
    Raises RunError where it has no tokenizer or its architecture is unknown, CheckpointError where
    its weights cannot be read.
    """
    import torch

    from wellfit.data.tokens.tokenizer import load
    from wellfit.run.inspect import recipe_of_folder
    from wellfit.run.parts import first_model
    from wellfit.training.precision import choose, compute_dtype

    try:
        base = hub_base(folder)
    except FaultyWeightsError as fault:
        raise RunError(str(fault)) from fault
    if not base.tokenizer:
        raise RunError(
            f"it has no {TOKENIZER}, so a prompt cannot be read",
            where=str(folder),
            way_out="Put the tokenizer of the model there, or convert an older one with "
            "AutoTokenizer.from_pretrained(…).save_pretrained(…).",
        )
    config = text_config(base.config)
    context = min(base.longest, LONGEST)
    kept = config.get("dtype", config.get("torch_dtype", "float32"))
    precision = "fp32" if kept == "float32" else "auto"
    changes = (f"model.context={context}", f"train.precision={precision}")
    recipe = recipe_of_folder(folder, changes)
    model = first_model(recipe, recipe.model.vocabulary_size)
    where, how = choose(recipe.train.device, recipe.train.precision)
    if isinstance(model, torch.nn.Module):
        model.to(torch.device(where.name))
    model.compute_dtype = compute_dtype(how.name)
    model.train(False)
    tokenizer = load(folder / TOKENIZER, end_of_text(folder, config))
    stop = (*end_ids(folder, config), tokenizer.separator)
    return Opened(model, tokenizer, _begin(folder, tokenizer.backend), tuple(dict.fromkeys(stop)))


def generate_from_folder(folder: Path, prompt: str, sampling: Sampling) -> Iterator[str]:
    """A folder of weights and a prompt → pieces of the continuation as they are drawn."""
    from wellfit.generation.generate import generate
    from wellfit.generation.text import stream_text

    opened = open_folder(folder)
    ids = [*opened.begin, *opened.tokenizer.encode(prompt)]
    ids = ids or [opened.tokenizer.separator]
    new = generate(opened.model, ids, sampling, stop_ids=opened.stop_ids)
    return stream_text(new, opened.tokenizer.decode, ids)


def _begin(folder: Path, backend: Any) -> tuple[int, ...]:
    """The ids in front of a text: those of the tokenizer's template, or of its settings."""
    bare = list(backend.encode("a", add_special_tokens=False).ids)
    whole = list(backend.encode("a", add_special_tokens=True).ids)
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare and start:
            return tuple(whole[:start])
    told = read_json(folder / "tokenizer_config.json", needed=False)
    named = told.get("bos_token")
    named = named.get("content") if isinstance(named, dict) else named
    number = backend.token_to_id(named) if isinstance(named, str) else None
    return (number,) if told.get("add_bos_token") and number is not None else ()
