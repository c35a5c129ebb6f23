"""A Material → the key figures of a run, each with its meaning beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from wellfit.monitor.history import History, Series
from wellfit.records import Evaluated
from wellfit.report.gather import Material
from wellfit.report.numbers import (
    UNKNOWN,
    byte_size,
    count,
    duration,
    figure,
    finite,
    median,
    number_of,
    rate,
    share,
)

_PERPLEXITY_NOTE = "choices per token, as if equally likely"


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """One number of the page: a name, its text, and what it says."""

    name: str
    value: str
    spread: str = ""
    """`± one standard error`, empty where not known."""
    note: str = ""


def key_figures(material: Material) -> list[KeyFigure]:
    """A material → held-out scores, size of the run, speed and memory, in reading order.

    Scores are those of the test set where it was scored, else of the last validation. Speed and
    MFU are medians over the recorded steps; time is the sum of the steps, so without evaluation
    and saving.
    """
    history = material.history
    if material.folder is None:
        return _log_figures(history)
    return [*_scores(material), *_size(material), *_speed(history)]


def _log_figures(history: History) -> list[KeyFigure]:
    """What a log holds: a figure it does not tell is left out, not shown as unknown."""
    train = history.train_loss
    known = {name: series for name, series in history.validation_loss.items() if len(series)}
    axis = history.axis
    made = []
    if len(train):
        ends = f"from {figure(train.values[0])} at {axis} {train.steps[0]:,}"
        made.append(KeyFigure("Training loss", figure(train.values[-1]), note=ends))
    if known:
        name = min(known, key=lambda name: (name != "validation", name))
        series = known[name]
        where = f"{name}, {axis} {series.steps[-1]:,}{_best_note(series, axis)}"
        made.append(KeyFigure("Held-out loss", figure(series.values[-1]), note=where))
        if history.context.task == "language":
            made.append(_perplexity(series.values[-1]))
    rates = finite(history.learning_rate.values)
    if rates:
        ends = f"{rate(rates[0])} at first, {rate(rates[-1])} at last"
        made.append(KeyFigure("Highest learning rate", rate(max(rates)), note=ends))
    steps, *others = _done(history)
    epochs = finite(history.epoch.values) if axis == "step" else []
    passes = [f"{figure(epochs[-1], 2)} passes over the data"] if epochs else []
    # What was planned is told in steps.
    planned = [steps.note] if steps.note and axis == "step" else []
    note = "; ".join([*planned, *passes])
    counts = {"step": "Steps", "epoch": "Epochs", "row": "Rows of the log"}
    made.append(replace(steps, name=counts.get(axis, axis), note=note))
    others = [replace(other, note="") if other.name == "Tokens" else other for other in others]
    return made + [one for one in (*others, *_speed(history)) if one.value != UNKNOWN]


def last_evaluations(material: Material) -> list[Evaluated]:
    """The last evaluation of every held-out set, the one that counts first.

    That is the test set where it was scored, then the main set of the training, `validation`.
    """
    last = {evaluated.split: evaluated for evaluated in material.evaluations}
    order = {"test": 0, "validation": 1}
    return sorted(last.values(), key=lambda scores: (order.get(scores.split, 2), scores.split))


def spread(error: float | None, decimals: int = 3) -> str:
    """A standard error → `± …` to stand behind its value; empty where it is not a number.

    >>> spread(0.0213), spread(float("nan"))
    ('± 0.021', '')
    """
    known = error is not None and math.isfinite(error)
    return f"± {figure(error, decimals)}" if known else ""


def _scores(material: Material) -> list[KeyFigure]:
    history = material.history
    scores = last_evaluations(material)
    if not scores:
        return _loss_alone(history)
    last = scores[0]
    series = history.validation_loss.get(last.split, Series())
    return [
        KeyFigure(
            "Held-out loss",
            figure(last.loss),
            spread(last.loss_se),
            _loss_note(last.split, last.step, series),
        ),
        *_of_texts(last),
        KeyFigure(
            "Accuracy",
            share(last.accuracy, decimals=1),
            f"± {share(last.accuracy_se, decimals=1)}" if math.isfinite(last.accuracy_se) else "",
            _accuracy_note(last),
        ),
    ]


def _accuracy_note(last: Evaluated) -> str:
    if last.exact is not None:
        return "labels of examples guessed right"
    return f"{'next' if last.bits_per_byte is not None else 'hidden'} tokens guessed right"


def _of_texts(last: Evaluated) -> list[KeyFigure]:
    """What belongs to text; of examples, how many are answered rightly as a whole."""
    if last.exact is not None:
        note = "examples whose every label is guessed right"
        return [KeyFigure("Examples right", share(last.exact, decimals=1), note=note)]
    return [
        KeyFigure(
            "Bits per byte",
            figure(last.bits_per_byte),
            spread(last.bits_per_byte_se),
            "bits to store a byte of unseen text; lower is better"
            if last.bits_per_byte is not None
            else "no such number where only hidden tokens are predicted",
        ),
        KeyFigure("Perplexity", figure(last.perplexity, 1), note=_PERPLEXITY_NOTE),
    ]


def _loss_alone(history: History) -> list[KeyFigure]:
    """What can be said where no evaluation was recorded, only losses or nothing."""
    known = {name: series for name, series in history.validation_loss.items() if len(series)}
    if not known:
        nothing = "nothing was held out"
        return [
            KeyFigure("Held-out loss", UNKNOWN, note=nothing),
            KeyFigure("Bits per byte", UNKNOWN, note=nothing),
        ]
    name = min(known, key=lambda name: (name != "validation", name))
    loss, step = known[name].values[-1], known[name].steps[-1]
    return [
        KeyFigure("Held-out loss", figure(loss), note=_loss_note(name, step, known[name])),
        KeyFigure("Bits per byte", UNKNOWN, note="only the loss was recorded"),
        _perplexity(loss),
    ]


def _perplexity(loss: float) -> KeyFigure:
    perplexity = math.inf if loss > 700 else math.exp(loss)
    return KeyFigure("Perplexity", figure(perplexity, 1), note=_PERPLEXITY_NOTE)


def _loss_note(name: str, step: int, series: Series) -> str:
    return f"nats per token; {name}, step {step:,}{_best_note(series)}"


def _best_note(series: Series, axis: str = "step") -> str:
    """Where the best loss was, if it was not the last one."""
    values = finite(series.values)
    if len(values) < 2 or min(values) == series.values[-1]:
        return ""
    best = series.values.index(min(values))
    return f"; best {figure(series.values[best])} at {axis} {series.steps[best]:,}"


def parameters(history: History) -> int | None:
    """Numbers the model is made of, from the recipe and the vocabulary; None where unknown.

    Those of a module of one's own, and of an adapter, come from the event that began the run.
    """
    from wellfit.recipe.schema import Model
    from wellfit.recipe.shapes import shape_table

    described, vocabulary = (history.recipe or {}).get("model"), history.context.vocabulary_size
    if not isinstance(described, dict) or not vocabulary:
        return None
    if described.get("module") or described.get("adapter"):
        told = (event.data.get("parameters") for event in history.events)
        return next((size for size in told if isinstance(size, int)), None)
    try:
        tensors = shape_table(Model.model_validate(described), vocabulary)
    except (ValueError, TypeError, ZeroDivisionError):
        return None  # A recipe cut short or of another version: unknown rather than guessed.
    return sum(tensor.parameters for tensor in tensors)


def _size(material: Material) -> list[KeyFigure]:
    split = (material.corpus or {}).get("by_split")
    train = split.get("train") if isinstance(split, dict) else None
    text = train if isinstance(train, dict) else {}
    documents = number_of(text.get("documents"))
    return [
        KeyFigure(
            "Parameters",
            count(parameters(material.history)),
            note="numbers the model consists of",
        ),
        KeyFigure(
            "Training text",
            byte_size(number_of(text.get("bytes"))),
            note="" if documents is None else f"{count(documents)} documents",
        ),
        *_done(material.history),
    ]


def _done(history: History) -> list[KeyFigure]:
    """How far the training went: steps, tokens, time."""
    steps = history.train_loss.steps[-1] if len(history.train_loss) else None
    planned = history.context.planned_steps
    note = f"of {planned:,} planned" if planned else ""
    if history.attempts > 1:
        note += f"{'; ' if note else ''}{history.attempts} attempts"
    tokens = finite(history.tokens.values)
    seconds = finite(history.seconds.values)
    epochs = finite(history.epoch.values)
    return [
        KeyFigure("Steps", count(steps), note=note),
        KeyFigure(
            "Tokens",
            count(tokens[-1] if tokens else None),
            note=f"{figure(epochs[-1], 2)} passes over the data" if epochs else "",
        ),
        KeyFigure(
            "Training time",
            duration(math.fsum(seconds) if seconds else None),
            note="evaluation and saving excluded",
        ),
    ]


def _speed(history: History) -> list[KeyFigure]:
    memory = finite(history.memory_bytes.values)
    return [
        KeyFigure(
            "Speed", count(median(history.tokens_per_second.values)), note="tokens per second"
        ),
        KeyFigure(
            "MFU",
            share(median(history.mfu.values)),
            note="share of the measured matrix peak",
        ),
        KeyFigure("Peak memory", byte_size(max(memory) if memory else None)),
    ]
