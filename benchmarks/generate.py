"""Tokens a second that are written greedily, beside `transformers.generate` on the same weights.

    python benchmarks/generate.py [--rounds 3] [--threads 2] [--tokens 128]

A Llama shape at the quickstart's size and one of about 25M parameters, random weights, one prompt
and eight, fp32 and bf16. Both libraries take turns in one process; each figure is the median of the
rounds, the ratio the median of the rounds' own ratios. Counted are new tokens over wall-clock
seconds, reading the prompt included; making our weights ready is counted apart, as is loading. In
fp32 both must write the same ids, or the script ends with an error; in bf16 their roundings differ.

`transformers` also has a compiled way with a cache of fixed size, which first compiles for longer
than all of this takes; it is not measured. Writes benchmarks/results/generate.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from wellfit.generation.generate import generate_rows
from wellfit.generation.prompts import Prompt
from wellfit.model.decoding import decoding
from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import Model, Sampling

ROOT = Path(__file__).resolve().parents[1]

PROMPT = 32
LLAMA: dict[str, Any] = {"qk_norm": False, "activation": "swiglu", "norm_epsilon": 1e-6}
SHAPES: dict[str, tuple[dict[str, int], int]] = {
    "quickstart": (
        {"context": 256, "layers": 4, "width": 256, "heads": 4, "kv_heads": 4, "hidden": 704},
        4_096,
    ),
    "25M": (
        {"context": 512, "layers": 8, "width": 448, "heads": 7, "kv_heads": 7, "hidden": 1_216},
        8_192,
    ),
}


def lively_model(shape: dict[str, int], vocabulary_size: int) -> Transformer:
    """A shape → a model whose greedy text has no end in sight and is far from constant."""
    model = Transformer(Model(**LLAMA, **shape), vocabulary_size)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("norm.weight"):
                weight.fill_(1.0)
            else:
                weight.normal_(std=weight.shape[-1] ** -0.5, generator=generator)
    return model


def reference(model: Transformer, dtype: torch.dtype) -> Any:
    """Ours → the same weights in `transformers`, which never ends on its own."""
    sys.path.insert(0, str(ROOT / "tests" / "model"))
    from model_references import hub_weights, llama_config
    from transformers import LlamaConfig, LlamaForCausalLM

    config = llama_config(
        LlamaConfig, model.model, model.vocabulary_size, attn_implementation="sdpa"
    )
    found = LlamaForCausalLM(config)
    found.load_state_dict(hub_weights(model, "llama"), strict=True)
    found.generation_config.eos_token_id = None
    found.generation_config.pad_token_id = 0
    return found.eval().to(dtype)


def measure(name: str, precision: str, rows: int, rounds: int, tokens: int) -> dict[str, Any]:
    """One shape, precision and number of prompts → its row of the results."""
    shape, vocabulary_size = SHAPES[name]
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    model = lively_model(shape, vocabulary_size)
    theirs = reference(model, dtype)
    model.compute_dtype = dtype
    began = time.perf_counter()
    ready = decoding(model, rows)
    ready_seconds = time.perf_counter() - began
    assert ready is not None
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, vocabulary_size, (rows, PROMPT), generator=generator)
    prompts = [Prompt(tuple(row), ()) for row in ids.tolist()]
    section = Sampling(tokens=tokens, temperature=0)

    def ours() -> list[list[int]]:
        found: list[list[int]] = [[] for _ in prompts]
        for number, token in generate_rows(ready, prompts, section):
            found[number].append(token or 0)
        return found

    def other() -> list[list[int]]:
        mask = torch.ones_like(ids)
        out = theirs.generate(ids, attention_mask=mask, max_new_tokens=tokens, do_sample=False)
        return list(out[:, PROMPT:].tolist())

    same = ours() == other()  # also warms both up
    assert same or precision != "fp32", "the two write different texts"
    seconds: dict[str, list[float]] = {"wellfit": [], "transformers": []}
    for _ in range(rounds):
        for who, write in (("transformers", other), ("wellfit", ours)):
            began = time.perf_counter()
            write()
            seconds[who].append(time.perf_counter() - began)
    pairs = zip(seconds["transformers"], seconds["wellfit"], strict=True)
    return {
        "shape": name,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "precision": precision,
        "prompts": rows,
        "ratio": round(statistics.median(a / b for a, b in pairs), 2),
        **{
            f"{who}_tokens_per_second": round(rows * tokens / statistics.median(all_of), 1)
            for who, all_of in seconds.items()
        },
        "seconds": {who: [round(one, 3) for one in all_of] for who, all_of in seconds.items()},
        "ready_seconds": round(ready_seconds, 3),
        "same_ids": same,
    }


def main() -> None:
    """Measures, prints a line each and writes the results."""
    import transformers

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--out", default=str(ROOT / "benchmarks" / "results" / "generate.json"))
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    measured = []
    for precision in ("fp32", "bf16"):
        for name in SHAPES:
            for rows in (1, 8):
                row = measure(name, precision, rows, asked.rounds, asked.tokens)
                measured.append(row)
                print(
                    f"{name:10} {precision} {rows} prompts: "
                    f"{row['wellfit_tokens_per_second']:8.1f} tokens/s, transformers "
                    f"{row['transformers_tokens_per_second']:8.1f}, ratio {row['ratio']:.2f}",
                    flush=True,
                )
    told = {
        "threads": asked.threads,
        "new_tokens": asked.tokens,
        "prompt_tokens": PROMPT,
        "rounds": asked.rounds,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
        "measured": measured,
    }
    Path(asked.out).write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
