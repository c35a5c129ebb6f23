"""A model in; within, it may be read, run and written; afterwards every bit is as it was."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from wellfit.model.protocol import LanguageModel

ON_VECTORS = 0.1
"""Deviation of the noise in vectors and scalars that start at zero: biases, gates."""


@contextmanager
def untouched(model: LanguageModel, device: torch.device) -> Iterator[None]:
    """A model and its device in; mode, precision, gradients, buffers and random state come back.

    Weights are `awake`'s business, which puts them back itself.
    """
    import torch

    training, precision = model.training, model.compute_dtype
    gradients = [(parameter, parameter.grad) for _, parameter in model.named_parameters()]
    modules = list(model.modules()) if isinstance(model, torch.nn.Module) else []
    modes = [(module, module.training) for module in modules]
    buffers = [(b, b.detach().clone()) for module in modules for b in module.buffers(False)]
    python, numpy = random.getstate(), np.random.get_state()
    here, devices = torch.get_rng_state(), _device_state(device)
    try:
        for parameter, _ in gradients:
            parameter.grad = None
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(here)
        if devices is not None:
            _restore_device(device, devices)
        with torch.no_grad():
            for buffer, kept in buffers:
                buffer.copy_(kept)
        for parameter, gradient in gradients:
            parameter.grad = gradient
        model.compute_dtype = precision
        model.train(training)
        for module, mode in modes:
            module.training = mode


def _device_state(device: torch.device) -> Tensor | None:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_rng_state(device)
    if device.type == "mps":
        return torch.mps.get_rng_state()
    return None


def _restore_device(device: torch.device, state: Tensor) -> None:
    import torch

    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.mps.set_rng_state(state)


@contextmanager
def awake(model: LanguageModel, seed: int) -> Iterator[tuple[str, ...]]:
    """A model in; within, no tensor is all zeros; the names of those that were out.

    A projection that starts at zero hides all that feeds it: nothing crosses from token to token,
    no gradient comes back. For the time of the proofs such tensors hold noise, N(0, 1/fan_in) in
    matrices; afterwards they are zeros again, with the same signs.
    """
    import torch

    asleep: list[tuple[str, torch.nn.Parameter, Tensor | None]] = []
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not bool(parameter.any()):
                # −0 is a zero too, and its sign a bit.
                kept = parameter.detach().clone() if bool(parameter.signbit().any()) else None
                asleep.append((name, parameter, kept))
    try:
        with torch.no_grad():
            for name, parameter, _ in asleep:
                digest = hashlib.sha256(f"{seed} proof {name}".encode()).digest()
                generator = torch.Generator(parameter.device)
                generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
                deviation = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else ON_VECTORS
                parameter.normal_(0.0, deviation, generator=generator)
        yield tuple(name for name, _, _ in asleep)
    finally:
        with torch.no_grad():
            for _, parameter, kept in asleep:
                if kept is None:
                    parameter.zero_()
                else:
                    parameter.copy_(kept)
