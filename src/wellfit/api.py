"""The functions a program calls: the same doors as the command line's, with Python values.

Heavy rooms are imported inside each function, so that `diagnose` never loads torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack, overload

if TYPE_CHECKING:
    from wellfit.diagnosis import Diagnosis
    from wellfit.generation.write import Ended
    from wellfit.recipe.schema import Recipe
    from wellfit.records import Evaluated
    from wellfit.run.conclude import Outcome
    from wellfit.run.coord_check import Coordinates
    from wellfit.run.export import Exported
    from wellfit.run.inspect import Inspected
    from wellfit.run.lr_find import RateAdvice
    from wellfit.run.predict import Prediction


class Drawing(TypedDict, total=False):
    """How a continuation is drawn; what is left out is as in the comments."""

    tokens: int  # 100
    temperature: float  # 0.8; 0 is greedy
    top_k: int  # 0: all
    top_p: float  # 0.95
    min_p: float  # 0
    repetition_penalty: float  # 1
    stop: Sequence[str]  # none
    seed: int  # 0


def load_recipe(path: str | Path, changes: Iterable[str] = ()) -> Recipe:
    """A recipe file and `key=value` changes → the resolved recipe.

    Raises RecipeError naming every fault at once.
    """
    from wellfit.run.load import load

    return load(Path(path), tuple(changes))


def train(
    recipe: Recipe | str | Path,
    out: str | Path | None = None,
    *,
    changes: Sequence[str] = (),
    resume: bool = False,
) -> Outcome:
    """A recipe → a trained run folder with records, checkpoints, findings and report.

    `out` is the run folder (default `runs/NAME`); `resume` goes on from its newest checkpoint.
    Raises RecipeError, DataError, RunError or CheckpointError.
    """
    from wellfit.recipe.schema import Recipe
    from wellfit.run.run import run

    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, changes)
    if isinstance(recipe, Recipe) and changes:
        raise TypeError("changes apply to a recipe file; use recipe.model_copy for a Recipe")
    return run(loaded, Path(out) if out is not None else Path("runs") / loaded.name, resume=resume)


def diagnose(
    path: str | Path,
    *,
    vocabulary_size: int | None = None,
    epochs: float | None = None,
    task: str | None = None,
) -> Diagnosis:
    """The log of one run, a folder that holds one, or a run folder → verdict and findings.

    What the log does not tell of the run can be said beside it, and wins over what it tells: the
    size of the vocabulary, the planned passes over the data, and the task (`language`,
    `classification`, `preference` or `reinforcement`).
    Needs no torch. Raises LogError when nothing there can be read, or several runs are there.
    """
    from wellfit.diagnosis import Given, read
    from wellfit.diagnosis import diagnose as diagnose_history

    return diagnose_history(read(Path(path), Given(vocabulary_size, epochs, task)))


def lr_find(
    recipe: Recipe | str | Path,
    *,
    changes: Sequence[str] = (),
    steps: int | None = None,
    run: str | Path | None = None,
) -> RateAdvice:
    """A recipe → a learning rate with its evidence, and advice on the batch; nothing is trained.

    `steps` is how many optimizer steps may be spent (default a fifth of the run's); with `run` it
    begins at that run's newest checkpoint. Raises RecipeError, DataError, RunError or
    CheckpointError.
    """
    from wellfit.recipe.schema import Recipe
    from wellfit.run.lr_find import lr_find as find

    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, changes)
    if isinstance(recipe, Recipe) and changes:
        raise TypeError("changes apply to a recipe file; use recipe.model_copy for a Recipe")
    return find(loaded, steps=steps, run=Path(run) if run is not None else None)


def coord_check(
    recipe: Recipe | str | Path,
    *,
    changes: Sequence[str] = (),
    widths: Sequence[int] = (),
    steps: int = 4,
    seeds: int = 3,
) -> Coordinates:
    """A recipe → how its activations, and what a few steps change in them, go with the width.

    `.steady` says whether all changes are as large at every width, `.lines` give sizes and slopes.
    Without `widths` a quarter, half and all of the recipe's. Raises RecipeError, DataError or
    RunError.
    """
    from wellfit.recipe.schema import Recipe
    from wellfit.run.coord_check import coord_check as check

    loaded = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, changes)
    if isinstance(recipe, Recipe) and changes:
        raise TypeError("changes apply to a recipe file; use recipe.model_copy for a Recipe")
    return check(loaded, widths=tuple(widths), steps=steps, seeds=seeds)


def evaluate(run: str | Path, split: str = "test", *, checkpoint: str | int = "") -> Evaluated:
    """A run folder → scores of a checkpoint on the whole of a held-out split.

    `checkpoint` is `best`, `last` or a step; by default the best where the run keeps one.
    """
    from wellfit.run.weights import evaluate_run

    return evaluate_run(Path(run), split, str(checkpoint))


def predict(
    run: str | Path, rows: Iterable[Mapping[str, object]], *, checkpoint: str | int = ""
) -> list[Prediction]:
    """A run whose model names classes or points at answers, and rows → what it says to each.

    A row has the columns of the run's examples, without the answer: `{"text": …}`, or
    `{"question": …, "context": …}`. Raises RunError where the model writes text, and DataError
    for a row that is no example.
    """
    from wellfit.run.predict import predict_rows

    placed = ((f"row {number}", row) for number, row in enumerate(rows))
    return list(predict_rows(Path(run), placed, str(checkpoint)))


@overload
def generate(
    run: str | Path, prompt: str, *, checkpoint: str | int = "", **draw: Unpack[Drawing]
) -> str: ...


@overload
def generate(
    run: str | Path,
    prompt: list[str] | tuple[str, ...],
    *,
    checkpoint: str | int = "",
    **draw: Unpack[Drawing],
) -> list[Ended]: ...


def generate(
    run: str | Path,
    prompt: str | list[str] | tuple[str, ...],
    *,
    checkpoint: str | int = "",
    **draw: Unpack[Drawing],
) -> str | list[Ended]:
    """A run folder, or a folder of weights, and a prompt → the continuation that it writes.

    Of several prompts, written at once, a list in their order: `.text`, `.tokens`, `.reason` (end,
    stop or length) and `.seconds` of each. How to draw is as in `Drawing`; `checkpoint` is `best`,
    `last` or a step, by default the best where the run keeps one.
    """
    from wellfit.generation.write import Ended
    from wellfit.run.writing import drawing, generate_from_run

    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    pieces = generate_from_run(Path(run), prompts, drawing(**draw), str(checkpoint))
    ends = {piece.number: piece for piece in pieces if isinstance(piece, Ended)}
    if isinstance(prompt, str):
        return ends[0].text
    return [ends[number] for number in range(len(prompts))]


def export(
    run: str | Path,
    out: str | Path,
    *,
    checkpoint: str | int = "",
    dtype: Literal["fp32", "bf16", "fp16"] = "fp32",
    adapter: bool = False,
) -> Exported:
    """A run folder → its model in the layout of Hugging Face at `out`, with a model card.

    An adapter is merged with its base, or with `adapter` written alone, as PEFT reads it.
    `checkpoint` is `best`, `last` or a step; by default the best where the run keeps one. Raises
    RunError where no architecture of that layout computes what the model does, naming the settings
    in the way.
    """
    from wellfit.run.export import export as write

    return write(Path(run), Path(out), checkpoint=str(checkpoint), dtype=dtype, adapter=adapter)


def inspect_model(path: str | Path, *, changes: Sequence[str] = ()) -> Inspected:
    """A recipe, a run folder or a folder of weights → modules, shapes, parameters, adapter targets.

    Raises RecipeError or RunError.
    """
    from wellfit.run.inspect import inspect_model as look

    return look(Path(path), tuple(changes))
