"""The outcome of a coordinate check in; what a person reads out."""

from __future__ import annotations

import math

from wellfit.run.coord_check import Coordinates, Line


def coordinates_text(found: Coordinates) -> str:
    """Two tables, sizes at the start and of the change, and a sentence on what they mean."""
    heads = "heads grow in number" if found.grows == "heads" else "heads grow in width"
    base = f"base_width {found.base_width}" if found.base_width else "no base_width"
    seeds = "1 seed" if found.seeds == 1 else f"mean of {found.seeds} seeds"
    told = [
        f"{found.name}: {found.steps} steps at the peak rate, {base}, {heads}; {seeds}",
        "",
        *_table("size at the start", found, [line.start for line in found.lines]),
        "",
        *_table("change since then", found, [line.change for line in found.lines]),
        "",
        "Sizes are root mean squares; a slope is that of ln size over ln width.",
        _meaning(found),
    ]
    return "\n".join(told)


def _table(title: str, found: Coordinates, rows: list[tuple[float, ...]]) -> list[str]:
    changes = title.startswith("change")
    heads = "".join(f"{f'width {width}':>12}" for width in found.widths)
    lines = [f"{title:<18}{heads}{'slope':>16}"]
    for line, sizes in zip(found.lines, rows, strict=True):
        cells = "".join(f"{size:>12.3g}" for size in sizes)
        slope = _slope(line, changes)
        said = f"  {line.verdict}" if changes else ""
        lines.append(f"{line.kind:<18}{cells}{slope:>16}{said}")
    return lines


def _slope(line: Line, changes: bool) -> str:
    slope = line.change_slope if changes else line.start_slope
    if slope is None:
        return "-"
    error = line.change_slope_error
    known = changes and math.isfinite(error)
    return f"{slope:+.2f} ± {error:.2f}" if known else f"{slope:+.2f}"


def _meaning(found: Coordinates) -> str:
    if found.steady:
        return (
            "What training changes is as large at every width (all slopes within "
            f"{found.tolerance:g}):\nrates found at one of these widths should do at the others."
        )
    odd: dict[str, list[str]] = {}
    for line in found.lines:
        if line.verdict != "steady":
            odd.setdefault(line.verdict, []).append(line.kind)
    said = "; ".join(f"{verdict}: {', '.join(kinds)}" for verdict, kinds in odd.items())
    if set(odd) == {"not settled"}:
        way = "More seeds and larger widths would tell it from chance (--seeds, --widths)."
    elif found.base_width:
        way = "Rates of base_width do not carry over, or are too high to train with."
    else:
        way = (
            "Set model.base_width to the width that the rates were found at, such as "
            f"{found.widths[0]}."
        )
    beyond = f"slopes beyond {found.tolerance:g}"
    return f"What training changes depends on the width ({beyond}). {said}.\n{way}"
