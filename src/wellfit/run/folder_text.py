"""A folder of weights in the layout of Hugging Face, and a prompt → the text that goes on."""

from __future__ import annotations

from collections.abc import Sequence
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

if TYPE_CHECKING:
    from wellfit.data.tokens.tokenizer import Tokenizer
    from wellfit.generation.prompts import Prompt
    from wellfit.model.protocol import LanguageModel
    from wellfit.run.prompting import Turn
    from wellfit.run.writing import Pen

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


def pen_of_folder(folder: Path, rows: int = 1) -> Pen:
    """A folder of weights and how many prompts it will write at once → it, ready to write.

    A conversation goes by the chat template of the folder, which RunError says where it has none.
    """
    from wellfit.data.examples.chat import Speaker
    from wellfit.data.examples.template import template_of
    from wellfit.generation.prompts import Prompt
    from wellfit.generation.rows import empty_cache
    from wellfit.model.decoding import decoding
    from wellfit.run.writing import Pen

    opened = open_folder(folder)
    context = empty_cache(opened.model).capacity
    tokenizer = opened.tokenizer

    def prompt(text: str) -> Prompt:
        ids = [*opened.begin, *tokenizer.encode(text)] or [tokenizer.separator]
        return Prompt(tuple(ids), opened.stop_ids)

    def talk(turns: Sequence[Turn]) -> Prompt:
        template = template_of("auto", str(folder / TOKENIZER))
        if template is None:
            raise RunError(
                "it has no chat template, so a conversation cannot be told",
                where=str(folder),
                way_out="Continue a text with `wellfit generate`, or tune it on conversations.",
            )
        speaker = Speaker(template, tokenizer)
        ids = speaker.prompt([{"role": turn.role, "content": turn.text} for turn in turns])
        return Prompt(tuple(ids), tuple(dict.fromkeys((speaker.end, *opened.stop_ids))))

    return Pen(tokenizer, decoding(opened.model, rows) or opened.model, context, 0, prompt, talk)


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
