"""The transformer, from its parts: a decoder, an encoder, or both in one.

Axes: B rows, T tokens of a row, S tokens of a source, D width, V vocabulary entries.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wellfit.model import float8
from wellfit.model.attention import Attention, attention_masks, source_mask
from wellfit.model.cache import Cache
from wellfit.model.dropout import Dropout
from wellfit.model.experts import MixtureOfExperts
from wellfit.model.feedforward import FeedForward
from wellfit.model.guest_roles import adapter_role
from wellfit.model.kernels import linear_cross_entropy
from wellfit.model.linear import Embedding, Linear
from wellfit.model.norm import norm
from wellfit.model.objective import linear_objective
from wellfit.model.positions import Angles, model_angles
from wellfit.model.protocol import Source
from wellfit.model.recompute import Recompute, through
from wellfit.model.span import span_losses
from wellfit.recipe.schema import Model, Role


class Block(nn.Module):
    """Features [B, T, D] → x + attention(norm(x)), then x + feedforward(norm(x)).

    With `post_norm` what is added passes a norm of its own first (arXiv 2408.00118). Without
    `causal` a token also reads later ones; a block that `reads` attends to a source in between.
    """

    def __init__(
        self, model: Model, layer: int, *, causal: bool = True, reads: bool = False
    ) -> None:
        super().__init__()
        self.attention_norm = norm(model)
        self.attention = Attention(model, layer, causal=causal)
        if reads:
            self.cross_attention_norm = norm(model)
            self.cross_attention = Attention(model, layer)
            self.cross_attention_post_norm = norm(model) if model.post_norm else None
        self.feedforward_norm = norm(model)
        mixture = model.experts.count > 0
        self.feedforward = MixtureOfExperts(model) if mixture else FeedForward(model)
        self.attention_post_norm = norm(model) if model.post_norm else None
        self.feedforward_post_norm = norm(model) if model.post_norm else None

    def forward(
        self,
        x: Tensor,
        angles: tuple[Angles, Angles] | None,
        mask: tuple[Tensor | None, Tensor | None],
        dropout: Dropout,
        cache: Cache | None,
        layer: int,
        source: Tensor | None = None,
        source_mask: Tensor | None = None,
    ) -> Tensor:
        read = self.attention(self.attention_norm(x), angles, mask, cache, layer)
        x = x + dropout(_through(self.attention_post_norm, read))
        if source is not None:
            asked = self.cross_attention_norm(x)
            read = self.cross_attention.read(asked, source, source_mask, cache, layer)
            x = x + dropout(_through(self.cross_attention_post_norm, read))
            del asked
        del read  # the name would keep it through the feed-forward
        made = self.feedforward(self.feedforward_norm(x))
        return x + dropout(_through(self.feedforward_post_norm, made))


def call_block(block: nn.Module, *arguments: Any) -> Tensor:
    """A block and its arguments → block(…); one function for all blocks, which can be compiled."""
    return block(*arguments)  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """Tokens → features → logits or losses; a `LanguageModel` (see `protocol.py`).

    Weights are float32 masters, NaN until `init.initialise` or a checkpoint fills them;
    arithmetic is in `compute_dtype`, which the caller sets, as is `recompute`: which activations
    of the blocks are computed again in the backward pass (see `recompute.through`), and
    `block_call`, which calls a block while training and may be compiled.
    """

    def __init__(self, model: Model, vocabulary_size: int) -> None:
        super().__init__()
        self.model = model
        self.vocabulary_size = vocabulary_size
        self.compute_dtype = torch.float32
        self.recompute: Recompute = "none"
        self.pretrained = False
        """Whether its first weights are trained ones."""
        self.told: tuple[str, ...] = ()
        """What there is to say about where they came from, as sentences."""
        self.block_call: Callable[..., Tensor] = call_block
        self.embedding = Embedding(vocabulary_size, model.width)
        if model.position == "learned":
            self.positions = Embedding(model.context, model.width)
        if model.reading_layers:
            self.encoder_blocks = nn.ModuleList(
                Block(model, layer, causal=False) for layer in range(model.reading_layers)
            )
            self.encoder_norm = norm(model)
        causal, reads = model.kind != "encoder", model.reading_layers > 0
        self.blocks = nn.ModuleList(
            Block(model, layer, causal=causal, reads=reads) for layer in range(model.layers)
        )
        self.final_norm = norm(model)
        if not model.tie_embeddings:
            self.head = Linear(model.width, model.outputs(vocabulary_size), bias=False)
        self._dropout_key: tuple[int, int, int] | None = None

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: Cache | None = None,
        source: Source | None = None,
    ) -> Tensor:
        """Token ids [B, T] → normalised features [B, T, D] in `compute_dtype`.

        An encoder-decoder needs a `source`, or a cache that has one.
        """
        seen = 0 if cache is None else cache.length
        length = tokens.shape[1]
        if positions is None:
            positions = torch.arange(seen, seen + length, device=tokens.device)[None]
        dropout = self._dropout()
        mask = attention_masks(
            self.model,
            segments,
            length,
            seen,
            self.compute_dtype,
            tokens.device,
            causal=self.model.kind != "encoder",
        )
        more: tuple[Tensor | None, ...] = ()
        if self.model.reading_layers:
            of_source = None if source is None else source[2]
            read = self._source(source, dropout, cache)
            more = read, source_mask(segments, of_source, self.compute_dtype)
        x, angles = self._embedded(tokens, positions, dropout)
        # Generation changes its shape with each token: only training takes a compiled call.
        plain = cache is not None or not self.training
        call = call_block if plain else self.block_call
        how: Recompute = "none" if plain else self.recompute
        for layer, block in enumerate(self.blocks):

            def run(x: Tensor, block: nn.Module = block, layer: int = layer) -> Tensor:
                return call(block, x, angles, mask, dropout.of(layer), cache, layer, *more)

            x = through(how, run, x)
        if cache is not None:
            cache.advance(length)
        return self.final_norm(x)  # type: ignore[no-any-return]

    def encode(self, source: Source) -> Tensor:
        """What an encoder-decoder reads, ids [B, S] and their places → features [B, S, D]."""
        return self._encode(source, self._dropout())

    def _encode(self, source: Source, dropout: Dropout) -> Tensor:
        tokens, positions, segments = source
        length = tokens.shape[1]
        if positions is None:
            positions = torch.arange(length, device=tokens.device)[None]
        mask = attention_masks(
            self.model, segments, length, 0, self.compute_dtype, tokens.device, causal=False
        )
        # Numbers below those of the decoder's layers, so that no two places drop alike.
        x, angles = self._embedded(tokens, positions, dropout.of(-2))
        call = self.block_call if self.training else call_block
        how: Recompute = self.recompute if self.training else "none"
        for layer, block in enumerate(self.encoder_blocks):

            def run(x: Tensor, block: nn.Module = block, layer: int = layer) -> Tensor:
                return call(block, x, angles, mask, dropout.of(-3 - layer), None, layer)

            x = through(how, run, x)
        return self.encoder_norm(x)  # type: ignore[no-any-return]

    def _source(self, source: Source | None, dropout: Dropout, cache: Cache | None) -> Tensor:
        """Features of the source [B, S, D]: encoded now, or those that the cache keeps."""
        if source is not None:
            features = self._encode(source, dropout)
            if cache is not None:
                cache.take_source(features)
            return features
        assert cache is not None and cache.features is not None, "there is no source to read"
        return cache.features

    def _embedded(
        self, tokens: Tensor, positions: Tensor, dropout: Dropout
    ) -> tuple[Tensor, tuple[Angles, Angles] | None]:
        """Ids and positions [B, T] → features [B, T, D], and angles where positions are rotary."""
        x = self.embedding(tokens)
        if self.model.scale_embeddings:
            x = x * math.sqrt(self.model.base_width or self.model.width)
        angles = None
        if self.model.position == "learned":
            x = x + self.positions(positions)
        else:
            angles = model_angles(self.model, positions, self.compute_dtype)
        return dropout(x.to(self.compute_dtype)), angles

    def token_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Features [B, T, D], labels [B, T] → nats [B, T] in float32; 0 where labels are negative.

        With the head `span` a label is a choice among places, see `span.span_losses`.
        """
        if self.model.head == "span":
            return span_losses(self.logits(hidden), labels)
        flat = self._before_output(hidden).reshape(-1, hidden.shape[-1])
        matrix = self._output_matrix()
        losses = linear_cross_entropy(flat, matrix, labels.reshape(-1), self.model.logit_soft_cap)
        return losses.view(labels.shape)

    def token_objective(
        self,
        hidden: Tensor,
        labels: Tensor,
        *,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """Features [B, T, D], labels [B, T] → nats of `token_loss`, and what is added to them.

        Nothing is added to the loss of a span.
        """
        if self.model.head == "span":
            losses = self.token_loss(hidden, labels)
            return losses, torch.zeros_like(losses, requires_grad=False)
        losses, extra = linear_objective(
            self._before_output(hidden).reshape(-1, hidden.shape[-1]),
            self._output_matrix(),
            labels.reshape(-1),
            soft_cap=self.model.logit_soft_cap,
            label_smoothing=label_smoothing,
            z_loss=z_loss,
        )
        return losses.view(labels.shape), extra.view(labels.shape)

    def logits(self, hidden: Tensor) -> Tensor:
        """Features [..., D] → logits [..., V] in float32: cap·tanh(h·Wᵀ/cap) (arXiv 2408.00118).

        V is what `Model.outputs` says. With `base_width` h·Wᵀ is multiplied by base_width/D
        (arXiv 2203.03466, table 8).
        """
        hidden = self._before_output(hidden)
        logits = (hidden @ self._output_matrix().to(hidden.dtype).T).float()
        cap = self.model.logit_soft_cap
        return torch.tanh(logits / cap) * cap if cap else logits

    def auxiliary_loss(self) -> Tensor:
        """What the last forward pass adds to the loss; 0 for a dense model.

        The load balance and the mean squared log-sum of the router's logits, both the mean over
        layers, times their coefficients. They are taken over all tokens of the pass.
        """
        total = torch.zeros((), device=self.embedding.weight.device)
        section, mixtures = self.model.experts, self._mixtures()
        for one in mixtures:
            told = section.balance_loss * one.balance + section.router_z_loss * one.router_z
            total = total + told.to(total.device) / len(mixtures)
        return total

    def expert_load(self) -> Tensor:
        """Tokens that each expert got in the last forward pass [layers, experts], on its device.

        Nothing waits for the device; each row sums to the tokens of the pass times `active`.
        A dense model gives [0, 0].
        """
        loads = [one.load for one in self._mixtures()]
        return torch.stack(loads) if loads else torch.zeros(0, 0, dtype=torch.int64)

    @property
    def width_ratio(self) -> float:
        """How many times wider it is than the model whose rates it is trained with."""
        return self.model.width_ratio

    def use_float8(self) -> int:
        """Training multiplies the blocks' large matrices in 8 bits from now on; → how many.

        Experts, routers, embedding and head never are, nor is anything in evaluation.
        """
        roles, taken = self.roles(), 0
        for name, part in self.named_modules():
            if isinstance(part, Linear) and roles.get(f"{name}.weight") == "matrix":
                part.float8 = float8.pays(*part.weight.shape)
                taken += part.float8
        return taken

    def roles(self) -> dict[str, Role]:
        """Parameter name → role, in the order of `named_parameters`."""
        return {name: _role(name) for name, _ in self.named_parameters()}

    def dropout_key(self, seed: int, step: int, first_row: int) -> None:
        """Dropout becomes a pure function of these three, until the next call."""
        self._dropout_key = (seed, step, first_row)

    @property
    def predicts(self) -> str:
        """What the logits of a place are of: tokens, classes, or a span."""
        return self.model.head

    @property
    def looks_ahead(self) -> str:
        """Why a token may see later ones of its document, as a clause; empty in a decoder."""
        return "an encoder reads both sides" if self.model.kind == "encoder" else ""

    def new_cache(self) -> Cache:
        """An empty cache for one row, in the present `compute_dtype` and on the model's device.

        Raises NotImplementedError for an encoder, where every new token changes all features.
        """
        if self.model.kind == "encoder":
            raise NotImplementedError("an encoder reads both sides of a token and keeps nothing")
        device = self.embedding.weight.device
        return Cache(self.model, dtype=self.compute_dtype, device=device)

    def _dropout(self) -> Dropout:
        if not self.training or not self.model.dropout:
            return Dropout(0.0, None)
        assert self._dropout_key is not None, "call dropout_key(seed, step, first_row) first"
        return Dropout(self.model.dropout, self._dropout_key)

    def _mixtures(self) -> list[MixtureOfExperts]:
        blocks = (*getattr(self, "encoder_blocks", ()), *self.blocks)
        parts = (block.feedforward for block in blocks)
        return [part for part in parts if isinstance(part, MixtureOfExperts)]

    def _before_output(self, hidden: Tensor) -> Tensor:
        """Features [..., D] → what the output matrix multiplies: with `base_width` its share of D.

        A sum over D features that agree with the matrix grows as D. Scaled are the D features of a
        token and not its V logits.
        """
        ratio = self.model.width_ratio
        return hidden if ratio == 1 else hidden * (1 / ratio)

    def _output_matrix(self) -> Tensor:
        return self.embedding.weight if self.model.tie_embeddings else self.head.weight


def _through(norm: nn.Module | None, x: Tensor) -> Tensor:
    return x if norm is None else norm(x)


def _role(name: str) -> Role:
    added = adapter_role(name)
    if added is not None:
        return added
    owner, kind = name.split(".")[-2:]
    if kind == "bias":
        return "bias"
    if owner.endswith("norm"):
        return "norm"
    by_owner: dict[str, Role] = {
        "embedding": "embedding", "positions": "position", "head": "head", "router": "router",
    }  # fmt: skip
    return by_owner.get(owner, "matrix")
