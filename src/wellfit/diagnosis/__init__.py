"""Histories → findings: what went wrong in a training, since when, why, and what to change.

    from wellfit.diagnosis import diagnose, read

    diagnosis = diagnose(read(Path("trainer_state.json")))

Torch-free; the same rules online and offline.
"""

from __future__ import annotations

from wellfit.diagnosis.answer import Diagnosis, NotAssessed, Verdict
from wellfit.diagnosis.engine import diagnose, exit_status
from wellfit.diagnosis.importers import Given, read, read_all, read_bytes

__all__ = [
    "Diagnosis",
    "Given",
    "NotAssessed",
    "Verdict",
    "diagnose",
    "exit_status",
    "read",
    "read_all",
    "read_bytes",
]
