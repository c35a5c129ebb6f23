"""The rules: pure functions from a history to findings, one file each.

A rule of your own is such a function; `wellfit.diagnosis.rules.kit.check_rule` tests it, and
`diagnose(history, rules=rules_with(["my_package.rules:too_hot"]))` uses it.
"""

from __future__ import annotations

from collections.abc import Iterable

from wellfit.diagnosis.answer import Rule
from wellfit.diagnosis.rules.divergence import divergence
from wellfit.diagnosis.rules.loss_spike import loss_spike
from wellfit.diagnosis.rules.lr_too_low import lr_too_low
from wellfit.diagnosis.rules.no_validation import no_validation
from wellfit.diagnosis.rules.non_finite import non_finite
from wellfit.diagnosis.rules.overfitting import overfitting
from wellfit.diagnosis.rules.plateau import plateau
from wellfit.diagnosis.rules.too_few_points import too_few_points
from wellfit.diagnosis.rules.zero_loss import zero_loss


def rules_with(names: Iterable[str]) -> dict[str, Rule]:
    """Names (`module:function`) → the built-in rules and those.

    Raises RecipeError where a name cannot be imported.
    """
    from wellfit.recipe.callables import resolve
    from wellfit.recipe.schema import Call

    return RULES | {name: resolve(Call(name=name), RULES, "rules") for name in names}


RULES: dict[str, Rule] = {
    "non_finite": non_finite,
    "zero_loss": zero_loss,
    "divergence": divergence,
    "loss_spike": loss_spike,
    "overfitting": overfitting,
    "plateau": plateau,
    "lr_too_low": lr_too_low,
    "too_few_points": too_few_points,
    "no_validation": no_validation,
}
