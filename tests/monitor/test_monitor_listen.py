"""The listener: the same history live and from the files, fresh files, flat cost."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from wellfit.errors import RunError
from wellfit.monitor.folder import RunFolder, read_history
from wellfit.monitor.history import Series
from wellfit.monitor.listen import Listener, Measures
from wellfit.records import Evaluated, Event, Record, Sampled, Saved, Step

MakeStep = Callable[..., Step]
MakeEvaluated = Callable[..., Evaluated]

RECIPE = "name: tiny\ntrain: {budget: {steps: 60}, clip_norm: 0}\n"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def a_training(step: MakeStep, evaluated: MakeEvaluated, first: int, last: int) -> list[Record]:
    begun = "started" if first == 1 else "resumed"
    records: list[Record] = [
        Event(first - 1, begun, "go", {"step": first - 1, "planned_steps": 60, "odd": (1, 2)})
    ]
    for number in range(first, last + 1):
        loss = float("nan") if number == 7 else 4 / number
        records.append(step(number, loss, seconds=0.0 if number == 3 else 0.1 * number))
        if number % 10 == 0:
            records.append(evaluated(number, float("inf") if number == 20 else 0.3))
            records.append(Sampled(number, "The ", f"end {number}", ((" of", 0.5),)))
            records.append(Saved(number, f"checkpoints/step-{number}", "ab", 9, 0.1))
    return records


def test_the_live_history_equals_the_one_read_at_every_moment(
    tmp_path: Path, step: MakeStep, evaluated: MakeEvaluated
) -> None:
    """Fails if the listener keeps the records it heard instead of the lines as written (tried:
    the tuple in the event's data comes back as a list)."""
    path = tmp_path / "run"
    with RunFolder.create(path, RECIPE) as folder:
        listener = Listener(folder, Measures(flops_per_token=2e6, matrix_peak=1e10))
        for record in a_training(step, evaluated, 1, 34):
            listener.hear(record)
            assert repr(listener.history()) == repr(read_history(path))
    file = path / "records" / "steps-0.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    with RunFolder.open(path) as folder:
        listener = Listener(folder)
        assert repr(listener.history()) == repr(read_history(path))
        for record in a_training(step, evaluated, 31, 45):
            listener.hear(record)
            assert repr(listener.history()) == repr(read_history(path))
        listener.hear(Event(45, "stopped", "enough"))
        history = listener.history()
        assert repr(history) == repr(read_history(path))
    assert history.train_loss.steps == tuple(range(1, 46))
    assert (history.attempts, history.status, history.superseded) == (2, "stopped", 3)


def test_what_is_measured_beside_a_step(run: RunFolder, step: MakeStep) -> None:
    """1,000 supervised tokens in 0.25 s are 4,000 a second; × 2e6 FLOPs of 1e10 a second: 0.8.

    Fails if tokens per second counts `tokens` instead of `supervised_tokens` (tried).
    """
    listener = Listener(run, Measures(flops_per_token=2e6, matrix_peak=1e10))
    listener.hear(step(1, seconds=0.5))
    listener.hear(step(2, seconds=0.25))
    history = listener.history()
    assert history.tokens_per_second == Series((1, 2), (2000.0, 4000.0))
    assert history.mfu == Series((1, 2), (0.4, 0.8))
    assert history.memory_bytes.steps == (1, 2)
    assert all(2**20 < value < 2**40 for value in history.memory_bytes.values)


def test_what_is_not_known_is_not_recorded(run: RunFolder, step: MakeStep) -> None:
    listener = Listener(run)
    listener.hear(step(1, seconds=0.0))
    history = listener.history()
    assert len(history.mfu) == len(history.tokens_per_second) == 0
    line = (run.path / "records" / "steps-0.jsonl").read_text()
    assert "mfu" not in line and "device_memory_bytes" not in line


def test_metrics_are_replaced_at_most_every_two_seconds_and_when_the_run_ends(
    run: RunFolder, step: MakeStep
) -> None:
    """Fails if `hear` refreshes on every record, or not on the last event (tried both)."""
    clock = Clock()
    listener = Listener(run, clock=clock)
    file = run.path / "training_metrics.json"

    def written() -> list[int]:
        steps: list[int] = json.loads(file.read_text())["steps"]
        return steps

    listener.hear(step(1))
    assert written() == [1]
    clock.now += 1.9
    listener.hear(step(2))
    assert written() == [1]
    clock.now += 0.2
    listener.hear(step(3))
    assert written() == [1, 2, 3]
    clock.now += 0.1
    listener.hear(step(4))
    listener.hear(Event(4, "stopped", ""))
    assert written() == [1, 2, 3, 4]


def test_samples_of_superseded_weights_leave_the_readable_copy(
    tmp_path: Path, step: MakeStep, evaluated: MakeEvaluated
) -> None:
    path = tmp_path / "run"

    def shown() -> list[str]:
        text = (path / "samples.jsonl").read_text()
        return [json.loads(line)["text"] for line in text.splitlines()]

    with RunFolder.create(path, RECIPE) as folder, Listener(folder) as listener:
        for record in a_training(step, evaluated, 1, 30):
            listener.hear(record)
    assert shown() == ["end 10", "end 20", "end 30"]
    with RunFolder.open(path) as folder, Listener(folder) as listener:
        listener.hear(Event(20, "resumed", "", {"step": 20}))
    assert shown() == ["end 10", "end 20"]
    assert json.loads((path / "samples.jsonl").read_text().splitlines()[0]) == {
        "step": 10,
        "prompt": "The ",
        "text": "end 10",
        "predictions": [[" of", 0.5]],
    }


def test_closing_leaves_everything_a_reader_wants(run: RunFolder, step: MakeStep) -> None:
    with Listener(run) as listener:
        for number in range(1, 4):
            listener.hear(step(number))
    left = {part.name for part in run.path.iterdir()}
    assert left >= {
        "training_metrics.json", "training_curve.png", "loss_by_epoch.png", "samples.jsonl",
        "recipe.yaml", "records", "run.json",
    }  # fmt: skip
    assert not [name for name in left if name.endswith(".new")]


def test_a_folder_that_cannot_be_written_is_explained_and_hides_no_earlier_fault(
    tmp_path: Path, step: MakeStep
) -> None:
    path = tmp_path / "run"
    with RunFolder.create(path, RECIPE) as folder:
        listener = Listener(folder)
        listener.hear(step(1))
        # A folder in the place of the file cannot be replaced by a file.
        (path / "training_metrics.json").unlink()
        (path / "training_metrics.json").mkdir()
        with pytest.raises(RunError, match="Choose a folder that can be read and written"):
            listener.close()
        with pytest.raises(ZeroDivisionError), listener:
            raise ZeroDivisionError


def test_the_cost_of_a_record_does_not_grow(tmp_path: Path, step: MakeStep) -> None:
    """The median of 500 records at 20,000 steps is at most three times that at the beginning.

    Fails if `hear` builds the history on every record (tried).
    """
    with RunFolder.create(tmp_path / "run", RECIPE) as folder:
        listener = Listener(folder)
        medians = {}
        taken = []
        for number in range(1, 20_501):
            record = step(number)
            began = time.perf_counter()
            listener.hear(record)
            taken.append(time.perf_counter() - began)
            if number in (1_000, 20_500):
                medians[number] = statistics.median(taken[-500:])
        assert medians[20_500] < 3 * medians[1_000]
