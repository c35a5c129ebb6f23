"""The rules: pure functions from a history to findings, one file each.

A rule of your own is such a function; `wellfit.diagnosis.rules.kit.check_rule` tests it, and
`diagnose(history, rules=rules_with(["my_package.rules:too_hot"]))` uses it.
"""

from __future__ import annotations

from collections.abc import Iterable

from wellfit.diagnosis.answer import Rule
from wellfit.diagnosis.rules.accum_unnormalised import accum_unnormalised
from wellfit.diagnosis.rules.divergence import divergence
from wellfit.diagnosis.rules.failed_proof import failed_proof
from wellfit.diagnosis.rules.generalisation_gap import generalisation_gap
from wellfit.diagnosis.rules.gradient_explosion import gradient_explosion
from wellfit.diagnosis.rules.loss_spike import loss_spike
from wellfit.diagnosis.rules.lr_too_high import lr_too_high
from wellfit.diagnosis.rules.lr_too_low import lr_too_low
from wellfit.diagnosis.rules.memorisation import memorisation
from wellfit.diagnosis.rules.no_validation import no_validation
from wellfit.diagnosis.rules.non_finite import non_finite
from wellfit.diagnosis.rules.oscillation import oscillation
from wellfit.diagnosis.rules.overfitting import overfitting
from wellfit.diagnosis.rules.plateau import plateau
from wellfit.diagnosis.rules.resume_lost_state import resume_lost_state
from wellfit.diagnosis.rules.schedule import schedule
from wellfit.diagnosis.rules.slow_convergence import slow_convergence
from wellfit.diagnosis.rules.too_few_points import too_few_points
from wellfit.diagnosis.rules.vanishing_gradient import vanishing_gradient
from wellfit.diagnosis.rules.zero_loss import zero_loss


def rules_with(names: Iterable[str]) -> dict[str, Rule]:
    """Names (`module:function`) → the built-in rules and those.

    Raises RecipeError where a name cannot be imported.
    """
    from wellfit.recipe.callables import resolve
    from wellfit.recipe.schema import Call

    return RULES | {name: resolve(Call(name=name), RULES, "rules") for name in names}


RULES: dict[str, Rule] = {
    "failed_proof": failed_proof,
    "non_finite": non_finite,
    "zero_loss": zero_loss,
    "divergence": divergence,
    "lr_too_high": lr_too_high,
    "gradient_explosion": gradient_explosion,
    "loss_spike": loss_spike,
    "oscillation": oscillation,
    "overfitting": overfitting,
    "generalisation_gap": generalisation_gap,
    "memorisation": memorisation,
    "plateau": plateau,
    "lr_too_low": lr_too_low,
    "vanishing_gradient": vanishing_gradient,
    "resume_lost_state": resume_lost_state,
    "slow_convergence": slow_convergence,
    "schedule": schedule,
    "accum_unnormalised": accum_unnormalised,
    "too_few_points": too_few_points,
    "no_validation": no_validation,
}
