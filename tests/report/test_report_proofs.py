"""The table of proofs on the page, and the lines of a terminal."""

from __future__ import annotations

import re
from dataclasses import replace

from report_runs import Write

from wellfit.monitor.progress import sentence
from wellfit.records import Proof
from wellfit.report.gather import gather
from wellfit.report.page import page_text
from wellfit.report.proofs import PROOF_NAMES, proofs_section

PROOFS = (
    Proof(0, "causality", "passed", "As it was."),
    Proof(0, "label_offset", "passed", "Fine."),
    Proof(0, "cache_versus_full", "not_assessed", "The model has <no> cache."),
    Proof(40, "label_offset", "failed", "Only 3 % & less.", {"fault": "labels_misaligned"}),
)


def test_each_proof_stands_once_the_failed_ones_first(write: Write) -> None:
    """With its newest answer, escaped. Breaks when every start adds its rows."""
    material = gather(write())
    shown = replace(material, history=replace(material.history, proofs=PROOFS))
    html = proofs_section(shown)
    rows = re.findall(r"<tr><td.*?</tr>", html)
    assert [re.findall(r"<td class=text>([^<]+)", row)[0] for row in rows] == [
        PROOF_NAMES[name] for name in ("label_offset", "cache_versus_full", "causality")
    ]
    assert "Proofs before step 41" in html and "Only 3 % &amp; less." in html
    assert "As it was. (before step 1)" in html and "&lt;no&gt;" in html
    page = page_text(shown)
    assert '<a href="#proofs">Proofs</a>' in page and html in page


def test_a_run_without_proofs_has_no_such_section(write: Write) -> None:
    """Breaks when the link stands for what is not there."""
    material = gather(write())
    assert proofs_section(material) == ""
    assert "#proofs" not in page_text(material)


def test_every_proof_has_a_name_for_people() -> None:
    from wellfit.training.proofs import prove

    assert set(PROOF_NAMES) == set(prove.PROOFS)


def test_progress_tells_of_failed_proofs_alone() -> None:
    assert sentence(PROOFS[0]) == "" == sentence(PROOFS[2])
    assert sentence(PROOFS[3]) == "step 40: proof failed, label_offset. Only 3 % & less."
