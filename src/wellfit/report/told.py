"""A Material → the sentences at the top of the page: what was trained, and how good it is."""

from __future__ import annotations

from typing import Any

from wellfit.monitor.history import History
from wellfit.report.figures import last_evaluations, parameters, spread
from wellfit.report.gather import Material
from wellfit.report.numbers import count, counted, figure, finite, share

SOURCES = 3
"""Sources of a recipe that are named one by one."""


def trained_words(material: Material) -> str:
    """What was trained, on what, in one sentence; only what the records say, empty without them."""
    history = material.history
    size = parameters(history)
    what = "A language model" + ("" if size is None else f" of {count(size)} parameters")
    tokens = finite(history.tokens.values)
    read = f"{count(tokens[-1])} tokens" if tokens else ""
    sources = _sources(history.recipe)
    if not read and not sources:
        return "" if size is None else f"{what}."
    scratch = " from scratch" if history.context.from_scratch else ""
    return f"{what}, trained{scratch} on {' of '.join(part for part in (read, sources) if part)}."


def log_words(history: History) -> str:
    """What a log holds, in one sentence.

    >>> from wellfit.monitor.history import Series
    >>> held_out = {"validation": Series((3,), (2.5,))}
    >>> log_words(History("a", "CSV", Series((1, 2, 3), (4.0, 3.0, 2.0)), held_out))
    'CSV: 3 training losses and 1 held-out loss, up to step 3.'
    """
    sets = history.validation_loss.values()
    several = (history.train_loss, *sets)
    last = max((series.steps[-1] for series in several if len(series)), default=None)
    losses = counted(len(history.train_loss), "training loss", "training losses")
    held_out = counted(sum(map(len, sets)), "held-out loss", "held-out losses")
    reach = "" if last is None else f", up to {history.axis} {last:,}"
    return f"{history.format}: {losses} and {held_out}{reach}."


def score_words(material: Material) -> str:
    """How good the model is on text it has never seen, in one sentence; empty if not scored."""
    scores = last_evaluations(material)
    if not scores:
        return ""
    last = scores[0]
    right = share(last.accuracy, decimals=1)
    if last.exact is not None:
        return (
            f"Of {last.documents:,} examples it has never seen it answers "
            f"{share(last.exact, decimals=1)} wholly right, and guesses {right} of the labels."
        )
    if last.bits_per_byte is None and last.bytes:  # an encoder, or one that writes spans
        return (
            f"On text it has never seen it guesses {right} of the tokens right that are hidden "
            f"from it, at {figure(last.loss)} nats each."
        )
    if last.bits_per_byte is None:
        return f"On text it has never seen it guesses {right} of the next tokens right."
    error = spread(last.bits_per_byte_se)
    bits = f"{figure(last.bits_per_byte)}{f' {error}' if error else ''}"
    return (
        f"On text it has never seen it guesses {right} of the next "
        f"tokens right and needs {bits} bits to store a byte; plain text takes 8."
    )


def _sources(recipe: dict[str, Any] | None) -> str:
    data = (recipe or {}).get("data")
    listed = data.get("sources") if isinstance(data, dict) else None
    paths = [
        str(source["path"])
        for source in (listed if isinstance(listed, list) else [])
        if isinstance(source, dict) and source.get("path")
    ]
    made = data.get("tokens") if isinstance(data, dict) else None
    if isinstance(made, dict) and isinstance(made.get("train"), list):
        paths = [str(path) for path in made["train"]]
    more = f" and {len(paths) - SOURCES} more" if len(paths) > SOURCES else ""
    return ", ".join(paths[:SOURCES]) + more
