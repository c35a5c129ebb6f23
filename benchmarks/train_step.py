"""Tokens a second of our training loop beside two others, on the same data and the same shape.

    python benchmarks/train_step.py [--rounds 8] [--steps 4] [--precision auto] [--out FILE.json]

Contenders: our loop with AdamW and with Muon; a plain eager loop in the manner of nanoGPT
(LayerNorm, GELU, learned positions, whole logits); `LlamaForCausalLM` of transformers. Each lives
in a process of its own and all take turns, so that a busy machine slows all of them alike. Shape:
the dial's `nano` with 4,096 vocabulary entries. Speed only: learning per step is another question.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY, CONTEXT, ROWS, LAYERS, WIDTH, HEADS = 4_096, 256, 16, 4, 256, 2


class Data:
    """Zipf-distributed tokens; `batch(step)` is the same for every contender."""

    rows_per_epoch = 1_000_000

    def batch(self, step: int) -> Any:
        from wellfit.data.batches import Batch

        ranks = np.random.default_rng(step).zipf(1.2, (ROWS, CONTEXT + 1))
        stream = (ranks - 1) % VOCABULARY
        columns = np.tile(np.arange(CONTEXT), (ROWS, 1))
        tokens, labels = (np.ascontiguousarray(part) for part in (stream[:, :-1], stream[:, 1:]))
        return Batch(tokens, labels, columns, np.zeros_like(tokens), np.zeros_like(tokens))

    def epoch(self, step: int) -> float:
        return step * ROWS / self.rows_per_epoch


def wellfit_steps(optimizer: str, precision: str, threads: int) -> tuple[int, Iterator[float]]:
    """Our loop: (parameters, seconds of each step)."""
    from wellfit.model.init import initialise
    from wellfit.model.transformer import Transformer
    from wellfit.recipe import schema
    from wellfit.records import Step
    from wellfit.training.loop import train

    shape = schema.Model(
        context=CONTEXT,
        layers=LAYERS,
        width=WIDTH,
        heads=HEADS,
        kv_heads=HEADS,
        hidden=4 * WIDTH,
        activation="relu2",
    )
    model = Transformer(shape, VOCABULARY)
    initialise(model, 0)
    rates = {
        "adamw": {"kind": "adamw", "learning_rate": 1e-3},
        "muon": {"kind": "muon", "matrix_learning_rate": 0.02, "learning_rate": 0.003},
    }
    section = schema.Train.model_validate(
        {
            "budget": {"steps": 1_000_000},
            "batch_tokens": ROWS * CONTEXT,
            "micro_batch": ROWS,
            "optimizer": rates[optimizer],
            "precision": precision,
            "device": "cpu",
            "document_mask": False,
            "checkpoint_every": 1_000_000,
            "threads": threads,
        }
    )

    def steps() -> Iterator[float]:
        with tempfile.TemporaryDirectory() as folder:
            run = train(
                section,
                model,
                Data(),
                folder=Path(folder),
                seed=0,
                evaluate_every=1_000_000,
                sample_every=1_000_000,
            )
            for record in run:
                if isinstance(record, Step):
                    yield record.seconds

    return sum(p.numel() for p in model.parameters()), steps()


def plain_steps(model: Any, loss: Callable[[Any, Any], Any], bf16: bool) -> Iterator[float]:
    """An eager loop with autocast, clipping and fused AdamW: seconds of each step."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), fused=True)
    data = Data()
    for step in count(1):
        began = time.perf_counter()
        batch = data.batch(step)
        tokens, labels = torch.from_numpy(batch.tokens), torch.from_numpy(batch.labels)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            value = loss(tokens, labels)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        assert math.isfinite(value.item())
        yield time.perf_counter() - began


