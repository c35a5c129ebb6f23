"""A transformer's weights made ready, and the step that writes one more token of several rows.

`Transformer.hidden` is the mathematics for any number of tokens; here is the same for one token a
row, with nothing left to do anew for each: weights are cast, joined and laid out once, angles come
from a table, and keys stand in their place. tests/generation holds the two to each other.

Axes: B rows, V vocabulary entries, D width, H query heads, G key and value heads, R = H/G,
W features of a head, C tokens that fit, S tokens seen, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from wellfit.model.attention import Attention
from wellfit.model.experts import ExpertLinear, MixtureOfExperts
from wellfit.model.feedforward import FeedForward, inner_features
from wellfit.model.linear import Embedding, Linear
from wellfit.model.norm import LayerNorm, RMSNorm
from wellfit.model.positions import model_angles
from wellfit.model.ready import Product, ready_product
from wellfit.model.transformer import Block, Transformer

# What the step knows how to compute. A model with other parts is read by its own `hidden`.
KNOWN = frozenset(
    {
        Transformer, Block, Attention, FeedForward, MixtureOfExperts, ExpertLinear, Linear,
        Embedding, RMSNorm, LayerNorm, nn.ModuleList,
    }
)  # fmt: skip

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Seen:
    """What attention may read at one step: the same for all layers of a kind."""

    first: int
    last: int
    """Places of the cache, from and up to."""
    mask: Tensor | None
    """What is added to scores [B·G, 1, last − first]; None where all of it is seen."""


@dataclass(frozen=True, slots=True)
class Reader:
    """One layer's attention, ready."""

    join: Product
    """Features [B, D] → queries, keys and values [B, (H + 2G)·W]."""
    norm: Tensor | None
    """Weights of QK-norm [H + G, W]."""
    output: Product
    local: bool


@dataclass(frozen=True, slots=True)
class Layer:
    """One block, ready."""

    attention_norm: Map
    attention: Reader
    attention_post_norm: Map
    cross_norm: Map | None
    cross_query: Product | None
    cross_query_norm: Map
    cross_output: Product | None
    cross_post_norm: Map
    feedforward_norm: Map
    feedforward: Map
    feedforward_post_norm: Map


