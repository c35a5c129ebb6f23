"""A history → its diagnosis: all rules are asked, root findings hide symptoms, one verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace

from wellfit.diagnosis import curves
from wellfit.diagnosis.answer import Diagnosis, NotAssessed, Rule
from wellfit.diagnosis.changes import lowers_rate, train_longer
from wellfit.diagnosis.rules import RULES
from wellfit.diagnosis.summary import summarise
from wellfit.diagnosis.verdict import judge, longer_helps, promised
from wellfit.monitor.history import History
from wellfit.records import Cause, Change, Finding

SYMPTOMS: dict[str, tuple[str, ...]] = {
    "non_finite": (
        "loss_spike", "divergence", "plateau", "zero_loss", "overfitting", "gradient_explosion",
        "oscillation", "generalisation_gap", "vanishing_gradient", "resume_lost_state",
    ),
    "zero_loss": (
        "plateau", "loss_spike", "lr_too_low", "vanishing_gradient", "generalisation_gap",
        "memorisation", "oscillation",
    ),
    "lr_too_low": ("plateau", "divergence", "slow_convergence"),
    "lr_too_high": ("divergence", "loss_spike", "gradient_explosion", "oscillation"),
    "divergence": (
        "loss_spike", "plateau", "overfitting", "gradient_explosion", "oscillation",
        "generalisation_gap",
    ),
    "overfitting": ("generalisation_gap",),
    "plateau": ("slow_convergence",),
    "memorisation": ("oscillation",),
    "resume_lost_state": ("loss_spike",),
}  # fmt: skip
"""Root → the kinds it explains when they begin no earlier than it does."""
WHOLE_RUN = (
    "plateau",
    "lr_too_low",
    "slow_convergence",
    "generalisation_gap",
    "gradient_explosion",
)
"""Kinds that describe a whole run, whatever the step they were first seen at."""

FAR = 0.15
"""A fifth more steps would lower the loss by 15 %: hardly begun. Finished runs that people call
healthy promise up to 13 % (the largest among the real logs looked at)."""
FAR_NATS = 0.1
"""And a tenth of a nat, about a tenth of perplexity: a loss near 0 may halve for ever."""

_SEVERITIES = ("critical", "warning", "info")


def diagnose(history: History, rules: Mapping[str, Rule] = RULES) -> Diagnosis:
    """A history → verdict, summary, findings (the worst first), and what could not be judged.

    Pure: the same history gives the same diagnosis, during a run and after it.
    """
    findings: list[Finding] = []
    not_assessed: list[NotAssessed] = []
    for rule in rules.values():
        answer = rule(history)
        if isinstance(answer, NotAssessed):
            not_assessed.append(answer)
        else:
            findings.extend(answer)
    findings = _veto(_roots(findings), history)
    verdict, criteria = judge(history, findings)
    summary = summarise(history)
    summary["criteria"] = criteria
    still = verdict.progress == "still_improving" and verdict.fit in ("underfit", "well_fit")
    longer = train_longer(history) if still and longer_helps(history) else None
    summary["next"] = None if longer is None else asdict(longer)
    if longer is not None and verdict.fit == "underfit":
        findings.append(_undertrained(history, criteria, longer))
    findings.sort(key=lambda finding: _SEVERITIES.index(finding.severity))
    return Diagnosis(verdict, summary, tuple(findings), tuple(not_assessed))


def _undertrained(history: History, criteria: dict[str, str], longer: Change) -> Finding:
    """The verdict of a run that ended too early. Information, for such a run has no fault; a
    warning where a finished one was far from its end."""
    promise = promised(history)
    far = (
        promise is not None
        and history.status == "finished"
        and promise.gain >= FAR
        and promise.gain * promise.level >= FAR_NATS
    )
    return Finding(
        kind="undertrained",
        severity="warning" if far else "info",
        certainty="likely",
        since_step=None,
        evidence=(f"For: {criteria['progress']}.", f"For: {criteria['fit']}."),
        causes=(Cause("O30", 0.9, "fewer steps than there is to learn"),),
        change=longer,
    )


def exit_status(diagnosis: Diagnosis) -> int:
    """A diagnosis → 0 where nothing is worse than information, else 1."""
    return int(any(finding.severity != "info" for finding in diagnosis.findings))


def _roots(findings: list[Finding]) -> list[Finding]:
    """Findings → those that no other explains; a root says in its evidence what it explains."""
    kept: list[Finding] = []
    for finding in findings:
        if not any(_explains(root, finding) for root in findings):
            hidden = [other for other in findings if _explains(finding, other)]
            told = tuple(
                f"It explains {other.kind}, seen since step {other.since_step:,}."
                for other in hidden
                if other.since_step is not None
            )
            kept.append(replace(finding, evidence=finding.evidence + told))
    return kept


def _explains(root: Finding, finding: Finding) -> bool:
    if finding.kind not in SYMPTOMS.get(root.kind, ()) or root.severity == "info":
        return False
    if root.kind == "lr_too_low" and root.certainty != "certain":
        return False
    if root.since_step is None or finding.since_step is None or finding.kind in WHOLE_RUN:
        return True
    return finding.since_step >= root.since_step


def _veto(findings: list[Finding], history: History) -> list[Finding]:
    """A rate of zero forbids the advice to lower it."""
    if not curves.rate_is_zero(history):
        return findings
    instead = Change("First make the learning rate differ from 0; then look again.")
    return [
        replace(finding, change=instead) if lowers_rate(finding.change, history) else finding
        for finding in findings
    ]
