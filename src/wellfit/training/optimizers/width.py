"""How a rate found at one width becomes that of another: a factor for each parameter.

After Tensor Programs V (arXiv 2203.03466), in the form of its table 8, in which a tied table may
serve as embedding and head: what a step changes in every feature is then as large at any width.
With m the width over the base width:

| role | steps of fixed size (AdamW, Lion, Adafactor) | plain gradients (SGD) | Muon |
|---|---|---|---|
| matrix | 1/m | 1 | 1 |
| router | 1/m | 1/m | as AdamW |
| embedding, position, norm, bias, head | 1 | m | as AdamW |

A router has an output's role but no multiplier on its logits: its row is that of table 3. Muon's
steps have a spectral norm of rate · √max(1, rows/columns). What carries over is one of
√(rows/columns) (arXiv 2310.17813, condition 1), and where all sides of matrices grow in proportion
the two keep their ratio: nothing is left to do.
"""

from __future__ import annotations

from collections.abc import Mapping

from wellfit.recipe import schema


def width_factors(
    settings: schema.Optimizer, roles: Mapping[str, str], ratio: float
) -> dict[str, float]:
    """Settings, `{name: role}` and how many times wider than the base in; factors ≠ 1 by name out.

    >>> width_factors(schema.AdamW(learning_rate=1.0), {"up": "matrix", "head": "head"}, 4.0)
    {'up': 0.25}
    """
    exponents = EXPONENTS[settings.kind]
    factors = {name: ratio ** exponents.get(role, 0) for name, role in roles.items()}
    return {name: factor for name, factor in factors.items() if factor != 1}


FIXED_SIZE = {"matrix": -1, "router": -1}
PLAIN = {"embedding": 1, "position": 1, "norm": 1, "bias": 1, "head": 1, "router": -1}
# The power of m that multiplies the rate of a role; 0 where it is silent.
EXPONENTS: dict[str, Mapping[str, int]] = {
    "adamw": FIXED_SIZE,
    "adamw_8bit": FIXED_SIZE,
    "adafactor": FIXED_SIZE,
    "lion": FIXED_SIZE,
    "sgd": PLAIN,
    "muon": {"router": -1},
}
