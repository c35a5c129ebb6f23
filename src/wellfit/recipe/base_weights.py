"""A folder of trained weights in; what it says of the model and its text out, without torch.

The folder is in the layout of Hugging Face (`config.json` beside safetensors), or a run folder of
ours (`recipe.yaml` beside checkpoints). It fills what a recipe leaves out of `model`, before the
dial does, and what contradicts it is refused. A recipe in which nothing is left out, as it stands
in a run folder, loads also where the folder is gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wellfit.recipe.hub_config import (
    FAMILIES,
    PLAIN,
    UnlikeError,
    family_of,
    model_facts,
    text_config,
)
from wellfit.recipe.yaml_lines import Place

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
LONGEST = 2048
"""Tokens of a sequence where a recipe does not say, if the model can read as many."""
_SHAPE = ("layers", "width", "heads", "kv_heads", "hidden")
_OF_RUNS = (
    *PLAIN, "layers", "width", "heads", "kv_heads", "head_width", "hidden", "experts.active",
    "experts.hidden", "experts.normalise", "rope_scaling.factor", "rope_scaling.original_context",
    "rope_scaling.low_factor", "rope_scaling.high_factor", "rope_scaling.beta_fast",
    "rope_scaling.beta_slow", "rope_scaling.attention_factor",
)  # fmt: skip
SEQUENCE_KINDS = ("bart", "bert", "roberta", "distilbert", "deberta", "deberta-v2", "electra",
                  "albert", "mbart", "modernbert", "mt5", "pegasus", "t5", "umt5",
                  "xlm-roberta")  # fmt: skip
"""Encoders and encoder-decoders by `model_type`, where nothing else in the file tells them."""


@dataclass(frozen=True, slots=True)
class Base:
    """What a folder of weights says."""

    folder: Path
    config: Mapping[str, Any]
    """Its `config.json`; empty for a run of ours."""
    facts: Mapping[str, Any]
    """Settings of `model`, dotted."""
    longest: int
    """Most tokens of a sequence."""
    source: str
    """The file that says it."""
    tokenizer: str = ""
    """Its `tokenizer.json`; empty where there is none."""
    run_separator: str = ""
    """What stands between documents of a run of ours, where its recipe says it."""

    def separator(self) -> str:
        """Its model's end of text, as it is written in the tokenizer; empty where nobody says.

        It may take reading the whole tokenizer, so it is looked up where it is needed.
        """
        if not self.config:
            return self.run_separator
        return end_of_text(self.folder, text_config(self.config))


class FaultyWeightsError(ValueError):
    """What is wrong with a folder of weights, as a sentence with its way out."""


def weights_folder(model: Any) -> str:
    """A `model` section as written → the folder that it names as its weights, or nothing."""
    named = model.get("weights", "") if isinstance(model, Mapping) else ""
    return named if isinstance(named, str) else ""


def read_base(model: Mapping[str, Any]) -> Base | None:
    """A `model` section as written → what its weights say; None without them, or if they are gone.

    Raises FaultyWeightsError where the folder is there and cannot be used.
    """
    named = weights_folder(model)
    folder = Path(named).expanduser()
    if not named or not folder.exists():
        return None
    wanted = model.get("architecture")
    if (folder / "recipe.yaml").is_file():
        return _run_base(folder)
    if not (folder / CONFIG).is_file():
        inside = "is no folder" if not folder.is_dir() else f"has no {CONFIG} and no recipe.yaml"
        raise FaultyWeightsError(
            f"{folder} {inside}; give a folder in the layout of Hugging Face, an export, or a run"
        )
    return hub_base(folder, str(wanted) if wanted in ("own", "transformers") else "")


def hub_base(folder: Path, architecture: str = "") -> Base:
    """A folder with a `config.json` → what it says, for our parts where they know its family.

    `architecture` is as the recipe writes it. Raises FaultyWeightsError where the file cannot be
    read or asks for what is not there.
    """
    config = read_json(folder / CONFIG)
    family, kind = family_of(config), config.get("model_type")
    foreign = architecture == "transformers" or (not family and architecture != "own")
    if not family and not foreign:
        raise FaultyWeightsError(
            f"{folder / CONFIG}: model_type {kind} is none of {', '.join(FAMILIES)}; set "
            "model.architecture to transformers"
        )
    inner = text_config(config)
    if foreign:
        facts, longest = _foreign(config, inner, folder)
    else:
        try:
            facts = model_facts(config)
        except UnlikeError as unlike:
            raise FaultyWeightsError(
                f"{folder / CONFIG}: {unlike}; set model.architecture to transformers, which "
                "computes it with the library of that name"
            ) from unlike
        longest = int(facts.pop("context"))
        facts["architecture"] = "own"
    facts |= {"preset": "none", "context": min(longest, LONGEST)}
    tokenizer = folder / TOKENIZER
    return Base(
        folder,
        config,
        facts,
        longest,
        str(folder / CONFIG),
        str(tokenizer) if tokenizer.is_file() else "",
    )


def _foreign(
    config: Mapping[str, Any], inner: Mapping[str, Any], folder: Path
) -> tuple[dict[str, Any], int]:
    """A configuration that transformers computes → its vocabulary, and its longest sequence."""
    built = " ".join(map(str, config.get("architectures") or ()))
    kind = config.get("model_type")
    sided = config.get("is_encoder_decoder") or kind in SEQUENCE_KINDS
    if sided or ("ForCausalLM" not in built and "LMHead" not in built and built):
        raise FaultyWeightsError(
            f"{folder / CONFIG}: {built or kind} is no decoder that writes text from left to right "
            "(…ForCausalLM), and other weights are not taken up yet; train model.kind encoder or "
            "encoder_decoder from first weights"
        )
    vocabulary = inner.get("vocab_size")
    if not isinstance(vocabulary, int) or vocabulary < 2:
        raise FaultyWeightsError(
            f"{folder / CONFIG}: vocab_size is {vocabulary!r}, not a whole number"
        )
    keys = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len")
    longest = next((inner[key] for key in keys if isinstance(inner.get(key), int)), 1_048_576)
    return {"architecture": "transformers", "vocabulary_size": vocabulary}, longest


def _run_base(folder: Path) -> Base:
    from wellfit.errors import RecipeError
    from wellfit.recipe.load import load_recipe

    file = folder / "recipe.yaml"
    try:
        recipe = load_recipe(file)
    except RecipeError as error:
        raise FaultyWeightsError(f"{file} cannot be read: {error.faults[0]}") from error
    if recipe.model.foreign:
        raise FaultyWeightsError(
            f"{folder} is a run of {'model.module' if recipe.model.module else 'transformers'}, "
            "whose weights fit no other recipe; write it with `wellfit export` first"
        )
    dumped = recipe.model.model_dump()
    facts = {}
    for path in _OF_RUNS:
        section, _, key = path.rpartition(".")
        facts[path] = dumped[section][key] if section else dumped[key]
    pointer = read_json(folder / "corpus.json")
    size = pointer.get("vocabulary_size")
    if not isinstance(size, int):
        raise FaultyWeightsError(
            f"{folder / 'corpus.json'} does not say how many entries its corpus has"
        )
    facts |= {"vocabulary_size": size, "preset": "none", "architecture": "own"}
    tokenizer = folder / str(pointer.get("folder", "")) / TOKENIZER
    longest = recipe.model.context
    return Base(
        folder,
        {},
        facts | {"context": longest},
        longest,
        str(file),
        tokenizer.resolve().as_posix() if tokenizer.is_file() else "",
        recipe.data.tokenizer.separator,
    )


def end_of_text(folder: Path, config: Mapping[str, Any]) -> str:
    """A folder and its configuration → the model's end of text as its tokenizer writes it.

    `tokenizer_config.json` names it; else the first id that `generation_config.json` or
    `config.json` gives, looked up in `tokenizer.json`. Empty where none of them says.
    """
    named = read_json(folder / "tokenizer_config.json", needed=False).get("eos_token")
    named = named.get("content") if isinstance(named, Mapping) else named
    if isinstance(named, str) and named:
        return named
    ids = end_ids(folder, config)
    if not ids or not (folder / TOKENIZER).is_file():
        return ""
    told = read_json(folder / TOKENIZER)
    for one in told.get("added_tokens") or ():
        if one.get("id") == ids[0]:
            return str(one.get("content", ""))
    vocabulary = (told.get("model") or {}).get("vocab")
    if isinstance(vocabulary, Mapping):
        return next((name for name, number in vocabulary.items() if number == ids[0]), "")
    if isinstance(vocabulary, list) and ids[0] < len(vocabulary):  # Unigram: pairs with a score
        return str(vocabulary[ids[0]][0])
    return ""


def end_ids(folder: Path, config: Mapping[str, Any]) -> tuple[int, ...]:
    """A folder and its configuration → the ids that end a text, the main one first."""
    found: list[int] = []
    for told in (config, read_json(folder / "generation_config.json", needed=False)):
        ids = told.get("eos_token_id")
        found += [one for one in (ids if isinstance(ids, list) else [ids]) if isinstance(one, int)]
    return tuple(dict.fromkeys(found))


def filled(raw: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """A recipe as written → what its weights add: path → value and reason. Faults add nothing."""
    model, data = _section(raw, "model"), _section(raw, "data")
    try:
        base = read_base(model)
    except FaultyWeightsError:
        base = None
    if base is None:
        return {}
    added = {
        f"model.{path}": (value, base.source)
        for path, value in base.facts.items()
        if not _written(model, path)
    }
    tokenizer = data.get("tokenizer")
    tokenizer = tokenizer if isinstance(tokenizer, Mapping) else {}
    if base.tokenizer and not data.get("tokens") and "file" not in tokenizer:
        added["data.tokenizer.file"] = (base.tokenizer, "the one that its weights know")
        separator = "" if "separator" in tokenizer else base.separator()
        if separator:
            added["data.tokenizer.separator"] = (separator, "the end of text of its model")
    return added


def base_faults(raw: Mapping[str, Any]) -> list[tuple[Place, str]]:
    """A recipe as written, before the dial → (place, sentence) for what its weights contradict."""
    model, data = _section(raw, "model"), _section(raw, "data")
    named = weights_folder(model)
    if not named or model.get("module") is not None:
        return []
    place: Place = ("model", "weights")
    try:
        base = read_base(model)
    except FaultyWeightsError as fault:
        return [(place, f"model.weights: {fault}")]
    if base is None:
        left_out = [key for key in _SHAPE if key not in model]
        if not left_out or model.get("architecture") == "transformers":
            return []
        return [(place, f"model.weights = {named}: there is no such folder")]
    faults: list[tuple[Place, str]] = []
    for path, fact in base.facts.items():
        if not _written(model, path):
            continue
        value = _value(model, path)
        if not _fits(path, value, fact, base.longest, model):
            limit = f"at most {base.longest}" if path == "context" else fact
            limit = f"at least {fact}" if path == "vocabulary_size" else limit
            told = f"{value} does not fit its weights, of which {base.source} says {limit}"
            faults.append(
                (("model", *path.split(".")), f"model.{path} = {told}; leave it out or change it")
            )
    own = data.get("tokenizer")
    file = own.get("file") if isinstance(own, Mapping) else None
    if not base.tokenizer and not data.get("tokens") and not file:
        faults.append(
            (
                place,
                f"model.weights: {base.folder} has no {TOKENIZER}, and a tokenizer that is learned "
                "anew means nothing to its embedding; give its own as data.tokenizer.file",
            )
        )
    return faults


def _fits(path: str, value: Any, fact: Any, longest: int, model: Mapping[str, Any]) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if path == "context":
        return not number or value <= longest
    if path == "vocabulary_size":
        return not number or value >= fact
    if path == "tie_embeddings" and value is False:
        return fact is False or model.get("head", "tokens") != "tokens"
    # Of another kind than the setting: the schema says so.
    kind = bool if isinstance(fact, bool) else str if isinstance(fact, str) else (int, float)
    return not isinstance(value, kind) or value == fact


def _written(model: Mapping[str, Any], path: str) -> bool:
    section, _, key = path.rpartition(".")
    holder = model.get(section, {}) if section else model
    return key in holder if isinstance(holder, Mapping) else True


def _value(model: Mapping[str, Any], path: str) -> Any:
    section, _, key = path.rpartition(".")
    holder = model.get(section) if section else model
    return holder.get(key) if isinstance(holder, Mapping) else None


def read_json(file: Path, *, needed: bool = True) -> dict[str, Any]:
    """A JSON file → its object; empty where it is missing and not needed.

    Raises FaultyWeightsError.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        if not needed:
            return {}
        raise FaultyWeightsError(f"{file} cannot be read as JSON ({error})") from error
    if not isinstance(found, dict):
        raise FaultyWeightsError(f"{file} holds no JSON object")
    return found


def _section(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = raw.get(key)
    return section if isinstance(section, Mapping) else {}
