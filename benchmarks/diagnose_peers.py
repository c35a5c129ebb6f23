"""One published training doctor on a list of logs; run by diagnose.py in the peers' own Python.

    python benchmarks/diagnose_peers.py TOOL JOBS.json SAID.json

JOBS is {id: path}. SAID becomes {id: {"findings": [{"kind", "severity", "text", "advice"}],
"seconds", "error"}}, severities in our words: critical, warning, info. Each tool is called through
its documented functions with its defaults; standard library and that tool only.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

Found = list[dict[str, str]]
LONGEST_SECONDS = 60
"""Time for one log; the usual one takes milliseconds."""


def finding(kind: str, severity: str, text: str, advice: str = "") -> dict[str, str]:
    """The four parts of a finding → as it is written."""
    return {"kind": kind, "severity": severity, "text": text, "advice": advice}


def trainproof() -> Callable[[str], Found]:
    """What `trainproof epoch FILE` calls; it gives no advice beside its messages."""
    from trainproof.epoch import check_epoch

    severities = {"FAIL": "critical", "WARN": "warning"}

    def ask(path: str) -> Found:
        found = []
        for each in check_epoch(path)["findings"]:
            if each["id"] in ("TP-NO-RECORDS", "TP-NO-LOSS"):
                raise ValueError(f"{each['id']}: {each['message']}")
            if each["level"] != "PASS":
                severity = severities.get(each["level"], "info")
                text = f"{each['message']} {each['evidence']}"
                found.append(finding(each["id"], severity, text, text))
        return found

    return ask


def trainspotter() -> Callable[[str], Found]:
    """`load_run` and `run_all`, as in its README and its `analyze`."""
    import trainspotter as tool

    def ask(path: str) -> Found:
        run = tool.load_run(path)
        if not run.metric_names():
            raise ValueError("no numeric metrics found")
        found = []
        for each in tool.run_all(run):
            error = each.severity == "error"
            # Its own rules take a spike of severity error for the divergence itself.
            kind = f"{each.detector}: {each.title}" + (
                ", error" * (error and each.detector == "spikes")
            )
            severity = "critical" if error else each.severity
            found.append(finding(kind, severity, each.message, "\n".join(each.fixes)))
        return found

    return ask


def runmedic() -> Callable[[str], Found]:
    """What `runmedic diagnose FILE` calls."""
    from runmedic import loaders, roles
    from runmedic.checks import run_checks

    def ask(path: str) -> Found:
        runs = loaders.load(path)
        if not runs:
            raise ValueError("no training metrics found")
        found = []
        for run in runs:
            seen = roles.detect(run)
            if "train_loss" not in seen:
                raise ValueError("no training loss found")
            for each in run_checks(run, seen):
                text = f"{each.title}. {' '.join(each.evidence)}"
                found.append(finding(each.check, each.severity, text, "\n".join(each.fixes)))
        return found

    return ask


SIGNS = {
    "NaN": "NaN",
    "loss spikes": "Loss spiked",
    "exploding": "Exploding gradients",
    "gradient spikes": "Gradient spikes|Gradient norm spiked",
    "unstable": "Highly unstable gradients",
    "vanishing": "Vanishing gradients|Gradient norms extremely small",
    "not converged": "not converged",
}
"""Sign → the words of training-doctor's evidence for it."""


def training_doctor() -> Callable[[str], Found]:
    """`Doctor().load(FILE).analyze()`, its documented way for logs.

    It repeats a rule's diagnosis along the run; each rule is written once, at its worst, with all
    signs it saw.
    """
    from training_doctor import Doctor

    order = ["critical", "warning", "info"]

    def ask(path: str) -> Found:
        doctor = Doctor().load(path)
        if not doctor.store.get_metrics():
            raise ValueError("no metrics found")
        by_rule: dict[str, list] = {}
        for each in doctor.analyze():
            by_rule.setdefault(each.detector_name, []).append(each)
        found = []
        for rule, all_of_it in by_rule.items():
            evidence = " ".join(e.observation for each in all_of_it for e in each.evidence)
            signs = [sign for sign, words in SIGNS.items() if re.search(words, evidence)]
            kind = rule + (f": {', '.join(signs)}" if signs else "")
            severity = min((each.severity.value for each in all_of_it), key=order.index)
            advice = {line for each in all_of_it for line in each.suggestions}
            found.append(finding(kind, severity, all_of_it[0].problem, "\n".join(sorted(advice))))
        return found

    return ask


TOOLS = {
    "trainproof": trainproof,
    "trainspotter": trainspotter,
    "runmedic": runmedic,
    "training-doctor": training_doctor,
}


def too_long(*_: object) -> None:
    raise TimeoutError(f"took longer than {LONGEST_SECONDS} s")


def main() -> None:
    tool, jobs, answers = sys.argv[1:]
    ask = TOOLS[tool]()
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, too_long)
    said = {}
    for key, path in json.loads(Path(jobs).read_text(encoding="utf-8")).items():
        if hasattr(signal, "SIGALRM"):
            signal.alarm(LONGEST_SECONDS)
        began = time.perf_counter()
        try:
            found, error = ask(path), ""
        except Exception as fault:  # a log that breaks a tool is a result, not the end
            found, error = [], f"{type(fault).__name__}: {fault}"
        seconds = time.perf_counter() - began
        if hasattr(signal, "SIGALRM"):
            signal.alarm(0)
        said[key] = {"findings": found, "seconds": seconds, "error": error}
    Path(answers).write_text(json.dumps(said), encoding="utf-8")


if __name__ == "__main__":
    main()
