"""Proofs in a run folder: written, read back, replaced by a later attempt; old runs have none."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from wellfit.monitor.folder import RunFolder, read_history
from wellfit.monitor.listen import Listener, Measures
from wellfit.records import Event, Proof, Step

LEAK = Proof(0, "causality", "failed", "Place 3 changed.", {"fault": "causal_leak", "gap": 0.5})
OPEN = Proof(0, "cache_versus_full", "not_assessed", "The model has no cache.", {"gap": math.nan})


def test_proofs_come_back_as_they_were(
    tmp_path: Path, recipe_text: str, step: Callable[..., Step]
) -> None:
    """Live and afterwards the same. Breaks when `History` is not given them, or NaN is lost."""
    path = tmp_path / "run"
    with RunFolder.create(path, recipe_text) as folder, Listener(folder, Measures()) as listener:
        for record in (Event(0, "started", "begun"), LEAK, OPEN, step(1)):
            listener.hear(record)
        live = listener.history().proofs
    lines = (path / "records" / "proofs-0.jsonl").read_text().splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["failed", "not_assessed"]
    read = read_history(path)
    assert repr(read.proofs) == repr(live) == repr((LEAK, OPEN))
    assert read.proofs[0] == LEAK and math.isnan(read.proofs[1].data["gap"])


def test_a_run_without_proofs_still_opens(run: RunFolder, step: Callable[..., Step]) -> None:
    """Runs of an earlier version have no such file."""
    run.write(Event(0, "started", "begun"))
    run.write(step(1))
    run.close()
    assert not (run.path / "records" / "proofs-0.jsonl").exists()
    history = read_history(run.path)
    assert history.proofs == () and history.notes == () and len(history.train_loss) == 1


def test_a_later_attempt_replaces_what_it_proves_again(
    run: RunFolder, step: Callable[..., Step]
) -> None:
    """The same step and name count once; a resume further on adds, one further back removes.

    Breaks when proofs are not cut with the steps.
    """
    from dataclasses import replace

    path = run.path
    run.write(Event(0, "started", "begun"))
    run.write(LEAK)
    run.close()
    mended = replace(LEAK, state="passed", data={})
    with RunFolder.open(path) as again:
        again.write(Event(0, "resumed", "again", {"step": 0}))
        again.write(mended)
        for number in range(1, 9):
            again.write(step(number))
    assert read_history(path).proofs == (mended,)
    later = replace(mended, step=8)
    with RunFolder.open(path) as again:
        again.write(Event(8, "resumed", "again", {"step": 8}))
        again.write(later)
    assert read_history(path).proofs == (mended, later)
    with RunFolder.open(path) as again:
        again.write(Event(4, "resumed", "again", {"step": 4}))
    assert read_history(path).proofs == (mended,)


def test_a_damaged_proof_is_counted_and_left_out(run: RunFolder) -> None:
    """Breaks when any word is taken for a state."""
    run.write(LEAK)
    run.close()
    file = run.path / "records" / "proofs-0.jsonl"
    file.write_text(file.read_text() + file.read_text().replace("failed", "certain"))
    history = read_history(run.path)
    assert history.proofs == (LEAK,)
    assert history.notes == (
        "1 line of records/proofs-0.jsonl could not be read and are left out.",
    )
