"""What every section of a recipe is: frozen, strict, and with a sentence for each setting."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of a recipe: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Call(Section):
    """A function named in a recipe: `too_short`, `{too_short: {…}}` or `module:function`."""

    name: str = Field(description="Short name of a built-in, or package.module:function.")
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Keyword arguments, checked against the signature."
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and len(value) == 1 and "name" not in value:
            ((name, arguments),) = value.items()
            return {"name": name, "arguments": {} if arguments is None else arguments}
        return value


def refuse_split_twice(section: Any) -> None:
    """Raise ValueError where a split has both files and a share of train, or train has nothing.

    The section has `validation`, `test`, and for each a `…_share`.
    """
    for split in ("validation", "test"):
        if getattr(section, split) and getattr(section, f"{split}_share"):
            raise ValueError(
                f"{split} names files, and {split}_share would cut it from train; leave one of "
                "them out"
            )
    if section.validation_share + section.test_share >= 1:
        raise ValueError(
            f"validation_share {section.validation_share} + test_share {section.test_share} leave "
            "nothing to train on"
        )
