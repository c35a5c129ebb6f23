"""The `Trainer` of transformers on `LlamaForCausalLM`: one job, in a process of its own.

What a user would write: `Trainer(model, args, train_dataset).train()`, with the fused AdamW that
is its default, no saving, no logging. `bf16=True` is its mixed precision (weights in float32).
Labels are handed over already shifted (`shift_labels`), so that a row of T tokens has T
predictions, as everywhere in the race.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from race_job import COSINE, Measured, read_job, renamed, rows
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments


class Packed(Dataset):
    """Rows of the file, in its order."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.rows = rows(job)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> dict[str, torch.Tensor]:
        row = torch.from_numpy(self.rows[place].astype("int64"))
        return {"input_ids": row[:-1], "labels": row[1:], "shift_labels": row[1:]}


def llama(job: dict[str, Any]) -> LlamaForCausalLM:
    """A job → the model that its section describes, with the job's weights."""
    shape = job["model"]
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=job["vocabulary_size"],
            hidden_size=shape["width"],
            intermediate_size=shape["hidden"],
            num_hidden_layers=shape["layers"],
            num_attention_heads=shape["heads"],
            num_key_value_heads=shape["kv_heads"],
            max_position_embeddings=shape["context"],
            rms_norm_eps=shape["norm_epsilon"],
            rope_parameters={"rope_type": "default", "rope_theta": shape["rope_base"]},
            tie_word_embeddings=False,
            use_cache=False,
            bos_token_id=None,
            eos_token_id=None,
            attn_implementation="sdpa",
        )
    )
    model.load_state_dict(renamed(job, weight_names(shape["layers"])))
    return model


def weight_names(layers: int) -> dict[str, tuple[str, ...]]:
    """Llama's name → ours, of every weight."""
    names = {
        "model.embed_tokens.weight": ("embedding.weight",),
        "model.norm.weight": ("final_norm.weight",),
        "lm_head.weight": ("head.weight",),
    }
    parts = {
        "input_layernorm": "attention_norm",
        "self_attn.q_proj": "attention.query",
        "self_attn.k_proj": "attention.key",
        "self_attn.v_proj": "attention.value",
        "self_attn.o_proj": "attention.output",
        "post_attention_layernorm": "feedforward_norm",
        "mlp.gate_proj": "feedforward.gate",
        "mlp.up_proj": "feedforward.up",
        "mlp.down_proj": "feedforward.down",
    }
    for layer in range(layers):
        for theirs, ours in parts.items():
            names[f"model.layers.{layer}.{theirs}.weight"] = (f"blocks.{layer}.{ours}.weight",)
    return names


class Clock(TrainerCallback):
    """Tells when training begins and each step ends."""

    def __init__(self, measured: Measured, losses: list[torch.Tensor]) -> None:
        self.measured, self.losses = measured, losses

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.measured.begun()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.measured.ended(sum(self.losses))
        self.losses.clear()


class Listening(Trainer):
    """The Trainer; keeps the loss of each micro-batch, which it returns itself."""

    heard: list[torch.Tensor]

    def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
        loss = super().training_step(*arguments, **named)
        self.heard.append(loss.detach())
        return loss


def main() -> None:
    """Trains as the job says and writes what was measured."""
    job = read_job()
    measured = Measured(job)
    model, settings, heard = llama(job), job["optimizer"], []
    cosine = job["schedule"]["kind"] == COSINE
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=job["steps"],
            per_device_train_batch_size=job["micro_batch"],
            gradient_accumulation_steps=job["rows"] // job["micro_batch"],
            optim="adamw_torch_fused",
            learning_rate=settings["learning_rate"],
            adam_beta1=settings["beta1"],
            adam_beta2=settings["beta2"],
            adam_epsilon=settings["epsilon"],
            weight_decay=settings["weight_decay"],
            max_grad_norm=job["clip_norm"],
            lr_scheduler_type="cosine" if cosine else "constant",
            warmup_steps=job["schedule"]["warmup"] if cosine else 0,
            train_sampling_strategy="sequential",
            bf16=job["precision"] == "bf16",
            use_cpu=job["device"] == "cpu",
            torch_compile=job["compile"],
            remove_unused_columns=False,
            logging_strategy="no",
            save_strategy="no",
            eval_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = Listening(
            model=model,
            args=arguments,
            train_dataset=Packed(job),
            callbacks=[Clock(measured, heard)],
        )
        trainer.heard = heard
        trainer.train()
    if job["save"]:
        save(model, job)
    measured.write(
        f"Trainer(LlamaForCausalLM, sdpa), adamw_torch_fused, bf16={arguments.bf16}, "
        f"torch_compile={arguments.torch_compile}",
        sum(p.numel() for p in model.parameters()),
        ("transformers", "accelerate", "torch"),
    )


def save(model: LlamaForCausalLM, job: dict[str, Any]) -> None:
    """A trained model → a file of its weights by our names."""
    from safetensors.torch import save_file

    state = model.state_dict()
    names = weight_names(job["model"]["layers"])
    ours = {mine: state[name].float().cpu() for name, (mine,) in names.items()}
    save_file({name: tensor.contiguous().clone() for name, tensor in ours.items()}, job["save"])


if __name__ == "__main__":
    main()
