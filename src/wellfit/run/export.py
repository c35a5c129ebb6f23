"""A run → a folder in the layout of Hugging Face, with its tokenizer and a model card."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wellfit.data.corpus import Corpus
from wellfit.data.examples.build import speaker_of
from wellfit.errors import RunError, WellfitError
from wellfit.recipe.hub_config import family_of, text_config
from wellfit.run.base import KEPT
from wellfit.run.card import model_card
from wellfit.run.export_adapter import merge_adapter, write_adapter

if TYPE_CHECKING:
    from wellfit.data.tokens.tokenizer import Tokenizer
    from wellfit.model.transformer import Transformer
    from wellfit.run.weights import Trained

Number = Literal["fp32", "bf16", "fp16"]
DTYPES: dict[Number, str] = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    folder: Path
    family: str
    """`model_type` of its `config.json`; of an adapter, on which it stands."""
    files: tuple[str, ...]
    step: int
    told: tuple[str, ...]
    """What there is to know about it, as sentences."""


def export(
    run: Path,
    out: Path,
    *,
    checkpoint: str = "",
    dtype: Number = "fp32",
    shard_bytes: int = SHARD_BYTES,
    adapter: bool = False,
) -> Exported:
    """A run folder and a folder that does not exist yet → the model in the layout of transformers.

    What an adapter run trained is merged with its base; with `adapter` it is written alone, as PEFT
    reads it beside the base.
    `checkpoint` is as for `choose_checkpoint`. The folder takes its name when all of it stands.
    Raises RunError where no architecture of that layout computes what the model does, naming the
    settings in the way, or where something stands at `out`; and CheckpointError.
    """
    from wellfit.model.hub.config import family_for
    from wellfit.model.transformer import Transformer
    from wellfit.run.weights import open_run

    if dtype not in DTYPES:
        raise WellfitError(f"{dtype!r} is none of {', '.join(DTYPES)}", where="dtype")
    if shard_bytes < 1:
        raise WellfitError("a file has at least one byte", where="shard_bytes")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(
            "something stands there already",
            where=str(out),
            way_out="Give a folder that does not exist, or empty this one.",
        )
    trained = open_run(run, checkpoint)
    base = _json(run / "base" / "config.json")
    own = isinstance(trained.model, Transformer)
    family = (
        family_for(trained.recipe.model, family_of(base))
        if own
        else str(base.get("model_type", "module"))
    )
    if not own and trained.recipe.model.module is not None:
        raise RunError(
            "a module of your own has no architecture that others know",
            where="export",
            way_out="Its weights are in the checkpoint, model.safetensors, by its own names.",
        )
    writing = out.with_name(f"{out.name}.writing")
    shutil.rmtree(writing, ignore_errors=True)
    try:
        writing.mkdir(parents=True)
        if adapter:
            told = _write_adapter(trained, writing, run, family)
        else:
            merged = merge_adapter(trained)
            told = merged + _write(trained, writing, run, family, base, dtype, shard_bytes)
        if out.exists():
            out.rmdir()
        writing.rename(out)
    except OSError as error:
        raise RunError(
            f"it cannot be written: {error.strerror or error}",
            where=str(out),
            way_out="Make room there or choose another folder.",
        ) from error
    finally:
        shutil.rmtree(writing, ignore_errors=True)
    files = tuple(sorted(path.name for path in out.iterdir()))
    written = f"an adapter on {family}" if adapter else family
    return Exported(out, written, files, trained.step, told)


def _write_adapter(trained: Trained, folder: Path, run: Path, family: str) -> tuple[str, ...]:
    told = write_adapter(trained, folder, family)
    parameters = sum(one.numel() for _, one in trained.model.named_parameters())
    recipe, corpus = trained.recipe, trained.corpus
    card = model_card(run, recipe, corpus, step=trained.step, family=family, parameters=parameters)
    card = card.replace("library_name: transformers", "library_name: peft")
    (folder / "README.md").write_text(card, encoding="utf-8")
    return told


def export_lines(made: Exported) -> str:
    """What was exported → lines for a person."""
    head = f"Exported step {made.step:,} as {made.family} to {made.folder}"
    return "\n".join([head, f"  {', '.join(made.files)}", *(f"  {one}" for one in made.told)])


def _write(
    trained: Trained,
    folder: Path,
    run: Path,
    family: str,
    base: dict[str, Any],
    dtype: Number,
    shard_bytes: int,
) -> tuple[str, ...]:
    import torch

    from wellfit.model.guest import Guest
    from wellfit.model.hub.foreign import save_foreign
    from wellfit.model.hub.save import write_json

    kind = getattr(torch, DTYPES[dtype])
    told: list[str] = []
    corpus = trained.corpus
    tokenizer = corpus.tokenizer() if corpus.has_tokenizer else None
    same = tokenizer is not None and _same_tokenizer(run / "base", tokenizer)
    ids = _ids(corpus, base if same else {}, run / "base")
    if isinstance(trained.model, Guest):
        save_foreign(trained.model.module, folder, dtype=kind, shard_bytes=shard_bytes)
    else:
        told += _write_own(trained, folder, family, base, ids, kind, DTYPES[dtype], shard_bytes)
    speaker = None if tokenizer is None else speaker_of(corpus, tokenizer)
    stops = ids
    if speaker is not None:  # an answer ends before a text does
        ends = ids["eos_token_id"]
        ends = ends if isinstance(ends, list) else [ends]
        stops = ids | {"eos_token_id": list(dict.fromkeys([speaker.end, *ends]))}
    if not (folder / "generation_config.json").exists() or not same or stops != ids:
        write_json(folder / "generation_config.json", stops)
    if tokenizer is None:
        told.append("The run's tokens came without a tokenizer, and so does the export.")
    else:
        _write_tokenizer(folder, run / "base", corpus, tokenizer, trained, same=same)
    if speaker is not None:
        (folder / "chat_template.jinja").write_text(speaker.template.text, encoding="utf-8")
        known = _json(folder / "tokenizer_config.json")
        write_json(folder / "tokenizer_config.json", {**known, **speaker.template.tokens})
    parameters = sum(one.numel() for _, one in trained.model.named_parameters())
    card = model_card(
        run, trained.recipe, corpus, step=trained.step, family=family, parameters=parameters
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    return tuple(told)


def _write_own(
    trained: Trained,
    folder: Path,
    family: str,
    base: dict[str, Any],
    ids: dict[str, Any],
    kind: Any,
    dtype: str,
    shard_bytes: int,
) -> list[str]:
    from wellfit.model.hub.config import hub_config
    from wellfit.model.hub.save import own_tensors, save_tensors, write_json

    model: Transformer = trained.model  # type: ignore[assignment]
    section = model.model
    longest = text_config(base).get("max_position_embeddings")
    longest = longest if isinstance(longest, int) and section.position == "rotary" else 0
    config = hub_config(
        section,
        family,
        vocabulary_size=model.vocabulary_size,
        longest=max(longest, section.context),
        dtype=dtype,
    )
    if section.head == "classes":
        examples = trained.recipe.data.examples
        names = examples.classes if examples is not None else ()
        config["id2label"] = {str(number): name for number, name in enumerate(names)}
        config["label2id"] = {name: number for number, name in enumerate(names)}
        config["pad_token_id"] = ids.get("pad_token_id", ids["eos_token_id"])
    save_tensors(folder, own_tensors(model, family), dtype=kind, shard_bytes=shard_bytes)
    write_json(folder / "config.json", config | ids)
    if longest > section.context:
        return [
            f"It says the base's {longest:,} tokens; trained were sequences of {section.context:,}."
        ]
    return []


def _ids(corpus: Corpus, base: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Ids of special tokens: those of the base, where its tokenizer is still the one."""
    told = {**text_config(base), **_json(folder / "generation_config.json")} if base else {}
    keys = ("bos_token_id", "eos_token_id", "pad_token_id")
    found = {key: told[key] for key in keys if told.get(key) is not None}
    if "eos_token_id" not in found:
        found["eos_token_id"] = corpus.separator
    if "bos_token_id" not in found and not base:
        found["bos_token_id"] = corpus.separator
    return found


