"""Which records count: resumes, repeated steps, torn and unreadable lines."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

from wellfit.monitor.folder import RunFolder, read_history
from wellfit.monitor.records_store import line_text, read_record
from wellfit.monitor.timeline import Timeline, read_timeline
from wellfit.records import Evaluated, Event, Sampled, Saved, Step

MakeStep = Callable[..., Step]
MakeEvaluated = Callable[..., Evaluated]


def train(path: Path, step: MakeStep, steps: range, *, loss: float, ending: str = "") -> None:
    """One attempt: from scratch if the first step is 1, else resumed from the step before."""
    first = steps[0] - 1
    fresh = not path.exists()
    with RunFolder.create(path, "name: a\n", resume=not fresh) as folder:
        folder.write(Event(first, "started" if fresh else "resumed", "", {"step": first}))
        for number in steps:
            folder.write(step(number, loss))
        if ending:
            folder.write(Event(steps[-1], ending, ""))


def test_a_resume_supersedes_what_no_longer_stands_behind_the_weights(
    tmp_path: Path, step: MakeStep
) -> None:
    """Attempt 1 reaches 130, attempt 2 resumes from 100 and stops at 110: steps 111–130 are gone.

    Fails if `_cut` in timeline.py drops nothing (tried).
    """
    path = tmp_path / "run"
    train(path, step, range(1, 131), loss=3.0)
    assert read_history(path).superseded == 0
    train(path, step, range(101, 111), loss=2.0, ending="stopped")
    history = read_history(path)
    assert history.train_loss.steps == tuple(range(1, 111))
    assert history.train_loss.values == (3.0,) * 100 + (2.0,) * 10
    assert history.superseded == 30
    assert history.attempts == 2
    assert history.status == "stopped"
    assert [event.kind for event in history.events] == ["started", "resumed", "stopped"]
    assert history.notes == ()
    # Superseded, and still in the file.
    text = (path / "records" / "steps-0.jsonl").read_text()
    assert len(text.splitlines()) == 140


def test_the_cut_comes_with_the_resume_itself(tmp_path: Path, step: MakeStep) -> None:
    """Fails if `_add_event` in timeline.py leaves out the cut at the resumed step (tried)."""
    path = tmp_path / "run"
    train(path, step, range(1, 21), loss=3.0)
    with RunFolder.open(path) as folder:
        folder.write(Event(10, "resumed", "", {"step": 10}))
        history = read_history(path)
    assert history.train_loss.steps == tuple(range(1, 11))
    assert history.superseded == 10


def test_a_resume_from_the_beginning_supersedes_everything(
    tmp_path: Path, step: MakeStep, evaluated: MakeEvaluated
) -> None:
    path = tmp_path / "run"
    train(path, step, range(1, 8), loss=3.0)
    with RunFolder.open(path) as folder:
        folder.write(evaluated(7))
    train(path, step, range(1, 3), loss=2.0)
    history = read_history(path)
    assert history.train_loss.steps == (1, 2)
    assert history.validation_loss == {}
    assert (history.superseded, history.attempts) == (8, 3)


def test_evaluations_samples_and_checkpoints_follow_the_steps(
    tmp_path: Path, step: MakeStep, evaluated: MakeEvaluated
) -> None:
    path = tmp_path / "run"
    with RunFolder.create(path, "name: a\n") as folder:
        for number in (10, 20, 30):
            folder.write(evaluated(number, 3.0))
            folder.write(Sampled(number, "The ", f"first {number}"))
            folder.write(Saved(number, f"step-{number}", "ab", 1, 0.1))
            folder.write(Event(number, "non_finite", ""))
    with RunFolder.open(path) as folder:
        folder.write(Event(20, "resumed", "", {"step": 20}))
        folder.write(evaluated(30, 2.0))
        folder.write(evaluated(30, 1.0, split="test"))
    history = read_history(path)
    assert history.validation_loss["validation"].steps == (10, 20, 30)
    assert history.validation_loss["validation"].values == (3.0, 3.0, 2.0)
    assert history.validation_loss["test"].values == (1.0,)
    assert history.validation_se.values == (0.01, 0.01, 0.01)
    assert [sample.text for sample in history.samples] == ["first 10", "first 20"]
    assert [saved.step for saved in history.saved] == [10, 20]
    assert [(event.kind, event.step) for event in history.events] == [
        ("non_finite", 10),
        ("non_finite", 20),
        ("resumed", 20),
    ]
    assert history.superseded == 4


def test_a_later_attempt_wins_even_where_its_resume_was_not_recorded(
    tmp_path: Path, step: MakeStep
) -> None:
    """Fails if `_add_step` appends a repeated step instead of cutting (tried)."""
    path = tmp_path / "run"
    train(path, step, range(1, 21), loss=3.0)
    with RunFolder.open(path) as folder:
        folder.write(step(15, 2.0))
    history = read_history(path)
    assert history.train_loss.steps == tuple(range(1, 16))
    assert history.train_loss.values[-1] == 2.0
    assert history.superseded == 6


def test_the_status_tells_how_the_newest_attempt_ended(tmp_path: Path, step: MakeStep) -> None:
    for ending in ("stopped", "failed", "finished"):
        path = tmp_path / ending
        train(path, step, range(1, 3), loss=2.0, ending=ending)
        assert read_history(path).status == ending
        with RunFolder.open(path) as folder:
            # Opened again, and nothing said yet: at work, whatever the last attempt said.
            assert read_history(path).status == "running"
            folder.write(Event(2, "resumed", "", {"step": 2}))
            assert read_history(path).status == "running"
        assert read_history(path).status == "crashed"
    empty = tmp_path / "empty"
    RunFolder.create(empty, "name: a\n").close()
    assert read_history(empty).status == "unknown"


def test_unreadable_lines_are_left_out_and_counted(tmp_path: Path, step: MakeStep) -> None:
    """Fails if `add` in timeline.py does not count a line that is JSON but no record (tried)."""
    path = tmp_path / "run"
    train(path, step, range(1, 7), loss=2.0)
    file = path / "records" / "steps-0.jsonl"
    lines = file.read_bytes().splitlines()
    lines[1] = lines[1][:40]  # torn by a crash
    lines[2] = lines[2].replace(b'"loss":2.0', b'"loss":"a lot"')
    lines[3] = b"\xff\x00" + b"[" * 100_000
    lines[4] = b'{"seq": 5}'
    file.write_bytes(b"\n".join(lines) + b"\n\n")
    history = read_history(path)
    assert history.train_loss.steps == (1, 6)
    assert history.notes == (
        "4 lines of records/steps-0.jsonl could not be read and are left out.",
        "4 steps up to step 6 have no record.",
    )


def test_non_finite_numbers_come_back_as_they_were(run: RunFolder, step: MakeStep) -> None:
    losses = [float("nan"), float("inf"), float("-inf"), 1.5]
    for number, loss in enumerate(losses, 1):
        run.write(step(number, loss))
    run.write(Event(4, "non_finite", "", {"loss": float("nan"), "limits": [1.0, float("inf")]}))
    history = read_history(run.path)
    assert repr(history.train_loss.values) == "(nan, inf, -inf, 1.5)"
    assert repr(history.events[0].data) == "{'loss': nan, 'limits': [1.0, inf]}"


def test_every_record_comes_back_equal(step: MakeStep, evaluated: MakeEvaluated) -> None:
    guesses = ((" a", 0.25), ("\udc80", 0.125))
    for record in (
        step(3, 0.1 + 0.2),
        evaluated(3, float("inf")),
        Sampled(3, "def ", "x\n", guesses),
        Saved(3, "checkpoints/step-000003", "ab", 12, 0.5),
        Event(3, "stopped", "why", {"a": {"b": [1, 2.5, None, "nan "]}}),
    ):
        fields = {name: getattr(record, name) for name in type(record).__slots__}
        again = read_record(type(record), json.loads(line_text(fields)))
        assert repr(again) == repr(record)


def test_context_comes_from_recipe_and_events(run: RunFolder, step: MakeStep) -> None:
    run.write(step(1))
    context = read_history(run.path).context
    assert (context.planned_steps, context.vocabulary_size) == (200, 4096)
    assert (context.optimizer, context.clip_norm) == ("adamw", 1.0)
    assert context.from_scratch is True
    # Step 1 ended at 1/40 of an epoch, so 200 steps are five.
    assert (context.steps_per_epoch, context.planned_epochs) == (40.0, 5.0)
    assert context.warmup_steps is None
    told = {"planned_steps": 90, "warmup_steps": 0, "steps_per_epoch": 45.0}
    run.write(Event(1, "resumed", "", told))
    (run.path / "corpus.json").write_text('{"folder": "c", "vocabulary_size": 777}')
    history = read_history(run.path)
    assert history.name == "tiny"
    assert history.context.planned_steps == 90
    assert history.context.warmup_steps == 0
    assert history.context.planned_epochs == 2.0
    assert history.context.vocabulary_size == 777


def test_without_recipe_the_context_is_unknown(tmp_path: Path, step: MakeStep) -> None:
    path = tmp_path / "run"
    train(path, step, range(1, 3), loss=2.0)
    (path / "recipe.yaml").write_text("[not: a: recipe\n")
    history = read_history(path)
    assert history.recipe is None
    assert history.name == "run"
    assert history.context.planned_steps is None
    assert history.context.from_scratch is None


def test_reading_many_lines_at_once_equals_one_by_one() -> None:
    """On 500 drawn runs with repeated steps, gaps, second attempts and lines that are no records.

    Fails if `_extend` takes lines whose steps go back (tried).
    """
    dice = random.Random(2)
    for _ in range(500):
        lines: list[dict[str, object]] = []
        step, attempt = 0, 1
        for _ in range(dice.randrange(1, 14)):
            step = max(0, step + dice.choice([1] * 8 + [2, -2, 0]))
            attempt += dice.random() < 0.05
            line = {
                "attempt": attempt, "step": step, "loss": dice.choice([1.0] * 15 + ["nan", "bad"]),
                "learning_rate": 0.1, "grad_norm": "inf", "epoch": 0.5, "seconds": 1, "tokens": 5,
            }  # fmt: skip
            if dice.random() < 0.9:
                line["mfu"] = dice.choice([0.5] * 15 + [None])
            if dice.random() < 0.02:
                del line["tokens"]
            lines.append(line)
        together, one_by_one = Timeline(), Timeline()
        cut = dice.randrange(len(lines) + 1)
        together.add_steps(lines[:cut])
        together.add_steps(lines[cut:])
        for line in lines:
            one_by_one.add(Step, line)
        assert picture(together) == picture(one_by_one)


def picture(timeline: Timeline) -> str:
    columns = {**timeline.columns, **timeline.memory}
    return repr(
        [
            {name: (list(one.steps), list(one.values)) for name, one in columns.items()},
            timeline.attempts,
            timeline.superseded,
            timeline.unreadable,
        ]
    )


def test_files_cut_anywhere_give_a_beginning_of_the_run(
    tmp_path: Path, step: MakeStep, evaluated: MakeEvaluated
) -> None:
    """What a crash may leave, at 300 random places: never an error, never an invented number."""
    path = tmp_path / "run"
    with RunFolder.create(path, "name: a\n") as folder:
        folder.write(Event(0, "started", "", {"step": 0}))
        for number in range(1, 13):
            folder.write(step(number, number / 7))
            if number % 4 == 0:
                folder.write(evaluated(number))
    files = sorted((path / "records").iterdir())
    whole = {file: file.read_bytes() for file in files}
    dice = random.Random(1)
    for _ in range(300):
        for file, text in whole.items():
            file.write_bytes(text[: dice.randrange(len(text) + 1)])
        timeline = read_timeline(path / "records")
        losses = timeline.columns["loss"]
        assert list(losses.steps) == list(range(1, len(losses.steps) + 1))
        assert list(losses.values) == [step / 7 for step in losses.steps]
        assert not timeline.unreadable
