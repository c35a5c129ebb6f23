"""A plain `torch.nn.Module`, tokens → logits, as a `LanguageModel` (see `protocol.py`).

What the module's `forward` is given goes by the names of its parameters: the tokens first, then
`positions` or `position_ids` [B, T], `segments` [B, T] or `attention_mask` [B, 1, T, T] (0 where a
token is seen, the lowest number where not), and `use_cache=False`. It gives logits [B, T, V], or
an object that has them as `.logits`. These logits are what `hidden` gives.

Axes: B rows, T tokens of a row, N = B·T, V vocabulary entries.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from wellfit.errors import RunError
from wellfit.model.cache import Cache
from wellfit.model.guest_roles import guessed_roles
from wellfit.model.logits_loss import logits_objective
from wellfit.model.protocol import Source
from wellfit.model.seeded import seeded
from wellfit.recipe.schema import Role

POSITIONS = ("positions", "position_ids")
MASKS = ("segments", "attention_mask")
WHERE = "model.module"


class Window(Cache):
    """The tokens read so far: a guest has no cache of its own and reads its window anew."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self.clear()

    @property
    def capacity(self) -> int:
        """Most tokens it can hold."""
        return self._capacity

    def clear(self) -> None:
        """Forget everything."""
        self.length = 0
        self.seen: Tensor | None = None

    def read_on(self, tokens: Tensor) -> Tensor:
        """New tokens [B, T] → all so far [B, length], these included."""
        self.seen = tokens if self.seen is None else torch.cat([self.seen, tokens], dim=1)
        self.length = self.seen.shape[1]
        assert self.length <= self._capacity, f"{self.length} tokens do not fit"
        return self.seen


