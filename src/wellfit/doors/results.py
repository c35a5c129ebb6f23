"""Doors to what a training left: scores, its page."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from wellfit.doors.terms import AsJson, Checkpoint, RunFolder, say


def evaluate(
    run: RunFolder,
    split: Annotated[str, typer.Option(help="Held-out split: validation or test.")] = "test",
    checkpoint: Checkpoint = "",
    as_json: AsJson = False,
) -> None:
    """Score a checkpoint of a run on the whole of a held-out split."""
    from dataclasses import asdict

    from wellfit.run.show import evaluation_lines
    from wellfit.run.weights import evaluate_run

    scores = evaluate_run(run, split, checkpoint)
    say(json.dumps(asdict(scores), indent=2) if as_json else evaluation_lines(scores))


def report(run: RunFolder) -> None:
    """Write a run's page: one self-contained HTML file."""
    from wellfit.report.page import write_report

    say(str(write_report(run)))
