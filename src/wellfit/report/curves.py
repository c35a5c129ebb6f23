"""Charts → the HTML around them: title, place to draw, notes, and the numbers as a table."""

from __future__ import annotations

from wellfit.monitor.summary import Summary, summary
from wellfit.report.charts import Chart
from wellfit.report.gather import Material
from wellfit.report.html import escape
from wellfit.report.numbers import counted, figure, rate

EPOCHS = 50


def curves_section(material: Material, drawn: list[Chart]) -> str:
    """The charts of a page; each one has a table that says the same without JavaScript."""
    if not drawn:
        body = '<p class="absent">No step has been recorded, so there is nothing to draw.</p>'
    else:
        body = (
            '<noscript><p class="absent">The curves need JavaScript to be drawn. The numbers stand '
            "in the table below each title.</p></noscript>"
            '<p class="soft only-js">Drag across a curve to look closer; double-click resets.</p>'
        )
        body += "".join(_figure(chart) for chart in drawn)
        body += _in_numbers(material)
    notes = "".join(f"<li>{escape(note)}</li>" for note in _reader_notes(material))
    if notes:
        body += (
            f'<div class="open-questions"><h3>How the records were read</h3><ul>{notes}</ul></div>'
        )
    return f'<section id="curves"><h2>Curves</h2>{body}</section>'


def _in_numbers(material: Material) -> str:
    """The curves in a few figures: from where to where, how fast, and each epoch's mean."""
    told, axis = summary(material.history), material.history.axis
    lines = [("training loss", f"{figure(told.first_loss)} → {figure(told.last_loss)}")]
    if told.reduction_percent is not None and told.reduction_per_step is not None:
        lines.append(
            (
                "reduction",
                f"{told.reduction_percent:.1f} %, {figure(told.reduction_per_step, 4)} "
                f"{'an' if axis == 'epoch' else 'a'} {axis}",
            )
        )
    if told.best_loss is not None and told.best_step is not None:
        lines.append(
            (
                f"lowest {told.best_of} loss",
                f"{figure(told.best_loss)} at {axis} {told.best_step:,}",
            )
        )
    if told.rate_peak is not None:
        lines.append(
            (
                "learning rate",
                f"{rate(told.rate_first)} at first, {rate(told.rate_peak)} at most, "
                f"{rate(told.rate_last)} at last",
            )
        )
    if told.rate_decay_percent is not None:
        lines.append(("decay from its peak", f"{told.rate_decay_percent:.1f} %"))
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in lines)
    return (
        f'<div class="card"><h3>In numbers</h3><dl class="facts">{facts}</dl>'
        f"{_epochs(told, axis)}</div>"
    )


def _epochs(told: Summary, axis: str) -> str:
    if not told.epochs or axis == "epoch":  # the curve itself is by epoch
        return ""
    shown = told.epochs[:EPOCHS]
    rows = [
        [
            f"{one.epoch:,}",
            figure(one.end, 2),
            f"{one.steps:,}",
            figure(one.train_loss),
            "–" if one.validation_loss is None else figure(one.validation_loss),
        ]
        for one in shown
    ]
    more = len(told.epochs) - len(shown)
    rest = f'<p class="soft">and {counted(more, "epoch")} more</p>' if more else ""
    columns = ["epoch", "passes finished", f"{axis}s", "mean training loss", "last validation loss"]
    return f"<h4>By epoch</h4>{table(columns, rows, text_columns=1)}{rest}"


def _reader_notes(material: Material) -> list[str]:
    history = material.history
    notes = list(history.notes)
    if history.superseded and material.folder is not None:
        notes.append(
            f"{history.superseded:,} records of earlier attempts were replaced by a later one; "
            "they stay in the run folder."
        )
    return notes


def _figure(chart: Chart) -> str:
    notes = "".join(f"<p>{escape(note)}</p>" for note in chart.notes)
    return (
        f'<figure class="chart-box"><h3>{escape(chart.title)} '
        f"<small>{escape(chart.unit)}</small></h3>"
        f'<div class="chart" id="chart-{escape(chart.id)}" role="img" '
        f'aria-label="{escape(chart.title)}. {escape(chart.summary)}"></div>'
        f'<figcaption class="soft">{notes}</figcaption>'
        f"<details><summary>Numbers</summary>{table(chart.columns, chart.rows)}</details></figure>"
    )


def table(columns: list[str], rows: list[list[str]], text_columns: int = 0) -> str:
    """Column names and rows of texts → a table that scrolls by itself on a narrow screen.

    The first `text_columns` columns are left-aligned; the others hold numbers.
    """
    head = "".join(
        f'<th scope="col"{" class=text" if i < text_columns else ""}>{escape(name)}</th>'
        for i, name in enumerate(columns)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=text' if i < text_columns else ''}>{escape(cell)}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table{"" if text_columns else " class=numbers"}>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
