"""An X-ray → the terminal, where what is learnt has a colour, or a page of its own."""

from __future__ import annotations

from pathlib import Path

from wellfit.monitor.progress import printable
from wellfit.report.html import escape
from wellfit.run.xray import Piece, Shown, Xray

COLOURS = {"learnt": "\033[30;42m", "place": "\033[2m", "source": "\033[36m", "read": ""}
PLAIN = {"learnt": ("⟦", "⟧"), "place": ("", ""), "source": ("", ""), "read": ("", "")}
LEGEND = {
    "read": "shown, not learnt",
    "learnt": "learnt",
    "source": "read by the encoder",
    "place": "a place to choose from",
}


def xray_text(found: Xray, *, colour: bool) -> str:
    """An X-ray → lines: counts, then each example; without colour ⟦…⟧ holds what is learnt."""
    lines = [fact_lines(found)]
    for one in found.examples:
        lines += ["", f"── {printable(one.place)}", _joined(one, colour)]
    return "\n".join(lines)


def fact_lines(found: Xray) -> str:
    """The counts of an X-ray, one a line."""
    facts = found.facts
    lines = [
        f"{found.name}: {facts['examples']:,} examples of train, task {found.task}, template "
        f"{printable(found.template)}",
        f"  {facts['learnt']:,} of {facts['tokens']:,} tokens are learnt "
        f"({facts['share_learnt']:.1%})",
        f"  {facts['without_anything_learnt']:,} examples have nothing to learn",
    ]
    if "ends_learnt" in facts:
        lines += [
            f"  {facts['ends_learnt']:,} learn where an answer ends",
            f"  {facts['begin_twice']:,} begin twice",
        ]
    if found.template != "plain":
        lines.append("  generation's prompt is what stands before each answer in training")
    lines += [f"  {count:,} {part} were cut" for part, count in facts["cut"].items() if count]
    return "\n".join(lines)


def _joined(one: Shown, colour: bool) -> str:
    """Runs of one kind, each in its colour or between its marks."""
    runs: list[tuple[str, str]] = []
    for piece in one.pieces:
        text = printable(piece.text) + (f"‹{printable(piece.note)}›" if piece.note else "")
        if runs and runs[-1][0] == piece.kind:
            runs[-1] = (piece.kind, runs[-1][1] + text)
        else:
            runs.append((piece.kind, text))
    if colour:
        return "".join(f"{COLOURS[kind]}{text}\033[0m" for kind, text in runs)
    return "".join(PLAIN[kind][0] + text + PLAIN[kind][1] for kind, text in runs)


_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1d1d1f;background:#fff}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font:14px/1.7 ui-monospace,monospace;
padding:1rem;border:1px solid #d0d0d5;border-radius:8px}
span{border-radius:3px}span+span{margin-left:1px}
.learnt{background:#bfe8c5;color:#0b3d17}.source{background:#dbe9ff;color:#0b2c5c}
.place{background:#f1f1f4}.note{font-weight:600;padding:0 .3em}
@media (prefers-color-scheme:dark){body{color:#eee;background:#16161a}pre{border-color:#3a3a42}
.learnt{background:#1f5a2c;color:#d9f7df}.source{background:#1d3a66;color:#dbe9ff}
.place{background:#26262d}}
"""


def xray_page(found: Xray) -> str:
    """An X-ray → a self-contained page; texts from data are escaped."""
    used = {piece.kind for one in found.examples for piece in one.pieces}
    legend = " ".join(
        f'<span class="{kind}">{escape(words)}</span>'
        for kind, words in LEGEND.items()
        if kind in used
    )
    examples = "".join(
        f"<h2>{escape(one.place)}</h2><pre>{''.join(map(_span, one.pieces))}</pre>"
        for one in found.examples
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>X-ray of {escape(found.name)}</title><style>{_STYLE}</style>"
        f"<h1>X-ray of {escape(found.name)}</h1><pre>{escape(fact_lines(found))}</pre>"
        f"<p>{legend}</p>{examples}</html>\n"
    )


def _span(piece: Piece) -> str:
    note = f'<span class="note">{escape(piece.note)}</span>' if piece.note else ""
    return f'<span class="{piece.kind}">{escape(piece.text)}</span>{note}'


def write_page(found: Xray, file: Path) -> None:
    """An X-ray and a file → the page there."""
    file.write_text(xray_page(found), encoding="utf-8")
