"""A Material → the upper half of the page: verdict, findings, what was not assessed, figures."""

from __future__ import annotations

from typing import Any

from wellfit.monitor.history import History
from wellfit.report.context import missing_context
from wellfit.report.figures import key_figures
from wellfit.report.gather import Material, missing_reason
from wellfit.report.html import escape
from wellfit.report.numbers import number_of, share
from wellfit.report.patch import as_arguments, as_yaml, is_ours, train_command
from wellfit.report.told import score_words
from wellfit.report.words import (
    FIT_WORDS,
    PROGRESS_WORDS,
    changes_of,
    criteria_of,
    finding_name,
    headline,
    next_change,
    not_assessed_lines,
    ranked,
    since_words,
    status_words,
    texts,
    verdict_of,
    worst,
)

_SHAPES = {
    "healthy": '<path d="M3.5 8.5l3 3 6-7"/>',
    "warning": '<path d="M8 2.5 14.5 13.5h-13z"/><path d="M8 6.5v3.2M8 11.6v.2"/>',
    "critical": '<path d="M4 4l8 8M12 4l-8 8"/>',
    "info": '<path d="M8 7v5M8 3.8v.4"/>',
}


def icon(state: str) -> str:
    """A state → its small drawing; the word always stands beside it."""
    shape = _SHAPES.get(state, _SHAPES["info"])
    return f'<svg class="icon" viewBox="0 0 16 16" aria-hidden="true">{shape}</svg>'


def badge(state: str, word: str) -> str:
    """A state and a word → a coloured label with icon and word; a `plain` one has neither."""
    if state == "plain":
        return f'<span class="badge plain">{escape(word)}</span>'
    known = state if state in _SHAPES else "info"
    return f'<span class="badge {known}">{icon(known)}{escape(word)}</span>'


def verdict_section(material: Material) -> str:
    """The card at the top: one sentence, what to do next, fit and progress."""
    diagnosis, history = material.diagnosis, material.history
    state = worst(diagnosis) if diagnosis else "info"
    # A log of another trainer seldom tells whether the run goes on: no news is no label.
    untold = material.folder is None and history.status == "unknown"
    labels = [] if untold else [badge(*status_words(history))]
    if diagnosis:
        fit, progress = verdict_of(diagnosis)
        labels.append(badge("plain", FIT_WORDS.get(fit, fit)))
        labels.append(badge("plain", PROGRESS_WORDS.get(progress, progress)))
    good = score_words(material)
    lines = [f'<p class="next">{escape(good)}</p>'] if good else []
    if diagnosis:
        lines += [_next(diagnosis, history), _criteria(diagnosis)]
    return (
        f'<section class="verdict {state}" id="verdict" aria-label="Verdict">'
        f'<p class="sentence">{icon(state)}<span>{escape(headline(diagnosis, history))}</span></p>'
        f'{"".join(lines)}<p class="badges">{"".join(labels)}</p></section>'
    )


def _next(diagnosis: dict[str, Any], history: History) -> str:
    """The one thing to do, with the command line for it."""
    text, patch = next_change(diagnosis)
    if not text and not patch:
        return ""
    patch = patch if not text or is_ours(history) else {}
    command = train_command(history, patch)
    return f'<p class="next"><strong>Do this next.</strong> {escape(text)}</p>' + (
        f'<div class="copyable"><pre class="patch">{escape(command)}</pre></div>' if patch else ""
    )


def _criteria(diagnosis: dict[str, Any]) -> str:
    """Why this verdict: what the diagnosis says about itself, if it does."""
    criteria = criteria_of(diagnosis)
    if not criteria:
        return ""
    why = "; ".join(criteria).rstrip(".").replace("± ", "±\u00a0")
    return f'<p class="next soft">Why: {escape(why)}.</p>'


def figures_section(material: Material) -> str:
    """The key figures as a grid."""
    tiles = "".join(
        f'<div class="tile"><dt>{escape(f.name)}</dt><dd><span class="value'
        f'{" unknown" if f.value == "unknown" else ""}">{escape(f.value)}</span>'
        f"{f' <span class=spread>{escape(f.spread)}</span>' if f.spread else ''}"
        f"{f'<small>{escape(f.note)}</small>' if f.note else ''}</dd></div>"
        for f in key_figures(material)
    )
    return f'<section id="figures"><h2>Key figures</h2><dl class="tiles">{tiles}</dl></section>'


