"""Records → one line for a person: how far, how well, how fast, how long still.

A bar on a terminal, plain lines or JSON lines every few seconds elsewhere, or nothing. Everything
goes to one text stream (standard error unless told otherwise), so that results can be piped.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import IO, Any, Literal

from wellfit.monitor.hardware import device_memory, process_memory
from wellfit.monitor.records_store import record_fields, spelled
from wellfit.records import Evaluated, Event, Proof, Record, Sampled, Step

Mode = Literal["auto", "bar", "lines", "json", "quiet"]


class Pace:
    """Tokens per second and a calm loss over the most recent steps."""

    def __init__(self, window_steps: int = 50, window_seconds: float = 20.0) -> None:
        self._steps: deque[Step] = deque(maxlen=window_steps)
        self._window_seconds = window_seconds
        self._seconds = 0.0

    def add(self, step: Step) -> None:
        """Take a step; the oldest leave once the others fill the window."""
        if len(self._steps) == self._steps.maxlen:
            self._seconds -= self._steps[0].seconds
        self._steps.append(step)
        self._seconds += step.seconds
        while (
            len(self._steps) > 1 and self._seconds - self._steps[0].seconds > self._window_seconds
        ):
            self._seconds -= self._steps.popleft().seconds

    def tokens_per_second(self) -> float | None:
        """Supervised tokens of the window / its seconds of training (no evaluation, no saving)."""
        seconds = math.fsum(step.seconds for step in self._steps)
        tokens = sum(step.supervised_tokens for step in self._steps)
        return tokens / seconds if seconds > 0 else None

    def loss(self) -> float | None:
        """Mean loss of the window's last 20 steps; NaN where one of them is."""
        losses = [step.loss for step in self._steps][-20:]
        return sum(losses) / len(losses) if losses else None


class Remaining:
    """Seconds still to go, from the wall time per step so far, evaluation and saving included."""

    def __init__(self, planned_steps: int | None, clock: Callable[[], float]) -> None:
        self.planned_steps = planned_steps
        self._clock = clock
        self._first: tuple[float, int] | None = None

    def seconds(self, step: Step) -> float | None:
        """A step that was just made → seconds to the last one; None where no plan is known."""
        now = self._clock()
        if self._first is None or step.step <= self._first[1]:
            # The first step began before it was heard of.
            self._first = (now - step.seconds, step.step - 1)
        if self.planned_steps is None:
            return None
        began, before = self._first
        return max(0, self.planned_steps - step.step) * (now - began) / (step.step - before)


