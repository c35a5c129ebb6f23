"""A model section and a width in; the same model at that width out, all sides in proportion."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ValidationError

from wellfit.errors import RunError
from wellfit.recipe.model_section import Model

Grows = Literal["heads", "head_width"]


def at_width(model: Model, width: int, grows: Grows) -> Model:
    """A model and a width → the model with that width, and hidden features in proportion.

    With `heads` a head stays as wide and there are more of them; with `head_width` there are as
    many and each is wider. Raises RunError where the sides do not come out whole.

    >>> small = Model(context=8, layers=1, width=64, heads=2, kv_heads=1, hidden=96)
    >>> wide = at_width(small, 128, "heads")
    >>> wide.width, wide.heads, wide.kv_heads, wide.hidden
    (128, 4, 2, 192)
    """
    whole: dict[str, Any] = {
        "width": width,
        "hidden": _times("hidden features", model.hidden, width, model.width),
    }
    if grows == "heads":
        whole["heads"] = _times("heads", model.heads, width, model.width)
        # One key head for all queries stays one.
        shared = model.kv_heads * width % model.width
        whole["kv_heads"] = (
            model.kv_heads if shared else _times("key heads", model.kv_heads, width, model.width)
        )
    elif model.head_width:
        whole["head_width"] = _times("features of a head", model.head_width, width, model.width)
    if model.experts.hidden:
        hidden = _times("features of an expert", model.experts.hidden, width, model.width)
        whole["experts"] = model.experts.model_copy(update={"hidden": hidden}).model_dump()
    try:
        return Model.model_validate(model.model_dump() | whole)
    except ValidationError as error:
        raise RunError(
            f"the model has no form of width {width}: {error.errors()[0]['msg']}",
            where="widths",
            way_out=f"Choose larger widths, such as {model.width},{2 * model.width}.",
        ) from error


def how_it_grows(model: Model, widths: tuple[int, ...]) -> Grows:
    """A model and widths → whether heads become more, or wider where they cannot.

    With `base_width` it is as the recipe says.
    """
    if model.base_width:
        return "head_width" if model.base_head_width else "heads"
    whole = all(model.heads * width % model.width == 0 for width in widths)
    return "heads" if whole else "head_width"


def _times(what: str, side: int, width: int, before: int) -> int:
    if side * width % before:
        raise RunError(
            f"{side} {what} at width {before} are {side * width / before:.4g} at width {width}",
            where="widths",
            way_out=f"Choose widths at which it comes out whole, such as {before},{2 * before}.",
        )
    return side * width // before
