"""First weights: a pure function of the seed and each tensor's name.

`scaled_normal` is GPT-2's: every matrix and table from N(0, 0.02²), those that write into the
residual stream from N(0, 0.02²/(2·layers)): two writes a layer, and three in a decoder that reads
a source; the layers are those of the own stack.

`zero_projections` keeps the variance of features near 1: embeddings come from N(0, 1), matrices
from N(0, 0.85²/fan_in), and what writes into the residual stream (attention.output and
feedforward.down) and the head start at 0, so the first loss is exactly ln V. A tied head cannot
be zero: the shared table is then drawn with GPT-2's 0.02. Since blocks add nothing at first, a
token's features are its own entry, scaled to mean square 1; their product is a logit of about
0.02·width for repeating the token, so wide tied models (0.02·width > ln V) start above ln V.
With `post_norm` the projections are drawn as other matrices and the norms behind them start at 0
instead, since a norm makes anything but zeros full size. With `scale_embeddings` an untied
embedding is drawn √width smaller.

Each expert is drawn as the feed-forward would be, and a router as any matrix. Norm weights start
at 1, biases at 0, learned positions at the embeddings' deviation.
"""

from __future__ import annotations

import hashlib
import math

import torch

from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import Role


def initialise(model: Transformer, seed: int) -> None:
    """Fill every parameter in place; a seed means the same weights on every device."""
    roles = model.roles()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if roles[name] == "norm":
                zero = model.model.init == "zero_projections" and "_post_norm." in name
                weight.fill_(0.0 if zero else 1.0)
                continue
            deviation = standard_deviation(model, name, roles[name], weight.shape[-1])
            if deviation == 0:
                weight.zero_()
                continue
            digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
            # Drawn on the CPU, so that a seed means the same weights on every device.
            drawn = torch.randn(weight.shape, generator=generator)
            weight.copy_(drawn.mul_(deviation))


def standard_deviation(model: Transformer, name: str, role: Role, fan_in: int) -> float:
    """The deviation that a parameter's first values are drawn with; 0 is a tensor of zeros."""
    section = model.model
    writes = name.endswith((".output.weight", ".down.weight"))
    if role == "bias":
        return 0.0
    if section.init == "scaled_normal":
        reads = section.reading_layers
        count = 2 * reads if name.startswith("encoder_") else (3 if reads else 2) * section.layers
        return 0.02 / math.sqrt(count) if writes else 0.02
    if role == "head" or (writes and not section.post_norm):
        return 0.0
    if role in ("embedding", "position"):
        if section.tie_embeddings:
            return 0.02
        scaled = role == "embedding" and section.scale_embeddings
        return 1 / math.sqrt(section.width) if scaled else 1.0
    return 0.85 / math.sqrt(fan_in)
