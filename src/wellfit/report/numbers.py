"""Numbers → the short text a person reads; what is not known becomes `unknown`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from statistics import median as middle

UNKNOWN = "unknown"


def figure(value: float | None, decimals: int = 3) -> str:
    """A number with fixed decimals → text; very small and very large ones in powers of ten.

    >>> figure(2.71828), figure(None), figure(float("nan")), figure(float("-inf"))
    ('2.718', 'unknown', 'NaN', '−∞')
    >>> figure(0.0000123), figure(1.5e9), figure(0)
    ('1.23e-05', '1.5e+09', '0.000')
    """
    if value is None:
        return UNKNOWN
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value and not 0.5 * 10**-decimals <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:,.{decimals}f}"


def rate(value: float | None) -> str:
    """A learning rate → three significant digits.

    >>> rate(0.02), rate(6e-05), rate(0.0), rate(None)
    ('0.02', '6e-05', '0', 'unknown')
    """
    if value is None or not math.isfinite(value):
        return figure(value)
    return f"{value:.3g}"


def count(value: float | None) -> str:
    """A number of things → digits in groups, or three digits and a word from a million on.

    >>> count(12345), count(3_210_000), count(6_738_415_616), count(None)
    ('12,345', '3.21 million', '6.74 billion', 'unknown')
    """
    if value is None or not math.isfinite(value):
        return figure(value)
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if abs(value) >= size:
            return f"{value / size:.3g} {word}"
    return f"{round(value):,}"


def counted(number: int, one: str, many: str = "") -> str:
    """A number and its noun, in the right form.

    >>> counted(1, "step"), counted(1200, "step"), counted(2, "query", "queries")
    ('1 step', '1,200 steps', '2 queries')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def byte_size(value: float | None) -> str:
    """Bytes → decimal units (1 GB is 1,000,000,000 bytes).

    >>> byte_size(999), byte_size(1_536_000), byte_size(2_000_000_000), byte_size(None)
    ('999 bytes', '1.54 MB', '2.00 GB', 'unknown')
    """
    if value is None or not math.isfinite(value):
        return figure(value)
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(value) >= size:
            return f"{value / size:.2f} {unit}"
    return counted(round(value), "byte")


def duration(seconds: float | None) -> str:
    """Seconds → the two largest units that matter.

    >>> duration(0.82), duration(96), duration(7500), duration(273_600), duration(None)
    ('0.8 s', '1 min 36 s', '2 h 5 min', '3 d 4 h', 'unknown')
    """
    if seconds is None or not math.isfinite(seconds):
        return figure(seconds)
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def share(value: float | None, decimals: int | None = None) -> str:
    """A share in 0–1 → percent, with fixed decimals where they are given.

    >>> share(0.1234), share(0.00042), share(1), share(None), share(0.55, decimals=1)
    ('12.3 %', '0.042 %', '100 %', 'unknown', '55.0 %')
    """
    if value is None or not math.isfinite(value):
        return figure(value)
    percent = 100 * value
    if decimals is not None:
        return f"{percent:.{decimals}f} %"
    return f"{percent:.2g} %" if 0 < abs(percent) < 1 else f"{percent:.3g} %"


def finite(values: Iterable[float]) -> list[float]:
    """The finite values, in their order.

    >>> finite([1.0, float("nan"), 2.0, float("inf")])
    [1.0, 2.0]
    """
    return [value for value in values if math.isfinite(value)]


def median(values: Iterable[float]) -> float | None:
    """The middle of the finite values; None where there is none.

    >>> median([3.0, 1.0, float("nan"), 2.0]), median([])
    (2.0, None)
    """
    kept = finite(values)
    return middle(kept) if kept else None


def number_of(value: object) -> float | None:
    """What a record holds for a number → a float; the strings `nan`, `inf`, `-inf` count.

    >>> number_of(2), number_of("nan"), number_of("-inf"), number_of("two"), number_of(True)
    (2.0, nan, -inf, None, None)
    """
    if value in ("nan", "inf", "-inf"):
        return float(str(value))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return None
