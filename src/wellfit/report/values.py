"""Any JSON value → HTML that a person can read.

Plain values become facts, counts by name become bars, mappings of mappings and lists of records
become tables. What a value is (bytes, a share, a count) is told by its name.
"""

from __future__ import annotations

from typing import Any

from wellfit.report.curves import table
from wellfit.report.html import escape
from wellfit.report.numbers import byte_size, figure, number_of, share

ROWS = 20
TEXT_CHARACTERS = 300


def parts(report: dict[str, Any]) -> str:
    """A mapping → cards: its plain values first, then one card for each of its parts."""
    plain = {k: v for k, v in report.items() if not isinstance(v, (dict, list))}
    nested = [(k, v) for k, v in report.items() if isinstance(v, (dict, list)) and v]
    first = f'<div class="card">{facts(plain)}</div>' if plain else ""
    cards = [f'<div class="card"><h3>{escape(_title(k))}</h3>{_part(v)}</div>' for k, v in nested]
    return first + f'<div class="columns">{"".join(cards)}</div>'


def _title(key: str) -> str:
    words = key.replace("_", " ")
    return words[:1].upper() + words[1:]


def _part(value: Any) -> str:
    if isinstance(value, list):
        if all(isinstance(item, dict) for item in value):
            return records(value)
        return "<ul>" + "".join(f"<li>{escape(_short(i))}</li>" for i in value[:ROWS]) + "</ul>"
    if all(isinstance(item, dict) for item in value.values()):
        return records([{"": name, **item} for name, item in value.items()])
    if len(value) > 1 and all(isinstance(number_of(v), float) for v in value.values()):
        return bars(value)
    plain = {k: v for k, v in value.items() if not isinstance(v, (dict, list))}
    nested = {k: v for k, v in value.items() if isinstance(v, (dict, list)) and v}
    return (facts(plain) if plain else "") + "".join(
        f"<h4>{escape(_title(key))}</h4>{_part(item)}" for key, item in nested.items()
    )


def records(entries: list[dict[str, Any]]) -> str:
    """Records → a table; a nested mapping becomes columns, and lists of records are left out."""
    flat = [_flat(record) for record in entries[:ROWS]]
    columns = list(dict.fromkeys(key for record in flat for key in record))
    # Texts stand on the left, where tables are read from.
    texts = [c for c in columns if any(isinstance(record.get(c), str) for record in flat)]
    ordered = texts + [c for c in columns if c not in texts]
    rows = [[shown(key, record.get(key)) for key in ordered] for record in flat]
    names = [key.replace("_", " ") for key in ordered]
    more = f'<p class="soft">and {len(entries) - ROWS:,} more</p>' if len(entries) > ROWS else ""
    return table(names, rows, text_columns=len(texts)) + more


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, dict):
            flat |= {f"{key} {inner}": item for inner, item in value.items()}
        elif not (isinstance(value, list) and any(isinstance(item, dict) for item in value)):
            flat[key] = value
    return flat


def bars(counts: dict[str, Any]) -> str:
    """Counts by name → bars, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: -(number_of(item[1]) or 0))
    largest = max((number_of(value) or 0.0 for _, value in ordered), default=0.0) or 1.0
    items = "".join(
        f"<li><span>{escape(name.replace('_', ' '))}</span>"
        f'<span class="meter" aria-hidden="true"><i style="width:'
        f'{100 * max(0.0, number_of(value) or 0.0) / largest:.1f}%"></i></span>'
        f"<span>{escape(shown(name, value))}</span></li>"
        for name, value in ordered[:ROWS]
    )
    more = f'<p class="soft">and {len(ordered) - ROWS:,} more</p>' if len(ordered) > ROWS else ""
    return f'<ul class="bars">{items}</ul>{more}'


def facts(values: dict[str, Any]) -> str:
    """Plain values by name → a list of names and values."""
    pairs = "".join(
        f"<dt>{escape(key.replace('_', ' '))}</dt><dd>{escape(shown(key, value))}</dd>"
        for key, value in values.items()
    )
    return f'<dl class="facts">{pairs}</dl>'


def shown(key: str, value: Any) -> str:
    """A value of a build report → text, by what its name says it is.

    >>> shown("bytes", 1_540_000), shown("kept_share", 0.25), shown("documents", 1200)
    ('1.54 MB', '25 %', '1,200')
    >>> shown("similarity", 0.91234), shown("reason", "too short"), shown("tokens", None)
    ('0.912', 'too short', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    number = number_of(value)
    if number is None:
        return _short(value)
    words = key.lower().replace("_", " ").split()
    if "bytes" in words and "per" not in words:
        return byte_size(number)
    if "share" in words:
        return share(number)
    return f"{value:,}" if isinstance(value, int) else figure(number)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= TEXT_CHARACTERS else text[:TEXT_CHARACTERS] + " …"
