"""non_finite: the loss or the gradients stopped being numbers (P01, P02, P05, P09)."""

from __future__ import annotations

import math

from wellfit.diagnosis.answer import NotAssessed
from wellfit.diagnosis.changes import scale_rate
from wellfit.monitor.history import History, Series
from wellfit.records import Cause, Change, Finding

SCALER_STEPS = 20
"""A loss scaler starts near 2^16 and halves at each overflow, so it settles within about sixteen
steps (Micikevicius et al. 2018); non-finite gradients before this step are its search."""
SKIPPED_SHARE = 0.05
"""FAULTS P02: more skipped steps than 5 % are a fault; up to 1 % is ordinary loss scaling."""
IN_A_ROW = 5
"""That many non-finite gradients in a row are no search of a scaler, which would have halved
the scale thirty-two fold by then."""


def non_finite(history: History) -> list[Finding] | NotAssessed:
    """A history → a finding where losses or gradient norms are NaN or infinite.

    A non-finite loss is certain (a count, not a statistic): critical where it lasts to the end
    of its curve, a warning where the run recovered. Non-finite gradient norms beside finite
    losses are harmless while a loss scaler searches; they count from 5 % of all steps, from five
    in a row, or when they last to the end.
    """
    if not len(history.train_loss) and not any(map(len, history.validation_loss.values())):
        return NotAssessed("non_finite", "The log holds no losses.", "training losses")
    named = [("training loss", history.train_loss)]
    named += [(f"{name} loss", series) for name, series in history.validation_loss.items()]
    broken = [(name, s, _bad_steps(s)) for name, s in named]
    broken = [(name, s, bad) for name, s, bad in broken if bad]
    if broken:
        return [_losses(history, broken)]
    return _gradients(history)


def _bad_steps(series: Series) -> list[int]:
    if len(series.finite[0]) == len(series):
        return []
    return [
        step
        for step, value in zip(series.steps, series.values, strict=True)
        if not math.isfinite(value)
    ]


def _lasts(series: Series, bad: list[int]) -> bool:
    """Whether the curve ends on a non-finite value."""
    return bool(bad) and bad[-1] == series.steps[-1]


def _losses(history: History, broken: list[tuple[str, Series, list[int]]]) -> Finding:
    since = min(bad[0] for _, _, bad in broken)
    lasting = any(_lasts(series, bad) for _, series, bad in broken)
    evidence = [
        f"For: the {name} is not finite at {len(bad)} of {len(series)} points, "
        f"from step {bad[0]:,}{' to the end' if _lasts(series, bad) else ''}."
        for name, series, bad in broken
    ]
    hidden = [note for note in history.notes if "hid" in note]
    evidence += [f"For: {note}" for note in hidden]
    gradients = _bad_steps(history.grad_norm)
    if gradients:
        evidence.append(f"For: the gradient norm is not finite from step {gradients[0]:,}.")
    if not lasting:
        evidence.append("Against: later losses are finite again.")
    causes = _causes(history, since, gradients, hidden=bool(hidden))
    return Finding(
        kind="non_finite",
        severity="critical" if lasting else "warning",
        certainty="certain",
        since_step=since,
        evidence=tuple(evidence),
        causes=causes,
        change=_change(history, causes),
    )


def _gradients(history: History) -> list[Finding]:
    norms = history.grad_norm
    bad = _bad_steps(norms)
    if not bad:
        return []
    late = [step for step in bad if step > SCALER_STEPS]
    row, longest, start, since = 0, 0, 0, bad[0]
    for step, value in zip(norms.steps, norms.values, strict=True):
        start = step if row == 0 else start
        row = 0 if math.isfinite(value) or step <= SCALER_STEPS else row + 1
        if row > longest:
            longest, since = row, start
    share = len(late) / len(norms)
    lasting = _lasts(norms, bad) and longest > 1
    first = f"For: the gradient norm is not finite at {len(bad)} of {len(norms)} points"
    if share > SKIPPED_SHARE or longest >= IN_A_ROW or lasting:
        causes = _causes(history, since, bad, hidden=False)
        return [
            Finding(
                kind="non_finite",
                severity="critical" if lasting else "warning",
                certainty="certain",
                since_step=since,
                evidence=(
                    f"{first}, at most {longest} in a row, from step {since:,}.",
                    "Against: the logged losses are finite; some loggers hide NaN losses.",
                ),
                causes=causes,
                change=_change(history, causes),
            )
        ]
    return [
        Finding(
            kind="non_finite",
            severity="info",
            certainty="likely",
            since_step=bad[0],
            evidence=(
                f"{first}, first at step {bad[0]:,}.",
                "Against a fault: isolated, and the losses stay finite: a loss scaler of half "
                "precision skips such steps by design.",
            ),
            causes=(Cause("P02", 0.9, "isolated overflows of half precision"),),
        )
    ]


def _causes(
    history: History, since: int, gradients: list[int], *, hidden: bool
) -> tuple[Cause, ...]:
    """Causes by what stands just before the first non-finite value."""
    before = [
        value
        for step, value in zip(history.train_loss.steps, history.train_loss.values, strict=True)
        if step < since and math.isfinite(value)
    ]
    rose = len(before) >= 4 and max(before[-3:]) > 1.2 * min(before) + 0.1
    infinite = any(math.isinf(value) for value in history.grad_norm.values)
    ranked: list[tuple[float, Cause]] = []
    if rose:
        ranked.append((0.6, Cause("O01", 0.6, "the loss was rising before it broke")))
    if infinite or (gradients and gradients[0] < since):
        ranked.append((0.5, Cause("P02", 0.5, "gradients overflowed before the loss did")))
    if since <= 2:
        ranked.append((0.5, Cause("P09", 0.5, "it broke at the very first steps")))
    if hidden:
        ranked.append((0.4, Cause("P05", 0.4, "the logger replaced NaN by harmless numbers")))
    ranked.append(
        (0.45, Cause("P01", 0.45, "an operation gave 0/0 or a logarithm of 0 on some batch"))
    )
    if not rose:
        ranked.append((0.2, Cause("O01", 0.2, "updates too large, too fast for this log to show")))
    return tuple(cause for _, cause in sorted(ranked, key=lambda pair: -pair[0]))


def _change(history: History, causes: tuple[Cause, ...]) -> Change:
    if causes[0].id == "O01":
        return scale_rate(history, 1 / 3, "the loss rose before it stopped being a number.")
    if causes[0].id in ("P02", "P09"):
        return Change(
            "Train in bf16 or fp32 instead of fp16: half precision overflows above 65,504.",
            {"train.precision": "fp32"},
        )
    return Change(
        "Go back to the last checkpoint before this step and replay the batch in fp32: if it "
        "breaks again, the batch holds the reason.",
        {"train.precision": "fp32"},
    )
