"""Bytes held between forward and backward pass, and processor time, by what is kept; one thread.

python benchmarks/memory.py [--steps 8]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from wellfit.model.held import held_bytes
from wellfit.model.init import initialise
from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import Model

ROWS, VOCABULARY = 4, 4096
SHAPE = {"context": 256, "layers": 4, "width": 256, "heads": 4, "kv_heads": 2, "hidden": 704}


def measure(dtype: torch.dtype, steps: int) -> None:
    """A type of activations → one line a way of keeping them; the ways take turns."""
    model = Transformer(Model.model_validate(SHAPE), VOCABULARY)
    initialise(model, 0)
    model.compute_dtype = dtype
    row = torch.randint(VOCABULARY, (ROWS, model.model.context))

    def loss() -> torch.Tensor:
        return model.token_loss(model.hidden(row), row.roll(-1, 1)).mean()

    held: dict[str, int] = {}
    seconds: dict[str, list[float]] = {}
    for _ in range(steps):
        for way in ("none", "selective", "full"):
            model.recompute = way  # type: ignore[assignment]
            held[way] = held_bytes(loss)
            started = time.process_time()
            loss().backward()
            seconds.setdefault(way, []).append(time.process_time() - started)
    for way, size in held.items():
        spent = statistics.median(seconds[way]) * 1e3
        print(f"{str(dtype)[6:]:9} {way:10} {size / 1e6:7.1f} MB {spent:6.0f} ms")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=8)
    torch.set_num_threads(1)
    for kind in (torch.float32, torch.bfloat16):
        measure(kind, parser.parse_args().steps)
