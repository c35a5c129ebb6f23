"""Our trainer beside Hugging Face's `Trainer` and litgpt: the same work, in turns, in one table.

    python benchmarks/train_race.py [--sizes 1m 25m] [--precisions fp32 bf16] [--rounds 3]
                                    [--trainers …] [--out FILE.json]

Same architecture (Llama: RMSNorm, rotary, SwiGLU, no biases, untied), first weights, tokens and
their order, attention (plain causal), loss, optimizer (AdamW 0.9/0.95, no decay, constant rate,
clipped at 1.0), micro-batch and threads. Every measurement is a whole process; the trainers take
turns, and the peak of the machine's matrix products is measured again before every round. The
first steps of a process are not counted. Every process also reports its losses: where they agree,
it was the same work. What each trainer is and how it is called: `peers_NAME.py`. The peers live in
a virtual environment of their own (`--peers-venv`, made on the first run). docs/training.md says
what is fair about this.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matrix_peak
import numpy as np

HERE = Path(__file__).resolve().parent
# litgpt pins an older huggingface_hub than this transformers needs; its pretraining uses neither.
PEERS = ("transformers==5.24.0", "accelerate==1.15.0", "safetensors", "numpy")
LITGPT = (
    "lightning==2.6.6",
    "jsonargparse[signatures]",
    "torchmetrics",
    "tqdm",
    "pyyaml",
    "requests",
)
LITGPT_ALONE = "litgpt==0.5.13"
CONTENDERS = {
    "wellfit": ("wellfit", False),
    "wellfit, compiled": ("wellfit", True),
    "Trainer, eager": ("transformers", False),
    "Trainer, compiled": ("transformers", True),
    "litgpt, eager": ("litgpt", False),
    "litgpt, compiled": ("litgpt", True),
}
EAGER_PEERS = ("Trainer, eager", "litgpt, eager")
ADAMW = {
    "kind": "adamw",
    "learning_rate": 1e-3,
    "beta1": 0.9,
    "beta2": 0.95,
    "epsilon": 1e-8,
    "weight_decay": 0.0,
}
CONSTANT = {"kind": "linear", "warmup": 0, "final_share": 1.0}


@dataclass(frozen=True)
class Size:
    """A row of the race: a Llama, its vocabulary, and the steps of one measurement."""

    layers: int
    width: int
    heads: int
    hidden: int
    context: int
    vocabulary: int
    rows: int
    micro_batch: int
    warm: int
    steps: int
    kv_heads: int = 0
    square: int = 2048

    @property
    def model(self) -> dict[str, Any]:
        """The recipe's section `model`."""
        return {
            "context": self.context,
            "layers": self.layers,
            "width": self.width,
            "heads": self.heads,
            "kv_heads": self.kv_heads or self.heads,
            "hidden": self.hidden,
            "activation": "swiglu",
            "qk_norm": False,
            "norm_epsilon": 1e-5,
            "rope_base": 10_000.0,
            "init": "scaled_normal",
        }


SIZES = {
    "1m": Size(4, 128, 2, 352, 256, 1_024, rows=16, micro_batch=16, warm=5, steps=25),
    "25m": Size(6, 512, 4, 1_376, 512, 6_144, rows=8, micro_batch=8, warm=2, steps=7),
}


@dataclass
class Prepared:
    """What all trainers of a size share: files of rows and of first weights."""

    size: Size
    corpus: Path | None
    tokens: Path
    weights: Path
    parameters: int
    flops_per_token: int