class Decoding:
    """Weights of a model that writes, as they were when this was made, for about `rows` rows."""

    def __init__(self, model: Transformer, rows: int) -> None:
        self.model, self.rows = model, rows
        section = model.model
        self.heads, self.groups = section.heads, section.kv_heads
        self.width = section.features_per_head
        self.scale = section.score_scale or self.width**-0.5
        with torch.no_grad():
            self.layers = [self._layer(block) for block in model.blocks]
            self.final_norm = self._norm(model.final_norm)
            matrix = model._output_matrix().detach().to(model.compute_dtype)
            self.output = ready_product(matrix, None, rows)
            if section.position == "rotary":
                self.angles, self.swap = self._tables()

    def logits(
        self, tokens: Tensor, positions: Tensor, keys: Tensor, values: Tensor, places: Places
    ) -> Tensor:
        """Ids [B] and their places [B] → logits [B, V] after them, which the cache then holds.

        Keys and values are [L, rows, G, C, W], of which the first B rows are read and written.
        """
        model = self.model
        section = model.model
        rows = len(tokens)
        x = functional.embedding(tokens, model.embedding.weight)
        if section.scale_embeddings:
            x = x * math.sqrt(section.base_width or section.width)
        turns = None
        if section.position == "learned":
            x = x + functional.embedding(positions, model.positions.weight)
        else:
            at = places.at if places.even else positions
            turns = [(cosine[at], sine[at]) for cosine, sine in self.angles]
        x = x.to(model.compute_dtype)
        for number, layer in enumerate(self.layers):
            reader = layer.attention
            turn = None if turns is None else turns[reader.local and len(turns) > 1]
            query, key, value = self._heads(reader, layer.attention_norm(x), rows, turn)
            if places.even:
                keys[number, :rows, :, places.at] = key
                values[number, :rows, :, places.at] = value
            else:
                keys[number][places.rows, :, positions] = key
                values[number][places.rows, :, positions] = value
            seen = places.local if reader.local else places.everywhere
            read = self._attend(query, keys[number], values[number], seen)
            x = x + layer.attention_post_norm(reader.output(read))
            if layer.cross_norm is not None and layer.cross_query is not None:
                assert places.source is not None and layer.cross_output is not None
                asked = layer.cross_query(layer.cross_norm(x)).view(rows, -1, self.width)
                asked = layer.cross_query_norm(asked)
                source_keys, source_values, of_source = places.source
                read = self._attend(asked, source_keys[number], source_values[number], of_source)
                x = x + layer.cross_post_norm(layer.cross_output(read))
            x = x + layer.feedforward_post_norm(layer.feedforward(layer.feedforward_norm(x)))
        ratio = section.width_ratio
        x = self.final_norm(x)
        logits = self.output(x if ratio == 1 else x * (1 / ratio)).float()
        cap = section.logit_soft_cap
        return torch.tanh(logits / cap) * cap if cap else logits

    def _heads(
        self, reader: Reader, x: Tensor, rows: int, turn: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features [B, D] → queries [B, H, W], keys and values [B, G, W]."""
        joint = reader.join(x).view(rows, self.heads + 2 * self.groups, self.width)
        both = joint[:, : self.heads + self.groups]
        if reader.norm is not None:
            epsilon = self.model.model.norm_epsilon
            both = functional.rms_norm(both, (self.width,), None, epsilon) * reader.norm
        if turn is not None:
            cosine, sine = turn
            both = torch.addcmul(both * cosine, both.index_select(2, self.swap), sine)
        return both[:, : self.heads], both[:, self.heads :], joint[:, self.heads + self.groups :]

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, seen: Seen) -> Tensor:
        """Queries [B, H, W], keys and values [rows, G, C, W] → what they read [B, H·W]."""
        rows, many = len(query), len(query) * self.groups
        query = query.reshape(many, self.heads // self.groups, self.width)
        keys = keys.view(-1, keys.shape[2], self.width)[:many, seen.first : seen.last]
        values = values.view(-1, values.shape[2], self.width)[:many, seen.first : seen.last]
        cap = self.model.model.attention_soft_cap
        if cap:
            scores = torch.tanh(torch.bmm(query, keys.transpose(1, 2)) * (self.scale / cap)) * cap
            scores = scores if seen.mask is None else scores + seen.mask
        elif seen.mask is None:
            zero = query.new_zeros(())
            facing = keys.transpose(1, 2)
            scores = torch.baddbmm(zero, query, facing, beta=0, alpha=self.scale)
        else:
            scores = torch.baddbmm(seen.mask, query, keys.transpose(1, 2), alpha=self.scale)
        return torch.bmm(torch.softmax(scores, dim=-1), values).view(rows, -1)

    def _tables(self) -> tuple[list[tuple[Tensor, Tensor]], Tensor]:
        """Cosines and signed sines [C, 1, W] of global and local layers, and who turns with whom.

        Features that do not turn have a cosine of 1 and a sine of 0.
        """
        section, device = self.model.model, self.model.embedding.weight.device
        positions = torch.arange(section.context, device=device)[None]
        turned = section.rotary_features
        tables = []
        for cosine, sine in model_angles(section, positions, self.model.compute_dtype):
            still = cosine.new_ones(section.context, 1, self.width - turned)
            tables.append(
                (
                    torch.cat((cosine[0], cosine[0], still), dim=-1),
                    torch.cat((-sine[0], sine[0], torch.zeros_like(still)), dim=-1),
                )
            )
        order = torch.arange(self.width, device=device)
        order[:turned] = order[:turned].roll(turned // 2)
        return tables, order

    def _layer(self, block: nn.Module) -> Layer:
        assert isinstance(block, Block)
        one = block.attention
        norm = None
        if one.query_norm is not None and one.key_norm is not None:
            both = (one.query_norm, self.heads), (one.key_norm, self.groups)
            weights = [part.weight.detach().expand(count, -1) for part, count in both]
            norm = torch.cat(weights).to(self.model.compute_dtype)
        reader = Reader(
            self._joined(one.query, one.key, one.value), norm, self._joined(one.output), one.local
        )
        cross = block.cross_attention if hasattr(block, "cross_attention") else None
        return Layer(
            attention_norm=self._norm(block.attention_norm),
            attention=reader,
            attention_post_norm=self._norm(block.attention_post_norm),
            cross_norm=None if cross is None else self._norm(block.cross_attention_norm),
            cross_query=None if cross is None else self._joined(cross.query),
            cross_query_norm=self._norm(None if cross is None else cross.query_norm),
            cross_output=None if cross is None else self._joined(cross.output),
            cross_post_norm=self._norm(None if cross is None else block.cross_attention_post_norm),
            feedforward_norm=self._norm(block.feedforward_norm),
            feedforward=self._feedforward(block.feedforward),
            feedforward_post_norm=self._norm(block.feedforward_post_norm),
        )

    def _feedforward(self, part: nn.Module) -> Map:
        if not isinstance(part, FeedForward):
            return part  # experts choose their matrices for each token
        down, activation = self._joined(part.down), part.activation
        if not hasattr(part, "gate"):
            up = self._joined(part.up)
            return lambda x: down(inner_features(activation, up(x), None))
        both = self._joined(part.gate, part.up)

        def gated(x: Tensor) -> Tensor:
            gate, up = both(x).chunk(2, dim=-1)
            return down(inner_features(activation, up, gate))

        return gated

    def _joined(self, *parts: Linear) -> Product:
        dtype = self.model.compute_dtype
        weights = [part.weight.detach() for part in parts]
        matrix = (torch.cat(weights) if len(weights) > 1 else weights[0]).to(dtype)
        biases = [part.bias.detach() for part in parts if part.bias is not None]
        bias = torch.cat(biases).to(dtype) if biases else None
        return ready_product(matrix, bias, self.rows)

    def _norm(self, part: nn.Module | None) -> Map:
        if part is None:
            return _same
        assert isinstance(part, RMSNorm | LayerNorm)
        dtype, epsilon = self.model.compute_dtype, part.epsilon
        weight, shape = part.weight.detach().to(dtype), part.weight.shape
        if isinstance(part, RMSNorm):
            return lambda x: functional.rms_norm(x, shape, weight, epsilon)
        bias = None if part.bias is None else part.bias.detach().to(dtype)
        return lambda x: functional.layer_norm(x, shape, weight, bias, epsilon)


@dataclass(frozen=True, slots=True)
class Places:
    """Where the rows of one step stand."""

    even: bool
    """Whether all rows stand at the same place, `at`."""
    at: int
    rows: Tensor
    """0 to B − 1."""
    everywhere: Seen
    local: Seen
    source: tuple[Tensor, Tensor, Seen] | None
    """Keys and values of the sources [L, rows, G, S, W], and what of them is seen."""


def decoding(model: object, rows: int = 1) -> Decoding | None:
    """A model → its weights ready to write about `rows` rows at once; None where it has parts
    that only its own forward pass knows, such as adapters or a module of the user's."""
    if type(model) is not Transformer or model.model.kind == "encoder":
        return None
    if any(type(part) not in KNOWN for part in model.modules()):
        return None
    return Decoding(model, rows)


def _same(x: Tensor) -> Tensor:
    return x
