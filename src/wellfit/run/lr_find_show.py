"""What `wellfit lr-find` found → text for a terminal, a picture, a page."""

from __future__ import annotations

import io
import json
import math
import textwrap
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from wellfit.errors import RunError
from wellfit.monitor.folder import replace_file
from wellfit.report.html import escape, readable
from wellfit.report.numbers import counted, duration, figure, rate
from wellfit.report.patch import as_arguments, as_yaml
from wellfit.run.lr_find import RateAdvice

_BLUE, _RED, _GREEN, _SOFT = "tab:blue", "tab:red", "tab:green", "0.45"
Point = tuple[float, float]


def advice_text(advice: RateAdvice, width: int = 80) -> str:
    """An advice → the loss over the rate as text, short trainings, reasons, patches."""
    found, base = advice.found, advice.rates[advice.axis]
    lines = [f"Learning rate for {readable(advice.name)}: {_effort(advice)}.", ""]
    marks = {}
    if found.range_test.trials:
        for name, share in _marks(advice):
            marks[share * base] = name
        points = [
            (trial.learning_rate, trial.smoothed)
            for trial in found.range_test.trials
            if math.isfinite(trial.smoothed)
        ]
        title = f"Range test: smoothed loss (nats a token) over {_setting(advice)}"
        lines += [title, *plot(points, marks, width), ""]
    if found.choice.tried:
        lines += [_trainings_title(advice), *_aligned(_table(advice)), ""]
    lines += _wrapped(_headline(advice), width, "")
    for reason in found.choice.reasons:
        lines += _wrapped(reason, width, "  – ")
    if advice.patch:
        lines += ["", f"  wellfit train RECIPE {as_arguments(advice.patch)}"]
    lines += ["", *_wrapped(_batch_words(advice), width, "")]
    if advice.batch is not None and advice.batch.patch:
        lines += ["", f"  wellfit train RECIPE {as_arguments(advice.batch.patch)}"]
    return "\n".join(lines)


def plot(
    points: Sequence[Point], marks: dict[float, str], width: int, height: int = 10
) -> list[str]:
    """(rate, loss) points and marked rates → lines: the loss over the logarithm of the rate.

    >>> for line in plot([(1e-3, 4.0), (1e-2, 2.0), (1e-1, 6.0)], {1e-2: "turn"}, 30, 3):
    ...     print(line.rstrip())
      6.00 │                   •
      4.00 │•
      2.00 │          •
           └────────────────────
            1e-3      1e-2     1e-1
                      ↑ turn
    """
    if not points:
        return []
    columns = max(20, width - 12)
    low, high = (math.log10(pick(p[0] for p in points)) for pick in (min, max))
    bottom = min(loss for _, loss in points)
    # A last loss far above the first would press all else into one line.
    top = min(max(loss for _, loss in points), max(points[0][1], bottom) * 1.5)
    span, depth = (high - low) or 1.0, (top - bottom) or 1.0

    def place(value: float) -> int:
        return round((math.log10(value) - low) / span * (columns - 1))

    cells = [[" "] * columns for _ in range(height)]
    for where, loss in points:
        row = round((top - min(loss, top)) / depth * (height - 1))
        cells[row][place(where)] = "•"
    lines = []
    for row, content in enumerate(cells):
        level = top - depth * row / max(1, height - 1)
        label = f"{level:6.2f}" if row in (0, height // 2, height - 1) else " " * 6
        lines.append(f"{label} │{''.join(content)}")
    lines.append(" " * 7 + "└" + "─" * columns)
    axis = [" "] * (columns + 8)
    for exponent in range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1):
        text, at = f"1e{exponent}", place(10.0**exponent)
        if all(cell == " " for cell in axis[max(0, at - 1) : at + len(text)]):
            axis[at : at + len(text)] = text
    lines.append(" " * 8 + "".join(axis))
    lines += [
        " " * (8 + place(where)) + f"↑ {name}"
        for where, name in sorted(marks.items())
        if low - 1e-9 <= math.log10(where) <= high + 1e-9
    ]
    return lines


def write_picture(advice: RateAdvice, path: Path) -> None:
    """An advice and a `.png` file to write → range test and short trainings over the rate.

    Raises RunError where the file cannot be written.
    """
    _write(path, _drawn(advice, "png"), "picture")


