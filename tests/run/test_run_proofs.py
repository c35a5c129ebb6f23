"""A run that a proof ends: its folder, its page, its exit status; and what `check` says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wellfit.records import Event, Proof, Record
from wellfit.run.show import proof_lines

LEAK = Proof(0, "causality", "failed", "Place 3 changed.", {"fault": "causal_leak"})
SOUND = Proof(0, "first_loss", "passed", "5.55 nats a token.")
OPEN = Proof(0, "cache_versus_full", "not_assessed", "The model has no cache.")


def refused(*_: Any, **__: Any) -> Iterator[Record]:
    """What the loop yields where a proof fails."""
    yield Event(0, "started", "begun", {"step": 0, "planned_steps": 4})
    yield SOUND
    yield LEAK
    yield Event(0, "failed", "a proof failed before step 1, and no step was made.", {})


def test_the_lines_of_a_terminal() -> None:
    """Breaks when they stand in the order in which they were made."""
    assert proof_lines(()) == ""
    assert proof_lines((SOUND, OPEN, LEAK)).splitlines() == [
        "Proofs: 1 of 3 passed",
        "  ✗ causality                Place 3 changed.",
        "  · cache_versus_full        The model has no cache.",
        "  ✓ first_loss               5.55 nats a token.",
    ]


def test_a_refused_run_leaves_a_report(
    own_home: Path, inside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit status 1, the finding, the table and no losses. Breaks when the end needs a step."""
    monkeypatch.setattr("wellfit.run.run.train", refused)
    done = inside(own_home, "train", "tiny.yaml", "--out", "refused")
    assert done.status == 1, done
    assert "causal_leak" in done.out and "failed at step 0" in done.out
    told = json.loads((own_home / "refused" / "findings.json").read_text())
    assert told["findings"][0]["kind"] == "causal_leak"
    page = (own_home / "refused" / "report.html").read_text()
    assert "Proofs before step 1" in page and "Place 3 changed." in page
    done = inside(own_home, "diagnose", "refused")
    assert done.status == 1 and "Tokens see what they must predict" in done.out


def test_check_refuses_and_says_why(
    own_home: Path, inside: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Breaks when `check` looks for its first step before it looks for the end."""
    monkeypatch.setattr("wellfit.training.loop.train", refused)
    done = inside(own_home, "check", "tiny.yaml")
    assert done.status == 2 and "The recipe runs." not in done.out
    assert "✗ causality" in done.out and "a proof failed before step 1" in done.error
