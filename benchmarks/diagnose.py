"""Our diagnosis beside four published training doctors, on the same real logs with labels.

    python benchmarks/diagnose.py [--logs DIR] [--only wellfit] [--verbose] [--out FILE.json]

DIR holds `labels.csv` (columns id, file, format, labels, confidence, evidence, and labels_2,
confidence_2 of a second rater) and the logs it names. What is compared is judgement, not formats:
a Hugging Face `trainer_state.json` goes to the peers as it is, any other log as such a file written
from what our importers read; training-doctor, which reads no JSON, gets all of them as CSV. The
peers live in a virtual environment of their own (`--peers-venv`, made on the first run);
`diagnose_peers.py` calls them there.

Counted the same way for all. An *alarm* is a finding at warning or above. *Healthy* logs are those
the first rater labels `healthy` with high or medium confidence, less those the tool cannot
read. *Faulty* logs have at least one fault family among their labels and not `healthy`; an
unreadable one counts as missed. *Right* means that some alarm's family is among the label's;
*first* that the first alarm, the worst, is; *named* that any finding is, mere information included.
"""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PEERS = {
    "trainproof": "0.22.0",
    "trainspotter": "0.2.6",
    "runmedic": "0.1.1",
    "training-doctor": "0.1.0",
}
ALARMS = ("critical", "warning")
SEVERITIES = (*ALARMS, "info")

# ── labels and findings → families of faults ───────────────────────────────────────────────

LABELS = {
    "overfitting": "overfitting",
    "severe_overfitting": "overfitting",
    "memorisation_staircase": "memorisation",
    "underfitting_or_not_converged": "underfitting",
    "slow_convergence": "underfitting",
    "plateau_high_loss": "plateau",
    "divergence": "divergence",
    "grad_explosion": "divergence",
    "lr_too_high": "divergence",
    "loss_spike_recovered": "loss_spike",
    "oscillation": "oscillation",
    "lr_too_low": "lr_too_low",
    "vanishing_or_zero_grad": "lr_too_low",
    "nan_or_inf": "non_finite",
    "zero_loss_collapse": "zero_loss",
}
"""Label → family. The other labels are observations: healthy, no_validation,
lr_never_decays/odd_schedule, too_few_points_to_tell."""

