"""The corpus's build report → the data section of the page."""

from __future__ import annotations

from typing import Any

from wellfit.report.curves import table
from wellfit.report.gather import Material, missing_reason
from wellfit.report.html import escape
from wellfit.report.numbers import number_of, share
from wellfit.report.values import bars, parts, records, shown

COUNTS = ("documents", "bytes", "tokens")
GROUPS = {
    "by_split": "By split",
    "by_domain": "By domain",
    "by_source": "By source",
    "by_language": "By language",
}


def data_section(material: Material) -> str:
    """What the model was trained on: from the build report of the corpus the run names.

    The parts that are told in words are `documents`, `rejected`, `dropped`, `kept`, the counts by
    group, `duplicate_samples` and `leakage`; whatever else the report holds follows as it is.
    """
    report = material.corpus
    if report is None:
        body = f'<p class="absent">{escape(missing_reason(material, "corpus"))}.</p>'
        return f'<section id="data"><h2>Data</h2>{body}</section>'
    cards = [_flow(report)]
    cards += [_group(title, report.get(key)) for key, title in GROUPS.items()]
    cards += [_rejected(report.get("rejected")), _leakage(report.get("leakage"))]
    cards.append(_packing(material.packing))
    told = {"documents", "bytes", "kept", "leakage", "duplicate_samples", *GROUPS}
    rest = {key: value for key, value in report.items() if key not in told}
    body = (
        f'<p class="soft">corpus {escape(report.get("name") or material.corpus_name)}</p>'
        f'<div class="columns">{"".join(cards)}</div>'
        f"{_pairs(report.get('duplicate_samples'))}"
        "<details><summary>The rest of the build report</summary>"
        f"<div>{parts(rest)}</div></details>"
    )
    return f'<section id="data"><h2>Data</h2>{body}</section>'


def _flow(report: dict[str, Any]) -> str:
    """What was read, what went at which stage, and what stayed."""
    stages: list[tuple[str, dict[str, Any]]] = [("read", report)]
    rejected = _mapping(report.get("rejected")).get("records")
    if rejected:
        stages.append(("could not be read", {"documents": rejected}))
    for name, gone in _mapping(report.get("dropped")).items():
        stages.append((f"dropped: {name.replace('_', ' ')}", _mapping(gone)))
    kept = _mapping(_mapping(report.get("kept")).get("total"))
    if kept:
        stages.append(("kept", kept))
    rows = [[name, *(shown(key, counts.get(key)) for key in COUNTS)] for name, counts in stages]
    return _card("From files to tokens", table(["stage", *COUNTS], rows, text_columns=1))


def _group(title: str, groups: object) -> str:
    entries = [{"name": name, **_mapping(one)} for name, one in _mapping(groups).items()]
    return _card(title, records(entries)) if entries else ""


def _rejected(rejected: object) -> str:
    reasons = _mapping(_mapping(rejected).get("by_reason"))
    return _card("Records that could not be read", bars(reasons)) if reasons else ""


def _leakage(leakage: object) -> str:
    told = _mapping(leakage)
    part = number_of(told.get("share"))
    if part is None:
        return ""
    words = shown("ngram_words", told.get("ngram_words"))
    pieces = shown("held_out_ngrams", told.get("held_out_ngrams"))
    sentence = (
        f"{share(part)} of the {pieces} pieces of {words} words in held-out text also stand in "
        "training text."
    )
    return _card("Leakage", f"<p>{escape(sentence)}</p>")


def _packing(packing: dict[str, Any] | None) -> str:
    """What each way to put documents into rows costs: cut documents, or padding."""
    told = _mapping(packing)
    rows = []
    for name in ("stream", "best_fit", "padded"):
        counts = _mapping(told.get(name))
        padding, tokens = number_of(counts.get("padding")), number_of(counts.get("tokens"))
        if padding is None or tokens is None or padding + tokens <= 0:
            continue
        taken = f"{name}, chosen" if told.get("chosen") == name else name
        columns = (shown(key, counts.get(key)) for key in ("rows", "documents", "cut"))
        rows.append(
            [
                taken,
                *columns,
                share(padding / (padding + tokens)),
                shown("left_out", counts.get("left_out")),
            ]
        )
    if not rows:
        return ""
    titles = ["packing", "rows", "documents", "of these cut", "padding", "tokens left out"]
    context = escape(shown("context", told.get("context")))
    return _card(
        "From documents to rows",
        f"<p>An epoch of training in rows of {context} tokens.</p>"
        f"{table(titles, rows, text_columns=1)}",
    )


def _pairs(samples: object) -> str:
    """Dropped duplicates beside what was kept, the least similar first, for a person to judge."""
    if not isinstance(samples, list) or not samples:
        return ""
    shown_pairs = "".join(
        f'<div class="sample"><p class="at">{escape(shown("stage", pair.get("stage")))}, '
        f"similarity {escape(shown('similarity', pair.get('similarity')))}</p>"
        f"{_side('dropped', pair.get('dropped'))}{_side('kept', pair.get('kept'))}</div>"
        for pair in samples
        if isinstance(pair, dict)
    )
    return (
        f"<details><summary>Duplicates that were dropped, a sample</summary>"
        f'<div class="card">{shown_pairs}</div></details>'
    )


def _side(word: str, document: object) -> str:
    told = _mapping(document)
    path, text = shown("path", told.get("path")), shown("text", told.get("text"))
    return f"<p>{word}: <code>{escape(path)}</code></p><pre>{escape(text)}</pre>"


def _card(title: str, body: str) -> str:
    return f'<div class="card"><h3>{escape(title)}</h3>{body}</div>'


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
