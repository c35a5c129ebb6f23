"""A mixture of experts: a router picks k of E feed-forwards for each token, and none is dropped.

Tokens are sorted by expert, so that each expert multiplies one contiguous slice: exactly its
tokens, however many they are (arXiv 2211.15841). A token's result does not depend on the others.

Axes: N tokens, D width, F features inside an expert, E experts, k experts of a token.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from wellfit.model.feedforward import FeedForward, inner_features
from wellfit.model.linear import Linear
from wellfit.recipe.model_section import GATED
from wellfit.recipe.schema import Model


class ExpertLinear(nn.Module):
    """One matrix an expert, all in one tensor [E, out, in]; NaN until filled, as `Linear` is."""

    def __init__(self, experts: int, fan_in: int, fan_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((experts, fan_out, fan_in), torch.nan))

    def forward(self, x: Tensor, counts: Tensor) -> Tensor:
        return grouped_product(x, self.weight.to(x.dtype), counts)


class MixtureOfExperts(nn.Module):
    """Features [B, T, D] → Σ over a token's k experts of weight · expert(x), plus the shared ones.

    The router's probabilities are a float32 softmax over all E experts; the weights are those of
    the k largest, which `normalise` scales to sum 1 (Mixtral, arXiv 2401.04088). Shared experts
    are one feed-forward as wide as all of them together (arXiv 2401.06066).

    After a forward pass `balance`, `router_z` and `load` tell about it, over all of its tokens.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        experts, hidden = model.experts, model.expert_hidden
        self.activation = model.activation
        self.active, self.normalise = experts.active, experts.normalise
        self.router = Linear(model.width, experts.count, bias=False)
        if model.activation in GATED:
            self.gate = ExpertLinear(experts.count, model.width, hidden)
        self.up = ExpertLinear(experts.count, model.width, hidden)
        self.down = ExpertLinear(experts.count, hidden, model.width)
        if experts.shared:
            self.shared = FeedForward(model, experts.shared * hidden)
        self.balance = self.router_z = torch.zeros(())
        self.load = torch.zeros(experts.count, dtype=torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.reshape(-1, x.shape[-1])
        # Exact whatever the arithmetic: rounded logits would swap experts (arXiv 2202.08906, 4).
        logits = functional.linear(tokens.float(), self.router.weight.float())
        shares = logits.softmax(dim=-1)
        weights, chosen = shares.topk(self.active, dim=-1)
        if self.normalise:
            weights = weights / weights.sum(dim=-1, keepdim=True)
        order, back, counts = sort_by_expert(chosen, logits.shape[-1])
        self.load = counts
        self.balance = load_balance(shares, counts)
        self.router_z = logits.logsumexp(dim=-1).square().mean()
        sorted_tokens = _take(tokens, order, back, self.active)
        gate = self.gate(sorted_tokens, counts) if self.activation in GATED else None
        inner = inner_features(self.activation, self.up(sorted_tokens, counts), gate)
        parts = _take(self.down(inner, counts), back, order, 1)
        parts = parts.view(len(tokens), self.active, -1)
        mixed = (parts * weights.to(x.dtype).unsqueeze(-1)).sum(dim=1).view(x.shape)
        return mixed + self.shared(x) if hasattr(self, "shared") else mixed

    def __getstate__(self) -> dict[str, Any]:
        # A model is copied after a step too, and torch does not copy tensors inside a graph.
        told = {"balance": self.balance.detach(), "router_z": self.router_z.detach()}
        return self.__dict__ | told


def load_balance(shares: Tensor, counts: Tensor) -> Tensor:
    """Router shares [N, E] and tokens of each expert [E] → E · Σ f·p, a scalar.

    f is an expert's tokens per token, p its mean share (arXiv 2101.03961, equations 4 to 6); k
    where tokens are spread evenly, up to E where one set of experts takes all.

    >>> even = torch.full((4, 2), 0.5)
    >>> load_balance(even, torch.tensor([2, 2])).item()
    1.0
    """
    return shares.shape[1] * (counts / len(shares) * shares.mean(dim=0)).sum()


def sort_by_expert(chosen: Tensor, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """Experts of each token [N, k] → the order of pairs, where each went, pairs of each expert.

    Pair n·k + j is token n in its j-th expert. `order` [N·k] lists pairs expert by expert, in the
    order of tokens within one; `back` is its inverse; counts [E] stay on the device.

    >>> [part.tolist() for part in sort_by_expert(torch.tensor([[1, 0], [2, 1]]), 3)]
    [[1, 0, 3, 2], [1, 0, 3, 2], [1, 2, 1]]
    """
    ordered, order = chosen.flatten().sort(stable=True)
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order), device=order.device)
    # Not bincount, which on CUDA waits for the device to know the size of its result.
    ends = torch.searchsorted(ordered, torch.arange(experts, device=order.device), right=True)
    return order, back, ends.diff(prepend=ends.new_zeros(1))


def grouped_product(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """Rows [M, in] sorted by expert, matrices [E, out, in], rows of each expert [E] → [M, out]."""
    if _grouped_on_device(x, weight):
        ends = counts.cumsum(0).to(torch.int32)
        return torch._grouped_mm(x, weight.transpose(1, 2), offs=ends)
    # Unbound and split once: a slice an expert would make each backward a whole tensor of zeros.
    parts = torch.split(x, counts.tolist())
    return torch.cat([part @ one.T for part, one in zip(parts, weight.unbind(), strict=True)])


def _grouped_on_device(x: Tensor, weight: Tensor) -> bool:
    """Whether torch multiplies all experts in one kernel: bf16, rows of 16 bytes, on Hopper.

    The kernel reads the counts on the device; the loop over experts waits for them. Blackwell's
    kernel gives experts without tokens a gradient of garbage (pytorch issue 172439).
    """
    if x.device.type != "cuda" or x.dtype != torch.bfloat16 or not hasattr(torch, "_grouped_mm"):
        return False
    aligned = weight.shape[1] % 8 == 0 and weight.shape[2] % 8 == 0
    return aligned and torch.cuda.get_device_capability(x.device) == (9, 0)


class _Take(torch.autograd.Function):
    """By hand because the gradient of an index adds with atomics on CUDA, in any order.

    Every row is taken `copies` times and its places are known, so gradients are gathered instead:
    the same bits in every run.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, back: Tensor, copies: int) -> Tensor:
        ctx.save_for_backward(back)
        ctx.copies = copies
        return x[index // copies if copies > 1 else index]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (back,) = ctx.saved_tensors
        gathered = grad[back]
        if ctx.copies > 1:
            gathered = gathered.view(-1, ctx.copies, gathered.shape[-1]).sum(dim=1)
        return gathered, None, None, None


def _take(x: Tensor, index: Tensor, back: Tensor, copies: int) -> Tensor:
    """Rows [N, D], each taken `copies` times → [N·copies, D]: place i is row index[i] // copies."""
    return cast(Tensor, _Take.apply(x, index, back, copies))  # type: ignore[no-untyped-call]
