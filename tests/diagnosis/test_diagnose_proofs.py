"""A failed proof is a certain finding with its catalogue id, its cause and a change."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import wellfit
from wellfit.diagnosis import diagnose
from wellfit.diagnosis.engine import exit_status
from wellfit.diagnosis.rules.failed_proof import FAULTS, failed_proof
from wellfit.monitor.history import History
from wellfit.records import Proof
from wellfit.report.words import FINDING_NAMES, headline

SOURCE = Path(wellfit.__file__).parent
PAGE = Path(__file__).resolve().parents[2] / "docs" / "findings.md"


def history(*proofs: Proof) -> History:
    return History("by hand", "run folder", proofs=proofs)


def test_the_faults_of_the_proofs_are_those_of_the_table() -> None:
    """Every fault that a proof can name has a cause and a way out, and none is left over.

    Breaks when a row is taken out of FAULTS, or a proof names a fault that has none.
    """
    named: set[str] = set()
    words: set[str] = set()
    for path in (SOURCE / "training" / "proofs").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words.add(node.value)
            called = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "failed"
            if called and node.args and isinstance(node.args[0], ast.Constant):  # type: ignore[attr-defined]
                named.add(node.args[0].value)  # type: ignore[attr-defined]
    assert named <= set(FAULTS), named - set(FAULTS)
    assert set(FAULTS) <= words, set(FAULTS) - words


@pytest.mark.parametrize("kind", FAULTS)
def test_every_fault_is_a_certain_finding(kind: str) -> None:
    """With a name for people, a page in the documentation, and a sound recipe patch."""
    from wellfit.recipe.settings import settings

    proof = Proof(0, "some_proof", "failed", "Seen.", {"fault": kind})
    found = diagnose(history(proof)).findings
    (finding,) = [finding for finding in found if finding.kind == kind]
    assert finding.certainty == "certain" and finding.since_step == 0
    assert finding.evidence[0] == "Proof `some_proof` before step 1: Seen."
    assert finding.causes and finding.causes[0].id == FAULTS[kind].cause
    assert finding.change is not None and finding.change.text.endswith(".")
    assert set(finding.change.patch) <= {one.path for one in settings()}
    assert kind in FINDING_NAMES
    assert re.search(rf"`{kind}`", PAGE.read_text()), f"{kind} is not in docs/findings.md"


def test_the_newest_answer_counts() -> None:
    """Mended and resumed: no finding. Breaks when any failed proof of the past is told."""
    leak = Proof(0, "causality", "failed", "Seen.", {"fault": "causal_leak"})
    passed = Proof(40, "causality", "passed", "Fine.")
    assert failed_proof(history(leak, passed)) == []
    assert [f.kind for f in failed_proof(history(passed, leak))] == ["causal_leak"]
    assert failed_proof(history(Proof(0, "causality", "not_assessed", "No."))) == []
    assert exit_status(diagnose(history(leak))) == 1


def test_a_fault_of_a_later_version_is_still_told() -> None:
    odd = Proof(0, "new_proof", "failed", "Odd.", {"fault": "quite_new"})
    (finding,) = failed_proof(history(odd))
    assert (finding.kind, finding.severity, finding.causes) == ("quite_new", "critical", ())
    (nameless,) = failed_proof(history(Proof(0, "new_proof", "failed", "Odd.")))
    assert nameless.kind == "failed_proof"


def test_the_page_leads_with_it_though_no_step_was_made() -> None:
    """Breaks when a history without losses is only told to be empty."""
    leak = history(Proof(0, "causality", "failed", "Seen.", {"fault": "causal_leak"}))
    said = headline(diagnose(leak).to_json(), leak)
    assert said == "Tokens see what they must predict: a proof before training failed."
    fine = history(Proof(0, "causality", "passed", "Fine."))
    assert headline(diagnose(fine).to_json(), fine).startswith("Nothing has been recorded yet")
