"""Where moments live between two updates: beside the weights, on the host, or in a mapped file."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from wellfit.errors import RunError
from wellfit.training.optimizers.method import Moments

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# Tensors begin at a multiple of this in the file: a cache line.
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class Place:
    """How moments are put away, and whether they must be fetched for an update."""

    keep: Callable[[str, Moments], Moments]
    """A parameter's name and its moments in; the tensors that will hold them from now on out."""
    away: bool = False
    """True where an update works on copies, which are then written back."""


def beside(device: torch.device) -> Place:
    """The weights' device in; moments live there too."""
    return Place(lambda name, moments: {key: one.to(device) for key, one in moments.items()})


def on_host(device: torch.device) -> Place:
    """The weights' device in; moments live in the host's memory, pinned for CUDA.

    Raises RunError on a CPU, where they are there already.
    """
    if device.type == "cpu":
        raise RunError(
            "moments of a model on the CPU are in the host's memory already",
            where="train.optimizer.states=offload",
            way_out="Set train.optimizer.states=paged to let the system page them out, "
            "or leave it at device.",
        )
    return Place(partial(_to_host, pinned=device.type == "cuda"), away=True)


def _to_host(name: str, moments: Moments, *, pinned: bool) -> Moments:
    host = {key: one.to("cpu") for key, one in moments.items()}
    return {key: one.pin_memory() for key, one in host.items()} if pinned else host


def in_file(device: torch.device, moments: Mapping[str, Moments]) -> Place:
    """The weights' device and moments as they begin (meta tensors will do) in; a mapped file.

    The file stands in the system's temporary folder without a name, so that it goes with the
    process. Its space is taken at once. Changed pages reach the disk when the kernel wants
    memory, and at its regular write-back; where that folder is itself in memory (tmpfs),
    nothing is won. Raises RunError where the folder has no room.
    """
    import torch

    places: dict[str, dict[str, tuple[int, Tensor]]] = {}
    size = 0
    for name, own in moments.items():
        places[name] = {}
        for key, one in own.items():
            places[name][key] = (size, one)
            size += -(-one.numel() * one.element_size() // _ALIGNMENT) * _ALIGNMENT
    mapped = _mapped(max(size, 1))
    held = {
        name: {
            key: torch.frombuffer(mapped, dtype=one.dtype, count=one.numel(), offset=offset).view(
                one.shape
            )
            for key, (offset, one) in own.items()
        }
        for name, own in places.items()
    }

    def keep(name: str, given: Moments) -> Moments:
        for key, one in given.items():
            assert one.shape == held[name][key].shape, f"{name}/{key} has another shape"
            held[name][key].copy_(one)
        return {key: held[name][key] for key in given}

    return Place(keep, away=device.type != "cpu")


def _mapped(size: int) -> mmap.mmap:
    """A size in bytes in; as much of a nameless file, mapped into memory, out."""
    folder = Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            # A file with holes would kill the process on a full disk, long after this.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                for first in range(0, size, 2**20):
                    file.write(bytes(min(2**20, size - first)))
                file.flush()
            return mmap.mmap(file.fileno(), size)
    except OSError as error:
        raise RunError(
            f"no room for {size / 1e6:,.0f} MB of moments in {folder} ({error.strerror})",
            where="train.optimizer.states=paged",
            way_out="Make room there, name another folder in TMPDIR, "
            "or set train.optimizer.states=device.",
        ) from error