def write_page(advice: RateAdvice, path: Path) -> None:
    """An advice and a file to write → one HTML page with the picture, tables and patches.

    It refers to nothing outside itself. Raises RunError where the file cannot be written.
    """
    _write(path, page_text(advice), "page")


def write_all(advice: RateAdvice, folder: Path) -> None:
    """An advice and a folder → `lr-find.json`, `lr-find.png` and `lr-find.html` there.

    Raises RunError where they cannot be written.
    """
    text = json.dumps(advice.to_json(), indent=2, allow_nan=False) + "\n"
    _write(folder / "lr-find.json", text, "result")
    write_picture(advice, folder / "lr-find.png")
    write_page(advice, folder / "lr-find.html")


def refuse_picture(path: Path | None) -> None:
    """Raise RunError for a picture that is not a PNG, before anything is computed."""
    if path is not None and path.suffix.lower() != ".png":
        raise RunError(
            "the picture is a PNG", where=str(path), way_out="Give --plot a name that ends in .png."
        )


def page_text(advice: RateAdvice) -> str:
    """An advice → its page as text."""
    style = files("wellfit.report").joinpath("page.css").read_text(encoding="utf-8")
    drawing = _drawn(advice, "svg").decode()
    drawing = drawing[drawing.index("<svg") :]
    name = escape(advice.name)
    patch = {**advice.patch, **(advice.batch.patch if advice.batch else {})}
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in advice.found.choice.reasons)
    parts = [
        '<div class="page">',
        f'<header><p class="product">Learning-rate finder</p><h1>{name}</h1>',
        f'<p class="trained">{escape(_effort(advice))}</p></header><main>',
        f"<section><h2>{escape(_headline(advice))}</h2><ul>{reasons}</ul>",
        f"<pre>{escape(as_yaml(patch))}</pre>" if patch else "",
        "</section><section><h2>Loss over the learning rate</h2>",
        f'<div style="background:#fff;border-radius:12px;overflow-x:auto">{drawing}</div>',
        _html_table(_range_table(advice)),
        "</section>",
    ]
    if advice.found.choice.tried:
        parts += [
            f"<section><h2>{escape(_trainings_title(advice))}</h2>",
            _html_table(_table(advice)),
            "</section>",
        ]
    parts += [
        f"<section><h2>Batch</h2><p>{escape(_batch_words(advice))}</p></section></main>",
        "<footer>Written by wellfit lr-find. Losses are in nats per token.</footer></div>",
    ]
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{name} – wellfit lr-find</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _drawn(advice: RateAdvice, kind: str) -> bytes:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(9.0, 6.4), layout="constrained")
    FigureCanvasAgg(drawing)
    above, below = drawing.subplots(2, 1, sharex=True, height_ratios=(2, 1.4))
    _draw_range(above, advice)
    _draw_trainings(below, advice)
    below.set_xlabel(_setting(advice))
    name = advice.name.replace("$", r"\$")
    above.set_title(f"{name}: loss over the learning rate", pad=10)
    drawn = io.BytesIO()
    # Without a date and with a fixed salt the same numbers give the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": "wellfit", "svg.fonttype": "none"}):
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
        drawing.savefig(drawn, format=kind, dpi=110, metadata=metadata)
    return drawn.getvalue()


def _draw_range(axes: Any, advice: RateAdvice) -> None:
    trials = [t for t in advice.found.range_test.trials if math.isfinite(t.loss)]
    rates = [trial.learning_rate for trial in trials]
    axes.plot(rates, [t.loss for t in trials], ".", color=_BLUE, alpha=0.4, label="loss")
    axes.plot(rates, [t.smoothed for t in trials], color=_BLUE, label="smoothed loss")
    axes.set_xscale("log")
    axes.set_ylabel("nats per token")
    axes.grid(alpha=0.25)
    smoothed = [trial.smoothed for trial in trials]
    if smoothed and max(smoothed) > 1.5 * smoothed[0]:
        axes.set_ylim(min(smoothed) - 0.1 * abs(min(smoothed)), 1.5 * smoothed[0])
    for name, share in _marks(advice):
        colour = _GREEN if name == "chosen" else _SOFT
        axes.axvline(share * advice.rates[advice.axis], color=colour, linestyle="--", label=name)
    axes.legend(loc="best", framealpha=0.7, edgecolor="none")


