"""How good is the rate that `wellfit lr-find` suggests? Regret against a grid of fixed rates.

    python benchmarks/lr_find.py TEXT... [--steps 300] [--spend 150] [--out FILE.json]

Each text becomes 1,024 BPE entries; the last tenth is held out. A small model (2 layers of width
48, rows of 32 tokens, 16 a step) is trained on it with Muon and with AdamW. The finder is run from
the dial's own rates and from rates ten times too high, and may spend half of the run's steps
(`--spend`). Then whole trainings of `--steps` steps are made at the suggestion and at 3, 9 times
it and a third and a ninth. Regret is the held-out loss at the suggestion minus the lowest of all.

Beside it stand the regrets of other rules on the same measurements: `best_short` (the best of the
short trainings as it is), `largest_equal` (the largest rate that is not significantly worse, as
it is), `tenth_of_edge` and `steepest` (range test alone); each needs a training of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

CONTEXT, ROWS, LAYERS, WIDTH, HEADS, VOCABULARY = 32, 16, 2, 48, 2, 1024
HELD_OUT_BATCHES = 40


class Text:
    """A text as rows of BPE tokens in a shuffled order; `batch(step)` is a pure function."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
        text = path.read_text(encoding="utf-8")
        trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, show_progress=False)
        tokenizer.train_from_iterator([text], trainer)
        ids = np.array(tokenizer.encode(text).ids, np.int64)
        cut = int(0.9 * len(ids))
        self.train, self.held_out = ids[:cut], ids[cut:]
        self.rows_per_epoch = (len(self.train) - 1) // CONTEXT
        self.order = np.random.default_rng(0).permutation(self.rows_per_epoch)

    def batch(self, step: int) -> Any:
        places = np.arange((step - 1) * ROWS, step * ROWS) % self.rows_per_epoch
        return _rows(self.train, self.order[places] * CONTEXT)

    def held_out_batches(self) -> list[Any]:
        starts = np.arange(0, len(self.held_out) - CONTEXT - 1, CONTEXT)
        return [
            _rows(self.held_out, starts[at * ROWS : (at + 1) * ROWS])
            for at in range(min(HELD_OUT_BATCHES, len(starts) // ROWS))
        ]


def _rows(ids: Any, starts: Any) -> Any:
    from wellfit.data.batches import Batch

    window = ids[starts[:, None] + np.arange(CONTEXT + 1)]
    columns = np.tile(np.arange(CONTEXT), (len(starts), 1))
    tokens, labels = np.ascontiguousarray(window[:, :-1]), np.ascontiguousarray(window[:, 1:])
    return Batch(tokens, labels, columns, np.zeros_like(tokens), np.zeros_like(tokens))


def setup_for(text: Text, kind: str, steps: int, factor: float = 1.0) -> Any:
    """A text, an optimizer and a factor on the dial's rates → everything before the first step."""
    from wellfit.model.init import initialise
    from wellfit.model.transformer import Transformer
    from wellfit.recipe.load import parse_recipe
    from wellfit.training.start import prepare

    recipe = parse_recipe(
        {
            "name": "small",
            "data": {"sources": [{"path": "unused"}]},
            "model": {"context": CONTEXT, "layers": LAYERS, "width": WIDTH, "heads": HEADS},
            "train": {
                "budget": {"steps": steps},
                "batch_tokens": ROWS * CONTEXT,
                "micro_batch": ROWS,
                "document_mask": False,
                "precision": "fp32",
                "threads": 1,
                "optimizer": {"kind": kind},
            },
        }
    )
    optimizer = recipe.train.optimizer
    rates = {
        name: getattr(optimizer, name) * factor
        for name in type(optimizer).model_fields
        if name.endswith("learning_rate")
    }
    section = recipe.train.model_copy(update={"optimizer": optimizer.model_copy(update=rates)})
    model = Transformer(recipe.model, VOCABULARY)
    initialise(model, recipe.seed)
    return prepare(
        section,
        model,
        text,  # type: ignore[arg-type]
        folder=Path(),
        seed=recipe.seed,
        thread_count=1,
    )


def whole_training(text: Text, kind: str, steps: int, share: float) -> float:
    """A share of the dial's rates → held-out loss after a whole training, infinite if it broke."""
    import torch

    from wellfit.training import schedules
    from wellfit.training.lr_finder import one_step

    setup = setup_for(text, kind, steps)
    for step in range(1, steps + 1):
        setup.optimizers.set_share(share * schedules.share(setup.section.schedule, step, steps))
        if not one_step(setup, step, text.batch(step)).applied:
            return math.inf
    setup.model.eval()
    losses = []
    with torch.no_grad():
        for batch in text.held_out_batches():
            hidden = setup.model.hidden(torch.from_numpy(batch.tokens))
            loss = setup.model.token_loss(hidden, torch.from_numpy(batch.labels))
            losses.append(float(loss.double().mean()))
    return statistics.fmean(losses)


def problem(path: Path, kind: str, steps: int, spend: int) -> dict[str, Any]:
    """A text and an optimizer → suggestions, the grid around them, and every rule's regret."""
    from wellfit.training.lr_finder import find

    text = Text(path)
    trained: dict[float, float] = {}

    def loss(share: float) -> float:
        key = float(f"{share:.3g}")
        if key not in trained:
            trained[key] = whole_training(text, kind, steps, key)
        return trained[key]

    begun = time.perf_counter()
    found = find(setup_for(text, kind, steps), steps=spend, planned=steps)
    seconds = time.perf_counter() - begun
    other = find(setup_for(text, kind, steps, 10.0), steps=spend, planned=steps)
    share = found.choice.share
    result: dict[str, Any] = {
        "text": path.name,
        "optimizer": kind,
        "suggestion": share,
        "confidence": found.choice.confidence,
        "seconds": seconds,
        "steps_spent": found.steps,
    }
    if share is None:
        return {**result, "reasons": found.choice.reasons}
    for factor in (1.0, 3.0, 1 / 3, 9.0, 1 / 9):
        loss(share * factor)
    equal = [one for one in found.choice.tried if not one.worse]
    rules: dict[str, float | None] = {
        "suggestion": share,
        "suggestion_from_ten_times_the_rates": other.choice.share and other.choice.share * 10,
        "best_short": min(found.choice.tried, key=lambda one: one.loss).share,
        "largest_equal": max(one.share for one in equal),
        "tenth_of_edge": (found.suggestion.edge or math.nan) / 10,
        "steepest": found.suggestion.steepest,
    }
    losses = {name: loss(rate) for name, rate in rules.items() if rate}
    lowest = min(trained.values())
    return {
        **result,
        "rules": rules,
        "losses": dict(sorted(trained.items())),
        "best_share": min(trained, key=lambda rate: trained[rate]),
        "regret": {name: value - lowest for name, value in losses.items()},
        "noise_scale_tokens": found.noise and found.noise.tokens,
    }


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("texts", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--spend", type=int, default=150)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    results = []
    for path in given.texts:
        for kind in ("muon", "adamw"):
            results.append(problem(path, kind, given.steps, given.spend))
            regrets = {
                name: round(value, 4) for name, value in results[-1].get("regret", {}).items()
            }
            print(path.name, kind, results[-1]["suggestion"], results[-1]["confidence"], regrets)
            if given.out:
                summary = {
                    name: {
                        "mean": statistics.fmean(r["regret"][name] for r in results),
                        "largest": max(r["regret"][name] for r in results),
                    }
                    for name in results[0].get("regret", {})
                    if all(name in r.get("regret", {}) for r in results)
                }
                content = {
                    "steps": given.steps,
                    "spend": given.spend,
                    "torch": torch.__version__,
                    "regret_in_nats": summary,
                    "problems": results,
                }
                given.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
