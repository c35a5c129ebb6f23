"""Settings and hardware in; where to train and in which arithmetic out, with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wellfit.errors import RunError

if TYPE_CHECKING:
    import torch

# Intel AMX, and AVX-512 BF16 (AMD from Zen 4, Intel from Cooper Lake), by the kernel's names.
CPU_FLAGS = ("amx_bf16", "avx512_bf16")


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and a sentence on why."""

    name: str
    why: str


def choose_device(wanted: str, *, cuda: bool, mps: bool) -> Choice:
    """A recipe's `train.device` and what the machine has in; the device's name out.

    Raises RunError where a named device is not there.

    >>> choose_device("auto", cuda=False, mps=False).name
    'cpu'
    """
    here = {"cuda": cuda, "mps": mps, "cpu": True}
    if wanted == "auto":
        name = next(device for device, available in here.items() if available)
        return Choice(name, f"{name} is the fastest device that torch sees")
    if not here[wanted]:
        seen = ", ".join(device for device, available in here.items() if available)
        raise RunError(
            f"torch sees no {wanted} device, only {seen}",
            where=f"train.device={wanted}",
            way_out="Set train.device=auto, or install a torch build for that device.",
        )
    return Choice(wanted, "the recipe asks for it")


def choose_precision(
    wanted: str, device: str, *, cpu_flags: frozenset[str], capability: tuple[int, int]
) -> Choice:
    """A recipe's `train.precision` and the hardware in; `bf16` or `fp32` out.

    `auto` takes bf16 only where the device multiplies it natively: emulated, it is slower than
    fp32 and less exact. `capability` is CUDA's compute capability, (0, 0) without CUDA.

    >>> choose_precision("auto", "cpu", cpu_flags=frozenset({"avx2"}), capability=(0, 0)).name
    'fp32'
    """
    native = next((flag for flag in CPU_FLAGS if flag in cpu_flags), "") if device == "cpu" else ""
    if device == "cuda" and capability >= (8, 0):
        native = f"compute capability {capability[0]}.{capability[1]}"
    if wanted == "auto":
        if native:
            return Choice("bf16", f"{device} multiplies bf16 natively ({native})")
        return Choice("fp32", f"{device} has no native bf16 multiplication")
    if wanted == "bf16" and not native:
        return Choice("bf16", f"the recipe asks for it; {device} emulates bf16, fp32 may be faster")
    return Choice(wanted, "the recipe asks for it")


def choose(device: str, precision: str) -> tuple[Choice, Choice]:
    """The recipe's `train.device` and `train.precision` in; the choices for this machine out."""
    import torch

    where = choose_device(
        device, cuda=torch.cuda.is_available(), mps=torch.backends.mps.is_available()
    )
    capability = torch.cuda.get_device_capability() if where.name == "cuda" else (0, 0)
    how = choose_precision(precision, where.name, cpu_flags=cpu_flags(), capability=capability)
    return where, how


def compute_dtype(precision: str) -> torch.dtype:
    """`fp32` or `bf16` in, the torch type of the matrices out; weights stay float32."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """The kernel's description of the processor in, its feature flags out; empty where unknown."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, values = line.partition(":")
        if name.strip() == "flags":
            return frozenset(values.split())
    return frozenset()
