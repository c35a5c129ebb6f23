"""The loop's side of the proofs: which are made when, and what a failed one does."""

from __future__ import annotations

from typing import Any

import pytest
from train_parts import Cycle, Tiny, section

from wellfit.records import Event, Proof, Record
from wellfit.training.proofs.at_start import at_start, refusal
from wellfit.training.proofs.prove import AFTER_RESUME, PROOFS
from wellfit.training.start import begin, prepare


class Unshifted(Cycle):
    """Labels that are the tokens themselves."""

    def batch(self, step: int) -> Any:
        from dataclasses import replace

        batch = super().batch(step)
        return replace(batch, labels=batch.tokens.copy())


def started(
    folder: Any, batches: Cycle, step: int = 0, **changes: Any
) -> tuple[list[Record], bool]:
    """Settings of `train` in; what `at_start` yields at this step, and what it answers."""
    from dataclasses import replace

    setup = prepare(
        section(**changes), Tiny(), batches, folder=folder, seed=7, thread_count=1
    )  # fmt: skip
    state, _ = begin(setup, resume=False)
    batches.asked.clear()
    records: list[Record] = []
    made = at_start(setup, replace(state, step=step))
    while True:
        try:
            records.append(next(made))
        except StopIteration as end:
            return records, bool(end.value)


def test_all_are_made_at_first_and_some_after_a_resume(tmp_path: Any) -> None:
    """Two batches are looked at, and never one past the end; at the end nothing is proved.

    Breaks when the batches of `step + 1` and `step + 2` are taken whatever was planned.
    """
    batches = Cycle()
    records, stop = started(tmp_path / "a", batches, proofs="stop")
    assert [r.name for r in records if isinstance(r, Proof)] == list(PROOFS) and not stop
    assert batches.asked == [1, 2]
    records, _ = started(tmp_path / "b", batches, step=11, proofs="stop")
    assert {r.name for r in records if isinstance(r, Proof)} == AFTER_RESUME
    assert {r.step for r in records} == {11} and batches.asked == [12]
    assert started(tmp_path / "c", batches, step=12, proofs="stop") == ([], False)
    assert batches.asked == []


@pytest.mark.parametrize("policy", ["stop", "warn", "off"])
def test_the_policy_decides(tmp_path: Any, policy: str) -> None:
    """Breaks when `warn` stops, or `off` still makes them."""
    records, stop = started(tmp_path, Unshifted(masked=0), proofs=policy)
    assert stop == (policy == "stop")
    wrong = [r.name for r in records if isinstance(r, Proof) and r.state == "failed"]
    assert wrong == ([] if policy == "off" else ["label_offset"])
    events = [r for r in records if isinstance(r, Event)]
    assert len(events) == (policy == "stop")


def test_the_message_says_what_failed_and_the_way_out(tmp_path: Any) -> None:
    records, _ = started(tmp_path, Unshifted(masked=0), proofs="stop")
    event = records[-1]
    assert isinstance(event, Event) and (event.kind, event.step) == ("failed", 0)
    assert event.text.startswith("a proof failed before step 1, and no step was made. label_offset")
    assert "100.0% are the token at offset +0" in event.text
    assert "The findings name what to change" in event.text and "train.proofs to warn" in event.text
    assert event.data == {"proofs": ["label_offset"], "faults": ["labels_not_shifted"]}


def test_several_faults_are_told_at_once() -> None:
    """Breaks when the first failed proof ends the list. A fault of a later version is kept too."""
    wrong = [
        Proof(100, "causality", "failed", "It sees.", {"fault": "causal_leak"}),
        Proof(100, "first_loss", "passed", "fine"),
        Proof(100, "my_own", "failed", "Odd.", {"fault": "something_new"}),
    ]
    event = refusal(wrong, 100, "stop")
    assert event is not None and event.text.startswith("2 proofs failed before step 101")
    assert "It sees." in event.text and "my_own: Odd." in event.text
    assert event.data["faults"] == ["causal_leak", "something_new"]
