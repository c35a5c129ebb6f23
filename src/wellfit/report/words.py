"""A diagnosis → sentences that a newcomer understands; page and terminal say the same.

A diagnosis is the JSON of `wellfit.diagnosis`: `verdict`, `summary`, `findings`, `not_assessed`.
"""

from __future__ import annotations

from typing import Any

from wellfit.monitor.history import History

SEVERITIES = ("critical", "warning", "info")
"""Worst first."""

FINDING_NAMES = {
    "non_finite": "The numbers broke (NaN or infinity)",
    "divergence": "The loss runs away",
    "gradient_explosion": "The gradients explode",
    "lr_too_high": "The learning rate is too high",
    "loss_spike": "The loss jumped",
    "oscillation": "The loss swings to and fro",
    "overfitting": "The model learns its training text by heart",
    "generalisation_gap": "Held-out text stays much harder than training text",
    "memorisation": "The model learns its texts by heart, pass by pass",
    "underfitting": "The model has learned too little",
    "undertrained": "Training ended too early",
    "slow_convergence": "Learning is slow",
    "plateau": "Learning has stopped",
    "lr_too_low": "The learning rate is too low",
    "vanishing_gradient": "The gradients vanish",
    "zero_loss": "The loss fell to zero",
    "schedule": "The learning rate takes an unusual path",
    "no_validation": "Nothing was held out",
    "too_few_points": "Too few points to judge",
    "accum_unnormalised": "The loss is summed over micro-batches, not averaged",
    "resume_lost_state": "The training was resumed without its whole state",
    "failed_proof": "A proof before training failed",
    "causal_leak": "Tokens see what they must predict",
    "labels_not_shifted": "The labels are the inputs",
    "labels_double_shift": "The labels are shifted twice",
    "labels_misaligned": "The labels do not belong to their tokens",
    "loss_not_cross_entropy": "The loss is not the cross-entropy of the logits",
    "mask_all": "A batch has no labels",
    "eos_masked": "The end of a document is never learnt",
    "pad_in_loss": "Padding is trained on",
    "ids_outside": "The data has tokens that the model does not have",
    "init_big": "The first weights are too large",
    "loss_too_low": "The first loss is impossibly low",
    "loss_not_finite": "The first loss is no number",
    "param_missing": "A tensor is missing from the optimizer",
    "param_twice": "A tensor is updated twice",
    "param_foreign": "The optimizer holds tensors of another model",
    "frozen_tensor": "A tensor is frozen",
    "rate_zero": "A tensor has the learning rate 0",
    "zero_gradient": "A tensor gets no gradient",
    "gradient_not_finite": "A gradient is no number",
    "row_mixing": "Rows of a batch see each other",
    "pack_leak": "Documents of a row see each other",
    "segments_wrong": "The batches do not mark where documents begin",
    "kv_cache_bug": "Generation differs from training",
    "dropout_eval": "Something random is on in evaluation",
    "dropout_unkeyed": "Dropout cannot be drawn again",
    "dropout_inert": "Dropout never comes on",
}

QUESTION_NAMES = {
    "accum_unnormalised": "scale of the training loss",
    "lr_too_high": "too high a rate",
    "lr_too_low": "too low a rate",
    "schedule": "schedule of the rate",
}
"""Names of rules as questions, where the kind itself is no word of English."""

FIT_WORDS = {
    "well_fit": "Fits well",
    "underfit": "Underfit",
    "overfit": "Overfit",
    "unclear": "Fit unclear",
}
PROGRESS_WORDS = {
    "converged": "Converged",
    "still_improving": "Still improving",
    "stuck": "Stuck",
    "unclear": "Progress unclear",
}

