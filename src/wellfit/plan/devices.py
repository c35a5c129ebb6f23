"""A device's name → its memory, arithmetic peaks and bandwidth, each as its maker publishes them.

Peaks are dense (without structured sparsity) and, on the GeForce cards, those that accumulate in
float32, as training does. A name that is not in the table is refused: a peak is never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches

from wellfit.errors import WellfitError
from wellfit.plan.layout import Device, Precision

TERA, GIGA = 1e12, 1e9
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a recipe would run; what is not known is None or absent."""

    name: str
    device: Device
    memory: int | None
    """Bytes that it has."""
    bandwidth: float | None = None
    """Bytes a second of its main memory."""
    peaks: dict[str, float] = field(default_factory=dict)
    """Precision → FLOP/s of matrix products."""
    source: str = ""
    native: tuple[str, ...] = ("fp32",)
    """Precisions that it multiplies in hardware."""

    @property
    def best(self) -> Precision:
        """What `train.precision: auto` takes there."""
        return "bf16" if "bf16" in self.native else "fp32"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One row of the table: TFLOP/s by precision, GB/s, and the GB in its name."""

    memory: float
    bandwidth: float
    peaks: dict[str, float]
    source: str
    reported: tuple[str, ...]
    """The names that its driver reports."""


_HOPPER = {"bf16": 989.4, "fp16": 989.4, "tf32": 494.7, "fp32": 66.9}
_AMPERE = {"bf16": 312, "fp16": 312, "tf32": 156, "fp32": 19.5}
_A100 = "NVIDIA A100 datasheet"
_VOLTA = {"fp16": 125, "fp32": 15.7}
_V100 = "NVIDIA V100 datasheet, SXM2"
GPUS: dict[str, Gpu] = {
    "H100-80GB": Gpu(80, 3350, _HOPPER, "NVIDIA H100 datasheet, SXM5", ("NVIDIA H100 80GB HBM3",)),
    "H100-PCIe": Gpu(
        80,
        2000,
        {"bf16": 756, "fp16": 756, "tf32": 378, "fp32": 51},
        "NVIDIA H100 datasheet, PCIe",
        ("NVIDIA H100 PCIe",),
    ),
    "H200": Gpu(141, 4800, _HOPPER, "NVIDIA H200 datasheet, SXM", ("NVIDIA H200",)),
    "A100-40GB": Gpu(40, 1555, _AMPERE, _A100, ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB")),
    "A100-80GB": Gpu(80, 2039, _AMPERE, f"{_A100}, SXM4", ("NVIDIA A100-SXM4-80GB",)),
    "A100-80GB-PCIe": Gpu(80, 1935, _AMPERE, f"{_A100}, PCIe", ("NVIDIA A100 80GB PCIe",)),
    "L4": Gpu(
        24,
        300,
        {"bf16": 121, "fp16": 121, "tf32": 60, "fp32": 30.3},
        "NVIDIA L4 datasheet, half of its figures with sparsity",
        ("NVIDIA L4",),
    ),
    "L40S": Gpu(
        48,
        864,
        {"bf16": 362.05, "fp16": 362.05, "tf32": 183, "fp32": 91.6},
        "NVIDIA L40S datasheet",
        ("NVIDIA L40S",),
    ),
    "A10": Gpu(
        24,
        600,
        {"bf16": 125, "fp16": 125, "tf32": 62.5, "fp32": 31.2},
        "NVIDIA A10 datasheet",
        ("NVIDIA A10",),
    ),
    "T4": Gpu(16, 320, {"fp16": 65, "fp32": 8.1}, "NVIDIA T4 datasheet", ("Tesla T4",)),
    "V100-16GB": Gpu(16, 900, _VOLTA, _V100, ("Tesla V100-SXM2-16GB",)),
    "V100-32GB": Gpu(32, 900, _VOLTA, _V100, ("Tesla V100-SXM2-32GB",)),
    "RTX-3090": Gpu(
        24,
        936,
        {"bf16": 71, "fp16": 71, "tf32": 35.6, "fp32": 35.6},
        "NVIDIA GA102 whitepaper, appendix A",
        ("NVIDIA GeForce RTX 3090",),
    ),
    "RTX-4090": Gpu(
        24,
        1008,
        {"bf16": 165.2, "fp16": 165.2, "tf32": 82.6, "fp32": 82.6},
        "NVIDIA Ada GPU architecture whitepaper, appendix A",
        ("NVIDIA GeForce RTX 4090",),
    ),
    "RTX-5090": Gpu(
        32,
        1792,
        {"bf16": 209.5, "fp16": 209.5, "tf32": 104.8, "fp32": 104.8},
        "NVIDIA RTX Blackwell GPU architecture whitepaper, appendix",
        ("NVIDIA GeForce RTX 5090",),
    ),
    "RTX-6000-Ada": Gpu(
        48,
        960,
        {"bf16": 364.2, "fp16": 364.2, "tf32": 182.1, "fp32": 91.1},
        "NVIDIA Ada GPU architecture whitepaper, RTX 6000 Ada",
        ("NVIDIA RTX 6000 Ada Generation",),
    ),
    "MI300X": Gpu(
        192,
        5300,
        {"bf16": 1307.4, "fp16": 1307.4, "tf32": 653.7, "fp32": 163.4},
        "AMD Instinct MI300X datasheet",
        ("AMD Instinct MI300X",),
    ),
}
"""Name → Gpu. Apple's GPUs are left out: Apple publishes no peak of their matrix products."""


def gpu(name: str) -> Machine:
    """A GPU's name, in any case → the machine; raises WellfitError with the nearest name.

    >>> gpu("h100-80gb").peaks["bf16"], gpu("H100-80GB").memory
    (989400000000000.0, 85899345920)
    """
    known = {key.lower(): key for key in GPUS}
    key = known.get(name.strip().lower().replace("_", "-").replace(" ", "-"))
    if key is None:
        near = get_close_matches(name.lower(), known, n=1, cutoff=0.4)
        meant = f"; did you mean {known[near[0]]}?" if near else ""
        raise WellfitError(
            f"no device {name!r} is in the table{meant}",
            where="--gpu",
            way_out=f"Known are {', '.join(GPUS)}. For another, run "
            "`wellfit plan RECIPE --calibrate` on it.",
        )
    row = GPUS[key]
    return Machine(
        name=key,
        device="cuda",
        memory=int(row.memory * GIB),
        bandwidth=row.bandwidth * GIGA,
        peaks={precision: peak * TERA for precision, peak in row.peaks.items()},
        source=row.source,
        native=tuple(row.peaks),
    )


def reported(name: str) -> str | None:
    """The name that a driver reports → the table's name, None where it is not in the table.

    Whole names are compared, so that an A10G is not taken for an A10.

    >>> reported("NVIDIA L40S"), reported("NVIDIA GeForce RTX 4090"), reported("NVIDIA A10G")
    ('L40S', 'RTX-4090', None)
    """
    matches = [key for key, row in GPUS.items() if name in row.reported]
    return matches[0] if matches else None