FAMILIES: dict[str, dict[str, tuple[str, ...]]] = {
    "wellfit": {
        "overfitting": ("overfitting",),
        "generalisation_gap": ("overfitting",),
        "memorisation": ("memorisation", "overfitting"),
        "underfitting": ("underfitting",),
        "undertrained": ("underfitting",),
        "slow_convergence": ("underfitting",),
        "plateau": ("plateau",),
        "divergence": ("divergence",),
        "gradient_explosion": ("divergence",),
        "lr_too_high": ("divergence",),
        "loss_spike": ("loss_spike",),
        "oscillation": ("oscillation",),
        "lr_too_low": ("lr_too_low",),
        "vanishing_gradient": ("lr_too_low",),
        "non_finite": ("non_finite",),
        "zero_loss": ("zero_loss",),
        # About the set-up or an observation; the labels have no fault for them.
        "accum_unnormalised": (),
        "resume_lost_state": (),
        "schedule": (),
        "stable": (),
        "no_validation": (),
        "too_few_points": (),
    },
    "trainproof": {
        "TP-NAN": ("non_finite",),
        "TP-NAN-GRAD": ("non_finite",),
        "TP-ZERO-LOSS": ("zero_loss",),
        # Its text explains that the zeros may be the logger's cover for NaN.
        "TP-ZERO-LOSS-ONSET": ("zero_loss", "non_finite"),
        # "Completely flat (dead run)": a plateau, and nothing was learnt.
        "TP-FLAT": ("plateau", "underfitting"),
        "TP-DIVERGE": ("divergence",),
        # "Loss never improved over the run": it does not say which of the two.
        "TP-DEAD-RUN": ("plateau", "underfitting"),
        "TP-ZERO-GRAD": ("lr_too_low",),
        # A spike of the gradient norm: an explosion, or what a spike of the loss comes from.
        "TP-GRAD-SPIKE": ("divergence", "loss_spike"),
        "TP-ZERO-LR": ("lr_too_low",),
        "TP-ZERO-LR-PARTIAL": ("lr_too_low",),
        "TP-OVERFIT": ("overfitting",),
        "TP-STEP-CLIFF": (),
        "TP-LOADER-BOUND": (),
        "TP-THROUGHPUT": (),
        "TP-GPU-UTIL": (),
        "TP-NOT-CHECKED": (),
    },
    "trainspotter": {
        # Non-finite values are called "diverged", so both are named.
        "divergence: Diverged (non-finite values)": ("non_finite", "divergence"),
        "divergence: Diverged (sustained growth)": ("divergence",),
        "spikes: Loss spike": ("loss_spike",),
        # At severity error it takes a spike for the divergence itself (its own attribution rule).
        "spikes: Loss spike, error": ("loss_spike", "divergence"),
        "plateau: Plateau": ("plateau",),
        "overfitting: Overfitting onset": ("overfitting",),
        "grad_norm: Gradient-norm explosion": ("divergence",),
        "grad_norm: Gradient clipping likely saturated": (),
        # "Jitter from step to step is a large share of all improvement": as good as oscillation.
        "eval_noise: Eval metric too noisy to rank checkpoints": ("oscillation",),
        # "Suspiciously low loss early": leakage or an easy task; collapse and memorisation look so.
        "loss_floor: Suspiciously low loss early (heuristic)": ("zero_loss", "memorisation"),
        # About the schedule, an observation in the labels.
        "lr_schedule: No LR warmup detected": (),
        "lr_schedule: LR increased after its peak": (),
        "lr_schedule: LR discontinuity": (),
        "throughput: Throughput regression": (),
    },
    "runmedic": {
        "non_finite": ("non_finite",),
        "divergence": ("divergence",),
        "loss_spikes": ("loss_spike",),
        # "The model is not learning"; among its causes is a rate that is far too low.
        "no_learning": ("plateau", "underfitting", "lr_too_low"),
        "overfitting": ("overfitting",),
        # As trainproof's: a spike of the gradient norm.
        "grad_spikes": ("divergence", "loss_spike"),
        "constant_lr_plateau": ("plateau",),
        "val_below_train": (),
        "input_bound": (),
        "slow_steps": (),
        "slowdown": (),
        "memory_growth": (),
        "log:amp_overflow": ("non_finite",),
        "log:anomaly_nan": ("non_finite",),
        "log:cuda_oom": (),
        "log:dataloader_killed": (),
        "log:nccl_timeout": (),
        "log:device_mismatch": (),
        "log:backward_twice": (),
        "log:inplace_grad": (),
        "log:unused_params": (),
    },
    # Its five rules each look for several signs; the driver writes the signs it saw after the rule.
    # A finding names the families of all its signs, or those of the bare rule.
    "training-doctor": {
        "lr_too_high": ("divergence",),
        # "The loss spikes or diverges": the rate stays the diagnosis, the sign is named with it.
        "lr_too_high: loss spikes": ("divergence", "loss_spike"),
        "lr_too_high: NaN": ("divergence", "non_finite"),
        # "Very slow or stalled": slow convergence and a plateau are the same words for it.
        "lr_too_low": ("lr_too_low", "underfitting", "plateau"),
        "plateau": ("plateau",),
        "plateau: not converged": ("plateau", "underfitting"),
        "overfitting": ("overfitting",),
        "gradient_instability": ("divergence",),
        "gradient_instability: NaN": ("non_finite", "divergence"),
        "gradient_instability: exploding": ("divergence",),
        # As the others' spikes of the gradient norm.
        "gradient_instability: gradient spikes": ("divergence", "loss_spike"),
        "gradient_instability: vanishing": ("lr_too_low",),
    },
}
"""Tool → name of a finding → the families it names; a name that is not here names none.
Where a peer's words allow two families it gets both."""

