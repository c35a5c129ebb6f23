"""Matrix products a second that this machine reaches: the denominator of MFU.

    python benchmarks/matrix_peak.py PRECISION THREADS DEVICE ROWSxINNERxCOLUMNS ...

Prints one JSON object: shape → TFLOP/s, the quickest of what fits into a second and a half, as
torch's own `linear` computes it and as ours does. The largest of them is the peak that MFU divides
by.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path


def measure(precision: str, threads: int, device: str, shapes: list[str]) -> dict[str, float]:
    """Shapes as text → TFLOP/s, measured in a fresh process."""
    command = [sys.executable, str(Path(__file__)), precision, str(threads), device, *shapes]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rates: dict[str, float] = json.loads(out)
    return rates


def shapes_of(model: dict, vocabulary: int, tokens: int, square: int) -> list[str]:
    """A model's section → a big square, and the products of its layers with `tokens` rows."""
    width, hidden = model["width"], model["hidden"]
    inner = [(width, width), (width, hidden), (hidden, width), (width, vocabulary)]
    return [f"{square}x{square}x{square}", *(f"{tokens}x{a}x{b}" for a, b in inner)]


def main() -> None:
    """Measures what the command line asks for."""
    import torch

    from wellfit.model.products import linear

    precision, threads, device, *shapes = sys.argv[1:]
    torch.set_num_threads(int(threads))
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    rates = {}
    for shape in shapes:
        rows, inner, columns = map(int, shape.split("x"))
        x = torch.randn(rows, inner, device=device).to(dtype)
        matrix = torch.randn(columns, inner, device=device).to(dtype)
        best = float("inf")
        for multiply in (torch.nn.functional.linear, linear):
            until = time.perf_counter() + 0.8
            for turn in range(10_000):
                began = time.perf_counter()
                multiply(x, matrix)
                if device == "cuda":
                    torch.cuda.synchronize()
                ended = time.perf_counter()
                if turn > 1:
                    best = min(best, ended - began)
                if turn > 3 and ended > until:
                    break
        rates[shape] = 2 * rows * inner * columns / best / 1e12
    print(json.dumps(rates))


if __name__ == "__main__":
    main()