class Guest(nn.Module):
    """The module in arithmetic of `compute_dtype` (torch.autocast; its weights stay float32).

    Dropout is a function of `dropout_key` and of the micro-batch, not of each row alone: the
    module draws it from torch's global generator, which is seeded around the pass and then put
    back. Names of parameters are the module's own.
    """

    def __init__(self, module: nn.Module, *, context: int, vocabulary_size: int) -> None:
        super().__init__()
        self.module = module
        self.context, self.vocabulary_size = context, vocabulary_size
        self.compute_dtype = torch.float32
        self.code_version = ""
        """Changes with the source of the function that made the module."""
        self.told: tuple[str, ...] = ()
        """What there is to say about where its weights came from, as sentences."""
        self.takes = frozenset(inspect.signature(module.forward).parameters)
        """Names of the parameters of its `forward`."""
        self._key = ""

    @property
    def masks_documents(self) -> bool:
        """Whether its `forward` takes what keeps the documents of a row apart."""
        return any(name in self.takes for name in MASKS)

    @property
    def pretrained(self) -> bool:
        """Whether the module says that its first weights are trained ones."""
        return bool(getattr(self.module, "pretrained", False))

    @property
    def mixes_tokens(self) -> str:
        """Why its tokens legitimately see others, where the module says so."""
        return str(getattr(self.module, "mixes_tokens", "") or "")

    @property
    def sparse_parameters(self) -> Any:
        """Names of parameters that only some tokens reach, where the module says so."""
        return getattr(self.module, "sparse_parameters", ())

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        """Every trained tensor with the module's own name for it; a tied one comes once."""
        return self.module.named_parameters(prefix, recurse, remove_duplicate)

    def _apply(self, *arguments: Any, **more: Any) -> Any:
        # torch moves a parameter with two names once, and a frozen tensor for each of its names.
        result = super()._apply(*arguments, **more)  # type: ignore[no-untyped-call]
        for shared in getattr(self, "ties", ()):
            still = [(one, name) for one, name in shared if one._buffers.get(name) is not None]
            for one, name in still[1:]:
                one._buffers[name] = still[0][0]._buffers[still[0][1]]
        return result

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: Cache | None = None,
        source: Source | None = None,
    ) -> Tensor:
        """Token ids [B, T] → logits [B, T, V] as the module gives them."""
        assert source is None, "a guest is a decoder"
        if cache is not None:
            assert isinstance(cache, Window), "a guest's cache is made by its new_cache"
            return self._read(cache.read_on(tokens), None, None)[:, -tokens.shape[1] :]
        return self._read(tokens, positions, segments)

    def token_loss(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Logits [B, T, V], labels [B, T] → nats [B, T] in float32; 0 where the label is −100."""
        return self.token_objective(hidden, labels)[0]

    def token_objective(
        self,
        hidden: Tensor,
        labels: Tensor,
        *,
        label_smoothing: float = 0.0,
        z_loss: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """Logits [B, T, V], labels [B, T] → nats of `token_loss`, and what is added to them."""
        losses, extra = logits_objective(
            hidden.reshape(-1, hidden.shape[-1]),
            labels.reshape(-1),
            label_smoothing=label_smoothing,
            z_loss=z_loss,
        )
        return losses.view(labels.shape), extra.view(labels.shape)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [..., V] → the same in float32."""
        return hidden.float()

    def auxiliary_loss(self) -> Tensor:
        """What the module's own `auxiliary_loss()` gives, where it has one; else 0."""
        own = getattr(self.module, "auxiliary_loss", None)
        return own() if callable(own) else torch.zeros((), device=self._device())

    def roles(self) -> dict[str, Role]:
        """What the module's own `roles()` says, where it has one; else `guessed_roles`.

        These also where the module is frozen: it does not know what an adapter added.
        """
        own = getattr(self.module, "roles", None)
        if callable(own) and not hasattr(self, "attached"):
            return dict(own())
        return guessed_roles(self.module, self.vocabulary_size)

    def dropout_key(self, seed: int, step: int, first_row: int) -> None:
        """Dropout becomes a function of these three and of the rows of the pass."""
        self._key = f"{seed} {step} {first_row}"

    def new_cache(self) -> Cache:
        """An empty window for one row."""
        return Window(self.context)

    def _device(self) -> torch.device:
        return next(iter(self.parameters())).device

    def _read(self, tokens: Tensor, positions: Tensor | None, segments: Tensor | None) -> Tensor:
        given: dict[str, Any] = {}
        if segments is not None and self.masks_documents:
            if "segments" in self.takes:
                given["segments"] = segments
            else:
                given["attention_mask"] = document_mask(segments, self.compute_dtype)
            place = next((name for name in POSITIONS if name in self.takes), None)
            if place is not None and positions is not None:
                given[place] = positions
        if "use_cache" in self.takes:
            given["use_cache"] = False
        device = tokens.device
        drawing = seeded(self._key, device) if self.training else nullcontext()
        low = self.compute_dtype != torch.float32
        # Disabled, it needs a type all the same, and a CPU warns of float32.
        arithmetic = torch.autocast(
            device.type, dtype=self.compute_dtype if low else torch.bfloat16, enabled=low
        )
        with drawing, arithmetic:
            found = self.module(tokens, **given)
        found = getattr(found, "logits", found)
        wanted = (*tokens.shape, self.vocabulary_size)
        if not isinstance(found, Tensor) or tuple(found.shape) != wanted:
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise RunError(
                f"forward gave {what} for tokens {tuple(tokens.shape)}, not logits {wanted}",
                where=WHERE,
                way_out="Return a score for every entry of the vocabulary (the second argument of "
                "the function) at every token, or an object with them as `.logits`.",
            )
        return found


def document_mask(segments: Tensor, dtype: torch.dtype) -> Tensor:
    """Segments [B, T] → [B, 1, T, T]: 0 where a token is seen, the lowest number where not.

    Seen are tokens of the same document up to the token itself.
    """
    length = segments.shape[1]
    seen = (segments[:, :, None] == segments[:, None, :]).tril_()
    mask = torch.zeros((len(segments), 1, length, length), dtype=dtype, device=segments.device)
    return mask.masked_fill_(~seen[:, None], torch.finfo(dtype).min)


def made(function: Callable[..., Any], name: str, *given: Any) -> nn.Module:
    """A function of the user's and what it gets → its module; RunError where it gives none."""
    try:
        module = function(*given)
    except Exception as fault:  # the user's own code: anything can happen there
        said = " ".join(str(fault).split())[:300]
        raise RunError(
            f"{name} raised {type(fault).__name__}: {said}",
            where=WHERE,
            way_out="It is called as function(model, vocabulary_size, **arguments), `model` being "
            "the recipe's section.",
        ) from fault
    if not isinstance(module, nn.Module):
        raise RunError(
            f"{name} gave a {type(module).__name__}, not a torch.nn.Module",
            where=WHERE,
            way_out="Return the module itself.",
        )
    return module


def refuse_unfit(guest: Guest, *, document_mask: bool) -> None:
    """A guest on its first device → nothing; RunError for what would not train as it should."""
    parameters = dict(guest.named_parameters())
    if not parameters:
        raise RunError(
            "the module has no parameters to train", where=WHERE, way_out="Register its layers."
        )
    other = {n: str(p.dtype) for n, p in parameters.items() if p.dtype != torch.float32}
    if other:
        name, dtype = next(iter(other.items()))
        raise RunError(
            f"{len(other)} parameters are not float32, such as {name} ({dtype})",
            where=WHERE,
            way_out="Give the module in float32 (`.float()`): weights are kept so, and "
            "train.precision says how they are multiplied.",
        )
    if document_mask and not guest.masks_documents:
        raise RunError(
            "its forward takes neither `segments` nor `attention_mask`, so the documents of a row "
            "cannot be kept apart",
            where="train.document_mask=true",
            way_out="Set train.document_mask=false, or let forward take `segments` [B, T] (the "
            "number of a token's document) and `positions` [B, T].",
        )
    _refuse_what_moves(guest, document_mask=document_mask)


def _refuse_what_moves(guest: Guest, *, document_mask: bool) -> None:
    """Checkpoints hold parameters: what else changes in training would be lost by a resume."""
    modes = [(module, module.training) for module in guest.modules()]
    before = [(name, one, one.detach().clone()) for name, one in guest.module.named_buffers()]
    places = torch.arange(min(guest.context, 8), device=guest._device()).expand(2, -1).contiguous()
    tokens, segments = places % guest.vocabulary_size, places // 4
    documents = (places % 4, segments) if document_mask else ()
    guest.train(True)
    try:
        with torch.no_grad():
            guest.hidden(tokens, *documents)
        moved = [name for name, now, was in before if not torch.equal(now, was)]
        for _, now, was in before:
            with torch.no_grad():
                now.copy_(was)
    except RunError:
        raise
    except Exception as fault:  # the user's own code: anything can happen there
        said = " ".join(str(fault).split())[:300]
        raise RunError(
            f"its forward raised {type(fault).__name__} for tokens {tuple(tokens.shape)}: {said}",
            where=WHERE,
            way_out="It must take int64 tokens [B, T] of any B, and T up to model.context.",
        ) from fault
    finally:
        for module, mode in modes:
            module.training = mode
    if moved:
        raise RunError(
            f"{moved[0]} changes in a forward pass and is no parameter, so a resume would lose it",
            where=WHERE,
            way_out="Take a norm without running statistics, such as LayerNorm instead of "
            "BatchNorm.",
        )
