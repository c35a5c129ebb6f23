"""Values as strict JSON can hold them: it knows neither NaN nor infinity."""

from __future__ import annotations

import math
from typing import Any


def plain_json(value: Any) -> Any:
    """Nested dicts, lists and tuples → the same; what is not finite is None, tuples are lists.

    >>> plain_json({"loss": float("nan"), "widths": (64, 128)})
    {'loss': None, 'widths': [64, 128]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    return value
