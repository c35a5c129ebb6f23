"""Tensors in, a safetensors file out, synced to disk, with its digest.

Written here rather than by the safetensors package because one pass then writes and digests, the
file can be synced before it is closed, and a full disk is an OSError with its number. The format
is the package's (github.com/huggingface/safetensors, "Format"), which reads the files back.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Written:
    """A file's SHA-256 and its size in bytes."""

    sha256: str
    bytes: int


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> Written:
    """A new file's path and `{name: tensor}` in; digest and size of the synced file out.

    The same tensors give the same bytes, in whatever order they come. Raises OSError where the
    file cannot be written.
    """
    digest, size = hashlib.sha256(), 0
    ordered = {name: tensors[name].detach() for name in sorted(tensors)}
    with path.open("xb") as file:
        chunks = (_bytes(tensor) for tensor in ordered.values())
        for chunk in itertools.chain([_header(ordered)], chunks):
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    return Written(digest.hexdigest(), size)


def _bytes(tensor: torch.Tensor) -> memoryview:
    import torch

    # Flat first: a scalar has no axis to view as bytes.
    flat = tensor.cpu().contiguous().reshape(-1).view(torch.uint8)
    return memoryview(flat.numpy())  # type: ignore[arg-type]


def _header(tensors: Mapping[str, torch.Tensor]) -> memoryview:
    import torch

    codes = {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.uint8: "U8",
        torch.bool: "BOOL",
    }
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor.numel() * tensor.element_size()
        entries[name] = {
            "dtype": codes[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    return memoryview(len(text).to_bytes(8, "little") + text)


def sha256(path: Path) -> str:
    """A file in, its SHA-256 out."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
