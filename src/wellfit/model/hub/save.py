"""Tensors by their Hugging Face names in, a folder of safetensors out: one file, or several.

Every file is written under another name and renamed, and what was written is read back and compared
bit for bit before anybody relies on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wellfit.errors import CheckpointError
from wellfit.model.hub.load import FILE, INDEX, opened
from wellfit.model.hub.names import hub_names, joined
from wellfit.model.transformer import Transformer

SHARD_BYTES = 5_000_000_000
"""Most bytes of one file, unless a single tensor is larger."""


def own_tensors(model: Transformer, family: str) -> dict[str, Tensor]:
    """Our model and a family that can say it → tensor by its name there (views where possible)."""
    return joined(hub_names(model.model, family), dict(model.named_parameters()))


def save_tensors(
    folder: Path,
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int = SHARD_BYTES,
) -> list[str]:
    """A folder that exists and tensors → `model.safetensors`, or shards and their index; names.

    Only one shard is copied at a time. Raises CheckpointError where the disk is full, or what
    stands there afterwards is not what was given.
    """
    from safetensors.torch import save_file

    size = torch.empty((), dtype=dtype).element_size()
    shards: list[list[str]] = [[]]
    held = 0
    for name, tensor in tensors.items():
        if shards[-1] and held + tensor.numel() * size > shard_bytes:
            shards.append([])
            held = 0
        shards[-1].append(name)
        held += tensor.numel() * size
    count = len(shards)
    files = [
        FILE if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
        for number in range(1, count + 1)
    ]
    for file, names in zip(files, shards, strict=True):
        part = {name: _as(name, tensors[name], dtype, folder) for name in names}
        writing = folder / f"{file}.writing"
        try:
            save_file(part, str(writing), metadata={"format": "pt"})
            writing.chmod(0o644)  # the library lets nobody else read it
            writing.replace(folder / file)
        except Exception as error:  # the library raises its own for a full disk
            writing.unlink(missing_ok=True)
            raise CheckpointError(
                f"{file} cannot be written ({error})",
                where=str(folder),
                way_out="Make room there or choose another folder.",
            ) from error
        _compare(folder / file, part)
    if count > 1:
        total = sum(tensor.numel() for tensor in tensors.values()) * size
        place = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": place})
    return files


def write_json(file: Path, content: Any) -> None:
    """A value → the file, as JSON that people read."""
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _as(name: str, tensor: Tensor, dtype: torch.dtype, folder: Path) -> Tensor:
    """A tensor in another precision, on the CPU; CheckpointError where a number overflows in it."""
    made = tensor.detach().to(dtype).cpu().contiguous()
    if dtype == torch.float16 and bool((made.isinf() & tensor.detach().cpu().isfinite()).any()):
        raise CheckpointError(
            f"{name} has numbers above {torch.finfo(dtype).max:,.0f}, which fp16 does not hold",
            where=str(folder),
            way_out="Write bf16 or fp32.",
        )
    return made


def _compare(file: Path, wanted: Mapping[str, Tensor]) -> None:
    with opened(file) as found:
        for name, tensor in wanted.items():
            # NaN is not equal to itself; the bytes are.
            back = found.get_tensor(name)
            if not torch.equal(back.view(torch.uint8), tensor.view(torch.uint8)):
                raise CheckpointError(
                    f"{name} is not what was written: the disk gave other bytes back",
                    where=str(file),
                    way_out="Write to another disk.",
                )
