"""A recipe with `model.weights` → the model as training begins with it, and what to keep of it.

The small files of the folder are copied into the run folder (`base/`): a run can be opened and
written out again after the folder is gone, since its checkpoints hold all weights.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from wellfit.errors import CheckpointError, RunError
from wellfit.recipe.base_weights import CONFIG, FaultyWeightsError, hub_base
from wellfit.recipe.hub_config import family_of
from wellfit.recipe.schema import Recipe
from wellfit.records import Event

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wellfit.model.guest import Guest
    from wellfit.model.hub.load import Loaded
    from wellfit.model.protocol import LanguageModel
    from wellfit.model.transformer import Transformer

KEPT = (
    CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
ABOUT = "base.json"


def keep_base(recipe: Recipe, run: Path) -> None:
    """A recipe and its run folder → the small files of its weights stand in `base/`, once."""
    folder, target = _folder(recipe), run / "base"
    if not recipe.model.weights or target.exists() or not folder.is_dir():
        return
    target.mkdir()
    names = [name for name in KEPT if (folder / name).is_file()]
    for name in names:
        shutil.copyfile(folder / name, target / name)
    weights = sorted(folder.glob("*.safetensors"))
    about = {
        "weights": recipe.model.weights,
        "files": {path.name: path.stat().st_size for path in weights},
    }
    (target / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def config_folder(recipe: Recipe, run: Path | None) -> Path:
    """A recipe and its run folder, if any → where the `config.json` of its weights stands."""
    kept = run / "base" if run is not None else None
    return kept if kept is not None and (kept / CONFIG).is_file() else _folder(recipe)


def begun_with(recipe: Recipe, model: LanguageModel, *, resumed: bool) -> Iterator[Event]:
    """A recipe and its model, just made → the event that says which weights it begins with."""
    if not recipe.model.weights or resumed:
        return
    told = getattr(model, "told", ())
    text = "; ".join([f"Training begins with the weights of {recipe.model.weights}", *told])
    yield Event(0, "weights_loaded", f"{text}.", {"weights": recipe.model.weights})


def take_base(model: Transformer, recipe: Recipe) -> Loaded:
    """Our model, unfilled, and its recipe → the model holds the weights of `model.weights`.

    Raises CheckpointError where they are missing, damaged, pickled, or of another model.
    """
    from wellfit.model.hub.load import load_hub, load_own
    from wellfit.recipe.load import load_recipe

    folder = _there(recipe)
    if (folder / "recipe.yaml").is_file():
        from wellfit.run.weights import choose_checkpoint
        from wellfit.training import checkpoint

        chosen = choose_checkpoint(folder, load_recipe(folder / "recipe.yaml"))
        checkpoint.verify(chosen)
        return load_own(model, checkpoint.evaluated_file(chosen))
    try:
        base = hub_base(folder, recipe.model.architecture)
    except FaultyWeightsError as fault:
        raise CheckpointError(str(fault), where="model.weights") from fault
    return load_hub(model, folder, family_of(base.config))


def foreign_guest(
    recipe: Recipe, vocabulary_size: int, *, filled: bool, run: Path | None = None
) -> tuple[Guest, Loaded | None]:
    """A recipe with `architecture: transformers` → its guest, with weights or (unfilled) without.

    Raises RunError and CheckpointError as `hub.foreign` does.
    """
    from wellfit.model.hub.foreign import as_guest, empty_foreign, load_foreign

    loaded = None
    if filled:
        module, loaded = load_foreign(_there(recipe), vocabulary_size)
    else:
        module = empty_foreign(config_folder(recipe, run), vocabulary_size)
    module.pretrained = True  # type: ignore[assignment]
    guest = as_guest(
        module,
        context=recipe.model.context,
        vocabulary_size=vocabulary_size,
        document_mask=recipe.train.document_mask,
    )
    return guest, loaded


def _folder(recipe: Recipe) -> Path:
    return Path(recipe.model.weights).expanduser()


def _there(recipe: Recipe) -> Path:
    folder = _folder(recipe)
    if not folder.is_dir():
        raise RunError(
            "there is no such folder",
            where=f"model.weights={recipe.model.weights}",
            way_out="Put the weights back there, or give another folder. A run that has a "
            "checkpoint does not need it any more.",
        )
    return folder
