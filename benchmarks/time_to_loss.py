"""Seconds of training to a validation loss at 1M parameters: ours beside Hugging Face's `Trainer`.

    python benchmarks/time_to_loss.py [--steps 250] [--rates …] [--seeds 3] [--shares 3 4 5]
                                      [--out FILE.json]

The peer: `Trainer` on our Llama of 1M parameters, AdamW, cosine to 0 at the end of its own budget
with a warm-up of a tenth; the best of five rates by its final validation loss, then two more seeds
of first weights and order at that rate. It computes in whichever of float32 and bf16, eager, was
quicker in a short trial. Its final loss, median of the seeds, is the mark.

Two rows of ours stand apart. *Same architecture, same optimizer*: everything as the peer has it,
its rate included; only the trainer differs. *Our best recipe*: what the dial chooses at the same
context, vocabulary, layers and width (ReLU², QK-norm, zero projections, Muon, wsd, packed
documents, its own precision), with a budget of 1/3, 1/4, 1/5 … of the peer's seconds of training;
the smallest budget whose final loss, median of the seeds, is at or below the mark is the answer. A
budget is turned into steps beforehand, by a timed trial, and the schedule ends with it.

Seconds are those from the first step's begin to the last one's end; nothing is evaluated or saved
between. One judge scores everybody's final weights on 512 rows spread over the validation split,
in float32, each with the attention it was trained with.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import train_race as tr

NAME, PEER = "1m", "Trainer, eager"
SIZE = tr.SIZES[NAME]


def best_recipe(steps: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """A budget → the sections `model` and `train` that the dial makes of our four sizes."""
    from wellfit.recipe.load import parse_recipe

    recipe = parse_recipe(
        {
            "name": "best",
            "data": {"sources": [{"path": "unused"}]},
            "model": {"context": SIZE.context, "layers": SIZE.layers, "width": SIZE.width},
            "train": {"budget": {"steps": steps}, "batch_tokens": 4_096},
        }
    )
    return recipe.model.model_dump(mode="json"), recipe.train.model_dump(mode="json")


def judge(
    weights: Path, model: dict[str, Any], corpus: Path, *, document_mask: bool, wanted: int
) -> float:
    """A file of weights → nats a token over so many validation rows, spread evenly; float32."""
    import torch
    from safetensors.torch import load_file

    from wellfit.data.batches import Rows
    from wellfit.data.corpus import Corpus
    from wellfit.model.transformer import Transformer
    from wellfit.recipe.schema import Model

    opened = Corpus.open(corpus)
    shape = Model.model_validate(model)
    judged = Transformer(shape, opened.vocabulary_size)
    judged.load_state_dict(load_file(weights))
    judged.eval()
    rows = Rows(opened, "validation", shape.context)
    total, count = 0.0, 0
    with torch.no_grad():
        chosen = np.linspace(0, rows.full - 1, min(wanted, rows.full)).astype(int)
        for first in range(0, len(chosen), 32):
            batch = rows.row(chosen[first : first + 32])
            places = (
                (torch.from_numpy(batch.positions), torch.from_numpy(batch.segments))
                if document_mask
                else ()
            )
            labels = torch.from_numpy(batch.labels)
            losses = judged.token_loss(
                judged.hidden(torch.from_numpy(batch.tokens), *places), labels
            )
            total, count = total + float(losses.double().sum()), count + int((labels >= 0).sum())
    return total / count


class Contest:
    """Runs jobs one after the other and keeps what each gave."""

    def __init__(self, options: Any) -> None:
        self.options, self.folder = options, options.work.resolve()
        self.python = tr.peers_python(options.peers_venv.absolute())
        self.runs: list[dict[str, Any]] = []
        self.prepared: dict[int, tr.Prepared] = {}

    def seed(self, seed: int) -> tr.Prepared:
        """A seed → first weights and the order of rows, the same for all trainers."""
        if seed not in self.prepared:
            self.prepared[seed] = tr.prepare(SIZE, self.folder, steps=self.options.steps, seed=seed)
        return self.prepared[seed]

    def run(self, label: str, trainer: str, seed: int, changes: dict[str, Any]) -> dict[str, Any]:
        """One training: seconds, and the judged loss where weights were kept."""
        made = self.seed(seed)
        job = {**tr.job_of(made, "fp32", self.options.threads, "cpu"), "seed": seed, **changes}
        if job["save"]:
            Path(job["save"]).unlink(missing_ok=True)
        result = tr.run(trainer, job, self.python, self.folder)
        if "failed" in result:
            sys.exit(f"{label}: {result['failed']}")
        one = {"label": label, "trainer": trainer, "seed": seed, "precision": job["precision"]}
        one |= {"steps": job["steps"], "seconds": result["training_seconds"]}
        one["step_seconds"] = statistics.median(result["step_seconds"][1:])
        one["optimizer"] = job["optimizer"]
        if job["save"]:
            one["loss"] = judge(
                Path(job["save"]),
                job["model"],
                Path(job["corpus"]),
                document_mask=job["document_mask"],
                wanted=self.options.judged_rows,
            )
        self.runs.append(one)
        shown = f", loss {one['loss']:.4f}" if "loss" in one else ""
        print(f"  {label}: {one['steps']} steps in {one['seconds']:.1f} s{shown}", file=sys.stderr)
        return one

    def best(self, label: str, seed: int, steps: int, **changes: Any) -> dict[str, Any]:
        """Our best recipe with a budget of so many steps."""
        model, train = best_recipe(steps)
        shape_file = self._weights(model, seed)
        told = {
            "model": model,
            "weights": str(shape_file),
            "steps": steps,
            "warm": 1,
            "rows": train["batch_tokens"] // SIZE.context,
            "optimizer": train["optimizer"],
            "schedule": train["schedule"],
            "micro_batch": train["micro_batch"],
            "document_mask": train["document_mask"],
            "precision": self.options.our_precision,
        }
        return self.run(label, "wellfit", seed, {**told, **changes})

    def _weights(self, model: dict[str, Any], seed: int) -> Path:
        from safetensors.torch import save_file

        from wellfit.model.init import initialise
        from wellfit.model.transformer import Transformer
        from wellfit.recipe.schema import Model

        path = self.folder / f"weights-best-{seed}.safetensors"
        made = Transformer(Model.model_validate(model), SIZE.vocabulary)
        initialise(made, seed)
        save_file({name: p.detach() for name, p in made.named_parameters()}, path)
        return path


def contest(options: Any) -> dict[str, Any]:
    """The whole comparison → what is written."""
    held = Contest(options)
    save = str(held.folder / "trained.safetensors")
    steps, seeds = options.steps, range(options.seeds)
    print("short trials", file=sys.stderr)
    trial = {"steps": min(20, steps), "warm": 1}
    quick = {
        p: held.run(f"trial, {p}", PEER, 0, {**trial, "precision": p}) for p in ("fp32", "bf16")
    }
    peers = min(quick, key=lambda p: quick[p]["step_seconds"])
    base = {
        "steps": steps,
        "warm": 1,
        "precision": peers,
        "schedule": {"kind": "cosine", "warmup": max(1, steps // 10), "final_share": 0.0},
        "save": save,
    }

    def at(rate: float) -> dict[str, Any]:
        return {**base, "optimizer": {**tr.ADAMW, "learning_rate": rate, "weight_decay": 0.1}}

    print(f"the peer, {peers}, at {len(options.rates)} rates", file=sys.stderr)
    tried = {rate: held.run(f"peer, rate {rate:g}", PEER, 0, at(rate)) for rate in options.rates}
    rate = min(tried, key=lambda each: tried[each]["loss"])
    runs = {"peer": [tried[rate]]}
    runs["peer"] += [held.run(f"peer, seed {s}", PEER, s, at(rate)) for s in seeds if s]
    mark = statistics.median(one["loss"] for one in runs["peer"])
    seconds = statistics.median(one["seconds"] for one in runs["peer"])
    runs["same"] = [held.run(f"same, seed {s}", "wellfit", s, at(rate)) for s in seeds]
    pace = held.best("trial, best recipe", 0, min(20, steps), save="")["step_seconds"]
    answer = None
    for share in sorted(options.shares):
        budget = max(2, int(seconds / share / pace))
        label = f"best recipe, 1/{share:g} of the time"
        runs[label] = [held.best(f"{label}, seed {s}", s, budget, save=save) for s in seeds]
        if statistics.median(one["loss"] for one in runs[label]) > mark:
            break
        answer = label
    rows = []
    for label, each in runs.items():
        took = statistics.median(one["seconds"] for one in each)
        rows.append(
            {
                "row": label,
                "precision": each[0]["precision"],
                "steps": each[0]["steps"],
                "seconds": round(took, 2),
                "loss": round(statistics.median(one["loss"] for one in each), 4),
                "losses": [round(one["loss"], 4) for one in each],
                "times_faster": round(seconds / took, 2),
            }
        )
    fastest = next((row for row in rows if row["row"] == answer), None)
    return {
        "mark": round(mark, 4),
        "best_rate": rate,
        "rates": {f"{r:g}": round(one["loss"], 4) for r, one in tried.items()},
        "rows": rows,
        "best_recipe_times_faster": fastest["times_faster"] if fastest else None,
        "runs": held.runs,
    }


def show(result: dict[str, Any]) -> None:
    """The table."""
    print(f"\nfinal validation loss to reach: {result['mark']} nats a token")
    print(f"the peer's rates: {result['rates']}, best {result['best_rate']:g}")
    print(f"{'':34} {'precision':>9} {'steps':>6} {'seconds':>8} {'loss':>7} {'faster':>7}")
    for row in result["rows"]:
        print(
            f"{row['row']:34} {row['precision']:>9} {row['steps']:6} {row['seconds']:8.1f} "
            f"{row['loss']:7.4f} {row['times_faster']:7.2f}"
        )
    faster = result["best_recipe_times_faster"]
    print(f"our best recipe reaches it {faster} times faster" if faster else "it is not reached")


def main() -> None:
    """Runs the comparison on the CPU; prints the table and writes it as JSON."""
    from wellfit.training.precision import choose

    parser = tr.arguments(__doc__ or "")
    parser.add_argument("--steps", type=int, default=250, help="the peer's budget")
    parser.add_argument("--judged-rows", type=int, default=512)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rates", type=float, nargs=5, default=[1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2])
    parser.add_argument("--shares", type=float, nargs="+", default=[2, 3, 4, 5, 6])
    parser.add_argument(
        "--our-precision", choices=["fp32", "bf16"], default=choose("cpu", "auto")[1].name
    )
    options = parser.parse_args()
    began = time.perf_counter()
    result = contest(options)
    command = " ".join(["python", "benchmarks/time_to_loss.py", *sys.argv[1:]])
    facts = {"command": command, "whole_seconds": round(time.perf_counter() - began)}
    tr.write(options.out, {**facts, **tr.about(options.threads, "cpu"), **result})
    show(result)


if __name__ == "__main__":
    main()
