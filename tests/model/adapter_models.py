"""Small models that get adapters, the same twice: transformers' Llama and GPT-2, and our own."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wellfit.model.guest import Guest
from wellfit.model.init import initialise
from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import Model

V, T = 64, 12


def llama() -> Any:
    """Two layers with biases on attention; embedding and head are two tables."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        attention_bias=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def gpt2() -> Any:
    """Two layers of Conv1D; embedding and head are one table."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=V, n_positions=64, n_embd=32, n_layer=2, n_head=2, bos_token_id=1,
        eos_token_id=1,
    )  # fmt: skip
    return GPT2LMHeadModel(config).eval()


def guest(module: nn.Module) -> Guest:
    made = Guest(module, context=64, vocabulary_size=V)
    made.eval()
    return made


def ours(**settings: Any) -> Transformer:
    section = {
        "context": 64, "layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "hidden": 48,
        "init": "scaled_normal", **settings,
    }  # fmt: skip
    model = Transformer(Model.model_validate(section), V)
    initialise(model, 0)
    return model


def ids(rows: int = 2) -> Tensor:
    return torch.randint(0, V, (rows, T), generator=torch.Generator().manual_seed(3))


def shake(module: Any, deviation: float = 0.1) -> None:
    """Noise in everything that is trained, the same for the same shapes."""
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, parameter in module.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=draw) * deviation)


def loss_of(model: Any, tokens: Tensor) -> Tensor:
    """A language model and tokens → the mean loss of predicting each row's next ones."""
    labels = tokens.roll(-1, 1)
    return model.token_loss(model.hidden(tokens), labels).mean()