def eager_steps(bf16: bool) -> tuple[int, Iterator[float]]:
    """A GPT-2-like model written plainly with torch's own modules."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, bias=False) for _ in range(2))
            self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
            self.out = nn.Linear(WIDTH, WIDTH, bias=False)
            self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
            self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

        def forward(self, x: Any) -> Any:
            parts = self.qkv(self.norms[0](x)).split(WIDTH, dim=-1)
            q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
            seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(seen.transpose(1, 2).flatten(2))
            return x + self.down(functional.gelu(self.up(self.norms[1](x))))

    model = nn.ModuleDict(
        {
            "tokens": nn.Embedding(VOCABULARY, WIDTH),
            "places": nn.Embedding(CONTEXT, WIDTH),
            "blocks": nn.Sequential(*(Block() for _ in range(LAYERS))),
            "norm": nn.LayerNorm(WIDTH, bias=False),
            "head": nn.Linear(WIDTH, VOCABULARY, bias=False),
        }
    )

    def loss(tokens: Any, labels: Any) -> Any:
        x = model["tokens"](tokens) + model["places"](torch.arange(CONTEXT))
        logits = model["head"](model["norm"](model["blocks"](x)))
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    return sum(p.numel() for p in model.parameters()), plain_steps(model, loss, bf16)


def llama_steps(bf16: bool) -> tuple[int, Iterator[float]]:
    """transformers' Llama; its gated feed-forward is narrowed to the same number of weights."""
    from torch.nn import functional
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=WIDTH * 8 // 3,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        max_position_embeddings=CONTEXT,
        use_cache=False,
    )
    model = LlamaForCausalLM(config)

    def loss(tokens: Any, labels: Any) -> Any:
        logits = model(input_ids=tokens).logits
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())

    return sum(p.numel() for p in model.parameters()), plain_steps(model, loss, bf16)


def contend(name: str, precision: str, threads: int, pipe: Any) -> None:
    """One contender's process: makes as many steps as it is told, until told none."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    bf16 = precision == "bf16"
    parameters, seconds = {
        "wellfit, AdamW": lambda: wellfit_steps("adamw", precision, threads),
        "wellfit, Muon": lambda: wellfit_steps("muon", precision, threads),
        "eager loop, AdamW": lambda: eager_steps(bf16),
        "transformers Llama, AdamW": lambda: llama_steps(bf16),
    }[name]()
    pipe.send(parameters)
    while wanted := pipe.recv():
        times = [next(seconds) for _ in range(wanted)]
        pipe.send((times, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024))


def main() -> None:
    """Runs all contenders in turns; prints the table and writes it as JSON."""
    import torch

    from wellfit.training.precision import choose
    from wellfit.training.threads import usable_cores

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4, help="steps of a contender in a round")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16"])
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--out", type=Path, help="write the result here as JSON")
    options = parser.parse_args()
    _, how = choose("cpu", options.precision)
    names = ["wellfit, AdamW", "wellfit, Muon", "eager loop, AdamW", "transformers Llama, AdamW"]
    spawn = multiprocessing.get_context("spawn")
    pipes, sizes = {}, {}
    for name in names:
        pipes[name], theirs = spawn.Pipe()
        arguments = (name, how.name, options.threads, theirs)
        spawn.Process(target=contend, args=arguments, daemon=True).start()
        sizes[name] = pipes[name].recv()
    times: dict[str, list[float]] = {name: [] for name in names}
    memory = dict.fromkeys(names, 0)
    for round_number in range(options.rounds + 1):
        for name in names:
            pipes[name].send(options.steps)
            measured, memory[name] = pipes[name].recv()
            if round_number:  # the first round warms caches and is not counted
                times[name] += measured
    for pipe in pipes.values():
        pipe.send(0)

    tokens = ROWS * CONTEXT
    speed = {name: tokens / statistics.median(times[name]) for name in names}
    rows = [
        {
            "name": name,
            "parameters": sizes[name],
            "tokens_per_second": round(speed[name]),
            "ratio_to_eager": round(speed[name] / speed["eager loop, AdamW"], 3),
            "step_seconds_quartiles": [round(q, 5) for q in statistics.quantiles(times[name], n=4)],
            "peak_memory_mib": memory[name] >> 20,
        }
        for name in names
    ]
    print(f"nano shape, {how.name}, {options.threads} threads, torch {torch.__version__}")
    print(f"{'':26} {'parameters':>10} {'tokens/s':>9} {'ratio':>6} {'peak MiB':>9}")
    for row in rows:
        print(
            f"{row['name']:26} {row['parameters']:10,} {row['tokens_per_second']:9,} "
            f"{row['ratio_to_eager']:6} {row['peak_memory_mib']:9,}"
        )
    result = {
        "command": " ".join(["python", "benchmarks/train_step.py", *sys.argv[1:]]),
        "torch": torch.__version__,
        "precision": how.name,
        "threads": options.threads,
        "batch_tokens": tokens,
        "timed_steps": options.rounds * options.steps,
        "results": rows,
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
