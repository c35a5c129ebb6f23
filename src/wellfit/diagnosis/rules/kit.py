"""A new rule → nothing, or an AssertionError that says what it does wrong."""

from __future__ import annotations

import math
import re

from wellfit.diagnosis.answer import NotAssessed, Rule
from wellfit.monitor.history import Context, History, Series
from wellfit.records import Finding

_KIND = re.compile(r"[a-z][a-z0-9_]*")
_CAUSE = re.compile(r"[A-Z][0-9]{2}")


def check_rule(rule: Rule) -> None:
    """A rule → nothing where it keeps the contract; raises AssertionError where it does not.

    Asked on histories that break careless rules (empty, one point, all NaN, infinite, constant,
    zero, negative, a validation loss alone, a plain healthy run): it must answer with a list of
    findings or NotAssessed, the same twice, with values of the vocabulary.
    """
    for name, history in _histories().items():
        try:
            answer, again = rule(history), rule(history)
        except Exception as error:
            raise AssertionError(f"on the history `{name}` the rule raises {error!r}") from error
        assert repr(answer) == repr(again), f"on `{name}` two calls give two answers"
        if isinstance(answer, NotAssessed):
            assert answer.what and answer.why and answer.needs, f"on `{name}`: say what, why, needs"
            continue
        assert isinstance(answer, list), (
            f"on `{name}` the rule gives {type(answer).__name__}; "
            "a list of findings or NotAssessed is wanted"
        )
        for finding in answer:
            _check_finding(finding, name)


def _check_finding(finding: Finding, name: str) -> None:
    where = f"on `{name}`"
    assert isinstance(finding, Finding), f"{where}: {type(finding).__name__} is no Finding"
    assert _KIND.fullmatch(finding.kind), f"{where}: kind {finding.kind!r} is not snake_case"
    assert finding.severity in ("info", "warning", "critical"), f"{where}: {finding.severity!r}"
    assert finding.certainty in ("certain", "likely", "possible"), f"{where}: {finding.certainty!r}"
    assert finding.since_step is None or isinstance(finding.since_step, int), (
        f"{where}: since_step {finding.since_step!r} is no whole number"
    )
    assert finding.evidence, f"{where}: a finding without evidence is an opinion"
    likelihoods = [cause.likelihood for cause in finding.causes]
    assert all(0 <= likelihood <= 1 for likelihood in likelihoods), (
        f"{where}: likelihood not in 0–1"
    )
    assert likelihoods == sorted(likelihoods, reverse=True), f"{where}: causes are not ranked"
    for cause in finding.causes:
        assert _CAUSE.fullmatch(cause.id), f"{where}: {cause.id!r} is no catalogue id such as O01"
    for path in finding.change.patch if finding.change else ():
        assert path.split(".")[0] in ("data", "model", "train", "evaluate", "monitor"), (
            f"{where}: {path!r} is no path of a recipe"
        )


def _histories() -> dict[str, History]:
    steps = tuple(range(1, 61))

    def run(losses: list[float], validation: list[float] | None = None) -> History:
        count = len(losses)
        ends = tuple(10 * (k + 1) for k in range(len(validation or [])))
        return History(
            name="kit",
            format="run folder",
            train_loss=Series(steps[:count], tuple(losses)),
            validation_loss={"validation": Series(ends, tuple(validation))} if validation else {},
            learning_rate=Series(steps[:count], (1e-3,) * count),
            grad_norm=Series(steps[:count], tuple(losses)),
            context=Context(vocabulary_size=256, planned_steps=60),
        )

    healthy = [1 + 4 * math.exp(-k / 10) for k in range(60)]
    return {
        "empty": History("kit", "run folder"),
        "one point": run([2.0]),
        "all NaN": run([math.nan] * 60, [math.nan] * 6),
        "infinite": run(healthy[:30] + [math.inf] * 30, [math.inf] * 6),
        "constant": run([3.0] * 60, [3.0] * 6),
        "zero": run([0.0] * 60, [0.0] * 6),
        "negative": run([-1.0] * 60, [-1.0] * 6),
        "validation alone": run([], [3.0, 2.0, 1.5, 1.4, 1.6, 1.9]),
        "huge": run([1e300] * 60, [1e300] * 6),
        "healthy": run(healthy, healthy[9::10]),
    }
