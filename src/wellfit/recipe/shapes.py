"""A model section in; every tensor's name, shape and role, parameters and arithmetic out.

Needs no torch: the model room builds exactly these tensors, and a test holds the two equal.
Axes: V vocabulary, D width, H heads, W features of one head, E experts, T context.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from wellfit.recipe.model_section import GATED
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
    width = model.width
    table = [Shape("embedding.weight", (vocabulary_size, width), "embedding")]
    if model.position == "learned":
        table.append(Shape("positions.weight", (model.context, width), "position"))
    for index in range(model.reading_layers):
        table += _block(f"encoder_blocks.{index}", model, reads=False)
    if model.reading_layers:
        table += _norm("encoder_norm", model)
    for index in range(model.layers):
        table += _block(f"blocks.{index}", model, reads=model.reading_layers > 0)
    table += _norm("final_norm", model)
    if not model.tie_embeddings:
        table.append(Shape("head.weight", (model.outputs(vocabulary_size), width), "head"))
    return tuple(table)


def _block(block: str, model: Model, *, reads: bool) -> list[Shape]:
    """The tensors of a block; `reads` says that it also attends to a source."""
    table = _norm(f"{block}.attention_norm", model) + _attention(f"{block}.attention", model)
    if reads:
        table += _norm(f"{block}.cross_attention_norm", model)
        table += _attention(f"{block}.cross_attention", model)
    table += _norm(f"{block}.feedforward_norm", model)
    if model.experts.count:
        table += _mixture(f"{block}.feedforward", model)
    else:
        table += _feedforward(f"{block}.feedforward", model, model.hidden)
    if model.post_norm:
        table += _norm(f"{block}.attention_post_norm", model)
        table += _norm(f"{block}.cross_attention_post_norm", model) if reads else []
        table += _norm(f"{block}.feedforward_post_norm", model)
    return table


def _attention(name: str, model: Model) -> list[Shape]:
    width, head_width = model.width, model.features_per_head
    queries, keys = model.heads * head_width, model.kv_heads * head_width
    read_bias = model.bias or model.qkv_bias
    table = _linear(f"{name}.query", queries, width, bias=read_bias)
    table += _linear(f"{name}.key", keys, width, bias=read_bias)
    table += _linear(f"{name}.value", keys, width, bias=read_bias)
    if model.qk_norm:
        table.append(Shape(f"{name}.query_norm.weight", (head_width,), "norm"))
        table.append(Shape(f"{name}.key_norm.weight", (head_width,), "norm"))
    return table + _linear(f"{name}.output", width, queries, bias=model.bias)


def _feedforward(name: str, model: Model, hidden: int) -> list[Shape]:
    table = []
    if model.activation in GATED:
        table += _linear(f"{name}.gate", hidden, model.width, bias=model.bias)
    table += _linear(f"{name}.up", hidden, model.width, bias=model.bias)
    return table + _linear(f"{name}.down", model.width, hidden, bias=model.bias)


def _mixture(name: str, model: Model) -> list[Shape]:
    count, width, hidden = model.experts.count, model.width, model.expert_hidden
    table = [Shape(f"{name}.router.weight", (count, width), "router")]
    if model.activation in GATED:
        table.append(Shape(f"{name}.gate.weight", (count, hidden, width), "matrix"))
    table.append(Shape(f"{name}.up.weight", (count, hidden, width), "matrix"))
    table.append(Shape(f"{name}.down.weight", (count, width, hidden), "matrix"))
    if model.experts.shared:
        table += _feedforward(f"{name}.shared", model, model.experts.shared * hidden)
    return table


def _linear(name: str, rows: int, columns: int, *, bias: bool) -> list[Shape]:
    table = [Shape(f"{name}.weight", (rows, columns), "matrix")]
    if bias:
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


def active_parameter_count(model: Model, vocabulary_size: int) -> int:
    """Trainable numbers that one token meets: all of them but the experts it is not sent to.

    >>> mixtral = Model(context=8192, layers=32, width=4096, heads=32, kv_heads=8, hidden=14336,
    ...                 qk_norm=False, experts={"count": 8, "active": 2})
    >>> parameter_count(mixtral, 32_000), active_parameter_count(mixtral, 32_000)
    (46702792704, 12879925248)
    """
    return sum(_active(shape, model) for shape in shape_table(model, vocabulary_size))


def _active(shape: Shape, model: Model) -> int:
    if len(shape.shape) == 3:  # one matrix an expert
        return shape.parameters // model.experts.count * model.experts.active
    return shape.parameters


def flops_per_token(model: Model, vocabulary_size: int, *, target_share: float = 1.0) -> int:
    """Floating-point operations of forward and backward for one token at the full context.

    6·M + 12·H·W·Σ T, as in PaLM (arXiv 2204.02311, appendix B): M counts the numbers of all
    matrices that a token is multiplied with (of the experts only its own; the head included, also
    when tied; the embedding is a look-up), two operations each forward and four backward; the
    second term is the attention itself, summed over layers, with every token attending to all T,
    causal or not, or to the window where the layer has one. Recomputation is not counted.

    In an encoder-decoder: for one token of the source, and `target_share` tokens of the target.

    >>> tiny = Model(context=8, layers=1, width=8, heads=1, kv_heads=1, hidden=32,
    ...              activation="relu2")
    >>> flops_per_token(tiny, 100)  # 6·(4·64 + 2·256 + 800) + 12·1·8·8
    10176
    """
    of_source = of_target = 0
    for shape in shape_table(model, vocabulary_size):
        if shape.role in ("matrix", "router", "head"):
            if shape.name.startswith("encoder_") or shape.name.endswith(_OF_SOURCE):
                of_source += _active(shape, model)
            else:
                of_target += _active(shape, model)
    if model.tie_embeddings:
        of_target += vocabulary_size * model.width
    scores = 12 * model.heads * model.features_per_head
    of_source = 6 * of_source + scores * _seen(model, model.reading_layers)
    of_target = 6 * of_target + scores * _seen(model, model.layers)
    if not model.reading_layers:
        return of_source + of_target
    of_target += scores * model.layers * model.context  # each target token reads the source
    return of_source + round(of_target * target_share)


_OF_SOURCE = ("cross_attention.key.weight", "cross_attention.value.weight")


def _seen(model: Model, layers: int) -> int:
    """Tokens that a token sees, summed over the first layers of a stack."""
    return sum(
        min(model.window, model.context) if model.is_local(layer) else model.context
        for layer in range(layers)
    )
