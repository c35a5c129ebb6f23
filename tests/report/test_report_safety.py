"""Nothing from data runs, loads or garbles the page or the terminal (SPEC W2, W4)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_runs import CORPUS, SICK, Write

from wellfit.monitor.folder import read_history
from wellfit.report import diagnosis_text, write_report
from wellfit.report.html import inline_json

ATTACK = "</script><img src=x onerror=alert(1)>\"'<!--\x1b[31m\u202e"


class Page(HTMLParser):
    """The elements of a page, with script contents."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        elif not self.open or self.open[-1] != "style":
            self.texts.append(data)

    @property
    def policy(self) -> str:
        return next(
            str(a["content"]) for tag, a in self.elements if tag == "meta" and "http-equiv" in a
        )


def attacked(write: Write) -> Path:
    """A run in which every text that comes from data is hostile."""
    finding: dict[str, Any] = {
        "kind": ATTACK,
        "severity": ATTACK,
        "certainty": ATTACK,
        "since_step": 12,
        "evidence": [ATTACK],
        "causes": [{"id": ATTACK, "likelihood": ATTACK, "why": ATTACK}],
        "change": {"text": ATTACK, "patch": {ATTACK: ATTACK}},
    }
    run = write(
        steps=60,
        every=20,
        text=ATTACK,
        prompt=ATTACK,
        domain=ATTACK,
        diagnosis={
            "verdict": {"fit": ATTACK, "progress": ATTACK},
            "summary": {"criteria": ATTACK},
            "findings": [finding, {**finding, "severity": "critical"}],
            "not_assessed": [{"what": ATTACK, "why": ATTACK, "needs": ATTACK}],
        },
        corpus={
            **CORPUS,
            "by_domain": {ATTACK: {ATTACK: ATTACK, "documents": 1}},
            "rejected": {"records": ATTACK, "by_reason": {ATTACK: 3, "other": 1}},
            "dropped": {ATTACK: {"documents": ATTACK}},
            "duplicate_samples": [
                {side: {"path": ATTACK, "text": ATTACK} for side in ("kept", "dropped")}
                | {"stage": ATTACK, "similarity": ATTACK}
            ],
            "leakage": {"share": 0.5, "ngram_words": ATTACK, "held_out_ngrams": ATTACK},
            "counts": {ATTACK: 1, "b": 2},
            "list": [ATTACK],
            ATTACK: ATTACK,
        },
    )
    (run / "environment.json").write_text(json.dumps({ATTACK: {ATTACK: ATTACK}}), "utf-8")
    with (run / "recipe.yaml").open("a", encoding="utf-8") as recipe:
        recipe.write(f"# {ATTACK}\n")
    return run


def test_hostile_texts_become_text_and_nothing_else(write: Write) -> None:
    """Breaks when `escape` is left out of any section, or `<` is not escaped in the JSON."""
    page = Page(write_report(attacked(write)).read_text("utf-8"))
    assert [tag for tag, _ in page.elements if tag in ("img", "iframe", "object", "link")] == []
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
    assert len(page.scripts) == 3
    visible = "".join(page.texts)
    assert visible.count("</script><img src=x onerror=alert(1)>") >= 20
    assert "\x1b" not in visible
    assert "\u202e" not in visible


def test_the_policy_lets_only_our_scripts_run(healthy_run: Path) -> None:
    """Breaks when the digest is not of the very bytes between the tags, or a source is added."""
    page = Page(write_report(healthy_run).read_text("utf-8"))
    data, *running = page.scripts
    assert json.loads(data)
    digests = [
        "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"
        for script in running
    ]
    assert f"script-src {' '.join(digests)};" in page.policy
    assert "default-src 'none'" in page.policy
    assert "http" not in page.policy
    assert "unsafe-eval" not in page.policy


def test_the_page_stands_alone(healthy_run: Path) -> None:
    """No element and no style refers to anything outside the file."""
    text = write_report(healthy_run).read_text("utf-8")
    page = Page(text)
    for tag, attributes in page.elements:
        assert "src" not in attributes, tag
        assert str(attributes.get("href", "#")).startswith("#"), tag
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    ours = page.scripts[-1]
    assert not re.search(r"https?://|fetch\(|XMLHttpRequest|import\(", ours)


def test_every_link_and_chart_has_its_place(healthy_run: Path) -> None:
    page = Page(write_report(healthy_run).read_text("utf-8"))
    names = [str(a["id"]) for _, a in page.elements if "id" in a]
    assert len(names) == len(set(names))
    for tag, attributes in page.elements:
        if tag == "a":
            assert str(attributes["href"])[1:] in names
    for chart in json.loads(page.scripts[0]):
        assert f"chart-{chart['id']}" in names


def test_inline_json_cannot_end_its_block_and_holds_no_nan() -> None:
    text = inline_json(
        {"a": "</script><!--", "b": [float("nan"), float("inf"), 1.5], "c": "\u2028"}
    )
    assert "<" not in text
    assert "\u2028" not in text
    assert json.loads(text) == {"a": "</script><!--", "b": [None, None, 1.5], "c": "⟨U+2028⟩"}


def test_the_terminal_gets_no_control_characters_from_data(sick_run: Path) -> None:
    """Breaks when a text reaches the terminal without `readable`."""
    finding = {
        "kind": "a\x1b[2J",
        "severity": "critical\x07",
        "certainty": "\x1b",
        "evidence": ["\x1b]0;title\x07"],
        "causes": [{"id": "\x1b", "likelihood": 0.5, "why": "\x1b[0m"}],
        "change": {"text": "\x1bc", "patch": {"\x1b": "\x1b"}},
    }
    diagnosis = {
        "verdict": {"fit": "\x1b", "progress": "\x1b"},
        "findings": [finding],
        "not_assessed": [{"what": "\x1b", "why": "\x1b"}, "\x1b"],
    }
    text = diagnosis_text(diagnosis, read_history(sick_run))
    assert not [c for c in text if ord(c) < 32 and c != "\n"]


@pytest.mark.parametrize("module", ["wellfit.report", "wellfit.report.page"])
def test_importing_the_report_is_light(module: str) -> None:
    """Breaks when plotly is imported at the top of `page.py`."""
    code = (
        f"import sys, {module}\n"
        "heavy = {'torch', 'plotly', 'matplotlib', 'pandas', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_lone_surrogates_do_not_stop_the_page(write: Write) -> None:
    run = write(steps=20, diagnosis={**SICK, "findings": [{"kind": "x", "evidence": ["\ud800"]}]})
    assert "⟨U+D800⟩" in write_report(run).read_text("utf-8")
