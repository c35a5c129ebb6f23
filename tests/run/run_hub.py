"""Texts, a small tokenizer, and folders of weights that know it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch

WORDS = [
    "a",
    "red",
    "ball",
    "rolls",
    "over",
    "the",
    "green",
    "hill",
    "and",
    "the",
    "old",
    "dog",
    "runs",
    "after",
    "it",
    "all",
    "day",
]


def write_texts(home: Path, count: int = 24) -> None:
    """`texts/`: documents of the same few words, each its own."""
    folder = home / "texts"
    folder.mkdir()
    for number in range(count):
        drawn = random.Random(number)
        lines = (" ".join(drawn.choices(WORDS, k=9)).capitalize() + "." for _ in range(12))
        (folder / f"{number:02d}.txt").write_text(" ".join(lines) + "\n")


def write_tokenizer(folder: Path, texts: Path) -> int:
    """`tokenizer.json` with `</s>` (an entry like others), `<eos>` and `<bos>`; its entries."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=["</s>", "<bos>", "<eos>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train([str(path) for path in sorted(texts.glob("*.txt"))], trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    made.save(str(folder / "tokenizer.json"))
    told = {"bos_token": "<bos>", "eos_token": "<eos>", "chat_template": "{{x}}",
            "tokenizer_class": "PreTrainedTokenizerFast"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return int(made.get_vocab_size())


def write_base(home: Path, name: str = "base", kind: str = "LlamaConfig", **changes: Any) -> Path:
    """A folder `name` with random weights of a kind of `transformers`, and the tokenizer."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    folder = home / name
    folder.mkdir()
    entries = write_tokenizer(folder, home / "texts")
    values = {
        "vocab_size": entries + 6, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
    }  # fmt: skip
    torch.manual_seed(3)
    config = getattr(transformers, kind)(**values | changes)
    auto = transformers.AutoModelForCausalLM
    if kind == "BertConfig":
        auto = transformers.AutoModelForMaskedLM
    auto.from_config(config).save_pretrained(folder)
    return folder


def tuning(weights: str = "base", **model: Any) -> dict[str, Any]:
    """A recipe that goes on from weights."""
    return {
        "name": "tune",
        "data": {
            "sources": [{"path": "texts"}],
            "filters": [],
            "split": {"validation": 0.15, "test": 0.1},
            "workers": 1,
        },
        "model": {"weights": weights, "context": 32, **model},
        "train": {
            "budget": {"steps": 4},
            "batch_tokens": 128,
            "micro_batch": 4,
            "checkpoint_every": 2,
            "optimizer": {"kind": "adamw", "learning_rate": 0.003},
            "precision": "fp32",
            "threads": 1,
        },
        "evaluate": {"every": 2, "tokens": 0},
        "monitor": {"sample_every": 4, "prompts": ["A red"], "sampling": {"tokens": 5}},
    }
