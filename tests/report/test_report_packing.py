"""The table of packings on the page: what the run wrote down, nothing where it cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from wellfit.report.page import write_report

STREAM = {"rows": 155, "tokens": 39680, "padding": 0, "left_out": 32, "documents": 241, "cut": 154}
BEST_FIT = {"rows": 225, "tokens": 39712, "padding": 17888, "left_out": 0, "documents": 241}


def page_with(run: Path, packing: Any) -> str:
    pointer = json.loads((run / "corpus.json").read_text())
    (run / "corpus.json").write_text(json.dumps({**pointer, "packing": packing}))
    return write_report(run).read_text()


def test_both_are_shown_and_the_chosen_one_named(healthy_run: Path) -> None:
    """The share is padding over places. Breaks tried: over tokens; the unchosen one named."""
    packing = {"chosen": "best_fit", "context": 256, "stream": STREAM, "best_fit": BEST_FIT}
    page = page_with(healthy_run, packing)
    assert "An epoch of training in rows of 256 tokens." in page
    rows = [part.partition("</tr>")[0] for part in page.split("<tr>")]
    stream, best_fit = (next(r for r in rows if f">{name}" in r) for name in ("stream", "best_fit"))
    assert "best_fit, chosen" in best_fit and "chosen" not in stream
    assert all(f">{said}<" in stream for said in ("155", "241", "154", "0 %", "32"))
    assert all(f">{said}<" in best_fit for said in ("225", "31.1 %"))


@pytest.mark.parametrize(
    "packing",
    [None, 3, [], {}, {"stream": 3}, {"stream": {"padding": "<b>", "tokens": None}},
     {"stream": {"padding": 0, "tokens": 0}}],
)  # fmt: skip
def test_what_cannot_be_read_is_left_out(healthy_run: Path, packing: Any) -> None:
    """Runs of before have none. Break tried: divide without looking."""
    assert "From documents to rows" not in page_with(healthy_run, packing)


def test_it_is_escaped(healthy_run: Path) -> None:
    """Break tried: the context into the sentence as it is."""
    packing = {"context": "<i>x</i>", "stream": {**STREAM, "rows": "<u>y</u>"}}
    page = page_with(healthy_run, packing)
    assert "From documents to rows" in page and "<i>x" not in page and "<u>y" not in page
