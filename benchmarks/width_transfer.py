"""Is the best rate the same at every width? A small race with and without `model.base_width`.

    python benchmarks/width_transfer.py [TEXT...] [--optimizer adamw] [--steps 120] [--seeds 1]
        [--widths 64 128 256] [--threads 2] [--out FILE.json]

Each width is trained whole, on the same tokens, at every rate of a grid in steps of 2: once with
`base_width` the smallest width, once without it. TEXT (this Python's own library where none is
given) becomes 1,024 BPE entries; the last tenth is held out. Two layers, heads of 32 features, rows
of 64 tokens, 16 a step, all else as the dial has it, the schedule too.

Told are the held-out losses, the best rate of each width (the lowest point of a parabola through
the best three on a logarithmic axis), how many times two it moves from the smallest to the largest
width, and what taking the smallest width's best rate to the largest costs against its own best.
Takes about 11 minutes of processor time; with `--steps 60` and five `--rates` about 4.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sysconfig
import time
from pathlib import Path
from typing import Any

import numpy as np

CONTEXT, ROWS, LAYERS, HEAD, VOCABULARY = 64, 16, 2, 32, 1024
HELD_OUT_BATCHES = 40
# Rates of the smallest width; with Muon both of its rates are these times the dial's.
GRIDS = {
    "adamw": [0.001 * 2**step for step in range(7)],
    "lion": [0.0001 * 2**step for step in range(7)],
    "muon": [0.125 * 2**step for step in range(7)],
}


class Text:
    """Texts as rows of BPE tokens in a shuffled order; `batch(step)` is a pure function."""

    def __init__(self, paths: list[Path]) -> None:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths]
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        ids = np.array([one for text in texts for one in tokenizer.encode(text).ids], np.int64)
        cut = int(0.9 * len(ids))
        self.train, self.held_out = ids[:cut], ids[cut:]
        self.rows_per_epoch = (len(self.train) - 1) // CONTEXT
        self.order = np.random.default_rng(0).permutation(self.rows_per_epoch)

    def batch(self, step: int) -> Any:
        places = np.arange((step - 1) * ROWS, step * ROWS) % self.rows_per_epoch
        return _rows(self.train, self.order[places] * CONTEXT)

    def held_out_batches(self) -> list[Any]:
        starts = np.arange(0, len(self.held_out) - CONTEXT - 1, CONTEXT)
        starts = np.random.default_rng(1).permutation(starts)
        count = min(HELD_OUT_BATCHES, len(starts) // ROWS)
        return [_rows(self.held_out, starts[at * ROWS : (at + 1) * ROWS]) for at in range(count)]


def _rows(ids: Any, starts: Any) -> Any:
    from wellfit.data.batches import Batch

    window = ids[starts[:, None] + np.arange(CONTEXT + 1)]
    columns = np.tile(np.arange(CONTEXT), (len(starts), 1))
    tokens, labels = np.ascontiguousarray(window[:, :-1]), np.ascontiguousarray(window[:, 1:])
    return Batch(tokens, labels, columns, np.zeros_like(tokens), np.zeros_like(tokens))


def library() -> list[Path]:
    """The modules of this Python's library of a middling size, the first hundred by name."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    return [path for path in sorted(folder.glob("*.py")) if path.stat().st_size > 2_000][:100]


def held_out_loss(
    text: Text,
    kind: str,
    width: int,
    base: int,
    rate: float,
    *,
    smallest: int,
    steps: int,
    seed: int,
    threads: int,
) -> float:
    """One whole training → nats a held-out token, infinite where it broke."""
    import torch

    from wellfit.recipe.load import parse_recipe
    from wellfit.run.parts import first_model
    from wellfit.training import schedules
    from wellfit.training.lr_finder import one_step
    from wellfit.training.start import prepare

    optimizer: dict[str, Any] = {"kind": kind, "learning_rate": rate}
    if kind == "muon":
        scale = rate * math.sqrt(256 / smallest)  # the dial's rates at the smallest width
        optimizer |= {"learning_rate": 0.006 * scale, "matrix_learning_rate": 0.02 * scale}
    recipe = parse_recipe(
        {
            "name": "widths",
            "seed": seed,
            "data": {"sources": [{"path": "unused"}]},
            "model": {
                "context": CONTEXT,
                "layers": LAYERS,
                "width": width,
                "heads": width // HEAD,
                "kv_heads": width // HEAD,
                "hidden": 4 * width,
                "base_width": base,
            },
            "train": {
                "budget": {"steps": steps},
                "batch_tokens": ROWS * CONTEXT,
                "micro_batch": ROWS,
                "document_mask": False,
                "precision": "fp32",
                "threads": threads,
                "optimizer": optimizer,
            },
        }
    )
    model = first_model(recipe, VOCABULARY)
    setup = prepare(
        recipe.train,
        model,
        text,  # type: ignore[arg-type]
        folder=Path(),
        seed=seed,
        thread_count=threads,
    )
    for step in range(1, steps + 1):
        setup.optimizers.set_share(schedules.share(recipe.train.schedule, step, steps))
        if not one_step(setup, step, text.batch(step)).applied:
            return math.inf
    model.eval()
    losses = []
    with torch.no_grad():
        for batch in text.held_out_batches():
            hidden = model.hidden(torch.from_numpy(batch.tokens))
            losses.append(model.token_loss(hidden, torch.from_numpy(batch.labels)).mean().item())
    return statistics.fmean(losses)


