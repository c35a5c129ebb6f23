"""Rules of thumb and published figures as small functions, so that tests can hold them.

GB are 10⁹ bytes throughout.
"""

from __future__ import annotations

from wellfit.recipe.schema import Model
from wellfit.recipe.shapes import parameter_count, shape_table

SERVING = 1.2
"""Weights → what serving them takes, cache and buffers of a short context included."""


def weight_bytes(parameters: int, bits: float = 16) -> float:
    """A count of parameters → bytes of their weights.

    >>> weight_bytes(175_000_000_000, bits=32) / 1e9
    700.0
    """
    return parameters * bits / 8


def serving_bytes(parameters: int, bits: float = 16) -> float:
    """A count of parameters → bytes to serve them, by the rule of thumb ×1.2.

    >>> round(serving_bytes(6_738_415_616) / 1e9, 1)
    16.2
    """
    return SERVING * weight_bytes(parameters, bits)


def adamw_bytes(parameters: int) -> dict[str, int]:
    """A count of parameters → bytes of training them with AdamW in mixed precision, by kind.

    The rule of thumb of 16 to 20 bytes a parameter: 16 with float32 masters and gradients, 18 or 20
    where 16-bit copies of the weights, or of the gradients too, exist beside them. Activations
    come on top.
    """
    return {
        "float32 weights": 4 * parameters,
        "float32 gradients": 4 * parameters,
        "two float32 moments": 8 * parameters,
        "16-bit copy of the weights": 2 * parameters,
        "16-bit gradients, where they are kept": 2 * parameters,
    }


def updates(samples: int, batch: int, epochs: int) -> int:
    """Samples, samples a batch, passes → optimizer updates; the last batch of a pass may be short.

    >>> updates(200, 5, 1000)
    40000
    """
    return -(-samples // batch) * epochs


def qlora_bytes(
    model: Model, vocabulary_size: int, *, rank: int = 64, rows: int = 1, paged: bool = True
) -> dict[str, float]:
    """A frozen 4-bit base with LoRA on every linear layer → bytes by kind (arXiv 2305.14314).

    NF4 in blocks of 64 with double quantization costs 4 + 8/64 + 32/(64·256) = 4.127 bits a
    number; embeddings, head and norms stay in 16 bits. Adapters are 16-bit with float32 moments,
    which paging moves to main memory where the device is full. With checkpointing of whole
    blocks each keeps its input; one block at a time is made again. The largest matrix is
    dequantized for its product.
    """
    table = shape_table(model, vocabulary_size)
    matrices = [shape for shape in table if shape.role == "matrix"]
    quantized = sum(shape.parameters for shape in matrices)
    others = parameter_count(model, vocabulary_size) - quantized
    adapters = sum(rank * sum(shape.shape) for shape in matrices)
    tokens = rows * model.context
    width, hidden = model.width, model.hidden
    return {
        "4-bit base": quantized * (4 + 8 / 64 + 32 / (64 * 256)) / 8,
        "16-bit embeddings, head and norms": 2.0 * others,
        "adapters": 2.0 * adapters,
        "gradients of the adapters": 2.0 * adapters,
        "moments of the adapters": 0.0 if paged else 8.0 * adapters,
        "inputs of the blocks": 2.0 * model.layers * tokens * width,
        "one block made again": 2.0 * tokens * (9 * width + 4 * hidden),
        "a dequantized matrix": 2.0 * max(shape.parameters for shape in matrices),
        "logits": (2.0 + 4.0) * tokens * vocabulary_size,
    }
