"""The rules against simulated runs whose truth is known."""

from __future__ import annotations

import sys
from math import comb

import numpy as np
import pytest
from simulated_faults import FAULTS
from simulated_runs import HEALTHY, TEST

from wellfit.diagnosis import diagnose

RUNS = 60
"""Healthy runs of each family."""
FAULTY = 24
"""Runs of each fault and severity."""
FLOORS = (0.5, 0.6, 0.6)
"""Least recall of every single fault family at low, middle and high severity."""


def clopper_pearson(hits: int, runs: int, level: float = 0.95) -> tuple[float, float]:
    """Hits in runs → the exact confidence interval of their rate (Clopper and Pearson 1934)."""

    def tail(p: float) -> float:
        return sum(comb(runs, k) * p**k * (1 - p) ** (runs - k) for k in range(hits + 1))

    def solve(target: float, extra: int) -> float:
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            below = tail(middle) - extra * comb(runs, hits) * middle**hits * (1 - middle) ** (
                runs - hits
            )
            low, high = (middle, high) if below > target else (low, middle)
        return low

    edge = (1 - level) / 2
    return (
        0.0 if hits == 0 else solve(1 - edge, extra=1),
        1.0 if hits == runs else solve(edge, extra=0),
    )


def test_clopper_pearson_agrees_with_known_values() -> None:
    """0 in 30 gives 0 to 0.1157, 5 in 50 gives 0.0333 to 0.2181 (tables of the exact interval)."""
    assert clopper_pearson(0, 30) == pytest.approx((0.0, 0.1157), abs=1e-4)
    assert clopper_pearson(5, 50) == pytest.approx((0.0333, 0.2181), abs=1e-4)


def test_healthy_runs_raise_no_alarm(capsys: pytest.CaptureFixture[str]) -> None:
    """≤ 1 % of 1,320 healthy runs of twenty-two families get a warning or worse.

    Fails when `EVIDENCE` and `CHOICE` of `rules/overfitting.py` are 0, and when `Z` of
    `rules/loss_spike.py` is 4 instead of 8.
    """
    alarms: list[str] = []
    for name, family in HEALTHY.items():
        for seed in range(RUNS):
            found = diagnose(family(np.random.default_rng([TEST, seed]))).findings
            kinds = [f.kind for f in found if f.severity != "info"]
            alarms += [f"{name}, seed {seed}: {', '.join(kinds)}"] if kinds else []
    runs = RUNS * len(HEALTHY)
    low, high = clopper_pearson(len(alarms), runs)
    with capsys.disabled():
        sys.stdout.write(
            f"\nfalse alarms: {len(alarms)} of {runs} healthy runs = {len(alarms) / runs:.2%} "
            f"(95 %: {low:.2%} to {high:.2%}) {'; '.join(alarms)}"
        )
    assert runs >= 1000
    assert len(alarms) <= 0.01 * runs, alarms


def test_faults_are_found_at_three_severities(capsys: pytest.CaptureFixture[str]) -> None:
    """Every fault family is found, with its own kind, at every severity; ≥ 0.9 over all.

    Fails when `rules/divergence.py` asks for a rise of 300 % instead of 20 %.
    """
    lines, missed, total = [], 0, 0
    for name, (kind, family) in FAULTS.items():
        recall = []
        for severity in range(3):
            hits = 0
            for seed in range(FAULTY):
                run = family(np.random.default_rng([TEST, seed, severity]), severity)
                kinds = {f.kind for f in diagnose(run).findings if f.severity != "info"}
                hits += kind in kinds
            recall.append(hits / FAULTY)
            missed, total = missed + FAULTY - hits, total + FAULTY
        lines.append(f"{name:20} {kind:12} " + "  ".join(f"{r:4.0%}" for r in recall))
        for severity, floor in enumerate(FLOORS):
            assert recall[severity] >= floor, f"{name} at severity {severity}: {recall}"
    with capsys.disabled():
        sys.stdout.write("\nrecall by severity (low, middle, high):\n  " + "\n  ".join(lines))
    assert missed <= 0.1 * total
