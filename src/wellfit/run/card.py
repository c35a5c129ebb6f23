"""A run folder in, the README.md of its exported model out: data, recipe, scores, findings.

Every number is read from what the run wrote; what is not known there is not in the card. Absolute
paths of the machine are cut to their last part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wellfit.data.corpus import Corpus
from wellfit.recipe.schema import Recipe
from wellfit.recipe.show import recipe_text

_ABSOLUTE = re.compile(r"\"(?:/|[A-Za-z]:[\\/]|~)[^\"]*?([^\"/\\]*)\"")
MOST_ROWS = 40


def model_card(
    run: Path, recipe: Recipe, corpus: Corpus, *, step: int, family: str, parameters: int
) -> str:
    """A run folder, what it holds, and what was exported of it → the model card as Markdown."""
    head = ["---", "library_name: transformers", "tags:", "- wellfit"]
    base = recipe.model.weights
    lines = [
        *head,
        "---",
        "",
        f"# {_plain(recipe.name)}",
        "",
        f"{parameters:,} parameters, architecture {family}, from step {step:,} of a training with "
        "wellfit.",
        f"It began with the weights of `{_plain(Path(base).name)}`."
        if base
        else "It began with first weights drawn at random.",
        "",
        "## Data",
        "",
        *_data(corpus),
        "",
        "## Scores",
        "",
        *_scores(run, step),
        "",
        "## Findings",
        "",
        *_findings(run),
        "",
        "## Recipe",
        "",
        "```yaml",
        *_recipe(recipe),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _data(corpus: Corpus) -> list[str]:
    """The composition of the corpus, as its report counts it."""
    report = corpus.report
    rows = ["| | documents | bytes | tokens |", "|---|---:|---:|---:|"]
    for key, what in (("by_split", "split"), ("by_domain", "domain"), ("by_source", "source"),
                      ("by_language", "language")):  # fmt: skip
        part = report.get(key)
        if not isinstance(part, Mapping):
            continue
        largest = sorted(part.items(), key=lambda item: -_number(item[1], "tokens"))
        for name, counts in largest[:MOST_ROWS]:
            numbers = " | ".join(_shown(counts, one) for one in ("documents", "bytes", "tokens"))
            rows.append(f"| {what} {_plain(name)} | {numbers} |")
        if len(largest) > MOST_ROWS:
            rows.append(f"| {len(largest) - MOST_ROWS} more | | | |")
    if len(rows) == 2:
        for split in corpus.splits:
            table = corpus.documents(split)
            size = int(table.bytes.sum()) if not (table.bytes < 0).any() else None
            told = "unknown" if size is None else f"{size:,}"
            rows.append(
                f"| split {split} | {len(table):,} | {told} | {int(table.tokens.sum()):,} |"
            )
    share = report.get("leakage", {}).get("share") if report else None
    if isinstance(share, int | float):
        rows += ["", f"{share:.2%} of the word sequences held out also stand in the training text."]
    return [*rows, "", f"Digest of the corpus: `{corpus.digest}`."]


def _scores(run: Path, step: int) -> list[str]:
    """The score of each split at the step, or where there is none its last one."""
    last: dict[str, dict[str, Any]] = {}
    for one in _lines(run / "records" / "evaluations-0.jsonl"):
        split = str(one.get("split"))
        if last.get(split, {}).get("step") != step or one.get("step") == step:
            last[split] = one
    if not last:
        return ["None was held out."]
    rows = ["| split | step | loss | bits per byte | accuracy |", "|---|---:|---:|---:|---:|"]
    for split, one in last.items():
        cells = [
            f"{one[key]:.4f} ± {one[f'{key}_se']:.4f}"
            if isinstance(one.get(key), float) and isinstance(one.get(f"{key}_se"), float)
            else "unknown"
            for key in ("loss", "bits_per_byte", "accuracy")
        ]
        rows.append(f"| {_plain(split)} | {one.get('step', 0):,} | {' | '.join(cells)} |")
    return [*rows, "", "Loss in nats a token; ± one standard error over documents."]


def _findings(run: Path) -> list[str]:
    try:
        told = json.loads((run / "findings.json").read_text(encoding="utf-8"))
        verdict, findings = told["verdict"], told["findings"]
    except (OSError, ValueError, KeyError, TypeError):
        return ["The run was not diagnosed."]
    lines = [f"Verdict: {_plain(verdict['fit'])}, {_plain(verdict['progress'])}."]
    for one in findings:
        text = one.get("what") or one.get("text") or one.get("rule") or ""
        lines.append(f"- {_plain(one.get('severity', ''))}: {_plain(text)}")
    if not findings:
        lines.append("No rule found a fault.")
    return lines


def _recipe(recipe: Recipe) -> list[str]:
    text = "\n".join(line.split("  # ")[0].rstrip() for line in recipe_text(recipe).splitlines())
    lines = text.splitlines()[1:]
    return [_ABSOLUTE.sub(r'"\1"', line).replace("```", "'''") for line in lines]


def _lines(file: Path) -> list[dict[str, Any]]:
    try:
        raw = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in raw:
        try:
            one = json.loads(line)
        except ValueError:  # the torn last line of a run that was killed
            continue
        if isinstance(one, dict):
            found.append(one)
    return found


def _number(counts: Any, key: str) -> int:
    value = counts.get(key) if isinstance(counts, Mapping) else None
    return value if isinstance(value, int) else 0


def _shown(counts: Any, key: str) -> str:
    value = counts.get(key) if isinstance(counts, Mapping) else None
    return f"{value:,}" if isinstance(value, int) and value >= 0 else "unknown"


def _plain(text: Any) -> str:
    """Words from data, so that they are no Markdown and no HTML."""
    told = " ".join(str(text).split())
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", told)