def peers_python(folder: Path) -> Path:
    """A folder → the Python of a virtual environment there that holds the peers."""
    import torch

    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    wanted = {line for line in (*PEERS, *LITGPT, LITGPT_ALONE) if "==" in line}
    listed = ""
    if python.exists():
        command = [python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    if not wanted <= set(listed.split()):
        print(f"installing {', '.join(sorted(wanted))}", file=sys.stderr)
        if not python.exists():
            venv.create(folder, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        ours = f"torch=={torch.__version__.partition('+')[0]}"
        subprocess.run([*pip, ours, *PEERS, *LITGPT], check=True)
        subprocess.run([*pip, "--no-deps", LITGPT_ALONE], check=True)
    return python


def prepare(size: Size, folder: Path, *, steps: int, seed: int = 0) -> Prepared:
    """A size → its corpus (the standard library), rows in the order of our batches, weights."""
    from wellfit.data.batches import Batches
    from wellfit.data.build import build_corpus
    from wellfit.recipe.schema import Data

    data = Data.model_validate(
        {
            "sources": [{"path": "python-stdlib"}],
            "tokenizer": {"vocabulary_size": size.vocabulary},
        }
    )
    name = f"stdlib-{size.vocabulary}"
    corpus = build_corpus(data, name=name, folder=folder / name)
    batches = Batches(corpus, size.context, size.rows, seed)
    parts = (batches.batch(step) for step in range(1, steps + 1))
    stored = np.concatenate([np.hstack([b.tokens, b.labels[:, -1:]]) for b in parts])
    made = first_weights(size, folder, corpus.vocabulary_size, seed)
    tokens = folder / f"rows-{size.vocabulary}-{size.context}-{seed}.npy"
    np.save(tokens, stored.astype(np.int32))
    return Prepared(size, corpus.folder, tokens, *made)


def first_weights(size: Size, folder: Path, vocabulary: int, seed: int) -> tuple[Path, int, int]:
    """A size → the file of its first weights, their number, and operations a token."""
    from safetensors.torch import save_file

    from wellfit.model.init import initialise
    from wellfit.model.transformer import Transformer
    from wellfit.recipe.schema import Model
    from wellfit.recipe.shapes import flops_per_token, parameter_count

    assert vocabulary == size.vocabulary, f"the tokenizer has {vocabulary} entries"
    shape = Model.model_validate(size.model)
    model = Transformer(shape, vocabulary)
    initialise(model, seed)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"weights-{size.layers}-{size.width}-{vocabulary}-{seed}.safetensors"
    save_file({name: parameter.detach() for name, parameter in model.named_parameters()}, path)
    return path, parameter_count(shape, vocabulary), flops_per_token(shape, vocabulary)


def job_of(made: Prepared, precision: str, threads: int, device: str) -> dict[str, Any]:
    """What every trainer of this size is told; `run` adds who."""
    size = made.size
    return {
        "model": size.model,
        "vocabulary_size": size.vocabulary,
        "tokens": str(made.tokens),
        "corpus": str(made.corpus or ""),
        "weights": str(made.weights),
        "steps": size.steps,
        "warm": size.warm,
        "rows": size.rows,
        "micro_batch": size.micro_batch,
        "precision": precision,
        "device": device,
        "threads": threads,
        "optimizer": ADAMW,
        "schedule": CONSTANT,
        "clip_norm": 1.0,
        "document_mask": False,
        "seed": 0,
        "save": "",
    }


def run(name: str, job: dict[str, Any], python: Path, folder: Path) -> dict[str, Any]:
    """A contender and a job → its result, from a process of its own; {"failed": why} without."""
    script, compiled = CONTENDERS[name]
    out, told = folder / "result.json", folder / "job.json"
    out.unlink(missing_ok=True)
    told.write_text(json.dumps({**job, "compile": compiled, "out": str(out)}), encoding="utf-8")
    command = [sys.executable if script == "wellfit" else str(python)]
    command += [str(HERE / f"peers_{script}.py"), str(told)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(job["threads"]), "HF_HUB_OFFLINE": "1"}
    began = time.perf_counter()
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=environment
    )
    if done.returncode or not out.exists():
        lines = done.stderr.strip().splitlines()
        print(f"{name} failed:\n" + "\n".join(lines[-15:]), file=sys.stderr)
        return {"failed": lines[-1] if lines else f"status {done.returncode}"}
    result = json.loads(out.read_text(encoding="utf-8"))
    return {**result, "process_seconds": time.perf_counter() - began}


def race(
    made: Prepared,
    precision: str,
    trainers: list[str],
    *,
    rounds: int,
    threads: int,
    device: str,
    python: Path,
    folder: Path,
) -> dict[str, Any]:
    """A size and a precision → rows of the table, from `rounds` turns of all trainers."""
    size = made.size
    tokens = size.rows * size.context
    shapes = matrix_peak.shapes_of(
        size.model, size.vocabulary, size.micro_batch * size.context, size.square
    )
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in trainers}
    peaks = []
    for turn in range(rounds):
        peaks.append(matrix_peak.measure(precision, threads, device, shapes))
        for name in trainers:
            job = job_of(made, precision, threads, device)
            results[name].append(run(name, job, python, folder))
            said = results[name][-1]
            seconds = (
                statistics.median(said["step_seconds"][size.warm :]) if "losses" in said else 0
            )
            print(f"  round {turn + 1}: {name}: {seconds:.3f} s a step", file=sys.stderr)
    peaks.append(matrix_peak.measure(precision, threads, device, shapes))
    peak = statistics.median(max(rates.values()) for rates in peaks)
    rows = []
    ours = results.get("wellfit", [{}])[0].get("losses", [])
    for name in trainers:
        runs = [one for one in results[name] if "failed" not in one]
        if not runs:
            rows.append({"name": name, "failed": results[name][0]["failed"]})
            continue
        each = [statistics.median(one["step_seconds"][size.warm :]) for one in runs]
        seconds = statistics.median(each)
        losses = runs[0]["losses"]
        rows.append(
            {
                "name": name,
                "what_ran": runs[0]["what_ran"],
                "versions": runs[0]["versions"],
                "parameters": runs[0]["parameters"],
                "runs": len(runs),
                "step_seconds": round(seconds, 5),
                "step_seconds_of_runs": [round(one, 5) for one in each],
                "tokens_per_second": round(tokens / seconds, 1),
                "mfu": round(made.flops_per_token * tokens / seconds / (peak * 1e12), 4),
                "peak_mib": round(statistics.median(o["peak_bytes"] for o in runs) / 2**20),
                "ready_seconds": round(
                    statistics.median(
                        o["seconds_to_first_step"] + o["first_step_seconds"] for o in runs
                    ),
                    1,
                ),
                "first_loss": losses[0],
                "last_loss": losses[-1],
                "largest_loss_difference": max(
                    (abs(a - b) for a, b in zip(losses, ours, strict=True)), default=math.nan
                ),
            }
        )
    return {
        "precision": precision,
        "model": size.model,
        "vocabulary_size": size.vocabulary,
        "parameters": made.parameters,
        "flops_per_token": made.flops_per_token,
        "batch_tokens": tokens,
        "micro_batch": size.micro_batch,
        "rounds": rounds,
        "warm_steps": size.warm,
        "timed_steps": size.steps - size.warm,
        "matrix_tflops": peaks,
        "peak_tflops": round(peak, 4),
        "first_loss_of_a_uniform_guess": round(math.log(size.vocabulary), 4),
        "rows": rows,
    }


