"""A recipe → how the size of its activations, and of what training does to them, goes with width.

The coordinate check of Tensor Programs V (arXiv 2203.03466, appendix D.1): a few steps at several
widths, and the size of every kind of activation against the width on two logarithmic axes. Where
rates carry over from width to width, what a few steps change has the same size at all of them.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from wellfit.errors import RunError
from wellfit.recipe.widths import at_width, how_it_grows
from wellfit.run.plain_json import plain_json
from wellfit.run.setting import corpus_folder
from wellfit.run.show import Quiet, Show

if TYPE_CHECKING:
    from torch import Tensor

    from wellfit.data.corpus import Corpus
    from wellfit.model.transformer import Transformer
    from wellfit.recipe.schema import Recipe

KINDS = ("embedding", "attention", "feed-forward", "residual stream", "logits")
TOLERANCE = 0.25
"""Slopes of changes within ± this count as none: twice as wide, at most 1.19 times as large."""
MOST_TOKENS, PROBED_ROWS = 4_096, 4
Verdict = Literal["steady", "grows", "vanishes", "not settled", "does not move", "not finite"]


@dataclass(frozen=True, slots=True)
class Line:
    """One kind of activation: root mean squares by width, the mean over seeds."""

    kind: str
    start: tuple[float, ...]
    """Before the first step."""
    change: tuple[float, ...]
    """Of the difference that the steps made, on the same tokens."""
    start_slope: float | None
    """Of ln size over ln width; None where some size is zero or not finite."""
    change_slope: float | None
    change_slope_error: float
    """Standard error of the mean over seeds; NaN for one seed."""
    verdict: Verdict
    """Of the change: whether it grows or vanishes with width; not settled where the slope is
    beyond the tolerance by less than two standard errors."""


@dataclass(frozen=True, slots=True)
class Coordinates:
    """The outcome of a coordinate check."""

    name: str
    base_width: int
    grows: str
    """Whether heads become more or wider with the width."""
    widths: tuple[int, ...]
    steps: int
    seeds: int
    tolerance: float
    lines: tuple[Line, ...]
    seconds: float

    @property
    def steady(self) -> bool:
        """Whether all that moves moves as much at every width, and everything moves."""
        return all(line.verdict == "steady" for line in self.lines)

    def to_json(self) -> dict[str, Any]:
        """Everything as plain data; what is not finite is null."""
        plain = {"format_version": 1, "steady": self.steady, **asdict(self)}
        cleaned: dict[str, Any] = plain_json(plain)
        return cleaned


def coord_check(
    recipe: Recipe,
    *,
    widths: tuple[int, ...] = (),
    steps: int = 4,
    seeds: int = 3,
    show: Show | None = None,
) -> Coordinates:
    """A recipe → sizes of its activations and of their changes at several widths, with slopes.

    At each width (a quarter, half and all of the recipe's where none are given) it is trained for
    `steps` steps on its own batches, cut to 4,096 tokens, at its peak rate and in float32, from
    weights of `seeds` seeds. The corpus is built where the recipe says and stays; nothing else is
    kept. Raises RunError where a width is not possible, and RecipeError or DataError.
    """
    show = show or Quiet()
    if recipe.model.module is not None:
        raise RunError(
            "a module of your own has no width that could be changed from here",
            where="model.module",
            way_out="Check the widths of wellfit's own model, or look at yours by hand.",
        )
    if recipe.model.weights:
        raise RunError(
            "trained weights have one width, and the check begins anew at several",
            where="model.weights",
            way_out="Check a recipe of the same settings without model.weights.",
        )
    if recipe.model.adapter is not None:
        raise RunError(
            "beside the frozen base of an adapter no width is trained",
            where="model.adapter",
            way_out="Check the recipe that the base was trained with.",
        )
    if recipe.model.kind == "encoder_decoder":
        raise RunError(
            "the check looks at one stack of blocks, and an encoder_decoder has two",
            where="model.kind",
            way_out="Check a decoder of the same settings: each stack follows the same rules.",
        )
    whole = recipe.model.width
    widths = tuple(sorted(set(widths) or {whole // 4, whole // 2, whole}))
    if len(widths) < 2:
        raise RunError(
            "a slope needs at least two different widths",
            where="widths",
            way_out="Give two or more, such as 64,128,256.",
        )
    grows = how_it_grows(recipe.model, widths)
    models = [at_width(recipe.model, width, grows) for width in widths]

    from wellfit.data.build import build_corpus
    from wellfit.run.plan import settled

    began = time.perf_counter()
    corpus = build_corpus(
        recipe.data, name=recipe.name, folder=corpus_folder(recipe), progress=show.stage
    )
    recipe = settled(recipe, corpus)
    found: dict[tuple[int, int], dict[str, tuple[float, float]]] = {}
    for seed in range(seeds):
        for model in models:
            show.stage("coordinate check", len(found), seeds * len(models))
            one = recipe.model_copy(update={"model": model, "seed": recipe.seed + seed})
            found[seed, model.width] = sizes(one, corpus, steps, batch_seed=recipe.seed)
    show.stage("coordinate check", len(found), len(found))
    by_kind = {
        kind: [[found[seed, width][kind] for width in widths] for seed in range(seeds)]
        for kind in KINDS
    }
    return Coordinates(
        name=recipe.name,
        base_width=recipe.model.base_width,
        grows=grows,
        widths=widths,
        steps=steps,
        seeds=seeds,
        tolerance=TOLERANCE,
        lines=tuple(line(kind, widths, by_kind[kind]) for kind in KINDS),
        seconds=time.perf_counter() - began,
    )


def widths_of(text: str) -> tuple[int, ...]:
    """`64,128,256` (or with blanks) → the widths. Raises RunError where one is no number.

    >>> widths_of("64, 128 256")
    (64, 128, 256)
    """
    parts = text.replace(",", " ").split()
    if not all(part.isascii() and part.isdigit() and int(part) for part in parts):
        raise RunError(
            f"{text!r} are no widths",
            where="--widths",
            way_out="Give whole numbers, such as --widths 64,128,256.",
        )
    return tuple(int(part) for part in parts)


def sizes(
    recipe: Recipe, corpus: Corpus, steps: int, *, batch_seed: int
) -> dict[str, tuple[float, float]]:
    """A recipe and its corpus → kind: root mean square at the start, and that of the change."""
    import torch

    from wellfit.model.transformer import Transformer
    from wellfit.run.parts import first_model, training_batches
    from wellfit.run.vocabulary import vocabulary_of
    from wellfit.training.start import prepare
    from wellfit.training.threads import threads

    context = recipe.model.context
    rows = max(1, min(recipe.train.batch_tokens, MOST_TOKENS) // context)
    safety = recipe.train.safety.model_copy(update={"spike": "warn"})
    section = recipe.train.model_copy(
        update={"batch_tokens": rows * context, "precision": "fp32", "safety": safety}
    )
    batches = training_batches(
        recipe.model_copy(update={"train": section, "seed": batch_seed}), corpus
    )
    model = first_model(recipe, vocabulary_of(recipe, corpus))
    assert isinstance(model, Transformer), "a module of one's own is refused above"
    with threads(section.threads) as thread_count:
        setup = prepare(
            section, model, batches, folder=Path(), seed=recipe.seed, thread_count=thread_count
        )
        setup.optimizers.set_share(1.0)
        probed = torch.from_numpy(batches.batch(1).tokens[:PROBED_ROWS]).to(setup.device)
        before = activations(model, probed)
        for step in range(1, steps + 1):
            setup.stepper.take(step, batches.batch(step)).read()
        after = activations(model, probed)
    return {
        kind: (
            _size(before[kind]),
            _size([new - old for new, old in zip(after[kind], before[kind], strict=True)]),
        )
        for kind in KINDS
    }


def activations(model: Transformer, tokens: Tensor) -> dict[str, list[Tensor]]:
    """A model and tokens [B, T] → kind: its activations, one tensor a layer where layers have it.

    Attention and feed-forward are what a block adds, the residual stream what it passes on.
    """
    import torch

    kept: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    training = model.training
    model.train(False)
    with torch.no_grad(), _listening(model, kept):
        logits = model.logits(model.hidden(tokens))
    model.train(training)
    kept["logits"].append(logits)
    return kept


@contextmanager
def _listening(model: Transformer, kept: dict[str, list[Tensor]]) -> Iterator[None]:
    """While inside, what blocks take, add and give is kept."""

    def keep(kind: str) -> Callable[[Any, Any, Tensor], None]:
        def hook(module: Any, given: Any, out: Tensor) -> None:
            kept[kind].append(out.float())

        return hook

    def keep_input(module: Any, given: tuple[Tensor, ...]) -> None:
        kept["embedding"].append(given[0].float())

    first: Any = model.blocks[0]
    handles = [first.register_forward_pre_hook(keep_input)]
    block: Any
    for block in model.blocks:
        adds = {
            "attention": block.attention_post_norm or block.attention,
            "feed-forward": block.feedforward_post_norm or block.feedforward,
            "residual stream": block,
        }
        handles += [part.register_forward_hook(keep(kind)) for kind, part in adds.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def line(kind: str, widths: tuple[int, ...], seeds: list[list[tuple[float, float]]]) -> Line:
    """A kind, widths, and for each seed (start, change) at each width → slopes and a verdict.

    >>> told = line("logits", (64, 128), [[(1.0, 0.1), (1.0, 0.2)]])
    >>> round(told.change_slope or 0, 3), told.verdict
    (1.0, 'grows')
    """
    starts, changes = ([[pair[at] for pair in one] for one in seeds] for at in (0, 1))
    slopes = [slope(widths, one) for one in changes]
    known = [one for one in slopes if one is not None]
    whole = len(known) == len(slopes)
    error = math.nan
    if whole and len(known) > 1:
        error = statistics.stdev(known) / math.sqrt(len(known))
    start_slopes = [slope(widths, one) for one in starts]
    start_known = [one for one in start_slopes if one is not None]
    mean = statistics.fmean(known) if whole else None
    return Line(
        kind=kind,
        start=tuple(statistics.fmean(one) for one in zip(*starts, strict=True)),
        change=tuple(statistics.fmean(one) for one in zip(*changes, strict=True)),
        start_slope=statistics.fmean(start_known) if len(start_known) == len(seeds) else None,
        change_slope=mean,
        change_slope_error=error,
        verdict=verdict(mean, error, changes),
    )


def verdict(mean: float | None, error: float, changes: list[list[float]]) -> Verdict:
    """A mean slope, or None, its standard error, and the changes it is of → what is said of them.

    >>> verdict(0.3, 0.1, [[1.0, 1.2]]), verdict(0.9, 0.1, [[1.0, 2.0]])
    ('not settled', 'grows')
    """
    if not all(math.isfinite(size) for one in changes for size in one):
        return "not finite"
    if mean is None:
        return "does not move"
    if abs(mean) <= TOLERANCE:
        return "steady"
    if abs(mean) - 2 * error <= TOLERANCE:  # never with the NaN of a single seed
        return "not settled"
    return "grows" if mean > 0 else "vanishes"


def slope(widths: tuple[int, ...], sizes: list[float]) -> float | None:
    """Widths and sizes → least-squares slope of ln size over ln width; None with a size of 0.

    >>> slope((64, 128, 256), [3.0, 1.5, 0.75])
    -1.0
    """
    if not all(0 < size < math.inf for size in sizes):
        return None
    x, y = [math.log(width) for width in widths], [math.log(size) for size in sizes]
    return statistics.linear_regression(x, y).slope


def _size(tensors: list[Tensor]) -> float:
    """Tensors of one kind, one a layer → the root mean square of all their numbers."""
    squares = sum(float(one.double().square().sum()) for one in tensors)
    return math.sqrt(squares / sum(one.numel() for one in tensors))