def _draw_trainings(axes: Any, advice: RateAdvice) -> None:
    choice, base = advice.found.choice, advice.rates[advice.axis]
    tried = [one for one in choice.tried if math.isfinite(one.loss)]
    axes.set_ylabel("nats per token")
    axes.grid(alpha=0.25)
    if not tried:
        axes.text(
            0.5, 0.5, "no short training was made",
            transform=axes.transAxes, ha="center", va="center", color=_SOFT,
        )  # fmt: skip
        return
    label = f"after {counted(_short_steps(advice), 'step')}, on batches not trained on"
    axes.errorbar(
        [one.share * base for one in tried], [one.loss for one in tried],
        yerr=choice.error or None, fmt="o-", color=_RED, capsize=3, label=label,
    )  # fmt: skip
    if choice.share is not None:
        axes.axvline(choice.share * base, color=_GREEN, linestyle="--")
    axes.legend(loc="best", framealpha=0.7, edgecolor="none")


def _effort(advice: RateAdvice) -> str:
    found = advice.found
    of = f"{found.steps / advice.planned_steps:.0%} of the {advice.planned_steps:,} planned"
    start = f", from step {advice.first_step - 1:,} on" if advice.first_step > 1 else ""
    return f"{counted(found.steps, 'step')} ({of}) in {duration(advice.seconds)}{start}"


def _headline(advice: RateAdvice) -> str:
    choice = advice.found.choice
    if choice.share is None:
        return "No suggestion."
    named = ", ".join(
        f"{path.rpartition('.')[2]} {rate(value)}" for path, value in advice.patch.items()
    )
    return f"Suggestion: {named} ({_times(choice.share)}), confidence {choice.confidence}."


def _times(share: float) -> str:
    return f"{share:.3g} times the recipe's"


def _setting(advice: RateAdvice) -> str:
    name = advice.axis.rpartition(".")[2]
    return name if len(advice.rates) == 1 else f"{name} (the others in proportion)"


def _marks(advice: RateAdvice) -> list[tuple[str, float]]:
    suggestion = advice.found.suggestion
    named = (
        ("fell fastest", suggestion.steepest),
        ("lowest", suggestion.turning),
        ("rose for good", suggestion.edge),
        ("chosen", advice.found.choice.share),
    )
    return [(name, share) for name, share in named if share is not None]


def _short_steps(advice: RateAdvice) -> int:
    return max(training.steps for training in advice.found.trainings)


def _trainings_title(advice: RateAdvice) -> str:
    repeats = len({training.repeat for training in advice.found.trainings})
    often = "" if repeats == 1 else f", {repeats} at each rate on different batches"
    return f"Short trainings of {counted(_short_steps(advice), 'step')}{often}"


def _table(advice: RateAdvice) -> list[list[str]]:
    names = [path.rpartition(".")[2] for path in advice.rates]
    rows = [[*names, "× recipe's", "loss", "behind the best", ""]]
    choice = advice.found.choice
    for one in choice.tried:
        chosen = choice.share is not None and math.isclose(one.share, choice.share)
        diverged = not math.isfinite(one.loss)
        rows.append(
            [
                *(rate(value * one.share) for value in advice.rates.values()),
                f"{one.share:.3g}",
                "diverged" if diverged else figure(one.loss, 4),
                "" if diverged else figure(one.behind, 4),
                "← chosen" if chosen else "",
            ]
        )
    return rows


def _range_table(advice: RateAdvice) -> list[list[str]]:
    rows = [[advice.axis.rpartition(".")[2], "loss", "smoothed", "gradient norm", "update ratio"]]
    trials = advice.found.range_test.trials
    for trial in trials[:: max(1, len(trials) // 25)]:
        rows.append(
            [
                rate(trial.learning_rate),
                figure(trial.loss),
                figure(trial.smoothed),
                f"{trial.grad_norm:.3g}",
                f"{trial.update_ratio:.2g}",
            ]
        )
    return rows


def _batch_words(advice: RateAdvice) -> str:
    if advice.batch is None:
        return f"No advice on the batch: {advice.found.noise_why_not}."
    return f"{advice.batch.text} It was measured after step {advice.found.noise_after:,}."


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _html_table(rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:]
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _wrapped(text: str, width: int, bullet: str) -> list[str]:
    return textwrap.wrap(
        text, max(40, width), initial_indent=bullet, subsequent_indent=" " * len(bullet)
    )


def _write(path: Path, content: str | bytes, what: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    except OSError as error:
        raise RunError(
            f"the {what} cannot be written: {error.strerror or error}",
            where=str(path),
            way_out="Make room there, or name another file.",
        ) from error
