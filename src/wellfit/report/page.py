"""A run folder or a log → one HTML file that shows the run, alone and offline."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

from wellfit.errors import RunError
from wellfit.report.charts import Chart, charts
from wellfit.report.contents import (
    environment_section,
    held_out_section,
    recipe_section,
    samples_section,
)
from wellfit.report.corpus import data_section
from wellfit.report.curves import curves_section
from wellfit.report.gather import Material, gather
from wellfit.report.health import figures_section, findings_section, verdict_section
from wellfit.report.html import escape, inline_json
from wellfit.report.proofs import proofs_section
from wellfit.report.told import log_words, trained_words

SECTIONS = (
    ("findings", "Findings"),
    ("proofs", "Proofs"),
    ("curves", "Curves"),
    ("held-out", "Held-out text"),
    ("samples", "Samples"),
    ("data", "Data"),
    ("recipe", "Recipe"),
    ("environment", "Environment"),
)


LOG_SECTIONS = (SECTIONS[0], SECTIONS[2])
"""What can be shown of a run known by its log alone."""


def write_report(run: Path, out: Path | None = None) -> Path:
    """A run folder → the path of its page, `RUN/report.html` unless `out` names another file.

    The page is one file without any outside reference, put in place whole. Raises RunError where
    there is no run to show or the file cannot be written.
    """
    return write_page(gather(run), out or run / "report.html")


def write_page(material: Material, target: Path) -> Path:
    """A material → the path of its page, `target`, put in place whole.

    Raises RunError where the file cannot be written.
    """
    from wellfit.monitor.folder import replace_file

    page = page_text(material)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, page)
    except OSError as error:
        raise RunError(
            f"the report cannot be written: {error.strerror or error}",
            where=str(target),
            way_out="Make room there, or name another file.",
        ) from error
    return target


def page_text(material: Material) -> str:
    """A material → the whole page as text, about 5 MB: the drawing library stands inside."""
    from plotly.offline import get_plotlyjs

    drawn = charts(material.history, material.diagnosis)
    room = files("wellfit.report")
    scripts = (
        [get_plotlyjs(), room.joinpath("page.js").read_text(encoding="utf-8")] if drawn else []
    )
    style = room.joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(scripts)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(material.history.name)} – wellfit report</title>\n"
        f"<style>\n{style}</style>\n</head>\n<body>\n{_body(material, drawn)}\n"
        f'<script type="application/json" id="chart-data">'
        f"{inline_json([chart.drawing() for chart in drawn])}</script>\n"
        + "".join(f"<script>{script}</script>\n" for script in scripts)
        + "</body>\n</html>\n"
    )


def _policy(scripts: list[str]) -> str:
    """What the browser may load and run: these very scripts, and nothing from anywhere.

    A second wall behind escaping: a script or an event handler that came in with a text from
    data has another digest, so it does not run.
    """
    digests = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts
    ]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _body(material: Material, drawn: list[Chart]) -> str:
    history = material.history
    if material.folder is None:
        return _log_body(material, drawn)
    shown = [one for one in SECTIONS if one[0] != "proofs" or history.proofs]
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title in shown)
    return "\n".join(
        (
            '<div class="page">',
            f'<header><p class="product">Training report</p><h1>{escape(history.name)}</h1>',
            f'<p class="trained">{escape(trained_words(material))}</p>',
            f'<p class="soft">{escape(_model_line(history.recipe))}</p>',
            *(f'<p class="soft">{escape(text)}</p>' for text in _begun(material)),
            f'<nav aria-label="Sections">{links}</nav></header>',
            "<main>",
            verdict_section(material),
            figures_section(material),
            findings_section(material),
            proofs_section(material),
            curves_section(material, drawn),
            held_out_section(material),
            samples_section(material),
            data_section(material),
            recipe_section(material),
            environment_section(material),
            "</main>",
            "<footer>Written by wellfit from the records of the run. Loss is in nats per token: "
            "how surprised the model is by a token that it must predict, on average. What was not "
            "recorded is shown as unknown.</footer>",
            "</div>",
        )
    )


def _log_body(material: Material, drawn: list[Chart]) -> str:
    """The page of a run known by its log alone: what the log does not hold has no section."""
    history = material.history
    links = "".join(f'<a href="#{name}">{title}</a>' for name, title in LOG_SECTIONS)
    return "\n".join(
        (
            '<div class="page">',
            '<header><p class="product">Second opinion on a training log</p>'
            f"<h1>{escape(history.name)}</h1>",
            f'<p class="trained">{escape(log_words(history))}</p>',
            f'<nav aria-label="Sections">{links}</nav></header>',
            "<main>",
            verdict_section(material),
            figures_section(material),
            findings_section(material),
            curves_section(material, drawn),
            "</main>",
            "<footer>Written by wellfit from the numbers of a log that another trainer wrote. A "
            "loss is shown as it was logged; for language models that is nats per token, as a "
            "rule: how surprised the model is by a token that it must predict, on average. Nothing "
            "that the log does not hold was guessed.</footer>",
            "</div>",
        )
    )


def _begun(material: Material) -> list[str]:
    """What was said about the weights that the run began with, where these were trained ones."""
    return [one.text for one in material.history.events if one.kind == "weights_loaded"][:1]


def _model_line(recipe: dict[str, Any] | None) -> str:
    """What was trained, from the resolved recipe; only what the recipe says.

    >>> _model_line({"model": {"size": "nano", "layers": 4, "width": 256, "context": 256}})
    'nano model · 4 layers · width 256 · context 256 tokens'
    >>> _model_line({"model": {"size": "nano", "weights": "models/stories", "layers": 5}})
    'stories · 5 layers'
    """
    model = (recipe or {}).get("model")
    train = (recipe or {}).get("train")
    model = model if isinstance(model, dict) else {}
    optimizer = train.get("optimizer") if isinstance(train, dict) else None
    kind = optimizer.get("kind") if isinstance(optimizer, dict) else None
    # The dial only set batch and schedule where the shape is that of trained weights.
    base = Path(str(model.get("weights") or "")).name
    said = (
        (base or model.get("size"), "{}" if base else "{} model"),
        (model.get("layers"), "{} layers"),
        (model.get("width"), "width {}"),
        (model.get("context"), "context {} tokens"),
        (kind, "optimizer {}"),
    )
    return " · ".join(words.format(value) for value, words in said if value is not None)
