"""What a person at a terminal sees of a run, and the closing lines of each command."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from wellfit.monitor.progress import Mode, Progress, Stages, printable
from wellfit.records import Evaluated, Event, Proof, Record

if TYPE_CHECKING:
    from wellfit.data.corpus import Corpus
    from wellfit.data.locate import Place
    from wellfit.data.packing.counts import Packed
    from wellfit.run.conclude import Outcome
    from wellfit.run.reference import Compressed


class Show(Protocol):
    """Whoever wants to see a run as it goes."""

    def stage(self, stage: str, done: int, total: int | None) -> None:
        """`done` of `total` parts of a stage outside the training loop are finished."""

    def record(self, record: Record) -> None:
        """One record of the training."""

    def line(self, text: str) -> None:
        """Some lines for a person."""


class Quiet:
    """Shows nothing."""

    def stage(self, stage: str, done: int, total: int | None) -> None:
        """Nothing."""

    def record(self, record: Record) -> None:
        """Nothing."""

    def line(self, text: str) -> None:
        """Nothing."""


class Terminal:
    """Bars and lines on standard error, results on standard output; a context manager.

    Leaving the context ends the bars, which give the terminal its cursor back.
    """

    def __init__(self, mode: Mode = "auto") -> None:
        self._mode = mode
        self._stages: Stages | None = None
        self._progress: Progress | None = None

    def stage(self, stage: str, done: int, total: int | None) -> None:
        """A bar for each stage; the bars of training end before one begins."""
        self._end_training()
        if self._stages is None:
            self._stages = Stages(mode=self._mode)
        self._stages(stage, done, total)

    def record(self, record: Record) -> None:
        """The bar of training, and a line for what is not a step."""
        if self._stages is not None:
            self._stages.close()
            self._stages = None
        if self._progress is None:
            self._progress = Progress(mode=self._mode)
        self._progress.show(record)
        if isinstance(record, Event) and record.kind in ("finished", "stopped", "failed"):
            self._end_training()

    def line(self, text: str) -> None:
        """Print, after all bars have ended."""
        self.close()
        sys.stdout.write(text + "\n")

    def close(self) -> None:
        """End all bars."""
        self._end_training()
        if self._stages is not None:
            self._stages.close()
            self._stages = None

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _end_training(self) -> None:
        if self._progress is not None:
            self._progress.close()
            self._progress = None


def evaluation_lines(scores: Evaluated) -> str:
    """Held-out scores → lines for a person."""
    if scores.exact is not None:
        return _example_lines(scores, scores.exact)
    size = f"{scores.bytes:,} bytes, " if scores.bytes else ""
    bits = "unknown: only hidden tokens are predicted"
    if not scores.bytes:
        bits = "unknown: no tokenizer tells the bytes of the tokens"
    if scores.bits_per_byte is not None and scores.bits_per_byte_se is not None:
        bits = f"{scores.bits_per_byte:.4f} ± {scores.bits_per_byte_se:.4f}"
    lines = [
        f"{scores.split} split at step {scores.step}: {scores.documents:,} documents, "
        f"{size}{scores.tokens:,} tokens",
        f"  bits per byte  {bits}",
        f"  loss           {scores.loss:.4f} ± {scores.loss_se:.4f} nats per token",
        f"  perplexity     {scores.perplexity:.2f}",
        f"  accuracy       {scores.accuracy:.2%} ± {scores.accuracy_se:.2%}",
    ]
    if len(scores.by_domain) > 1:
        lines += [
            f"  {printable(domain):<14} {_of_domain(scored)}"
            for domain, scored in scores.by_domain.items()
        ]
    return "\n".join(lines)


def _example_lines(scores: Evaluated, exact: float) -> str:
    lines = [
        f"{scores.split} split at step {scores.step}: {scores.documents:,} examples, "
        f"{scores.tokens:,} labels",
        f"  loss           {scores.loss:.4f} ± {scores.loss_se:.4f} nats per label",
        f"  accuracy       {scores.accuracy:.2%} ± {scores.accuracy_se:.2%} of the labels",
        f"  all right      {exact:.2%} of the examples",
    ]
    if len(scores.by_domain) > 1:
        lines += [
            f"  {printable(domain):<14} {scored['accuracy']:.2%} of {scored['tokens']:,.0f}, "
            f"{scored['loss']:.4f} nats per label"
            for domain, scored in scores.by_domain.items()
        ]
    return "\n".join(lines)


def _of_domain(scored: dict[str, float | None]) -> str:
    bits, size = scored["bits_per_byte"], scored["bytes"]
    told = f"{scored['loss']:.4f} nats per token" if bits is None else f"{bits:.4f} bits per byte"
    return told if size is None else f"{told}, {size:,.0f} bytes"


def closing_lines(outcome: Outcome) -> str:
    """A run that has ended → where everything is and what came of it."""
    diagnosis = outcome.diagnosis.to_json()
    steps = outcome.history.train_loss.steps
    lines = [""]
    if outcome.test is not None:
        lines += [evaluation_lines(outcome.test), ""]
    if outcome.stopped:
        lines += [f"The run {outcome.history.status} at step {steps[-1] if steps else 0}.", ""]
    samples = outcome.history.samples
    if samples:
        latest = [sample for sample in samples if sample.step == samples[-1].step]
        longest = max(latest, key=lambda sample: len(sample.text))
        lines.append(f"Sample at step {longest.step}:")
        text = longest.prompt + longest.text
        lines += ["  │ " + printable(line) for line in text.splitlines()[:12]]
        lines.append("")
    verdict = diagnosis["verdict"]
    lines.append(f"Verdict: {verdict['fit']}, {verdict['progress']}.")
    alarms = [f for f in diagnosis["findings"] if f["severity"] != "info"]
    for finding in diagnosis["findings"]:
        change = (finding.get("change") or {}).get("text", "")
        lines.append(
            f"  {finding['severity']}: {finding['kind']}" + (f". {change}" if change else "")
        )
    if not alarms:
        lines.append("  No rule found a fault.")
    lines += [
        "",
        f"Report  {outcome.report}",
        f"Run     {outcome.folder}",
        f"Corpus  {outcome.corpus.folder}",
    ]
    return "\n".join(lines)


def proof_lines(proofs: Sequence[Proof]) -> str:
    """Proofs → a line for each, the failed ones first; empty where none were made."""
    if not proofs:
        return ""
    order = {"failed": 0, "not_assessed": 1, "passed": 2}
    signs = {"failed": "✗", "not_assessed": "·", "passed": "✓"}
    passed = sum(proof.state == "passed" for proof in proofs)
    lines = [f"Proofs: {passed} of {len(proofs)} passed"]
    for proof in sorted(proofs, key=lambda proof: order[proof.state]):
        lines.append(f"  {signs[proof.state]} {proof.name:<24} {printable(proof.text)}")
    return "\n".join(lines)


def reference_lines(test: Evaluated, compressed: Compressed) -> str:
    """The test scores and what xz needs for the same text → one comparison in words."""
    if test.bits_per_byte is None:
        return ""
    return (
        f"On the same held-out text, xz -9 needs {compressed.one_by_one:.3f} bits per byte file "
        f"by file, xz -9e {compressed.together:.3f} on all of it at once;\n"
        f"this model needs {test.bits_per_byte:.3f}."
    )


def next_lines(folder: Path) -> str:
    """What to try next with a run."""
    run = shlex.quote(str(folder))
    return "\n".join(
        [
            "Next:",
            f'  wellfit generate {run} --prompt "def main("',
            f"  wellfit diagnose {run}",
            f"  wellfit data locate {run} train-00000:1000",
            "  wellfit init YOUR_TEXT    # a recipe for your own documents",
        ]
    )


def corpus_lines(corpus: Corpus) -> str:
    """A corpus → its splits, and where it lies."""
    lines = [f"Corpus {corpus.folder}: vocabulary {corpus.vocabulary_size:,}"]
    for split in corpus.splits:
        table = corpus.documents(split)
        size, tokens = int(table.bytes.sum()), int(table.tokens.sum())
        if (table.bytes < 0).any():  # no tokenizer tells them
            lines.append(f"  {split:<11} {len(table):>9,} documents {tokens:>13,} tokens")
            continue
        lines.append(
            f"  {split:<11} {len(table):>9,} documents {size:>14,} bytes {tokens:>13,} tokens "
            f"({size / max(tokens, 1):.2f} bytes a token)"
        )
    rejected = corpus.folder / "rejected.jsonl"
    count = rejected.read_bytes().count(b"\n") if rejected.exists() else 0
    lines.append(f"  {count:,} records could not be read" + (f": see {rejected}" if count else ""))
    return "\n".join([*lines, *_lines_of_examples(corpus)])


def _lines_of_examples(corpus: Corpus) -> list[str]:
    """What went, what was cut, what contradicts itself, and how the classes are balanced."""
    if not corpus.of_examples:
        return []
    told = corpus.report
    lines = [
        f"  {counts['documents']:,} left out: {printable(why)}"
        for why, counts in told.get("dropped", {}).items()
    ]
    total = told.get("kept", {}).get("total", {})
    for part in ("sources", "targets"):
        if cut := total.get(f"{part}_cut"):
            lines.append(f"  {cut:,} {part} cut at data.examples.{part[:-1]}_max_len")
    if told.get("contradictory"):
        lines.append(f"  {told['contradictory']:,} questions of train have several answers")
    groups = told.get("by_domain", {})
    if len(groups) > 1:
        shares = (
            f"{printable(name)} {counts.get('documents', 0) / max(1, total['documents']):.1%}"
            for name, counts in groups.items()
        )
        lines.append("  " + ", ".join(shares))
    return lines


def packing_lines(packings: Mapping[str, Packed], chosen: str) -> str:
    """What each packing makes of train, and the one that the recipe takes → lines for a person."""
    lines = [f"Packing {chosen} (data.packing); an epoch of train in rows of this context"]
    for name, packed in packings.items():
        lines.append(
            f"  {name:<9} {packed.rows:>9,} rows, {packed.cut:,} of {packed.documents:,} "
            f"documents cut, {packed.padding_share:.2%} padding"
            + (f", {packed.left_out:,} tokens left out" if packed.left_out else "")
        )
    return "\n".join(lines)


def place_lines(place: Place) -> str:
    """Where a token comes from → lines for a person."""
    where = place.path
    if place.line is not None:
        where += f":{place.line}"
    if place.row is not None:
        where += f", row {place.row}"
    lines = [where]
    if place.start_byte is not None:
        kind = (
            ""
            if place.exact
            else " (the file spells these bytes differently: cleaning, an escape or its encoding)"
        )
        lines.append(f"  bytes {place.start_byte}–{place.end_byte}{kind}")
    said = f" {place.text.decode(errors='replace')!r}"
    if place.read_text is None and not place.text:  # of tokens made elsewhere nobody knows it
        said = ""
    lines.append(f"  token {place.token}{said}")
    marked = f"{place.before}⟦{place.clean_text}⟧{place.after}"
    if said:
        lines += ["  │ " + printable(line) for line in marked.splitlines()]
    lines.append(f"  document {place.document} of {place.source}")
    return "\n".join(lines)
