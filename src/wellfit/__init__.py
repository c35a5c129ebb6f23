"""wellfit trains language models and tells the truth about the training.

    import wellfit

    recipe = wellfit.load_recipe("my-text.yaml", ["train.budget.steps=200"])
    outcome = wellfit.train(recipe, out="runs/my-text")
    print(wellfit.diagnose("runs/my-text").to_json()["verdict"])
    print(wellfit.generate("runs/my-text", "Once upon a time"))

The names below are the public ones; each is loaded when it is first used, so that
`import wellfit` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wellfit.api import (
        coord_check,
        diagnose,
        evaluate,
        export,
        generate,
        inspect_model,
        load_recipe,
        lr_find,
        predict,
        train,
    )
    from wellfit.errors import WellfitError

__version__ = "0.1.0"

__all__ = [
    "WellfitError",
    "__version__",
    "coord_check",
    "diagnose",
    "evaluate",
    "export",
    "generate",
    "inspect_model",
    "load_recipe",
    "lr_find",
    "predict",
    "train",
]

_HOME = dict.fromkeys(
    (name for name in __all__ if name not in ("WellfitError", "__version__")),
    "wellfit.api",
)
_HOME["WellfitError"] = "wellfit.errors"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
