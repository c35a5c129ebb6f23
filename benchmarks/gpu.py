"""The race of trainers on a GPU: tokens a second, MFU and peak memory at 124M and 1B parameters.

    python benchmarks/gpu.py [--sizes 124m 1b] [--rounds 3] [--trainers …] [--out FILE.json]

Where torch sees no CUDA device it says so and ends well. All else is `train_race.py`'s: the same
Llama, first weights, tokens and optimizer for everybody, bf16 arithmetic over float32 weights,
whole processes in turns. The rows are random tokens: their values change no speed, and a
vocabulary of 32,768 entries needs no corpus then. Peak memory is what the device's allocator
reserved.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import train_race as tr

SIZES = {
    "124m": tr.Size(12, 768, 6, 2_048, 1_024, 32_768, rows=64, micro_batch=16, warm=5, steps=25),
    "1b": tr.Size(
        22, 2_048, 16, 5_632, 2_048, 32_768, rows=16, micro_batch=4, warm=4, steps=14, kv_heads=4
    ),
}
SQUARE = 8_192


def main() -> None:
    """Runs the race on the GPU, where there is one."""
    import torch

    parser = tr.arguments(__doc__ or "")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=[*SIZES])
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("torch sees no CUDA device here: nothing was measured")
        return
    folder = options.work.resolve()
    python = tr.peers_python(options.peers_venv.absolute())
    results = []
    for name in options.sizes:
        size = replace(SIZES[name], square=SQUARE)
        made = tr.first_weights(size, folder, size.vocabulary, 0)
        tokens = folder / f"random-{name}.npy"
        shape = (size.steps * size.rows, size.context + 1)
        np.save(tokens, np.random.default_rng(0).integers(0, size.vocabulary, shape, np.int32))
        result = tr.race(
            tr.Prepared(size, None, tokens, *made),
            "bf16",
            options.trainers,
            rounds=options.rounds,
            threads=options.threads,
            device="cuda",
            python=python,
            folder=folder,
        )
        results.append({"size": name, **result})
        command = " ".join(["python", "benchmarks/gpu.py", *sys.argv[1:]])
        facts = tr.about(options.threads, "cuda")
        tr.write(options.out, {"command": command, **facts, "results": results})
    for result in results:
        tr.show(result["size"], result)


if __name__ == "__main__":
    main()
