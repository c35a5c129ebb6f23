"""Whether the model's blocks go through torch.compile; decided once, with the reason."""

from __future__ import annotations

import importlib.util
import shutil
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from wellfit.training.precision import Choice

if TYPE_CHECKING:
    from wellfit.model.protocol import LanguageModel

# Passes through the blocks (steps × micro-batches) that pay for compiling once. Measured on CPUs
# (docs/log.md): about 40 s of processor time a shape, against 30 ms saved in a pass of 1,024 tokens
# through 4 blocks of width 128; two or three shapes. On GPUs it is a rule of thumb, not measured.
PASSES_THAT_PAY = {"cpu": 4_000, "cuda": 1_000}
# A micro-batch, the smaller last one, each with the three kinds of mask; twice that to spare.
SHAPES = 12


def compiler_found(device: str) -> bool:
    """A device's name in; whether what torch.compile needs for it is there: C++, or Triton."""
    if device == "cpu":
        return any(shutil.which(name) for name in ("g++", "clang++", "c++", "cl"))
    return importlib.util.find_spec("triton") is not None


def decide(
    wanted: str,
    *,
    device: str,
    planned_steps: int | None,
    micro_batches: int,
    compiler: bool,
    dropout: float = 0.0,
    checkpointing: str = "none",
    offers: bool = True,
) -> Choice:
    """A recipe's `train.compile` and the circumstances in; `on` or `off`, and why, out.

    Never an error: what stands in the way becomes `off` with that reason, also where the recipe
    says `on`. `planned_steps` is None where timing must find the number first; `offers` tells
    whether the model can have its blocks compiled.

    >>> decide("auto", device="cpu", planned_steps=300, micro_batches=4, compiler=True).why
    'compiling pays from about 4,000 passes through the blocks, and 1,200 are planned'
    """
    if wanted == "off":
        return Choice("off", "the recipe asks for it")
    obstacle = _obstacle(device, compiler, dropout, checkpointing, offers)
    if obstacle:
        return Choice(
            "off", f"the recipe asks for it, but {obstacle}" if wanted == "on" else obstacle
        )
    if wanted == "on":
        return Choice("on", "the recipe asks for it")
    if planned_steps is None:
        return Choice("off", "the number of steps is found by timing them as they are")
    least, passes = PASSES_THAT_PAY[device], planned_steps * micro_batches
    pays = (
        f"compiling pays from about {least:,} passes through the blocks, and {passes:,} are planned"
    )
    return Choice("on" if passes >= least else "off", pays)


def _obstacle(device: str, compiler: bool, dropout: float, checkpointing: str, offers: bool) -> str:
    """What keeps blocks from being compiled, as a clause; nothing where nothing does."""
    if not offers:
        return "the model does not offer its blocks for compilation"
    if device not in PASSES_THAT_PAY:
        return f"compiling has not been tried on {device}"
    if dropout:
        return "dropout draws from generators of its own, which torch.compile does not take"
    if checkpointing == "selective":
        return "selective checkpointing looks at single operations, which compiled blocks hide"
    if not compiler:
        needed = "a C++ compiler (g++ or clang++)" if device == "cpu" else "Triton"
        return f"torch.compile needs {needed} on {device}, and none is installed"
    return ""


def offers_blocks(model: LanguageModel) -> bool:
    """A model in; whether its blocks can be compiled: whether it has a `block_call`."""
    return callable(getattr(model, "block_call", None))


def compile_blocks(
    model: LanguageModel, rehearse: Callable[[], object], *, backend: str = "inductor"
) -> Choice:
    """A model that offers `block_call`, and a function that takes its every shape, in.

    Out: `on`, with the blocks compiled; or `off` with the first lines of what went wrong, and the
    model as before. `rehearse` makes a forward and a backward pass of each shape that training
    will have, since torch compiles at the first call; gradients are the caller's to clear. All
    blocks share one compiled function, and each shape is compiled once: a last, smaller
    micro-batch is a second shape, not a recompilation at each step.
    """
    import torch

    plain = model.block_call  # type: ignore[attr-defined]
    model.block_call = torch.compile(plain, dynamic=False, backend=backend)  # type: ignore[attr-defined]
    try:
        with torch._dynamo.config.patch(recompile_limit=SHAPES), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # while tracing, torch warns of what it does itself
            rehearse()
    except Exception as error:  # torch raises many kinds, and each leaves the eager way open
        model.block_call = plain  # type: ignore[attr-defined]
        torch.compiler.reset()
        told = " ".join(str(error).split("\n")[:2]).strip() or type(error).__name__
        return Choice("off", f"compilation failed, so the blocks run as they are: {told}")
    return Choice("on", "each block is compiled, with static shapes")
