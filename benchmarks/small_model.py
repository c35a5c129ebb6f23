"""Held-out loss of our default small-model recipe at the size of nanoGPT's documented CPU run.

    python benchmarks/small_model.py TEXT [--steps 700] [--seeds 1] [--out FILE.json]

TEXT is one file, such as tiny Shakespeare; its characters are the vocabulary, the last tenth is
held out, a step takes 12 rows of 64 characters, and the model has 4 layers of width 128 (0.8M
parameters). nanoGPT's README gives 1.88 after 2,000 such steps. Everything but these sizes is
what the dial chooses: RMSNorm, rotary, QK-norm, ReLU², zero projections, Muon, wsd.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CONTEXT, ROWS, LAYERS, WIDTH, HEADS = 64, 12, 4, 128, 4


class Characters:
    """A text as batches of random rows, as nanoGPT draws them; `batch(step)` is a pure function."""

    def __init__(self, text: str, seed: int) -> None:
        alphabet = sorted(set(text))
        number = {character: place for place, character in enumerate(alphabet)}
        ids = np.array([number[character] for character in text], np.int64)
        cut = int(0.9 * len(ids))
        self.vocabulary, self.seed = len(alphabet), seed
        self.train, self.held_out = ids[:cut], ids[cut:]
        self.rows_per_epoch = (len(self.train) - 1) // CONTEXT

    def batch(self, step: int) -> Any:
        starts = np.random.default_rng((self.seed, step)).integers(
            0, len(self.train) - CONTEXT - 1, ROWS
        )
        return self._rows(self.train, starts)

    def epoch(self, step: int) -> float:
        return step * ROWS / self.rows_per_epoch

    def all_held_out(self) -> Iterator[Any]:
        """Every held-out character but the first, once, in rows of the context."""
        starts = np.arange(0, len(self.held_out) - CONTEXT - 1, CONTEXT)
        for at in range(0, len(starts), 64):
            yield self._rows(self.held_out, starts[at : at + 64])

    def _rows(self, ids: Any, starts: Any) -> Any:
        from wellfit.data.batches import Batch

        window = ids[starts[:, None] + np.arange(CONTEXT + 1)]
        columns = np.tile(np.arange(CONTEXT), (len(starts), 1))
        tokens, labels = np.ascontiguousarray(window[:, :-1]), np.ascontiguousarray(window[:, 1:])
        return Batch(tokens, labels, columns, np.zeros_like(tokens), np.zeros_like(tokens))


def held_out_loss(text: str, steps: int, seed: int) -> dict[str, Any]:
    """A text, a budget and a seed → nats per held-out character at the end, and seconds trained."""
    import torch

    from wellfit.model.init import initialise
    from wellfit.model.transformer import Transformer
    from wellfit.recipe.load import parse_recipe
    from wellfit.records import Step
    from wellfit.training.loop import train

    data = Characters(text, seed)
    recipe = parse_recipe(
        {
            "name": "small",
            "seed": seed,
            "data": {"sources": [{"path": "unused"}]},
            "model": {"context": CONTEXT, "layers": LAYERS, "width": WIDTH, "heads": HEADS},
            "train": {
                "budget": {"steps": steps},
                "batch_tokens": ROWS * CONTEXT,
                "micro_batch": ROWS,
                "document_mask": False,
                "checkpoint_every": steps,
            },
        }
    )
    model = Transformer(recipe.model, data.vocabulary)
    initialise(model, seed)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        records = train(
            recipe.train,
            model,
            data,  # type: ignore[arg-type]
            folder=Path(folder),
            seed=seed,
            evaluate_every=steps,
            sample_every=steps,
        )
        last = [record for record in records if isinstance(record, Step)][-1]
    seconds = time.perf_counter() - begun
    model.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in data.all_held_out():
            hidden = model.hidden(torch.from_numpy(batch.tokens))
            losses = model.token_loss(hidden, torch.from_numpy(batch.labels))
            total, count = total + float(losses.double().sum()), count + losses.numel()
    return {
        "seed": seed,
        "steps": steps,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "held_out_loss": total / count,
        "held_out_characters": count,
        "last_train_loss": last.loss,
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("text", type=Path)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    text = given.text.read_text(encoding="utf-8")
    results = [held_out_loss(text, given.steps, seed) for seed in range(given.seeds)]
    for result in results:
        print(
            f"seed {result['seed']}: {result['parameters']:,} parameters, {result['steps']} steps "
            f"in {result['seconds']:.0f} s, held-out loss {result['held_out_loss']:.4f}"
        )
    print(f"median {statistics.median(result['held_out_loss'] for result in results):.4f}")
    if given.out:
        given.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
