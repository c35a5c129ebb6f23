"""Real logs of other trainers, where they stand beside the repository: a development set."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from wellfit.diagnosis import Diagnosis, diagnose, read

LOGS = Path(__file__).resolve().parents[2].parent / "shared" / "logs"

pytestmark = pytest.mark.skipif(
    not LOGS.is_dir(), reason="the real training logs are not beside the repository"
)


def test_every_real_log_gives_a_diagnosis() -> None:
    """All 60 in nine formats, each one run. Fails without the reader of console text."""
    rows = list(csv.DictReader((LOGS / "labels.csv").read_text().splitlines()))
    for row in rows:
        diagnosis = diagnose(read(LOGS / row["file"]))
        assert isinstance(diagnosis, Diagnosis)
        json.dumps(diagnosis.to_json(), allow_nan=False)
    assert len(rows) == 60


def test_healthy_logs_are_silent_and_sure_faults_are_found() -> None:
    """The target on the development set: no alarm on more than 5 % of the logs that the first
    rater calls healthy, sure or fairly; an alarm on 90 % of the surely faulty ones.

    Fails when `RISE` and `NOISE` of `rules/divergence.py` are 0.
    """
    healthy, faulty, alarms, found = 0, 0, [], 0
    for row in csv.DictReader((LOGS / "labels.csv").read_text().splitlines()):
        findings = diagnose(read(LOGS / row["file"])).findings
        kinds = [finding.kind for finding in findings if finding.severity != "info"]
        if "healthy" in row["labels"].split("|"):
            if row["confidence"] != "low":
                healthy += 1
                alarms += [f"{row['id']}: {kind}" for kind in kinds[:1]]
        elif row["confidence"] == "high":
            faulty += 1
            found += bool(kinds)
    assert healthy >= 20 and len(alarms) <= 0.05 * healthy, alarms
    assert faulty >= 15 and found >= 0.9 * faulty