_ALARMS = {
    "non_finite": "The training broke: its numbers stopped being finite{since}, and what was "
    "learned after that is worthless.",
    "divergence": "The training ran away: the loss rises instead of falling{since}.",
    "gradient_explosion": "The training is unstable: its gradients explode{since}.",
    "lr_too_high": "The steps are too large: the model keeps overshooting{since}.",
    "loss_spike": "The loss jumped{since}; look at what happened there.",
    "oscillation": "The loss swings to and fro instead of settling{since}.",
    "overfitting": "The model learns its training text by heart: on text it has not seen it has "
    "been getting worse{since}.",
    "generalisation_gap": "The model does far better on its training text than on text it has "
    "not seen.",
    "memorisation": "The training loss falls because the same texts come again{since}, not because "
    "the model reads better.",
    "undertrained": "The training ended long before the model had learned what the text has to "
    "offer.",
    "resume_lost_state": "The training was resumed without something it needs{since}: the loss "
    "jumped there.",
    "plateau": "The model has stopped learning{since}, too early to be done.",
    "lr_too_low": "The steps are too small: the model hardly moves{since}.",
    "vanishing_gradient": "The model hardly learns: its gradients are close to zero{since}.",
    "zero_loss": "The loss fell to zero, which real text does not allow: something is wrong "
    "with the labels or the data.",
}

_VERDICTS = {
    ("well_fit", "converged"): "The training went well: the model improved on text it has never "
    "seen, and a slightly longer run promises little more.",
    ("well_fit", "still_improving"): "The training went well: the model has levelled off on text "
    "it has never seen, while it still learns more of its training text.",
    ("well_fit", "stuck"): "The model does well on text it has never seen, and has stopped "
    "improving.",
    ("underfit", "converged"): "The model levelled off before it learned what the text has to "
    "offer: it may be too small.",
    ("underfit", "still_improving"): "The training is healthy but ended early: the model was "
    "still getting better on text it has never seen.",
    ("underfit", "stuck"): "The model stopped learning before it learned much.",
    ("overfit", "converged"): "The model learned its training text by heart: it is better there "
    "than on text it has not seen.",
    ("overfit", "still_improving"): "The model still improves on its training text, but no longer "
    "on text it has not seen.",
    ("overfit", "stuck"): "The model learned its training text by heart and has stopped improving.",
    ("unclear", "converged"): "A slightly longer run promises little; what the loss is worth on "
    "unseen text cannot be told from these records.",
    ("unclear", "still_improving"): "The loss was still falling at the end; what that is worth on "
    "unseen text cannot be told from these records.",
    ("unclear", "stuck"): "The loss hardly moves, and these records do not tell why.",
}


def ranked(diagnosis: dict[str, Any]) -> list[dict[str, Any]]:
    """The findings of a diagnosis, the worst first, in their own order within a severity."""
    found = diagnosis.get("findings")
    findings = [f for f in found if isinstance(f, dict)] if isinstance(found, list) else []
    order = {severity: rank for rank, severity in enumerate(SEVERITIES)}
    return sorted(findings, key=lambda f: order.get(str(f.get("severity")), len(order)))


def worst(diagnosis: dict[str, Any]) -> str:
    """The worst severity among the findings; `healthy` where none is a warning or worse.

    >>> worst({"findings": [{"kind": "no_validation", "severity": "info"}]})
    'healthy'
    """
    findings = ranked(diagnosis)
    severity = str(findings[0].get("severity")) if findings else "info"
    return severity if severity in ("critical", "warning") else "healthy"


def headline(diagnosis: dict[str, Any] | None, history: History) -> str:
    """A diagnosis → the one sentence to read first.

    >>> from wellfit.monitor.history import Series
    >>> headline({"findings": [{"kind": "non_finite", "severity": "critical", "since_step": 40}]},
    ...          History("run", "run folder", train_loss=Series((1,), (4.2,))))
    'The training broke: its numbers stopped being finite at step 40, and what was learned after \
that is worthless.'
    """
    findings = ranked(diagnosis or {})
    if not len(history.train_loss) and not history.validation_loss:
        if history.proofs and findings and worst(diagnosis or {}) != "healthy":
            return f"{finding_name(str(findings[0].get('kind')))}: a proof before training failed."
        return "Nothing has been recorded yet: there is no loss to judge."
    if diagnosis is None:
        return "This run has not been diagnosed, so nothing is said about its health."
    if findings and worst(diagnosis) != "healthy":
        kind = str(findings[0].get("kind"))
        since = since_words(findings[0], history.axis)
        if kind in _ALARMS:
            return _ALARMS[kind].format(since=since)
        return f"{finding_name(kind)}{since}."
    fit, progress = verdict_of(diagnosis)
    if progress == "still_improving" and history.status == "running":
        return "The training is healthy: the loss is still falling."
    if (fit, progress) == ("well_fit", "still_improving") and next_change(diagnosis)[0]:
        return "The training went well; a longer run would probably do better still."
    return _VERDICTS.get(
        (fit, progress), "No fault was found, but these records are too thin for a verdict."
    )