LOWERS_RATE = re.compile(
    r"\b(lower|reduce|decrease|halve|cut|divide)\b[^.;]{0,40}\b(learning rate|peak lr|lr|rate)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Log:
    """A row of labels.csv."""

    id: str
    path: Path
    format: str
    labels: tuple[str, ...]
    confidence: str
    labels_2: str
    confidence_2: str
    inferred: bool

    @property
    def families(self) -> frozenset[str]:
        """The families of faults among the labels; without validation data memorisation and
        overfitting are one."""
        found = {LABELS[label] for label in self.labels if label in LABELS}
        if self.inferred and found & {"overfitting", "memorisation"}:
            found |= {"overfitting", "memorisation"}
        return frozenset(found)

    @property
    def healthy(self) -> bool:
        return "healthy" in self.labels

    @property
    def faulty(self) -> bool:
        return bool(self.families) and not self.healthy


@dataclass(frozen=True)
class Named:
    """One finding of a tool, in the words of this file."""

    kind: str
    severity: str
    families: tuple[str, ...]
    advice: str


@dataclass(frozen=True)
class Said:
    """What a tool says about one log, the worst first; `error` where it could not read it."""

    findings: tuple[Named, ...] = ()
    seconds: float = 0.0
    error: str = ""
    verdict: str = ""
    given: str = "original file"

    @property
    def alarms(self) -> tuple[Named, ...]:
        return tuple(finding for finding in self.findings if finding.severity in ALARMS)

    def mark(self, log: Log) -> str:
        """ok, FALSE ALARM, missed, wrong kind, not first, unreadable; empty without a label."""
        if self.error:
            return "unreadable"
        if log.healthy:
            return "FALSE ALARM" if self.alarms else "ok"
        if not log.faulty:
            return ""
        if not self.alarms:
            return "missed"
        if not names(self.alarms, log):
            return "wrong kind"
        return "ok" if names(self.alarms[:1], log) else "not first"


def names(findings: Iterable[Named], log: Log) -> bool:
    """Findings and a log → whether one of them names a family among the log's labels."""
    return any(log.families.intersection(finding.families) for finding in findings)


def families(tool: str, kind: str) -> tuple[str, ...]:
    """A tool and the name of a finding → the families it names.

    >>> families("training-doctor", "lr_too_high: NaN, loss spikes")
    ('divergence', 'non_finite', 'loss_spike')
    """
    table = FAMILIES[tool]
    if kind in table:
        return table[kind]
    rule, _, signs = kind.partition(": ")
    of_signs = [table.get(f"{rule}: {sign}", ()) for sign in signs.split(", ")]
    together = dict.fromkeys(family for each in of_signs for family in each)
    return tuple(together) or table.get(rule, ())


def known(tool: str, kind: str) -> bool:
    """A tool and the name of a finding → whether the table above knows it."""
    return kind in FAMILIES[tool] or kind.partition(": ")[0] in FAMILIES[tool]


def named(tool: str, found: Iterable[dict[str, str]]) -> tuple[Named, ...]:
    """Findings as {kind, severity, advice} → Named, the worst first, the order kept otherwise."""
    all_of_them = [
        Named(each["kind"], each["severity"], families(tool, each["kind"]), each["advice"])
        for each in found
    ]
    return tuple(sorted(all_of_them, key=lambda each: SEVERITIES.index(each.severity)))


def read_labels(folder: Path) -> list[Log]:
    """A folder with labels.csv → its logs."""
    with (folder / "labels.csv").open(encoding="utf-8", newline="") as lines:
        return [
            Log(
                id=row["id"],
                path=folder / row["file"],
                format=row["format"],
                labels=tuple(row["labels"].split("|")),
                confidence=row["confidence"],
                labels_2=row.get("labels_2") or "",
                confidence_2=row.get("confidence_2") or "",
                inferred="INFERRED" in (row.get("evidence") or ""),
            )
            for row in csv.DictReader(lines)
        ]


# ── the tools ──────────────────────────────────────────────────────────────────────────────


def ask_wellfit(logs: list[Log]) -> tuple[dict[str, Said], dict[str, Any]]:
    """Logs → what wellfit says of each, and the histories it could read."""
    from wellfit.diagnosis import diagnose, read

    said: dict[str, Said] = {}
    histories: dict[str, Any] = {}
    for log in logs:
        began = time.perf_counter()
        try:
            history = histories[log.id] = read(log.path)
            diagnosis = diagnose(history)
        except Exception as error:  # a log that breaks us is a result, not the end
            said[log.id] = Said(error=plainly(error, log), seconds=time.perf_counter() - began)
            continue
        seconds = time.perf_counter() - began
        found = [
            {
                "kind": finding.kind,
                "severity": finding.severity,
                "advice": finding.change.text if finding.change else "",
            }
            for finding in diagnosis.findings
        ]
        verdict = f"{diagnosis.verdict.fit}, {diagnosis.verdict.progress}"
        said[log.id] = Said(named("wellfit", found), seconds, verdict=verdict)
    return said, histories


def plainly(error: Exception, log: Log) -> str:
    """An error → one line without a path of this machine."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    return line.replace(str(log.path), log.path.name).replace(str(log.path.parent), "…")[:200]


def peers_python(folder: Path) -> Path:
    """A folder → the Python of a virtual environment there that holds the four peers."""
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    wanted = [f"{name}=={version}" for name, version in PEERS.items()]
    listed = ""
    if python.exists():
        command = [python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
        listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    if not set(wanted) <= set(listed.split()):
        print(f"installing {', '.join(wanted)}", file=sys.stderr)
        if not python.exists():
            venv.create(folder, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *wanted], check=True)
    return python


def rows_of(history: Any) -> list[dict[str, float]]:
    """A History → rows as the Hugging Face trainer logs them: training rows, evaluation rows."""
    epochs = dict(zip(history.epoch.steps, history.epoch.values, strict=True))
    train = {
        "loss": history.train_loss,
        "learning_rate": history.learning_rate,
        "grad_norm": history.grad_norm,
    }
    sets = dict(history.validation_loss)
    main = "validation" if "validation" in sets else next(iter(sets), "")
    held_out = {"eval_loss" if name == main else f"eval_{name}_loss": sets[name] for name in sets}
    rows = []
    for order, columns in enumerate((train, held_out)):
        at: dict[int, dict[str, float]] = {}
        for column, series in columns.items():
            for step, value in zip(series.steps, series.values, strict=True):
                at.setdefault(step, {})[column] = value
        for step, values in at.items():
            epoch = {"epoch": epochs[step]} if step in epochs else {}
            rows.append((step, order, {**epoch, **values, "step": step}))
    return [row for _, _, row in sorted(rows, key=lambda each: each[:2])]


def convert(log: Log, history: Any, folder: Path) -> dict[str, tuple[Path, str]]:
    """A log and its History (None where unread) → tool → the file it gets, and what that is."""
    original = (log.path, "original file")
    if history is None:
        return dict.fromkeys(PEERS, original)
    rows = rows_of(history)
    folder.mkdir()
    table = folder / "log.csv"
    columns = ["step", "loss", "train_loss", "lr", "grad_norm", "eval_loss"]
    with table.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, columns, extrasaction="ignore", restval="")
        writer.writeheader()
        for row in rows:
            # Its rate rules read `loss`, its overfitting rule wants `train_loss`.
            twice = {"train_loss": row["loss"]} if "loss" in row else {}
            rate = {"lr": row["learning_rate"]} if "learning_rate" in row else {}
            writer.writerow({**row, **twice, **rate})
    state = original
    if log.format != "hf_trainer_state":
        path = folder / "trainer_state.json"
        last = max((int(row["step"]) for row in rows), default=0)
        steps = history.context.planned_steps or last
        content = {"global_step": last, "max_steps": steps, "log_history": rows}
        path.write_text(json.dumps(content), encoding="utf-8")
        state = (path, "trainer_state.json written from our History")
    # Of the four, training-doctor alone reads no JSON.
    return dict.fromkeys(PEERS, state) | {
        "training-doctor": (table, "CSV written from our History")
    }


def ask_peer(
    tool: str, python: Path, given: dict[str, tuple[Path, str]], folder: Path
) -> dict[str, Said]:
    """A peer and the file it gets for each log → what it says."""
    jobs, answers = folder / f"{tool}.jobs.json", folder / f"{tool}.said.json"
    jobs.write_text(json.dumps({key: str(path) for key, (path, _) in given.items()}))
    driver = [str(python), str(HERE / "diagnose_peers.py"), tool, str(jobs), str(answers)]
    subprocess.run(driver, check=True, stdout=subprocess.DEVNULL)
    said = {}
    for key, answer in json.loads(answers.read_text(encoding="utf-8")).items():
        path, what = given[key]
        error = answer["error"].replace(str(path), path.name)
        found = named(tool, answer["findings"])
        said[key] = Said(found, answer["seconds"], error, given=what)
    return said


def whole_processes(
    tools: list[str], python: Path | None, given: list[dict[str, tuple[Path, str]]], rounds: int
) -> dict[str, dict[str, float]]:
    """Tools → seconds of a process that only starts, and of one that diagnoses a log: medians.

    The tools take turns, so that a busy machine slows all of them alike.
    """
    ours, theirs = Path(sys.executable).parent, (python or Path(sys.executable)).parent
    code = "import sys; from training_doctor import Doctor; d = Doctor()"
    again = "; d.load(sys.argv[1]); print(*d.analyze())"
    calls = {  # program, what only starts it, what diagnoses a file
        "wellfit": ([ours / "wellfit"], ["--version"], ["diagnose", "--json"]),
        "trainproof": ([theirs / "trainproof"], ["--version"], ["epoch", "--json"]),
        "trainspotter": ([theirs / "trainspotter"], ["--version"], ["analyze", "--output=json"]),
        "runmedic": ([theirs / "runmedic"], ["--version"], ["diagnose", "--json"]),
        "training-doctor": ([theirs / "python", "-c"], [code], [code + again]),  # no command line
    }
    times: dict[str, dict[str, list[float]]] = {t: {"start": [], "process": []} for t in tools}
    for turn in range(rounds + 1):
        for files in given:
            for tool in tools:
                program, starting, working = calls[tool]
                for what, arguments in (
                    ("start", starting),
                    ("process", [*working, str(files[tool][0])]),
                ):
                    began = time.perf_counter()
                    subprocess.run([*program, *arguments], capture_output=True, check=False)
                    if turn:  # the first round warms caches and is not counted
                        times[tool][what].append(time.perf_counter() - began)
    return {
        tool: {f"{what}_seconds": round(statistics.median(t), 3) for what, t in both.items()}
        for tool, both in times.items()
    }


# ── scores ─────────────────────────────────────────────────────────────────────────────────


def clopper_pearson(hits: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Hits of a number of logs → the exact confidence interval of their rate, by bisection.

    >>> [round(edge, 4) for edge in clopper_pearson(0, 10)]
    [0.0, 0.3085]
    """

    def at_most(k: int, p: float) -> float:
        return sum(math.comb(of, i) * p**i * (1 - p) ** (of - i) for i in range(k + 1))

    def where(k: int, target: float) -> float:
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if at_most(k, middle) > target else (low, middle)
        return low

    edge = (1 - level) / 2
    return (
        0.0 if hits == 0 else where(hits - 1, 1 - edge),
        1.0 if hits == of else where(hits, edge),
    )


def score(logs: list[Log], said: dict[str, Said], frozen: set[str]) -> dict[str, Any]:
    """Logs, what a tool says of them, and those trained at rate 0 → the figures of the table."""
    readable = [log for log in logs if not said[log.id].error]
    healthy = [log for log in readable if log.healthy and log.confidence != "low"]
    alarmed = [log for log in healthy if said[log.id].alarms]
    # The milder count: alarms about a warm-up or the speed say nothing about the fit.
    about_fit = [log for log in alarmed if any(a.families for a in said[log.id].alarms)]
    # And the mildest: `trainproof` ends with an error for its worst level only.
    critical = [log for log in alarmed if said[log.id].alarms[0].severity == "critical"]
    low, high = clopper_pearson(len(alarmed), len(healthy)) if healthy else (0.0, 1.0)
    result: dict[str, Any] = {
        "healthy": len(healthy),
        "alarms_on_healthy": len(alarmed),
        "alarms_on_healthy_about_a_fault": len(about_fit),
        "critical_alarms_on_healthy": len(critical),
        "alarm_rate": round(len(alarmed) / len(healthy), 3) if healthy else None,
        "alarm_rate_95": [round(low, 3), round(high, 3)],
    }
    for key, confidences in (("faulty_sure", ("high",)), ("faulty", ("high", "medium"))):
        faulty = [log for log in logs if log.faulty and log.confidence in confidences]
        answers = [(log, said[log.id]) for log in faulty]
        result[key] = {
            "logs": len(faulty),
            "flagged": sum(bool(answer.alarms) for _, answer in answers),
            "right": sum(names(answer.alarms, log) for log, answer in answers),
            "first": sum(names(answer.alarms[:1], log) for log, answer in answers),
            "named": sum(names(answer.findings, log) for log, answer in answers),
        }
    result["logs_at_rate_0"] = len(frozen)
    told = [any(LOWERS_RATE.search(a.advice) for a in said[key].alarms) for key in frozen]
    result["harmful"] = sum(told) if told else None
    result["unreadable"] = len(logs) - len(readable)
    times = [said[log.id].seconds for log in readable]
    result["milliseconds_per_log"] = round(1000 * statistics.median(times), 2) if times else None
    return result


def at_rate_0(history: Any) -> bool:
    """A History → whether at least five rates are known and all are 0."""
    rates = history.learning_rate.values
    return len(rates) >= 5 and not any(rates)


def kinds(said: Said) -> str:
    """What a tool says → `kind (severity), …`, each kind once at its worst."""
    worst: dict[str, str] = {}
    for finding in said.findings:
        worst.setdefault(finding.kind, finding.severity)
    return ", ".join(f"{kind} ({severity})" for kind, severity in worst.items()) or "nothing"


def disagreements(logs: list[Log], said: dict[str, Said]) -> list[dict[str, str]]:
    """Logs and what was said → those where the first rater says something else."""
    return [
        {
            "id": log.id,
            "mark": mark,
            "labels": "|".join(log.labels),
            "confidence": log.confidence,
            "labels_2": log.labels_2,
            "confidence_2": log.confidence_2,
            "said": said[log.id].error or kinds(said[log.id]),
        }
        for log in logs
        if (mark := said[log.id].mark(log)) not in ("", "ok")
    ]


# ── what is printed ────────────────────────────────────────────────────────────────────────


def print_logs(tool: str, logs: list[Log], said: dict[str, Said]) -> None:
    """One line a log: labels, verdict, findings, mark."""
    print(f"{tool}, log by log")
    for log in logs:
        answer = said[log.id]
        labels = f"{'|'.join(log.labels)} ({log.confidence})"
        verdict = f"[{answer.verdict}] " if answer.verdict else ""
        print(f"{log.id} {answer.mark(log):11} {labels}")
        print(f"    {'':11} {verdict}{answer.error or kinds(answer)}")
    print()


def print_table(results: dict[str, dict[str, Any]]) -> None:
    """All tools, one column each."""

    def of(key: str) -> Iterable[tuple[str, list[str]]]:
        yield (
            {"faulty_sure": "faulty, sure", "faulty": "faulty, sure or fairly"}[key],
            [str(result[key]["logs"]) for result in results.values()],
        )
        for what, words in (
            ("flagged", "flagged"),
            ("right", "right family"),
            ("first", "right family first"),
            ("named", "… or as information"),
        ):
            yield f"  {words}", [str(result[key][what]) for result in results.values()]

    def column(key: str) -> list[str]:
        return ["–" if (value := r.get(key)) is None else str(value) for r in results.values()]

    def interval(result: dict[str, Any]) -> str:
        low, high = result["alarm_rate_95"]
        return f"{100 * low:.0f}–{100 * high:.0f} %"

    rates = [
        "–" if r["alarm_rate"] is None else f"{100 * r['alarm_rate']:.0f} %"
        for r in results.values()
    ]
    table = [
        ("", list(results)),
        ("version", column("version")),
        ("healthy, sure or fairly", column("healthy")),
        ("  alarms", column("alarms_on_healthy")),
        ("  rate", rates),
        ("  95 % interval", [interval(result) for result in results.values()]),
        ("  alarms about a fault", column("alarms_on_healthy_about_a_fault")),
        ("  critical alarms", column("critical_alarms_on_healthy")),
        *of("faulty_sure"),
        *of("faulty"),
        ("rate 0: logs", column("logs_at_rate_0")),
        ("  told to lower it", column("harmful")),
        ("unreadable", column("unreadable")),
        ("ms a log", column("milliseconds_per_log")),
        ("s to start", column("start_seconds")),
        ("s a whole process", column("process_seconds")),
    ]
    for words, cells in table:
        print(f"{words:24}" + "".join(f"{cell:>16}" for cell in cells))


def main() -> None:
    """Asks every tool about every log; prints the table and writes it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--logs", type=Path, default=HERE.parents[1] / "shared" / "logs")
    parser.add_argument("--only", choices=["wellfit"], help="without the peers; seconds")
    parser.add_argument("--peers-venv", type=Path, default=HERE.parent / ".venv-peers")
    parser.add_argument("--rounds", type=int, default=3, help="of whole processes, in turns")
    parser.add_argument("--verbose", action="store_true", help="print every log")
    parser.add_argument("--out", type=Path, help="write the result here as JSON")
    options = parser.parse_args()
    if not (options.logs / "labels.csv").is_file():
        parser.error(
            f"{options.logs} holds no labels.csv. Give a folder of labelled logs with --logs DIR; "
            "its columns stand at the top of benchmarks/diagnose.py."
        )
    logs = read_labels(options.logs)
    said = {}
    said["wellfit"], histories = ask_wellfit(logs)
    frozen = {key for key, history in histories.items() if at_rate_0(history)}
    versions = {"wellfit": importlib.metadata.version("wellfit")}
    seconds: dict[str, dict[str, float]] = {}
    if options.only is None:
        python = peers_python(options.peers_venv)
        versions |= PEERS
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            given = {log.id: convert(log, histories.get(log.id), folder / log.id) for log in logs}
            for tool in PEERS:
                files = {key: paths[tool] for key, paths in given.items()}
                said[tool] = ask_peer(tool, python, files, folder)
            usual = [
                given[log.id] | {"wellfit": (log.path, "original file")} for log in usual_logs(logs)
            ]
            seconds = whole_processes(list(said), python, usual, options.rounds)
    results = {
        tool: {"version": versions[tool]} | score(logs, said[tool], frozen) | seconds.get(tool, {})
        for tool in said
    }
    if options.verbose:
        for tool in said:
            print_logs(tool, logs, said[tool])
    else:
        print("wellfit disagrees with the first rater on")
        for each in disagreements(logs, said["wellfit"]):
            print(
                f"{each['id']} {each['mark']:11} {each['labels']} ({each['confidence']}); second "
                f"rater {each['labels_2']} ({each['confidence_2']}); said {each['said']}"
            )
        print()
    unmapped = sorted(
        f"{tool}: {finding.kind}"
        for tool in said
        for finding in {f for answer in said[tool].values() for f in answer.findings}
        if not known(tool, finding.kind)
    )
    if unmapped:
        print(f"without a family: {', '.join(dict.fromkeys(unmapped))}\n")
    print_table(results)
    if options.out:
        result = {
            "command": "python benchmarks/diagnose.py" + (" --only wellfit" * bool(options.only)),
            "python": sys.version.split()[0],
            "logs": len(logs),
            "results": results,
            "disagreements_of_wellfit": disagreements(logs, said["wellfit"]),
            "said": {
                tool: {
                    key: {"given": answer.given, "said": answer.error or kinds(answer)}
                    for key, answer in answers.items()
                }
                for tool, answers in said.items()
            },
        }
        text = json.dumps(result, indent=2, ensure_ascii=False)
        options.out.write_text(text + "\n", encoding="utf-8")


def usual_logs(logs: list[Log], count: int = 5) -> list[Log]:
    """Logs → those of Hugging Face's trainer, which all read, nearest to the median in size."""
    native = sorted(
        (log for log in logs if log.format == "hf_trainer_state"),
        key=lambda log: (log.path.stat().st_size, log.id),
    )
    first = max(0, (len(native) - count) // 2)
    return native[first : first + count]


if __name__ == "__main__":
    main()
