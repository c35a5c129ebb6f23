"""A run's adapter → the folder that PEFT reads, or one plain model with its base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wellfit.errors import RunError
from wellfit.recipe.schema import Model

if TYPE_CHECKING:
    from wellfit.run.weights import Trained


def merge_adapter(trained: Trained) -> tuple[str, ...]:
    """A checkpoint, opened → its model is plain from now on; a sentence on that, where it was none.

    Raises RunError where the plain model cannot say the same.
    """
    if trained.recipe.model.adapter is None:
        return ()
    from wellfit.model.adapters.merge import merged

    return (merged(trained.model),)


def write_adapter(trained: Trained, folder: Path, family: str) -> tuple[str, ...]:
    """A checkpoint, opened, a folder that exists and the base's family → the adapter as PEFT's.

    Raises RunError where the run has no adapter, or where PEFT's names cannot say it.
    """
    recipe = trained.recipe
    if recipe.model.adapter is None:
        raise RunError(
            "the run trained no adapter",
            where="export --adapter",
            way_out="Leave --adapter out: the whole model is written.",
        )
    from wellfit.model.adapters.peft_files import save_peft
    from wellfit.model.transformer import Transformer

    own = isinstance(trained.model, Transformer)
    names = module_names(recipe.model, family) if own else None
    task = "SEQ_CLS" if recipe.model.head == "classes" else "CAUSAL_LM"
    save_peft(trained.model, folder, names=names, base=recipe.model.weights, task=task)
    return (f"PEFT reads it beside the base, {recipe.model.weights or 'which was drawn here'}.",)


def module_names(model: Model, family: str) -> dict[str, str]:
    """A model section and its family → our modules' names, and theirs.

    Modules that stand in a file as a part of a larger one (GPT-2's query, key and value) have none.

    >>> names = module_names(Model(context=8, layers=1, width=8, heads=1, kv_heads=1, hidden=8,
    ...                            qk_norm=False), "llama")
    >>> names["blocks.0.attention.query"]
    'model.layers.0.self_attn.q_proj'
    """
    from wellfit.model.hub.names import hub_names

    return {
        name.removesuffix(".weight"): stored.names[0].removesuffix(".weight")
        for name, stored in hub_names(model, family).items()
        if name.endswith(".weight") and len(stored.names) == 1 and stored.parts == 1
    }