class Progress:
    """Shows records as they come; a context manager that leaves the terminal as it was.

    `planned_steps` may be unknown at first: an event whose data names `planned_steps` tells
    it. Modes: `auto` is a bar on a terminal and lines elsewhere; `json` gives one strict
    JSON object a line: steps every `every_seconds`, and all other records.
    """

    def __init__(
        self,
        planned_steps: int | None = None,
        *,
        mode: Mode = "auto",
        stream: IO[str] | None = None,
        device: str = "cpu",
        every_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._mode = chosen_mode(mode, self._stream)
        self._device = device
        self._every_seconds = every_seconds
        self._clock = clock
        self._pace = Pace()
        self._remaining = Remaining(planned_steps, clock)
        self._next_line = -math.inf
        self._bar: Any = None

    def show(self, record: Record) -> None:
        """Show one record, or keep it for the next line that is due."""
        if isinstance(record, Event):
            self._plan(record)
        if self._mode == "quiet":
            return
        if isinstance(record, Step):
            self._pace.add(record)
            left = self._remaining.seconds(record)
            if self._mode == "bar":
                self._draw(record, left)
            elif self._clock() >= self._next_line or record.step == self._remaining.planned_steps:
                self._next_line = self._clock() + self._every_seconds
                self._say(self._step_json(record, left) if self._mode == "json"
                          else self._step_line(record, left))  # fmt: skip
        elif self._mode == "json":
            self._say(_other_json(record))
        elif said := sentence(record):
            self._say(said)

    def close(self) -> None:
        """End the bar; a second call does nothing."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _plan(self, event: Event) -> None:
        planned = event.data.get("planned_steps")
        if type(planned) is int and planned > 0:
            self._remaining.planned_steps = planned

    def _step_line(self, step: Step, left: float | None) -> str:
        return " · ".join(
            [f"step {self._place(step)}", *self._figures(step), f"{_time(left)} left"]
        )

    def _place(self, step: Step) -> str:
        planned = self._remaining.planned_steps
        return f"{step.step}" if planned is None else f"{step.step}/{planned}"

    def _figures(self, step: Step) -> list[str]:
        rate = self._pace.tokens_per_second()
        shown = [
            f"loss {step.loss:.3f} (mean {self._pace.loss():.3f})",
            f"rate {step.learning_rate:.2e}",
            "unknown tok/s" if rate is None else f"{rate:,.0f} tok/s",
            f"{process_memory() / 2**30:.1f} GiB",
        ]
        if (on_device := device_memory(self._device)) is not None:
            shown.append(f"{on_device / 2**30:.1f} GiB on {self._device}")
        return shown

    def _step_json(self, step: Step, left: float | None) -> str:
        told = {
            "record": "step",
            "step": step.step,
            "planned_steps": self._remaining.planned_steps,
            "epoch": step.epoch,
            "loss": step.loss,
            "mean_loss": self._pace.loss(),
            "learning_rate": step.learning_rate,
            "grad_norm": step.grad_norm,
            "tokens": step.tokens,
            "tokens_per_second": self._pace.tokens_per_second(),
            "memory_bytes": process_memory(),
            "device_memory_bytes": device_memory(self._device),
            "seconds_left": left,
        }
        return json.dumps(spelled(told), allow_nan=False)

    def _draw(self, step: Step, left: float | None) -> None:
        if self._bar is None:
            self._bar = _bar(self._stream, ("{task.fields[figures]}", "{task.fields[left]}"))
            self._bar.add_task("training", total=None, figures="", left="")
            self._bar.start()
        self._bar.update(
            self._bar.task_ids[0],
            description=f"step {self._place(step)}",
            completed=step.step,
            total=self._remaining.planned_steps,
            figures=" · ".join(self._figures(step)),
            left=f"{_time(left)} left",
        )

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            self._stream.write(text + "\n")
            self._stream.flush()


class Stages:
    """Shows how far the stages of a data build are: call it with `(stage, done, total)`."""

    def __init__(
        self,
        *,
        mode: Mode = "auto",
        stream: IO[str] | None = None,
        every_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._mode = chosen_mode(mode, self._stream)
        self._every_seconds = every_seconds
        self._clock = clock
        self._next_line: dict[str, float] = {}
        self._tasks: dict[str, Any] = {}
        self._bar: Any = None

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Show that `done` of `total` (None or 0: not known) parts of a stage are finished."""
        if self._mode == "quiet":
            return
        if self._mode == "bar":
            if self._bar is None:
                self._bar = _bar(self._stream, ("{task.completed:,} / {task.fields[of]}",))
                self._bar.start()
            if stage not in self._tasks:
                self._tasks[stage] = self._bar.add_task(printable(stage), total=None, of="")
            of = f"{total:,}" if total else "?"
            self._bar.update(self._tasks[stage], completed=done, total=total or None, of=of)
            return
        finished = bool(total) and done == total
        now = self._clock()
        if not finished and now < self._next_line.get(stage, -math.inf):
            return
        self._next_line[stage] = now + self._every_seconds
        if self._mode == "json":
            told = {"record": "stage", "stage": stage, "done": done, "total": total or None}
            text = json.dumps(told, allow_nan=False)
        else:
            text = f"{printable(stage)}: {done:,} / {f'{total:,}' if total else '?'}"
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """End the bars; a second call does nothing."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._tasks.clear()

    def __enter__(self) -> Stages:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def chosen_mode(mode: Mode, stream: IO[str]) -> Literal["bar", "lines", "json", "quiet"]:
    """The mode that `auto` stands for on this stream; any other is itself."""
    if mode != "auto":
        return mode
    return "bar" if stream.isatty() else "lines"


def sentence(record: Record) -> str:
    """A record other than a step → what a person is told about it; may be empty.

    >>> from wellfit.records import Event
    >>> sentence(Event(7, "stopped", "Ctrl-C was pressed."))
    'step 7: stopped. Ctrl-C was pressed.'
    """
    if isinstance(record, Evaluated):
        bits = f"{_bits(record.bits_per_byte)}, " if record.exact is None else ""
        exact = "" if record.exact is None else f", {record.exact:.1%} of the examples all right"
        return (
            f"step {record.step}: {printable(record.split)} loss {record.loss:.4f} "
            f"± {record.loss_se:.4f}, {bits}accuracy {record.accuracy:.1%}{exact}"
        )
    if isinstance(record, Sampled):
        text = printable(record.prompt + record.text)
        return f"step {record.step}: {text[:200]}{'…' if len(text) > 200 else ''}"
    if isinstance(record, Event):
        text = printable(record.text)
        kind = printable(record.kind)
        return f"step {record.step}: {kind}. {text}" if text else f"step {record.step}: {kind}"
    if isinstance(record, Proof) and record.state == "failed":
        return f"step {record.step}: proof failed, {record.name}. {printable(record.text)}"
    return ""


def printable(text: str) -> str:
    r"""A text on one line that cannot command a terminal: control characters become visible.

    >>> printable("a\nb\x1b[31m")
    'a⏎b�[31m'
    """
    shown = text.replace("\r\n", "⏎").replace("\n", "⏎").replace("\t", " ")
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in shown)


def _other_json(record: Record) -> str:
    told = {"record": type(record).__name__.lower(), **record_fields(record)}
    return json.dumps(spelled(told), allow_nan=False)


def _time(seconds: float | None) -> str:
    """Seconds as a person says them.

    >>> [_time(seconds) for seconds in (None, 8.4, 64, 3 * 3600 + 300)]
    ['unknown time', '0:08', '1:04', '3:05:00']
    """
    if seconds is None:
        return "unknown time"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bar(stream: IO[str], texts: tuple[str, ...]) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    return Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        *(TextColumn(text, markup=False) for text in texts),
        console=Console(file=stream),
        refresh_per_second=4,
    )


def _bits(value: float | None) -> str:
    return "bits per byte unknown" if value is None else f"{value:.4f} bits per byte"
