"""A folder of weights that the library transformers computes, as a guest; nothing of it is run.

Only what the library itself ships is built: `trust_remote_code` stays off, and files that would
have to be unpickled are refused before the library sees them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from wellfit.errors import CheckpointError, RunError
from wellfit.model.guest import Guest, refuse_unfit
from wellfit.model.hub.load import Loaded, tensor_files

WHERE = "model.architecture=transformers"
EXTRA = "Install it: pip install 'transformers>=5,<6'."


def transformers_library() -> ModuleType:
    """The library transformers; RunError where it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise RunError(
            "the library transformers is not installed, and these weights need it",
            where=WHERE,
            way_out=EXTRA,
        ) from error
    return transformers


def foreign_module(folder: Path) -> nn.Module:
    """A folder with a `config.json` → its architecture with weights of no meaning, in float32.

    Raises RunError where transformers does not know it, or would have to run code of the folder.
    """
    library = transformers_library()
    try:
        config = library.AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        return library.AutoModelForCausalLM.from_config(  # type: ignore[no-any-return]
            config, trust_remote_code=False, dtype=torch.float32, attn_implementation=_way(config)
        )
    except Exception as error:  # whatever a library raises for a file that it does not know
        raise _unknown(folder, error) from error


def load_foreign(folder: Path, vocabulary_size: int) -> tuple[nn.Module, Loaded]:
    """A folder → the module with its weights in float32, and what came of it.

    Its embeddings grow where `vocabulary_size` is more than it has, new entries being the mean of
    the others. Raises CheckpointError for missing or damaged files and for pickled ones, and
    RunError where transformers does not know the architecture.
    """
    library = transformers_library()
    tensor_files(folder)
    try:
        config = library.AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # as above
        raise _unknown(folder, error) from error
    try:
        with _without_bars(library):
            module, found = library.AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                trust_remote_code=False,
                use_safetensors=True,
                local_files_only=True,
                dtype=torch.float32,
                attn_implementation=_way(config),
                output_loading_info=True,
            )
    except ValueError as error:
        raise _unknown(folder, error) from error
    except Exception as error:  # as above
        raise CheckpointError(
            f"transformers cannot load it: {_short(error)}",
            where=str(folder),
            way_out="Copy or download the folder again.",
        ) from error
    missing = sorted(found.get("missing_keys") or ())
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        noun = "tensor is" if len(missing) == 1 else "tensors are"
        raise CheckpointError(
            f"{len(missing)} {noun} missing: {', '.join(missing[:5])}{more}",
            where=str(folder),
            way_out="The weights are not those of its config.json; download both again.",
        )
    told = []
    entries = module.get_input_embeddings().weight.shape[0]
    if vocabulary_size > entries:
        _grow(module, vocabulary_size)
        told.append(
            f"the vocabulary grows from {entries:,} to {vocabulary_size:,} entries, the new ones "
            "being the mean of the others"
        )
    unused = sorted(found.get("unexpected_keys") or ())
    if unused:
        told.append(f"{len(unused)} tensors of the folder are not used, such as {unused[0]}")
    return module, Loaded(frozenset(name for name, _ in module.named_parameters()), tuple(told))


def as_guest(
    module: nn.Module, *, context: int, vocabulary_size: int, document_mask: bool
) -> Guest:
    """A module of transformers → our guest; RunError where it would not train as it should."""
    module.config.use_cache = False  # type: ignore[union-attr]
    guest = Guest(module, context=context, vocabulary_size=vocabulary_size)
    try:
        refuse_unfit(guest, document_mask=document_mask)
    except RunError as refused:
        named = type(module).__name__
        try:
            refuse_unfit(guest, document_mask=False)
        except RunError as error:
            raise RunError(f"{named}: {error.what}", where=WHERE) from error
        raise RunError(
            f"{named} cannot keep the documents of a row apart: {refused.what}",
            where="train.document_mask=true",
            way_out="Set train.document_mask=false: a document then reads those before it in its "
            "row. With data.examples also set data.packing=padded: then there are none before it.",
        ) from refused
    return guest


def empty_foreign(folder: Path, vocabulary_size: int) -> nn.Module:
    """A folder that need hold no weights → its architecture, as wide as a vocabulary."""
    module = foreign_module(folder)
    if vocabulary_size > module.get_input_embeddings().weight.shape[0]:  # type: ignore[operator]
        _grow(module, vocabulary_size)
    return module


def save_foreign(module: nn.Module, folder: Path, *, dtype: torch.dtype, shard_bytes: int) -> None:
    """A module of transformers and a folder that exists → it stands there as the library saves it.

    The module is in `dtype` afterwards.
    """
    saved: Any = module
    saved.config.use_cache = True
    with _without_bars(transformers_library()):
        saved.to(dtype).save_pretrained(folder, max_shard_size=shard_bytes)


def _grow(module: Any, vocabulary_size: int) -> None:
    """Wider embeddings and head, the new rows being the mean of the old ones."""
    old = module.get_input_embeddings().weight.shape[0]
    module.resize_token_embeddings(vocabulary_size, mean_resizing=False)
    tables = {id(one.weight): one.weight for one in _tables(module)}
    with torch.no_grad():
        for table in tables.values():
            table[old:] = table[:old].mean(dim=0)


@contextmanager
def _without_bars(library: ModuleType) -> Iterator[None]:
    """The library draws bars on standard error, where ours are."""
    told = library.utils.logging
    shown = told.is_progress_bar_enabled()
    told.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            told.enable_progress_bar()


def _tables(module: Any) -> list[Any]:
    head = module.get_output_embeddings()
    return [module.get_input_embeddings(), *([head] if head is not None else [])]


def _way(config: Any) -> str:
    """How attention is computed: torch's own kernel where the class can take it."""
    library = transformers_library()
    try:
        kind = library.AutoModelForCausalLM._model_mapping[type(config)]
    except (KeyError, AttributeError):
        return "eager"
    return "sdpa" if getattr(kind, "_supports_sdpa", False) else "eager"


def _unknown(folder: Path, error: Exception) -> RunError:
    said = _short(error)
    code = "trust_remote_code" in said or "custom code" in said
    why = "it would have to run code of the folder" if code else said
    return RunError(
        f"transformers cannot build it: {why}",
        where=str(folder),
        way_out="Code that comes with weights is never run. Take a model that the library itself "
        "knows, a newer version of it, or write the architecture as model.module.",
    )


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