def findings_section(material: Material) -> str:
    """Findings with their evidence, causes and change, then what could not be assessed."""
    diagnosis = material.diagnosis
    if diagnosis is None:
        reason = missing_reason(material, "diagnosis")
        body = (
            f'<p class="absent">{escape(reason)}. '
            "<code>wellfit diagnose</code> looks at a run and says what it finds.</p>"
        )
        return f'<section id="findings"><h2>Findings</h2>{body}</section>'
    findings = ranked(diagnosis)
    body = "".join(_finding(finding, material.history) for finding in findings)
    if not findings:
        body = '<p class="absent">No rule found a fault.</p>'
    lines = not_assessed_lines(diagnosis)
    if lines:
        items = "".join(
            f"<li><strong>{escape(what)}</strong>{f' – {escape(why)}' if why else ''}</li>"
            for what, why in lines
        )
        body += f'<div class="open-questions"><h3>Not assessed</h3><ul>{items}</ul></div>'
    unknown = "".join(
        f"<li>{_with_code(line)}</li>" for line in missing_context(diagnosis, material.history)
    )
    if unknown:
        body += f'<div class="open-questions"><h3>Not known</h3><ul>{unknown}</ul></div>'
    return f'<section id="findings"><h2>Findings</h2>{body}</section>'


def _with_code(line: str) -> str:
    """A sentence of our own → HTML, what stands between backticks as code."""
    parts = [escape(part) for part in line.split("`")]
    return "".join(f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts))


def _finding(finding: dict[str, Any], history: History) -> str:
    severity = str(finding.get("severity", "info"))
    kind = str(finding.get("kind", "finding"))
    certainty = finding.get("certainty")
    about = [f"<code>{escape(kind)}</code>"]
    if certainty:
        about.append(escape(certainty))
    since = since_words(finding, history.axis).strip()
    if since:
        about.append(escape(since))
    evidence = "".join(f"<li>{escape(line)}</li>" for line in texts(finding.get("evidence")))
    return (
        f'<article class="finding {severity if severity in _SHAPES else "info"}">'
        f"<h3>{badge(severity, severity)}<span>{escape(finding_name(kind))}</span></h3>"
        f'<p class="about">{" · ".join(about)}</p>'
        f"{f'<h4>Evidence</h4><ul>{evidence}</ul>' if evidence else ''}"
        f"{_causes(finding.get('causes'))}{_change(finding, is_ours(history))}</article>"
    )


def _causes(causes: object) -> str:
    if not isinstance(causes, (list, tuple)) or not causes:
        return ""
    rows = []
    for cause in causes:
        if not isinstance(cause, dict):
            continue
        likelihood = number_of(cause.get("likelihood"))
        width = 0.0 if likelihood is None else 100 * min(1.0, max(0.0, likelihood))
        rows.append(
            f'<li><span class="meter" aria-hidden="true"><i style="width:{width:.0f}%"></i></span>'
            f'<span class="share">{escape(share(likelihood))}</span>'
            f"<span>{escape(cause.get('why', ''))} "
            f"<code>{escape(cause.get('id', ''))}</code></span></li>"
        )
    return f'<h4>Possible causes, the likeliest first</h4><ol class="causes">{"".join(rows)}</ol>'


def _change(finding: dict[str, Any], ours: bool) -> str:
    text, patch = changes_of(finding)
    if not text and not patch:
        return ""
    shown = f"<p>{escape(text)}</p>" if text else ""
    if patch and not ours and text:
        shown += (
            "<details><summary>The same as settings of a wellfit recipe</summary>"
            f'<div class="copyable"><pre class="patch">{escape(as_yaml(patch))}</pre></div>'
            "</details>"
        )
    elif patch:
        shown += (
            f'<div class="copyable"><pre class="patch">{escape(as_yaml(patch))}</pre></div>'
            f'<p class="soft">in the recipe, or for one run on the command line:</p>'
            f'<div class="copyable"><pre class="patch">{escape(as_arguments(patch))}</pre></div>'
        )
    return f'<div class="change"><h4>Change</h4>{shown}</div>'
