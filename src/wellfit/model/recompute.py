"""Which activations of a block are kept for the backward pass, and which are computed again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

from wellfit.model.products import ONEDNN

Recompute = Literal["none", "selective", "full"]

_aten = torch.ops.aten

# What `selective` keeps: the results of the dear operations, each no wider than the features it
# came from. Scores (baddbmm, [B·G, H/G·T, S]) are not among them: they grow with the square of the
# context, are one product of narrow matrices, and the mask is added to them in place.
KEPT = (
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten._scaled_mm.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
    *ONEDNN,
)


def through(how: Recompute, block: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A way, a block and its features [B, T, D] → block(x); same bits, fewer tensors kept.

    `full` keeps x and computes the block again in the backward pass; `selective` keeps the results
    of matrix products and of attention and computes norms, rotations, activations, casts of
    weights and softmax again. `block` must give the same result when it is called again: random
    numbers come from their key. Without gradients nothing is kept anyway, and nothing changes.
    """
    if how == "none" or not torch.is_grad_enabled():
        return block(x)
    more: dict[str, Any] = {}
    if how == "selective":
        more["context_fn"] = partial(create_selective_checkpoint_contexts, list(KEPT))
    # Dropout draws from its own generator, so the state of the global one need not be kept.
    result = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False, **more)
    return cast(Tensor, result)
