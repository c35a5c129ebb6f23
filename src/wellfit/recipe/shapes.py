"""A model section in; every tensor's name, shape and role, parameters and arithmetic out.

Needs no torch: the model room builds exactly these tensors, and a test holds the two equal.
Axes: V vocabulary, D width, H hidden, W features of one head, T context.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from wellfit.recipe.schema import Model, Role


@dataclass(frozen=True, slots=True)
class Shape:
    """One tensor: its parameter name, its shape, and its role."""

    name: str
    shape: tuple[int, ...]
    role: Role

    @property
    def parameters(self) -> int:
        """Numbers in the tensor."""
        return prod(self.shape)


def shape_table(model: Model, vocabulary_size: int) -> tuple[Shape, ...]:
    """Every tensor of the transformer that `model` describes, in the order of the forward pass."""
    width, hidden, head_width = model.width, model.hidden, model.width // model.heads
    table = [Shape("embedding.weight", (vocabulary_size, width), "embedding")]
    if model.position == "learned":
        table.append(Shape("positions.weight", (model.context, width), "position"))
    keys = model.kv_heads * head_width
    for index in range(model.layers):
        block = f"blocks.{index}"
        table += _norm(f"{block}.attention_norm", model)
        table += _linear(f"{block}.attention.query", width, width, model)
        table += _linear(f"{block}.attention.key", keys, width, model)
        table += _linear(f"{block}.attention.value", keys, width, model)
        if model.qk_norm:
            table.append(Shape(f"{block}.attention.query_norm.weight", (head_width,), "norm"))
            table.append(Shape(f"{block}.attention.key_norm.weight", (head_width,), "norm"))
        table += _linear(f"{block}.attention.output", width, width, model)
        table += _norm(f"{block}.feedforward_norm", model)
        if model.activation == "swiglu":
            table += _linear(f"{block}.feedforward.gate", hidden, width, model)
        table += _linear(f"{block}.feedforward.up", hidden, width, model)
        table += _linear(f"{block}.feedforward.down", width, hidden, model)
    table += _norm("final_norm", model)
    if not model.tie_embeddings:
        table.append(Shape("head.weight", (vocabulary_size, width), "head"))
    return tuple(table)


def _linear(name: str, rows: int, columns: int, model: Model) -> list[Shape]:
    table = [Shape(f"{name}.weight", (rows, columns), "matrix")]
    if model.bias:
        table.append(Shape(f"{name}.bias", (rows,), "bias"))
    return table


def _norm(name: str, model: Model) -> list[Shape]:
    table = [Shape(f"{name}.weight", (model.width,), "norm")]
    if model.bias and model.norm == "layernorm":
        table.append(Shape(f"{name}.bias", (model.width,), "bias"))
    return table


def parameter_count(model: Model, vocabulary_size: int) -> int:
    """Trainable numbers of the whole model; tied embeddings count once.

    >>> llama = Model(size="7b", context=4096, layers=32, width=4096, heads=32, kv_heads=32,
    ...               hidden=11008, activation="swiglu", qk_norm=False)
    >>> parameter_count(llama, 32_000)
    6738415616
    """
    return sum(shape.parameters for shape in shape_table(model, vocabulary_size))


def flops_per_token(model: Model, vocabulary_size: int) -> int:
    """Floating-point operations of forward and backward for one token at the full context.

    6·M + 12·layers·D·T, as in PaLM (arXiv 2204.02311, appendix B): M counts the numbers of all
    matrices that a token is multiplied with (the head included, also when tied; the embedding is
    a look-up), two operations each forward and four backward; the second term is the attention
    itself, with every token attending to all T, causal or not. Recomputation is not counted.

    >>> tiny = Model(context=8, layers=1, width=8, heads=1, kv_heads=1, hidden=32,
    ...              activation="relu2")
    >>> flops_per_token(tiny, 100)  # 6·(4·64 + 2·256 + 800) + 12·1·8·8
    10176
    """
    multiplied = sum(
        shape.parameters
        for shape in shape_table(model, vocabulary_size)
        if shape.role in ("matrix", "head")
    )
    if model.tie_embeddings:
        multiplied += vocabulary_size * model.width
    return 6 * multiplied + 12 * model.layers * model.width * model.context
