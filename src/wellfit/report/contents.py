"""A Material → the lower half of the page: held-out text, samples, recipe, environment."""

from __future__ import annotations

import math
import re
from typing import Any

from wellfit.records import Evaluated, Sampled
from wellfit.report.curves import table
from wellfit.report.figures import last_evaluations, spread
from wellfit.report.gather import Material, missing_reason
from wellfit.report.html import escape
from wellfit.report.numbers import byte_size, count, figure, number_of, share

EARLIER_SAMPLES = 12


def held_out_section(material: Material) -> str:
    """The last scores of every held-out set, and those of the final one by domain."""
    last = last_evaluations(material)
    if not last:
        body = '<p class="absent">No held-out scores were recorded.</p>'
    else:
        body = '<div class="card">' + table(
            ["set", "step", "loss", "bits per byte", "perplexity", "accuracy", "text"],
            [_score_row(evaluated) for evaluated in last],
            text_columns=1,
        )
        body += "</div>" + _by_domain(last[0])
    return f'<section id="held-out"><h2>Held-out text</h2>{body}</section>'


def _score_row(scores: Evaluated) -> list[str]:
    return [
        scores.split,
        f"{scores.step:,}",
        f"{figure(scores.loss)} {spread(scores.loss_se)}",
        f"{figure(scores.bits_per_byte)} {spread(scores.bits_per_byte_se)}".strip(),
        figure(scores.perplexity, 1),
        share(scores.accuracy, decimals=1),
        byte_size(None if scores.bits_per_byte is None else scores.bytes),
    ]


def _by_domain(scores: Evaluated) -> str:
    if not scores.by_domain:
        return ""
    domains = sorted(
        scores.by_domain.items(), key=lambda item: -(number_of(item[1].get("bytes")) or 0)
    )
    rows = [
        [
            domain or "no name",
            figure(number_of(values.get("loss"))),
            figure(number_of(values.get("bits_per_byte"))),
            share(number_of(values.get("accuracy")), decimals=1),
            _whole(number_of(values.get("tokens"))),
            byte_size(number_of(values.get("bytes"))),
        ]
        for domain, values in domains
    ]
    columns = ["domain", "loss", "bits per byte", "accuracy", "tokens", "text"]
    return (
        f'<div class="card"><h3>By domain <small>{escape(scores.split)}, step {scores.step:,}'
        f"</small></h3>{table(columns, rows, text_columns=1)}</div>"
    )


def _whole(number: float | None) -> str:
    """Columns of a table compare best when every digit is there."""
    return count(number) if number is None or not math.isfinite(number) else f"{number:,.0f}"


def samples_section(material: Material) -> str:
    """What the model said, newest first, one card for each prompt."""
    by_prompt: dict[str, list[Sampled]] = {}
    for sample in material.history.samples:
        by_prompt.setdefault(sample.prompt, []).append(sample)
    if not by_prompt:
        body = '<p class="absent">No samples were recorded.</p>'
    else:
        body = "".join(_samples(samples) for samples in by_prompt.values())
    return f'<section id="samples"><h2>What the model says</h2>{body}</section>'


def _samples(samples: list[Sampled]) -> str:
    newest, earlier = samples[-1], samples[-2::-1]
    shown = earlier
    if len(earlier) > EARLIER_SAMPLES:
        last = len(earlier) - 1
        places = {round(i * last / (EARLIER_SAMPLES - 1)) for i in range(EARLIER_SAMPLES)}
        shown = [earlier[place] for place in sorted(places)]
    body = _sample(newest)
    if shown:
        which = "" if len(shown) == len(earlier) else f" ({len(shown)} of {len(earlier)})"
        body += (
            f"<details><summary>Earlier{which}</summary>"
            f"<div>{''.join(_sample(sample) for sample in shown)}</div></details>"
        )
    return f'<div class="card">{body}</div>'


def _sample(sample: Sampled) -> str:
    guesses = "".join(
        f"<li><code>{escape(visible_token(str(token)))}</code> {escape(share(number_of(p)))}</li>"
        for token, p in sample.predictions
    )
    return (
        f'<div class="sample"><p class="at">step {sample.step:,}</p>'
        f"<pre><b>{escape(sample.prompt)}</b>{escape(sample.text)}</pre>"
        + (f'<ul class="guesses"><li>after the prompt:</li>{guesses}</ul>' if guesses else "")
        + "</div>"
    )


def visible_token(token: str) -> str:
    """A token → the same with its blanks visible, since blanks are part of tokens.

    >>> visible_token(" self"), visible_token("\\n\\t"), visible_token("")
    ('␣self', '⏎⇥', '(empty)')
    """
    marked = token.replace(" ", "␣").replace("\r", "␍").replace("\n", "⏎").replace("\t", "⇥")
    return marked or "(empty)"


def recipe_section(material: Material) -> str:
    """The recipe as it was resolved; where each value came from stands behind it."""
    if material.recipe_text is None:
        reason = missing_reason(material, "recipe")
        body = f'<p class="absent">{escape(reason)}.</p>'
    else:
        lines = "\n".join(_recipe_line(line) for line in material.recipe_text.splitlines())
        body = (
            "<details><summary>The whole recipe, with where each value came from</summary>"
            f'<div class="copyable"><pre class="recipe">{lines}</pre></div></details>'
        )
    return f'<section id="recipe"><h2>Recipe</h2>{body}</section>'


def _recipe_line(line: str) -> str:
    """Comments are dimmed: a whole line, or what stands behind two blanks and a hash."""
    found = re.match(r"(\s*#.*)$|(.*?\S)(\s{2,}#.*)$", line)
    if not found:
        return escape(line)
    value, comment = found.group(2) or "", found.group(1) or found.group(3)
    return f'{escape(value)}<span class="comment">{escape(comment)}</span>'


def environment_section(material: Material) -> str:
    """The machine and the libraries the run was made with."""
    if material.environment is None:
        body = f'<p class="absent">{escape(missing_reason(material, "environment"))}.</p>'
    else:
        facts = "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
            for name, value in flat(material.environment)
        )
        body = (
            "<details><summary>Machine, libraries and command</summary>"
            f'<dl class="facts">{facts}</dl></details>'
        )
    return f'<section id="environment"><h2>Environment</h2>{body}</section>'


def flat(mapping: dict[str, Any], before: str = "") -> list[tuple[str, str]]:
    """A nested mapping → (name, text) pairs in its order.

    >>> flat({"python": "3.11", "libraries": {"numpy": "2.3"}, "flags": ["fma"], "gpu": None})
    [('python', '3.11'), ('libraries numpy', '2.3'), ('flags', 'fma'), ('gpu', 'unknown')]
    """
    pairs: list[tuple[str, str]] = []
    for key, value in mapping.items():
        name = f"{before} {key}".strip().replace("_", " ")
        if isinstance(value, dict):
            pairs += flat(value, name)
        elif isinstance(value, (list, tuple)):
            pairs.append((name, ", ".join(str(item) for item in value) or "none"))
        elif isinstance(value, float) and math.isfinite(value):
            pairs.append((name, f"{value:.6g}"))
        else:
            pairs.append((name, "unknown" if value is None else str(value)))
    return pairs
