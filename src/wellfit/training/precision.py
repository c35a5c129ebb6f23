"""Settings and hardware in; where to train and in which arithmetic out, with the reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from wellfit.errors import RunError

if TYPE_CHECKING:
    import torch

# Intel AMX, and AVX-512 BF16 (AMD from Zen 4, Intel from Cooper Lake), by the kernel's names.
CPU_FLAGS = ("amx_bf16", "avx512_bf16")
FP16_FLAGS = frozenset({"amx_fp16", "avx512_fp16", "asimdhp", "fphp"})


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
    """A recipe's `train.precision` and the hardware in; a name that `compute_dtype` knows out.

    `auto` takes bf16 only where the device multiplies it natively: emulated, it is slower than
    fp32 and less exact. `capability` is CUDA's compute capability, (0, 0) without CUDA. Raises
    RunError where the device has no such arithmetic.

    >>> choose_precision("auto", "cpu", cpu_flags=frozenset({"avx2"}), capability=(0, 0)).name
    'fp32'
    """
    native = next((flag for flag in CPU_FLAGS if flag in cpu_flags), "") if device == "cpu" else ""
    here = f"the {device} device"
    if device == "cuda":
        here = f"this GPU, of compute capability {capability[0]}.{capability[1]},"
        if capability >= (8, 0):
            native = f"compute capability {capability[0]}.{capability[1]}"
    if wanted == "auto":
        if native:
            return Choice("bf16", f"{device} multiplies bf16 natively ({native})")
        return Choice("fp32", f"{device} has no native bf16 multiplication")
    if wanted == "tf32" and (device != "cuda" or capability < (8, 0)):
        raise RunError(
            f"{here} has no tf32: it is how NVIDIA GPUs from compute capability 8.0 on "
            "multiply float32",
            where="train.precision=tf32",
            way_out="Set train.precision=auto, or fp32 for the whole float32.",
        )
    if wanted == "fp8" and (device != "cuda" or capability < (8, 9)):
        raise RunError(
            f"{here} does not multiply fp8: NVIDIA GPUs do from compute capability 8.9 on",
            where="train.precision=fp8",
            way_out="Set train.precision=auto, which takes bf16 where the device multiplies it.",
        )
    if wanted == "bf16" and not native:
        return Choice("bf16", f"the recipe asks for it; {device} emulates bf16, fp32 may be faster")
    if wanted == "fp16" and device == "cpu" and not cpu_flags & FP16_FLAGS:
        return Choice("fp16", "the recipe asks for it; cpu emulates fp16, fp32 may be faster")
    return Choice(wanted, "the recipe asks for it")


def choose(device: str, precision: str) -> tuple[Choice, Choice]:
    """The recipe's `train.device` and `train.precision` in; the choices for this machine out."""
    import torch

    where = choose_device(
        device, cuda=torch.cuda.is_available(), mps=torch.backends.mps.is_available()
    )
    capability = torch.cuda.get_device_capability() if where.name == "cuda" else (0, 0)
    if precision == "fp8" and where.name == "cuda" and torch.version.hip:
        raise RunError(
            "AMD GPUs have other 8-bit formats, which are not covered yet",
            where="train.precision=fp8",
            way_out="Set train.precision=auto, which takes bf16 where the device multiplies it.",
        )
    how = choose_precision(precision, where.name, cpu_flags=cpu_flags(), capability=capability)
    return where, how


def compute_dtype(precision: str) -> torch.dtype:
    """The name of a precision in, the torch type of the activations out.

    Weights stay float32 in all of them. In fp8 all but the products of large matrices is bf16.
    """
    import torch

    return {
        "fp32": torch.float32,
        "tf32": torch.float32,
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
        "fp8": torch.bfloat16,
    }[precision]


@contextmanager
def float32_products(precision: str) -> Iterator[str]:
    """A precision in; inside, torch multiplies float32 matrices so, and afterwards as before.

    `tf32` rounds the factors to 10 bits behind the point, `fp32` uses all 23, whatever torch was
    set to by others; the 16-bit precisions change nothing. Gives torch's name of what is in force.
    """
    import torch

    before = torch.get_float32_matmul_precision()
    wanted = {"tf32": "high", "fp32": "highest"}.get(precision, before)
    torch.set_float32_matmul_precision(wanted)
    try:
        yield wanted
    finally:
        torch.set_float32_matmul_precision(before)


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
