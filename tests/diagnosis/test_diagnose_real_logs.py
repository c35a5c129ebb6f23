"""Real logs of other trainers, where they stand beside the repository: a development set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from wellfit.diagnosis import Diagnosis, diagnose, read
from wellfit.errors import LogError

LOGS = Path(__file__).resolve().parents[2].parent / "shared" / "logs"

pytestmark = pytest.mark.skipif(
    not LOGS.is_dir(), reason="the real training logs are not beside the repository"
)


def test_every_real_log_gives_a_diagnosis_or_a_clear_error() -> None:
    """No traceback on any file; every `trainer_state.json` is read."""
    files = sorted(path for path in LOGS.glob("*/*") if path.is_file())
    diagnosed = 0
    for path in files:
        try:
            diagnosis = diagnose(read(path))
        except LogError as error:
            assert path.name != "trainer_state.json" and error.way_out
            continue
        assert isinstance(diagnosis, Diagnosis)
        json.dumps(diagnosis.to_json(), allow_nan=False)
        diagnosed += path.name == "trainer_state.json"
    assert diagnosed == len(list(LOGS.glob("*/trainer_state.json"))) > 0
