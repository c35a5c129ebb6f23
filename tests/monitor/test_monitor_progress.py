"""What a person sees while training: figures that mean what they say, in every mode."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable

import pytest

from wellfit.monitor.progress import Pace, Progress, Remaining, Stages, chosen_mode, sentence
from wellfit.records import Evaluated, Event, Sampled, Saved, Step

MakeStep = Callable[..., Step]


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_tokens_per_second_are_tokens_over_seconds_of_the_window(step: MakeStep) -> None:
    """1,000 tokens in 0.5 s and 1,000 in 1.5 s are 1,000 a second, not the mean of 2,000 and 667.

    Fails if the rates of the steps are averaged, or if old steps stay in the window (tried both).
    """
    pace = Pace(window_steps=2)
    assert pace.tokens_per_second() is None and pace.loss() is None
    pace.add(step(1, seconds=100.0))
    pace.add(step(2, seconds=0.5))
    pace.add(step(3, seconds=1.5))
    assert pace.tokens_per_second() == 1000.0


def test_the_window_is_also_limited_in_seconds(step: MakeStep) -> None:
    pace = Pace(window_steps=50, window_seconds=3.0)
    for number, seconds in enumerate((9.0, 1.0, 1.0, 2.0), 1):
        pace.add(step(number, seconds=seconds))
    # Without the oldest the others still fill 3 s; 1 + 1 + 2 does, 1 + 2 would too.
    assert pace.tokens_per_second() == pytest.approx(3000 / 4)
    slow = Pace(window_seconds=3.0)
    slow.add(step(1, seconds=60.0))
    assert slow.tokens_per_second() == pytest.approx(1000 / 60)


def test_no_time_gives_no_rate(step: MakeStep) -> None:
    pace = Pace()
    pace.add(step(1, seconds=0.0))
    assert pace.tokens_per_second() is None


def test_the_calm_loss_is_a_mean_that_hides_no_nan(step: MakeStep) -> None:
    pace = Pace()
    for number in range(1, 31):
        pace.add(step(number, loss=float(number)))
    assert pace.loss() == sum(range(11, 31)) / 20
    pace.add(step(31, loss=float("nan")))
    assert str(pace.loss()) == "nan"


def test_time_left_counts_evaluations_and_starts_where_the_attempt_did(step: MakeStep) -> None:
    """Steps of 1 s with 3 s of evaluation in four steps: 1.75 s a step, 10 steps left: 17.5 s.

    Fails if only the seconds of the steps count, or if a resumed run divides by all steps (tried).
    """
    clock = Clock()
    remaining = Remaining(114, clock)
    clock.now += 1
    remaining.seconds(step(101, seconds=1.0))
    clock.now += 2
    remaining.seconds(step(103, seconds=1.0))
    clock.now += 4
    assert remaining.seconds(step(104, seconds=1.0)) == pytest.approx(17.5)
    assert remaining.seconds(step(114, seconds=1.0)) == 0
    assert Remaining(None, clock).seconds(step(1)) is None


def test_lines_come_every_few_seconds_and_at_the_last_step(step: MakeStep) -> None:
    clock, stream = Clock(), io.StringIO()
    with Progress(4, stream=stream, every_seconds=10, clock=clock) as progress:
        for number in range(1, 5):
            clock.now += 4
            progress.show(step(number, loss=2.0 * number, seconds=2.0))
    first, second = stream.getvalue().splitlines()
    figures = r"rate 1\.00e-03 · 500 tok/s · \d+\.\d GiB"
    assert re.fullmatch(rf"step 1/4 · loss 2\.000 \(mean 2\.000\) · {figures} · 0:06 left", first)
    assert re.fullmatch(rf"step 4/4 · loss 8\.000 \(mean 5\.000\) · {figures} · 0:00 left", second)


def test_an_unknown_plan_is_shown_as_unknown_until_an_event_tells_it(step: MakeStep) -> None:
    stream = io.StringIO()
    progress = Progress(stream=stream, every_seconds=0)
    progress.show(step(1, seconds=0.0))
    assert "step 1 ·" in stream.getvalue() and "unknown tok/s" in stream.getvalue()
    assert "unknown time left" in stream.getvalue()
    progress.show(Event(1, "resumed", "", {"planned_steps": 9}))
    progress.show(step(2))
    assert "step 2/9 ·" in stream.getvalue()


def test_json_lines_are_strict_and_complete(
    step: MakeStep, evaluated: Callable[..., Evaluated]
) -> None:
    stream = io.StringIO()
    progress = Progress(3, mode="json", stream=stream, every_seconds=0)
    progress.show(step(2, loss=float("nan")))
    progress.show(evaluated(2))
    progress.show(Saved(2, "x", "ab", 1, 0.1))
    progress.show(Event(2, "stopped", "why"))

    def refuse(word: str) -> None:
        raise AssertionError(word)

    told = [json.loads(line, parse_constant=refuse) for line in stream.getvalue().splitlines()]
    assert [line["record"] for line in told] == ["step", "evaluated", "saved", "event"]
    assert told[0]["loss"] == "nan" and told[0]["tokens_per_second"] == 2000.0
    assert told[0]["memory_bytes"] > 2**20 and told[0]["planned_steps"] == 3
    assert told[1]["by_domain"]["code"]["bits_per_byte"] == "nan"


def test_quiet_is_quiet(step: MakeStep) -> None:
    stream = Terminal()
    with (
        Progress(2, mode="quiet", stream=stream) as progress,
        Stages(mode="quiet", stream=stream) as stages,
    ):
        progress.show(step(1))
        progress.show(Event(1, "failed", "why"))
        stages("read", 1, 2)
    assert stream.getvalue() == ""


def test_the_bar_shows_the_same_figures_and_leaves_the_terminal(
    step: MakeStep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Progress(8, stream=stream) as progress:
        progress.show(step(4, loss=2.5, seconds=0.5))
        progress.show(Sampled(4, "The [bold]", "[/nothing] \x1b[2J end"))
        progress.show(step(8, loss=2.25, seconds=0.5))
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert "step 8/8" in shown and "loss 2.250 (mean 2.375)" in shown and "2,000 tok/s" in shown
    assert "step 4: The [bold][/nothing] �[2J end" in shown
    assert "0:00 left" in shown
    # The cursor is shown again.
    assert stream.getvalue().rindex("\x1b[?25h") > stream.getvalue().rindex("\x1b[?25l")


def test_text_from_a_model_cannot_command_the_terminal() -> None:
    """Fails if `sentence` shows the text as it is (tried)."""
    stream = io.StringIO()
    Progress(stream=stream).show(Sampled(1, "a\x1b[2J", "b\nc\x07\u202ed" + "x" * 500))
    text = stream.getvalue()
    assert text.startswith("step 1: a�[2Jb⏎c��dx")
    assert text.endswith("x…\n") and len(text) < 220


def test_sentences(evaluated: Callable[..., Evaluated]) -> None:
    assert sentence(evaluated(100, 2.5)) == (
        "step 100: validation loss 2.5000 ± 0.0100, 1.5000 bits per byte, accuracy 40.0%"
    )
    assert sentence(Saved(1, "x", "ab", 1, 0.1)) == ""


def test_stages_of_a_build_in_lines_json_and_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = Clock(), io.StringIO()
    with Stages(stream=stream, every_seconds=10, clock=clock) as stages:
        for done in (0, 1, 2):
            stages("read", done, 2)
        stages("clean", 5, None)
        clock.now += 11
        stages("clean", 6000, 0)
    assert stream.getvalue().splitlines() == [
        "read: 0 / 2", "read: 2 / 2", "clean: 5 / ?", "clean: 6,000 / ?",
    ]  # fmt: skip
    lines = io.StringIO()
    Stages(mode="json", stream=lines)("read", 1, 2)
    assert json.loads(lines.getvalue()) == {
        "record": "stage", "stage": "read", "done": 1, "total": 2,
    }  # fmt: skip
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with Stages(stream=terminal) as stages:
        stages("read", 1, 2)
        stages("read", 2, 2)
        stages("shards [x]", 7, None)
    assert "2 / 2" in terminal.getvalue() and "shards [x]" in terminal.getvalue()
    assert "7 / ?" in terminal.getvalue()


def test_auto_is_a_bar_on_a_terminal_only() -> None:
    assert chosen_mode("auto", Terminal()) == "bar"
    assert chosen_mode("auto", io.StringIO()) == "lines"
    assert chosen_mode("json", Terminal()) == "json"
