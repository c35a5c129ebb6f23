"""A folder of safetensors in, our model filled with its weights out, one tensor at a time.

Nothing is unpickled and no code of a folder runs: the format holds names, shapes and numbers. What
is missing, left over or of another shape is told before a single weight changes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wellfit.errors import CheckpointError
from wellfit.model.hub.names import BODY, Names, Stored, fused_names, hub_names
from wellfit.model.transformer import Transformer

FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5", "*.gguf")
HEADS = ("lm_head.", "score.", "classifier.", "qa_outputs.")
# Tables that older versions wrote beside the weights, and parts of models that also see.
UNNEEDED = ("rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias", "vision_tower.",
            "multi_modal_projector.", "vision_model.")  # fmt: skip
FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of loading."""

    filled: frozenset[str]
    """Our parameters that have weights now."""
    told: tuple[str, ...]
    """Sentences for a person: what was drawn anew, added or left out."""


class Tensors:
    """The tensors of a folder by name, read where they are asked for."""

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError where there are none, or a file is missing or damaged."""
        self.folder = folder
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._file_of: dict[str, Path] = {}
        for file in tensor_files(folder):
            with opened(file) as tensors:
                for name in tensors.keys():  # noqa: SIM118 (no mapping)
                    self.shapes[name] = tuple(tensors.get_slice(name).get_shape())
                    self._file_of[name] = file

    def read(self, names: Iterable[str]) -> list[Tensor]:
        """Names → their tensors; CheckpointError where one holds no floating-point numbers."""
        found = []
        for name in names:
            with opened(self._file_of[name]) as tensors:
                tensor = tensors.get_tensor(name)
            if tensor.dtype not in FLOATS:
                raise CheckpointError(
                    f"{name} holds {str(tensor.dtype).removeprefix('torch.')}: its weights are "
                    "quantized",
                    where=str(self._file_of[name]),
                    way_out="Take the weights in bf16, fp16 or fp32 that these were made from.",
                )
            found.append(tensor)
        return found


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """A safetensors file → it, open; CheckpointError where it is missing, cut or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt") as tensors:
            yield tensors
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"it cannot be read as safetensors: it is cut short or damaged ({error})",
            where=str(file),
            way_out="Copy or download the file again, and compare its size with the original's.",
        ) from error


def tensor_files(folder: Path) -> list[Path]:
    """A folder → its safetensors files, as its index names them; CheckpointError for none."""
    index = folder / INDEX
    if (folder / FILE).is_file():
        return [folder / FILE]
    if not index.is_file():
        pickles = sorted(path.name for kind in PICKLES for path in folder.glob(kind))
        if pickles:
            raise CheckpointError(
                f"its weights are in {pickles[0]}, which only a loader that can run code, or of "
                "another format, reads",
                where=str(folder),
                way_out="Take the safetensors of the same model, or where you trust the file, "
                "convert it: AutoModelForCausalLM.from_pretrained(FOLDER)"
                ".save_pretrained(OTHER).",
            )
        raise CheckpointError(
            f"it has neither {FILE} nor {INDEX}",
            where=str(folder),
            way_out="Give the folder that holds config.json and the weights beside it.",
        )
    try:
        told = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(told.values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"it does not say which file holds which tensor ({error})",
            where=str(index),
            way_out="Copy or download it again.",
        ) from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(
                f"it names {name!r}, which is no file of this folder",
                where=str(index),
                way_out="Take the folder from somebody whom you trust.",
            )
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{name} is missing, which {INDEX} names",
                where=str(folder),
                way_out="Copy or download the missing file.",
            )
    return [folder / name for name in names]


def load_hub(model: Transformer, folder: Path, family: str) -> Loaded:
    """Our model, a folder of its family → the model holds the weights of the folder, in float32.

    The head stays unfilled where the model's gives something else than the folder's; a model with
    more entries gets the mean of the others for the new ones; of learned positions the first are
    taken. Raises CheckpointError naming each tensor that is missing, left over or of another shape.
    """
    tensors = Tensors(folder)
    stored = _found_names(model, family, tensors)
    return _fill(model, tensors, stored)


def load_own(model: Transformer, file: Path) -> Loaded:
    """Our model, and the `model.safetensors` of a checkpoint of ours → the model holds its weights.

    As `load_hub`.
    """
    tensors = Tensors.__new__(Tensors)
    tensors.folder = file.parent
    with opened(file) as found:
        tensors.shapes = {
            name: tuple(found.get_slice(name).get_shape())
            for name in found.keys()  # noqa: SIM118 (no mapping)
        }
    tensors._file_of = dict.fromkeys(tensors.shapes, file)
    return _fill(model, tensors, {name: Stored((name,)) for name, _ in model.named_parameters()})