def best_rate(rates: list[float], losses: list[float]) -> tuple[float, bool]:
    """Rates in steps of 2 and their losses → the best rate, and whether it lies inside the grid.

    >>> best_rate([1.0, 2.0, 4.0], [1.0, 0.0, 1.0])
    (2.0, True)
    """
    at = min(range(len(losses)), key=lambda place: losses[place])
    if at in (0, len(losses) - 1) or not math.isfinite(losses[at + 1]):
        return rates[at], 0 < at < len(losses) - 1
    before, least, after = losses[at - 1 : at + 2]
    bend = before - 2 * least + after
    return rates[at] * 2 ** ((before - after) / (2 * bend) if bend else 0.0), True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("texts", nargs="*", type=Path)
    parser.add_argument("--optimizer", choices=list(GRIDS), default="adamw")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--widths", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--rates", type=float, nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()

    import torch

    torch.set_num_threads(given.threads)
    widths, rates = sorted(given.widths), given.rates or GRIDS[given.optimizer]
    text = Text(given.texts or library())
    begun = time.perf_counter()
    known: dict[tuple[int, int, float], float] = {}

    def trained(width: int, base: int, rate: float) -> float:
        # At the base itself the two are the same training, bit for bit.
        key = (width, 0 if width == base else base, rate)
        if key not in known:
            known[key] = statistics.fmean(
                held_out_loss(
                    text, given.optimizer, width, base, rate,
                    smallest=widths[0], steps=given.steps, seed=seed, threads=given.threads,
                )
                for seed in range(given.seeds)
            )  # fmt: skip
        return known[key]

    races = []
    for base in (widths[0], 0):
        print(f"\nbase_width {base}" if base else "\nno base_width", flush=True)
        print(f"{'rate':>8}" + "".join(f"{f'width {width}':>12}" for width in widths))
        table: dict[int, list[float]] = {width: [] for width in widths}
        for rate in rates:
            for width in widths:
                table[width].append(trained(width, base, rate))
            row = "".join(f"{table[width][-1]:>12.4f}" for width in widths)
            print(f"{rate:>8.4g}{row}", flush=True)
        best = {width: best_rate(rates, table[width]) for width in widths}
        first, last = widths[0], widths[-1]
        nearest = rates.index(min(rates, key=lambda rate: table[first][rates.index(rate)]))
        race = {
            "base_width": base,
            "held_out_loss": {str(width): table[width] for width in widths},
            "best_rate": {str(width): best[width][0] for width in widths},
            "best_is_inside": {str(width): best[width][1] for width in widths},
            "moved_doublings": math.log2(best[last][0] / best[first][0]),
            "cost_of_the_smallest_widths_rate": table[last][nearest] - min(table[last]),
        }
        races.append(race)
        told = ", ".join(f"{best[width][0]:.3g} at {width}" for width in widths)
        print(
            f"best: {told}; moved {race['moved_doublings']:+.2f} doublings; width {first}'s best "
            f"on the grid costs {race['cost_of_the_smallest_widths_rate']:.4f} nats at {last}"
        )
    result = {
        "optimizer": given.optimizer,
        "steps": given.steps,
        "batch_tokens": ROWS * CONTEXT,
        "seeds": given.seeds,
        "rates": rates,
        "widths": widths,
        "races": races,
        "seconds": time.perf_counter() - begun,
        "torch": torch.__version__,
        "threads": given.threads,
    }
    print(f"\n{result['seconds']:.0f} s")
    if given.out:
        # Infinity is no JSON: a training that broke has null.
        plain = json.dumps(result, indent=2).replace("Infinity", "null")
        given.out.write_text(plain + "\n")


if __name__ == "__main__":
    main()
