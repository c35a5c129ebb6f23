"""litgpt's own pretraining (`litgpt.pretrain.setup`): one job, in a process of its own.

Called as its command line calls it: configuration, data module, training arguments; Fabric, the
model, the loop, clipping and the schedule are litgpt's. It always compiles: the eager row sets
torch's TORCH_COMPILE_DISABLE. `bf16-mixed` is mixed precision with float32 weights, as the other
trainers have it. On a CPU litgpt asks for AdamW that is not fused; here it gets the fused one,
which is quicker. Its loop reads a batch at the start of each iteration: that is what the clock
hears.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from race_job import Measured, read_job, renamed, rows

JOB = read_job()
if not JOB["compile"]:
    os.environ["TORCH_COMPILE_DISABLE"] = "1"

import litgpt.pretrain  # noqa: E402
import torch  # noqa: E402
from litgpt.args import EvalArgs, TrainArgs  # noqa: E402
from litgpt.config import Config  # noqa: E402
from litgpt.data import DataModule  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402


class FusedAdamW(torch.optim.AdamW):
    """AdamW in one pass; litgpt's own `fused=` argument, False on a CPU, does not reach it."""

    def __init__(self, params: Any, lr: float, betas: Any, eps: float, weight_decay: float) -> None:
        super().__init__(params, lr, tuple(betas), eps, weight_decay, fused=True)


class Packed(Dataset):
    """Rows of the file, in its order."""

    def __init__(self) -> None:
        self.rows = rows(JOB)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> torch.Tensor:
        return torch.from_numpy(self.rows[place].astype("int64"))


class Heard(DataLoader):
    """A loader that tells when the loop asks for the first batch of a step."""

    measured: Measured
    pieces: int

    def __iter__(self) -> Iterator[Any]:
        for number, batch in enumerate(super().__iter__()):
            if number == 0:
                if not self.measured.ends:  # it begins anew once all steps are made
                    self.measured.begun()
            elif number % self.pieces == 0:
                self.measured.ended()
            yield batch
        self.measured.ended()


class Rows(DataModule):
    """The race's rows as a data module of litgpt."""

    def __init__(self, measured: Measured) -> None:
        super().__init__()
        self.measured = measured

    def connect(self, tokenizer: Any = None, batch_size: int = 1, **_: Any) -> None:
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader:
        loader = Heard(Packed(), batch_size=self.batch_size)
        loader.measured, loader.pieces = self.measured, JOB["rows"] // JOB["micro_batch"]
        return loader

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Packed(), batch_size=self.batch_size)


def configuration() -> Config:
    """The job → litgpt's description of the same Llama."""
    shape = JOB["model"]
    return Config(
        name="race",
        block_size=shape["context"],
        vocab_size=JOB["vocabulary_size"],
        padded_vocab_size=JOB["vocabulary_size"],
        n_layer=shape["layers"],
        n_embd=shape["width"],
        n_head=shape["heads"],
        n_query_groups=shape["kv_heads"],
        intermediate_size=shape["hidden"],
        rotary_percentage=1.0,
        rope_base=int(shape["rope_base"]),
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        norm_eps=shape["norm_epsilon"],
        mlp_class_name="LLaMAMLP",
    )


def weight_names(layers: int) -> dict[str, tuple[str, ...]]:
    """litgpt's name → ours, of every weight; it holds query, key and value in one matrix."""
    names: dict[str, tuple[str, ...]] = {
        "transformer.wte.weight": ("embedding.weight",),
        "transformer.ln_f.weight": ("final_norm.weight",),
        "lm_head.weight": ("head.weight",),
    }
    parts = {
        "norm_1": ("attention_norm",),
        "attn.qkv": ("attention.query", "attention.key", "attention.value"),
        "attn.proj": ("attention.output",),
        "norm_2": ("feedforward_norm",),
        "mlp.fc_1": ("feedforward.gate",),
        "mlp.fc_2": ("feedforward.up",),
        "mlp.proj": ("feedforward.down",),
    }
    for layer in range(layers):
        for theirs, ours in parts.items():
            mine = tuple(f"blocks.{layer}.{part}.weight" for part in ours)
            names[f"transformer.h.{layer}.{theirs}.weight"] = mine
    return names


def main() -> None:
    """Trains as the job says and writes what was measured."""
    measured = Measured(JOB)
    settings, loss_of = JOB["optimizer"], litgpt.pretrain.chunked_cross_entropy
    heard: list[torch.Tensor] = []

    def listening(*arguments: Any, **named: Any) -> torch.Tensor:
        loss = loss_of(*arguments, **named)
        if loss.requires_grad and loss.device.type != "meta":
            heard.append(loss.detach())
        return loss

    litgpt.pretrain.chunked_cross_entropy = listening
    precision = "bf16-mixed" if JOB["precision"] == "bf16" else "32-true"
    with tempfile.TemporaryDirectory() as folder:
        start = Path(folder, "start")
        start.mkdir()
        names = weight_names(JOB["model"]["layers"])
        torch.save(renamed(JOB, names), start / "lit_model.pth")
        litgpt.pretrain.setup(
            "race",
            model_config=configuration(),
            out_dir=Path(folder, "out"),
            precision=precision,
            initial_checkpoint_dir=start,
            data=Rows(measured),
            train=TrainArgs(
                save_interval=None,
                log_interval=1_000_000,
                global_batch_size=JOB["rows"],
                micro_batch_size=JOB["micro_batch"],
                max_tokens=JOB["steps"] * JOB["rows"] * JOB["model"]["context"],
                max_norm=JOB["clip_norm"],
                min_lr=settings["learning_rate"],  # a cosine that stays at its peak
                lr_warmup_steps=None,
            ),
            eval=EvalArgs(interval=1_000_000, max_iters=1, final_validation=False),
            optimizer={
                "class_path": f"{__name__}.FusedAdamW",
                "init_args": {
                    "lr": settings["learning_rate"],
                    "betas": [settings["beta1"], settings["beta2"]],
                    "eps": settings["epsilon"],
                    "weight_decay": settings["weight_decay"],
                },
            },
            devices=1,
            logger_name="csv",
            seed=JOB.get("seed", 0),
        )
    pieces = JOB["rows"] // JOB["micro_batch"]
    measured.losses = [sum(heard[at : at + pieces]) / pieces for at in range(0, len(heard), pieces)]
    measured.write(
        f"litgpt.pretrain.setup({precision}), fused AdamW, compile={JOB['compile']}",
        sum(tensor.numel() for tensor in renamed(JOB, names).values()),
        ("litgpt", "lightning", "torch"),
    )


if __name__ == "__main__":
    main()
