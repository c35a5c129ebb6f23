"""Where a run happens: its corpus, its machine, and what the listener must be told to measure."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from wellfit.data.corpus import Corpus
from wellfit.errors import RunError
from wellfit.monitor.environment import environment
from wellfit.monitor.folder import RunFolder, replace_file
from wellfit.monitor.hardware import matrix_peak
from wellfit.monitor.listen import Measures
from wellfit.recipe.load import load_recipe
from wellfit.recipe.schema import Recipe
from wellfit.recipe.shapes import flops_per_token, parameter_count
from wellfit.run.plan import packings_of
from wellfit.run.vocabulary import vocabulary_of
from wellfit.training import checkpoint
from wellfit.training.precision import choose


def corpus_folder(recipe: Recipe) -> Path:
    """Where the recipe's corpus lies: `data.folder`, or `corpora/NAME` in the current folder."""
    return Path(recipe.data.folder) if recipe.data.folder else Path("corpora") / recipe.name


def refuse_another_model(recipe: Recipe, folder: Path) -> None:
    """Raise RunError where the run's weights were trained as another model than the recipe's.

    Shapes alone do not tell: another `rope_base` fits the same weights and makes them worthless.
    """
    kept = folder / "recipe.yaml"
    if checkpoint.latest(folder / "checkpoints") is None or not kept.is_file():
        return
    before, now = load_recipe(kept).model.model_dump(), recipe.model.model_dump()
    # The dial only fills the other values in; alone it means nothing.
    compared = [name for name in now if name != "size"]
    if before["module"] is not None and now["module"] is not None:
        compared = ["module", "context", "adapter", "quantize"]
    if before["architecture"] == now["architecture"] == "transformers":
        compared = ["weights", "architecture", "context", "vocabulary_size", "adapter", "quantize"]
    differences: list[str] = []
    for name in compared:
        differences += _differences(f"model.{name}", before[name], now[name])
    if differences:
        raise RunError(
            "the recipe's model is not the one this run trains: " + ", ".join(differences),
            where=str(folder),
            way_out="Resume with the model it was begun with, or train into a new folder.",
        )


def _differences(path: str, before: Any, now: Any) -> list[str]:
    """A setting before and now → `… was … and is …` for each value that differs.

    >>> _differences("model.adapter", {"rank": 8, "alpha": 16}, {"rank": 4, "alpha": 16})
    ['model.adapter.rank was 8 and is 4']
    """
    if before == now:
        return []
    if path == "model.adapter" and isinstance(before, dict) and isinstance(now, dict):
        lines = (_differences(f"{path}.{key}", before[key], now[key]) for key in now)
        return [line for found in lines for line in found]
    return [f"{path} was {before} and is {now}"]


def settle(recipe: Recipe, corpus: Corpus, run_folder: RunFolder) -> Measures:
    """Write `environment.json` and `corpus.json`; measure the machine's matrix peak.

    `corpus.json` names the corpus relative to the run folder, so both can be moved together, and
    says what each packing makes of train.
    """
    where, how = choose(recipe.train.device, recipe.train.precision)
    entries = vocabulary_of(recipe, corpus)
    # A peak is measured in these two; of another arithmetic it is unknown, and so is the MFU.
    kinds: dict[str, Literal["fp32", "bf16"]] = {"fp32": "fp32", "bf16": "bf16"}
    kind = kinds.get(how.name)
    peak = None if kind is None else matrix_peak(kind, where.name, recipe.train.threads)
    run_folder.write_environment(
        {
            **environment(),
            "device": {"name": where.name, "why": where.why},
            "precision": {"name": how.name, "why": how.why},
            "matrix_peak_flops": peak,
            "parameters": _parameters(recipe, entries),
        }
    )
    pointer = {
        "folder": os.path.relpath(corpus.folder, run_folder.path),
        "digest": corpus.digest,
        "vocabulary_size": entries,
        "packing": {
            "chosen": recipe.data.packing,
            "context": recipe.model.context,
            **{name: asdict(packed) for name, packed in packings_of(corpus, recipe).items()},
        },
    }
    replace_file(run_folder.path / "corpus.json", json.dumps(pointer, indent=2) + "\n")
    # Speed counts tokens with a label, and a decoder alone has one at every place but padding,
    # whose arithmetic is no use and not counted; of a module of one's own, and beside a frozen
    # base, it is not known.
    flops = None
    plain = not recipe.model.foreign and recipe.model.adapter is None
    if recipe.model.kind == "decoder" and plain:
        flops = float(flops_per_token(recipe.model, entries))
    return Measures(device=where.name, flops_per_token=flops, matrix_peak=peak)


def _parameters(recipe: Recipe, entries: int) -> int | None:
    """Numbers that are trained; None where a module of one's own does not tell before it is made.

    The event `started` tells it in any case.
    """
    if not recipe.model.foreign and recipe.model.adapter is None:
        return parameter_count(recipe.model, entries)
    from wellfit.run.parts import model_shapes

    shapes = model_shapes(recipe, entries)
    return None if shapes is None else sum(shape.parameters for shape in shapes)