def show(name: str, result: dict[str, Any]) -> None:
    """One part of the table."""
    print(
        f"\n{name}, {result['precision']}: {result['parameters'] / 1e6:.2f}M parameters, "
        f"{result['batch_tokens']} tokens a step; matrix peak {result['peak_tflops']:.3f} TFLOP/s; "
        f"ln V {result['first_loss_of_a_uniform_guess']}"
    )
    done = [row for row in result["rows"] if "failed" not in row]
    speed = {row["name"]: row["tokens_per_second"] for row in done}
    eager = max((speed[peer] for peer in EAGER_PEERS if peer in speed), default=math.nan)
    best = max(
        (value for peer, value in speed.items() if not peer.startswith("wellfit")), default=math.nan
    )
    print(
        f"{'':20} {'tokens/s':>9} {'MFU':>6} {'peak MiB':>9} {'/ eager':>8} {'/ best':>7} "
        f"{'ready s':>8} {'loss 1':>8} {'last':>8} {'|Δ|':>8}"
    )
    for row in result["rows"]:
        if "failed" in row:
            print(f"{row['name']:20} failed: {row['failed'][:100]}")
            continue
        print(
            f"{row['name']:20} {row['tokens_per_second']:9,.0f} {row['mfu']:6.1%} "
            f"{row['peak_mib']:9,} {row['tokens_per_second'] / eager:8.3f} "
            f"{row['tokens_per_second'] / best:7.3f} {row['ready_seconds']:8} "
            f"{row['first_loss']:8.4f} {row['last_loss']:8.4f} "
            f"{row['largest_loss_difference']:8.1e}"
        )


def about(threads: int, device: str) -> dict[str, Any]:
    """What the figures depend on beside the trainers."""
    import torch

    processor = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        processor = next((line.split(": ")[1] for line in lines if "model name" in line), processor)
    card = torch.cuda.get_device_name() if device == "cuda" else ""
    return {
        "processor": processor,
        "card": card,
        "threads": threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def write(out: Path | None, content: dict[str, Any]) -> None:
    """A result → the file, where one is asked for."""
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def arguments(description: str) -> argparse.ArgumentParser:
    """Options that every race has."""
    from wellfit.training.threads import usable_cores

    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--trainers", nargs="+", choices=CONTENDERS, default=[*CONTENDERS])
    parser.add_argument("--peers-venv", type=Path, default=HERE.parent / ".venv-peers")
    parser.add_argument("--work", type=Path, default=HERE.parent / "corpora" / "race")
    parser.add_argument("--out", type=Path, help="write the result here as JSON")
    return parser


def main() -> None:
    """Runs the race on the CPU; prints the table and writes it as JSON."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=[*SIZES])
    parser.add_argument(
        "--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"]
    )
    options = parser.parse_args()
    folder = options.work.resolve()
    python = peers_python(options.peers_venv.absolute())
    results = []
    for name in options.sizes:
        made = prepare(SIZES[name], folder, steps=SIZES[name].steps)
        for precision in options.precisions:
            print(f"{name}, {precision}", file=sys.stderr)
            result = race(
                made,
                precision,
                options.trainers,
                rounds=options.rounds,
                threads=options.threads,
                device="cpu",
                python=python,
                folder=folder,
            )
            results.append({"size": name, **result})
            command = " ".join(["python", "benchmarks/train_race.py", *sys.argv[1:]])
            facts = about(options.threads, "cpu")
            write(options.out, {"command": command, **facts, "results": results})
    for result in results:
        show(result["size"], result)


if __name__ == "__main__":
    main()