def _found_names(model: Transformer, family: str, tensors: Tensors) -> dict[str, Stored]:
    """Names as the file has them: experts apart or together, with or without what stands before."""
    section, body = model.model, BODY.get(family, "model.")
    layouts = [hub_names(section, family), fused_names(section, family)]

    def present(names: Names) -> int:
        return sum(one in tensors.shapes for place in names.values() for one in place.names)

    tried = [
        {name: _moved(place, body, before) for name, place in names.items()}
        for names in layouts
        for before in (body, "", f"language_model.{body}", f"{body}language_model.")
    ]
    return max(tried, key=present)


def _moved(place: Stored, body: str, before: str) -> Stored:
    def moved(name: str) -> str:
        if name.startswith(body):
            return before + name.removeprefix(body)
        inner = before.removesuffix(body) if before.startswith("language_model.") else ""
        return inner + name

    return Stored(tuple(map(moved, place.names)), place.change, place.part, place.parts)


def _fill(model: Transformer, tensors: Tensors, stored: Mapping[str, Stored]) -> Loaded:
    parameters: dict[str, nn.Parameter] = dict(model.named_parameters())
    told: list[str] = []
    missing, wrong = [], []
    taken: dict[str, Stored] = {}
    used: set[str] = set()
    for name, parameter in parameters.items():
        place = stored[name]
        used |= {one for one in place.names if one in tensors.shapes}
        gone = [one for one in place.names if one not in tensors.shapes]
        shape = place.shape(tuple(parameter.shape))
        found = tensors.shapes.get(place.names[0], ())
        if name == "head.weight" and (gone or not _same_head(model, shape, found)):
            if gone and model.model.head == "tokens":
                missing += gone
                continue
            told.append(f"the head for {model.model.head} is drawn anew: the weights have none")
            continue
        if gone:
            missing += gone
        elif found != shape and not _may_differ(name, model, shape, found):
            wrong.append(f"{place.names[0]} is {found}, not {shape}")
        else:
            taken[name] = place
    heads = HEADS if model.model.tie_embeddings or model.model.head != "tokens" else ()
    extra = [
        name
        for name in sorted(tensors.shapes.keys() - used)
        if not any(part in f".{name}" for part in UNNEEDED)
        and not name.removeprefix("language_model.").startswith((*heads, "head."))
    ]
    _refuse(tensors.folder, missing, wrong, extra)
    with torch.no_grad():
        for name, place in taken.items():
            tensor = place.read(tensors.read(place.names))
            told += _copied(name, parameters[name], tensor, model.model.head)
    unneeded = [name for name in tensors.shapes if any(part in name for part in UNNEEDED[3:])]
    if unneeded:
        what = "tensor for images is" if len(unneeded) == 1 else "tensors for images are"
        told.append(f"{len(unneeded)} {what} left out")
    return Loaded(frozenset(taken), tuple(dict.fromkeys(told)))


def _same_head(model: Transformer, shape: tuple[int, ...], found: tuple[int, ...]) -> bool:
    """Whether a stored head may be ours; one of tokens may have fewer entries."""
    return found == shape or (model.model.head == "tokens" and len(found) == 2)


def _may_differ(
    name: str, model: Transformer, shape: tuple[int, ...], found: tuple[int, ...]
) -> bool:
    """Whether a table may be longer or shorter: positions are cut, entries are added."""
    if len(found) != 2 or found[1] != shape[1]:
        return False
    if name == "positions.weight":
        return found[0] >= shape[0]
    wide = ("embedding.weight", *(("head.weight",) if model.model.head == "tokens" else ()))
    return name in wide and 0 < found[0] < shape[0]


def _copied(name: str, parameter: nn.Parameter, tensor: Tensor, head: str) -> list[str]:
    rows = len(tensor) if tensor.ndim else 0
    if tensor.shape == parameter.shape:
        parameter.copy_(tensor)
        return []
    if name == "positions.weight":
        parameter.copy_(tensor[: len(parameter)])
        return [f"of {rows:,} learned positions the first {len(parameter):,} are taken"]
    parameter[:rows].copy_(tensor)
    parameter[rows:] = tensor.float().mean(dim=0)
    return [
        f"the vocabulary grows from {rows:,} to {len(parameter):,} entries, the new ones being the "
        "mean of the others"
    ]


def _refuse(folder: Path, missing: list[str], wrong: list[str], extra: list[str]) -> None:
    parts = []
    for names, what in ((missing, "missing"), (wrong, "of another shape"), (extra, "left over")):
        if names:
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            noun = "tensor is" if len(names) == 1 else "tensors are"
            parts.append(f"{len(names)} {noun} {what}: {', '.join(names[:SHOWN])}{more}")
    if parts:
        raise CheckpointError(
            "; ".join(parts),
            where=str(folder),
            way_out="The weights are not those of its config.json (or of the recipe's model): "
            "download both again, or set model.architecture=transformers.",
        )