def _same_tokenizer(folder: Path, tokenizer: Tokenizer) -> bool:
    """Whether the base's `tokenizer.json` is the corpus's."""
    from wellfit.data.tokens.tokenizer import load

    if not (folder / "tokenizer.json").is_file():
        return False
    theirs = load(folder / "tokenizer.json", tokenizer.separator_text)
    known = theirs.backend.get_vocab(with_added_tokens=True)
    return bool(known == tokenizer.backend.get_vocab(with_added_tokens=True))


def _write_tokenizer(
    folder: Path, base: Path, corpus: Corpus, tokenizer: Tokenizer, trained: Trained, *, same: bool
) -> None:
    """The base's own files as they were, or ours so that a text begins as in training."""
    from wellfit.model.hub.save import write_json

    if same:
        for name in KEPT:
            if "token" in name or "template" in name:
                source = base / name
                if source.is_file():
                    shutil.copyfile(source, folder / name)
    else:
        described = json.loads(tokenizer.json())
        separator, number = tokenizer.separator_text, tokenizer.separator
        if described.get("post_processor") is None:
            # In training every text stands behind a separator; here it gets one by itself.
            described["post_processor"] = {
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": separator, "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                ],
                "pair": [
                    {"SpecialToken": {"id": separator, "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                    {"Sequence": {"id": "B", "type_id": 1}},
                ],
                "special_tokens": {
                    separator: {"id": separator, "ids": [number], "tokens": [separator]}
                },
            }
        write_json(folder / "tokenizer.json", described)
    if not (folder / "tokenizer_config.json").is_file():
        write_json(
            folder / "tokenizer_config.json",
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": tokenizer.separator_text if not same else None,
                "eos_token": tokenizer.separator_text,
                "model_max_length": trained.recipe.model.context,
                "clean_up_tokenization_spaces": False,
            },
        )


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
