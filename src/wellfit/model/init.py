"""First weights: a pure function of the seed and each tensor's name.

Numbers are drawn from N(0, deviation²). What the deviation is, by `model.init` (out × in are the
sides of a matrix; L layers; "writers" are attention.output and feedforward.down, which write into
the residual stream):

- `scaled_normal`, GPT-2's: 0.02 everywhere, writers 0.02/√(2·L), and 0.02/√(3·L) in a decoder
  that reads a source, which has three writers a layer.
- `zero_projections`: matrices 0.85/√in, so that features keep a variance near 1; writers and the
  head 0, so that the first loss is exactly ln V.
- `xavier` (Glorot & Bengio 2010, equation 12): √(2/(in + out)), as torch's `xavier_normal_`.
- `he` (He et al. 2015, section 2.2): gain/√in, as torch's `kaiming_normal_`. The gain is that of
  the activation in front: 1/√E[f(z)²] for a normal z, of the feed-forward's activation for
  feedforward.down and 1 for all others, in front of which stands a norm or a mean of values.
- `small` (arXiv 1910.05895, section 2.2): √(2/(5·width)), tables and head too; writers
  2/(L·√width), as in GPT-NeoX (arXiv 2204.06745, section 2.1).

A table is looked up and not multiplied, so `xavier` and `he` have no deviation for it: embeddings
and learned positions have 1 with them and with `zero_projections`, as large as what blocks add;
with `scale_embeddings` an untied embedding is 1/√width. A tied table is a head besides: 0.02, and
its tokens at first expect to repeat themselves, since where blocks add little a token's features
are its own entry scaled to mean square 1, whose product with it is about 0.02·width. So wide tied
models (0.02·width > ln V) start above ln V. A head drawn with deviation s makes logits of
deviation s·√width, and the first loss is about ln V + s²·width/2: 0.2 above with `small`, 0.5 with
`he`, width/(width + V) with `xavier`.

With `post_norm` the writers of `zero_projections` are drawn as other matrices and the norms behind
them start at 0 instead, since a norm makes anything but zeros full size. Each expert is drawn as
the feed-forward would be, and a router as any matrix. Norm weights start at 1, biases at 0.

With `base_width` all deviations are those of the model at that width, and matrices inside the
blocks are then divided by √m, routers by m, where m is how many times wider the model is
(arXiv 2203.03466: hidden weights of table 8, and output weights of table 3 for routers, whose
logits have no multiplier).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence

import torch

from wellfit.model.transformer import Transformer
from wellfit.recipe.schema import Role

# 1/√E[f(z)²] for z ~ N(0, 1), by numerical integration; of gated ones f(z)·u with such a u too.
GAINS = {
    "relu2": 0.816496581,  # √(2/3): E[max(z, 0)⁴] = 3/2
    "gelu": 1.533530441,
    "gelu_tanh": 1.533580522,
    "geglu": 1.533580522,
    "swiglu": 1.676532470,
}


def initialise(model: Transformer, seed: int, *, but: Collection[str] = ()) -> None:
    """Fill every parameter in place, those named in `but` excepted.

    A seed means the same weights on every device.
    """
    roles = model.roles()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in but:
                continue
            if roles[name] == "norm":
                zero = model.model.init == "zero_projections" and "_post_norm." in name
                weight.fill_(0.0 if zero else 1.0)
                continue
            deviation = standard_deviation(model, name, roles[name], weight.shape)
            if deviation == 0:
                weight.zero_()
                continue
            digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
            # Drawn on the CPU, so that a seed means the same weights on every device.
            drawn = torch.randn(weight.shape, generator=generator)
            weight.copy_(drawn.mul_(deviation))


def standard_deviation(model: Transformer, name: str, role: Role, shape: Sequence[int]) -> float:
    """The deviation that a parameter's first values are drawn with; 0 is a tensor of zeros.

    `shape` is [..., out, in] for a matrix, of which a mixture has one for each expert.
    """
    if role == "bias":
        return 0.0
    ratio = model.model.width_ratio
    if role == "matrix":
        outputs, inputs = shape[-2] / ratio, shape[-1] / ratio
        return _at_base(model, name, role, outputs, inputs) / math.sqrt(ratio)
    # Tables, routers and the head have one side that grows with the width, the last.
    found = _at_base(model, name, role, shape[-2], shape[-1] / ratio)
    return found / ratio if role == "router" else found


def _at_base(model: Transformer, name: str, role: Role, outputs: float, inputs: float) -> float:
    """The deviation at the base width, where the matrix has these sides."""
    section = model.model
    width = section.base_width or section.width
    writes = name.endswith((".output.weight", ".down.weight"))
    table = role in ("embedding", "position")
    if section.init == "scaled_normal":
        # Two writes a layer, three in a decoder that reads a source; the layers of the own stack.
        reads = section.reading_layers
        count = 2 * reads if name.startswith("encoder_") else (3 if reads else 2) * section.layers
        return 0.02 / math.sqrt(count) if writes else 0.02
    if section.init == "small":
        return 2 / (section.layers * math.sqrt(width)) if writes else math.sqrt(0.4 / width)
    if table and section.tie_embeddings:
        return 0.02
    if table:
        scaled = role == "embedding" and section.scale_embeddings
        return 1 / math.sqrt(width) if scaled else 1.0
    if section.init == "xavier":
        return math.sqrt(2 / (inputs + outputs))
    if section.init == "he":
        gain = GAINS[section.activation] if name.endswith(".down.weight") else 1.0
        return gain / math.sqrt(inputs)
    if role == "head" or (writes and not section.post_norm):
        return 0.0
    return 0.85 / math.sqrt(inputs)
