"""Fixtures: run folders, written by `report_runs.write_run`."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_runs import CORPUS, HEALTHY, SICK, Write, write_run


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(**what)`: a run folder `tmp_path/run`; a healthy training unless told otherwise."""
    return lambda **what: write_run(tmp_path / "run", **what)


@pytest.fixture
def healthy_run(write: Write) -> Path:
    """A finished, healthy run with diagnosis and corpus."""
    return write(diagnosis=HEALTHY, corpus=CORPUS)


@pytest.fixture
def sick_run(write: Write) -> Path:
    """A run that broke at step 300."""
    return write(broken_from=300, held_out=False, diagnosis=SICK)