def since_words(finding: dict[str, Any], axis: str = "step") -> str:
    """` at step N` or ` since step N`, with the blank before; empty where the step is not known.

    `axis` is that of the History: what the log counts.

    >>> since_words({"kind": "plateau", "since_step": 1200}), since_words({"kind": "plateau"})
    (' since step 1,200', '')
    """
    step = finding.get("since_step")
    if not isinstance(step, int):
        return ""
    if step == 0:
        return " from the start"
    moment = finding.get("kind") in ("non_finite", "loss_spike", "zero_loss")
    return f" {'at' if moment else 'since'} {axis} {step:,}"


def finding_name(kind: str) -> str:
    """The kind of a finding → its title in words.

    >>> finding_name("loss_spike"), finding_name("dead_neurons")
    ('The loss jumped', 'Dead neurons')
    """
    return FINDING_NAMES.get(kind, kind.replace("_", " ").capitalize())


def verdict_of(diagnosis: dict[str, Any]) -> tuple[str, str]:
    """The verdict → its fit and its progress; `unclear` where it is missing."""
    verdict = diagnosis.get("verdict")
    if not isinstance(verdict, dict):
        return "unclear", "unclear"
    return str(verdict.get("fit", "unclear")), str(verdict.get("progress", "unclear"))


def next_change(diagnosis: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The one thing to do: its sentence and its recipe patch; both empty where there is none.

    An alarm comes first, then what the verdict asks for, then what merely would inform.

    >>> next_change({"summary": {"next": {"text": "Train twice as long.", "patch": {}}},
    ...              "findings": [{"severity": "info", "change": {"text": "Log more often."}}]})
    ('Train twice as long.', {})
    """
    findings = ranked(diagnosis)
    summary = diagnosis.get("summary")
    wanted = {"change": summary.get("next") if isinstance(summary, dict) else None}
    alarms = [finding for finding in findings if finding.get("severity") != "info"]
    informing = [finding for finding in findings if finding.get("severity") == "info"]
    changes = (changes_of(finding) for finding in (*alarms, wanted, *informing))
    return next((change for change in changes if any(change)), ("", {}))


def criteria_of(diagnosis: dict[str, Any]) -> list[str]:
    """Why the verdict is what it is: one sentence a criterion, without its full stop."""
    summary = diagnosis.get("summary")
    return texts(summary.get("criteria")) if isinstance(summary, dict) else []


def texts(value: object) -> list[str]:
    """One text, several, or a mapping of texts → a list of texts; nothing gives none."""
    if isinstance(value, dict):
        return [str(item) for item in value.values()]
    if isinstance(value, (list, tuple)):
        return [str(item) for item in value]
    return [str(value)] if value else []


def changes_of(finding: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A finding → the sentence of its change and the recipe patch; both may be empty."""
    change = finding.get("change")
    if not isinstance(change, dict):
        return "", {}
    patch = change.get("patch")
    return str(change.get("text") or ""), patch if isinstance(patch, dict) else {}


def not_assessed_lines(diagnosis: dict[str, Any]) -> list[tuple[str, str]]:
    """What could not be assessed → (what, why and what would decide it) for each."""
    lines = []
    for entry in diagnosis.get("not_assessed") or []:
        if isinstance(entry, dict):
            what = str(entry.get("what", ""))
            what = QUESTION_NAMES.get(what, what.replace("_", " "))
            what = what[:1].upper() + what[1:]
            needs = entry.get("needs")
            if isinstance(needs, (list, tuple)):
                needs = ", ".join(str(need) for need in needs)
            why = str(entry.get("why") or "").strip()
            lines.append((what, f"{why} It would need: {needs}" if needs else why))
        else:
            lines.append((str(entry), ""))
    return lines


def status_words(history: History) -> tuple[str, str]:
    """The state of a run → (`plain`, `warning`, `critical` or `info`; a word for it)."""
    return {
        "finished": ("plain", "Finished"),
        "running": ("info", "Running"),
        "stopped": ("warning", "Stopped early"),
        "failed": ("critical", "Failed"),
        "crashed": ("critical", "Crashed"),
    }.get(history.status, ("info", "State unknown"))
